//! `GET /api/v1/me`: who the bearer of a token is here.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use shared::{
    Code,
    command::users::{Me, Myself},
};

use super::{
    Gateway,
    answer::{Answer, json},
    identity::Identity,
    operation::{self, Operation, get},
};

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "Members",
        [get("/api/v1/me", read, "Who the bearer of the token is here.")
            .sends::<Me>()
            .answers::<Myself>(StatusCode::OK)
            .or_fails([Code::Unknown])],
    )
}

/// The caller as the database knows them.
#[handler]
pub(crate) async fn read(gateway: Data<&Arc<Gateway>>, identity: Identity) -> Answer {
    json(StatusCode::OK, &gateway.caller.call(&identity, &Me {}).await?)
}
