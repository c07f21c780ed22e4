//! `/api/v1/mcp/catalogue`: the programs that the operator offers for transport `stdio`.

use std::sync::Arc;

use poem::{handler, web::Data};
use shared::command::catalogue::List;

use super::{
    Gateway,
    answer::{Answer, page},
    identity::Identity,
};

/// Lists them by name, all at once.
#[handler]
pub(crate) async fn list(gateway: Data<&Arc<Gateway>>, identity: Identity) -> Answer {
    page(&gateway.caller.call(&identity, &List {}).await?)
}
