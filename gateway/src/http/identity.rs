//! Who sends a request, as a type in the handler's signature: a handler that names [`Identity`]
//! cannot be reached without a valid token of an active member.

use std::{ops::Deref, sync::Arc};

use poem::{FromRequest, Request, RequestBody, Result, http::header};
use shared::{Context, Fault};

use super::{Gateway, problem::Problem};
use crate::{
    access::Origin,
    auth::{self, Verified},
};

/// The context of an authenticated request.
#[derive(Clone, Debug)]
pub struct Identity(pub Context);

impl Deref for Identity {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.0
    }
}

impl<'a> FromRequest<'a> for Identity {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> Result<Self> {
        let Bearer { context, .. } = Bearer::from_request(request, body).await?;
        Ok(Self(context))
    }
}

/// The same with what the token says, for what outlasts a request.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The context of the request.
    pub context: Context,
    /// The token.
    pub verified: Arc<Verified>,
}

impl<'a> FromRequest<'a> for Bearer {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        let gateway: &Arc<Gateway> =
            request.data().ok_or_else(|| Problem::from(Fault::internal("no gateway in the request")))?;
        let origin: &Origin =
            request.data().ok_or_else(|| Problem::from(Fault::internal("no origin in the request")))?;
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = auth::bearer(authorization).map_err(Problem::from)?;
        let verified = gateway.authenticator.verify(token).await.map_err(Problem::from)?;
        gateway.origins.check(request.headers(), verified.organization).map_err(Problem::from)?;
        let context = gateway.access.admit(&verified, origin).await.map_err(Problem::from)?;
        Ok(Self { context, verified })
    }
}
