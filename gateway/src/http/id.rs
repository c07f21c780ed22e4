//! The id in a path, as a type in the handler's signature: whatever stands there instead is refused
//! by name.

use std::str::FromStr;

use poem::{FromRequest, Request, RequestBody, Result};
use shared::Fault;

use super::problem::Problem;

/// The one parameter of a path, read as an id.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<'a, T: FromStr + Send> FromRequest<'a> for Id<T> {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> Result<Self> {
        let id = request.path_params::<String>().ok().and_then(|text| text.parse().ok());
        Ok(Self(id.ok_or_else(|| Problem::from(Fault::invalid("id", "An id is a UUID.")))?))
    }
}
