//! A connection, as far as those care who hear by it.

use async_nats::{Client, RequestErrorKind};
use bytes::Bytes;
use tokio::sync::watch;

/// A connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    /// Counts connections made.
    pub(super) connections: watch::Receiver<u64>,
    /// Counts connections lost.
    pub(super) losses: watch::Receiver<u64>,
    /// A subject that the user may publish and nobody hears.
    pub(super) nobody: String,
}

impl Link {
    /// True once the server answered: everything it sent to this connection before is here. Nobody
    /// hears the question, and the server says so itself.
    pub(super) async fn is_answered(&self) -> bool {
        match self.client.request(self.nobody.clone(), Bytes::new()).await {
            Ok(_) => true,
            Err(cause) => cause.kind() == RequestErrorKind::NoResponders,
        }
    }
}
