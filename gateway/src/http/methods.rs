//! The methods of one route. The refusal of any other names those there are, as RFC 9110 section
//! 15.5.6 demands; the framework's own does not.

use poem::{Endpoint, Request, Response, Result, endpoint::BoxEndpoint, http::Method};

use super::problem::EdgeError;

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

/// A route's methods and their handlers. Each is boxed where its operation is made and not again: a box around a
/// handler's future is one more move of the whole request.
#[derive(Default)]
pub struct Methods(Vec<(Method, BoxEndpoint<'static>)>);

impl std::fmt::Debug for Methods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Methods").field(&self.names()).finish()
    }
}

impl Methods {
    /// Handles this method too; who handles `GET` answers `HEAD` so, without the body (RFC 9110, section 9.3.2).
    #[must_use]
    pub fn with(mut self, method: Method, handler: BoxEndpoint<'static>) -> Self {
        self.0.push((method, handler));
        self
    }

    fn handler(&self, method: &Method) -> Option<&BoxEndpoint<'static>> {
        self.0.iter().find(|(known, _)| known == method).map(|(_, handler)| handler)
    }

    /// As `Allow` lists them.
    fn names(&self) -> String {
        let mut names = Vec::new();
        for (method, _) in &self.0 {
            if method == Method::GET {
                names.push(Method::HEAD.as_str());
            }
            names.push(method.as_str());
        }
        names.join(", ")
    }

    fn refused(&self) -> poem::Error {
        let mut error = poem::Error::from(EdgeError::Method);
        error.set_data(Allow(self.names()));
        error
    }
}

impl Endpoint for Methods {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let is_head = request.method() == Method::HEAD;
        if is_head {
            request.extensions_mut().insert(Head);
            request.set_method(Method::GET);
        }
        let handler = self.handler(request.method()).ok_or_else(|| self.refused())?;
        let mut response = handler.call(request).await?;
        if is_head {
            response.set_body(());
        }
        Ok(response)
    }
}
