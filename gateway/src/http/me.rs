//! `GET /api/v1/me`: who the bearer of a token is here.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use shared::command::users::Me;

use super::{
    Gateway,
    answer::{Answer, json},
    identity::Identity,
};

/// The caller as the database knows them.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &Me {}).await?)
}
