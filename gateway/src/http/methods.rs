//! The methods of one route. The refusal of any other names those there are, as RFC 9110 section
//! 15.5.6 demands; the framework's own does not.

use poem::{
    Endpoint, IntoEndpoint, Request, Response, Result, RouteMethod, error::MethodNotAllowedError, http::Method,
};

/// The value of `Allow`, kept with the error until it becomes an answer.
#[derive(Clone, Debug)]
pub struct Allow(pub String);

/// Marks a `HEAD`, which is handled as a `GET`: the body that it would have need not be made.
#[derive(Clone, Copy, Debug)]
pub struct Head;

impl Head {
    /// True where only the head of the answer is asked for.
    pub fn asked(request: &Request) -> bool {
        request.extensions().get::<Self>().is_some()
    }
}

/// A route's methods and their handlers.
#[derive(Default)]
pub struct Methods {
    handlers: RouteMethod,
    names: Vec<Method>,
}

impl std::fmt::Debug for Methods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Methods").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Methods {
    /// Handles this method too.
    #[must_use]
    pub fn with<E>(mut self, method: Method, handler: E) -> Self
    where
        E: IntoEndpoint,
        E::Endpoint: 'static,
    {
        if method == Method::GET {
            // Answered as GET is, without the body.
            self.names.push(Method::HEAD);
        }
        self.names.push(method.clone());
        self.handlers = self.handlers.method(method, handler);
        self
    }
}

impl Endpoint for Methods {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        if request.method() == Method::HEAD {
            request.extensions_mut().insert(Head);
        }
        self.handlers.call(request).await.map_err(|mut error| {
            if error.is::<MethodNotAllowedError>() {
                let names: Vec<&str> = self.names.iter().map(Method::as_str).collect();
                error.set_data(Allow(names.join(", ")));
            }
            error
        })
    }
}
