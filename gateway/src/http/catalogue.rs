//! `/api/v1/mcp/catalogue`: the programs that the operator offers for transport `stdio`.

use std::sync::Arc;

use poem::{handler, http::StatusCode, web::Data};
use shared::command::{
    Page,
    catalogue::{Entry, List},
};

use super::{
    Gateway,
    answer::{Answer, page},
    identity::Identity,
    operation::{self, Operation, get},
};

pub(super) fn operations() -> Vec<Operation> {
    operation::of(
        "MCP configurations",
        [get("/api/v1/mcp/catalogue", list, "Lists the programs that the operator offers, all at once.")
            .sends::<List>()
            .answers::<Page<Entry>>(StatusCode::OK)],
    )
}

/// Lists them by name, all at once.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity) -> Answer {
    page(&gateway.caller.call(&identity, &List {}).await?)
}
