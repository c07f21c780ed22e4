//! What the issuer shows the world: its key set and where that stands.

use std::time::Duration;

use anyhow::Context as _;
use poem::{
    Endpoint, EndpointExt as _, IntoEndpoint, Route, Server, get, handler,
    listener::TcpAcceptor,
    web::{Data, Json},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Issuer;

pub(super) const JWKS_PATH: &str = "/.well-known/jwks.json";
const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// How long a running request may take once the issuer was told to stop.
const DRAIN: Duration = Duration::from_secs(1);

impl Issuer {
    /// The routes: the key set (RFC 7517), and the metadata that names it (`OpenID` Connect Discovery 1.0, section 3).
    pub fn router(&self) -> impl Endpoint + use<> {
        Route::new()
            .at(JWKS_PATH, get(jwks))
            .at(CONFIGURATION_PATH, get(configuration))
            .data(self.clone())
            .into_endpoint()
    }

    /// Serves the routes on `listener` until `shutdown` is cancelled. An issuer without a url takes the listener's.
    ///
    /// # Errors
    /// When the listener has no address or the server fails.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        let address = listener.local_addr().context("the issuer's listener has no address")?;
        if self.url().is_empty() {
            self.set_url(&format!("http://{address}"));
        }
        let acceptor = TcpAcceptor::from_tokio(listener)?;
        Server::new_with_acceptor(acceptor)
            .run_with_graceful_shutdown(self.router(), shutdown.cancelled_owned(), Some(DRAIN))
            .await
            .context("the issuer stopped serving")
    }
}

#[handler]
fn jwks(Data(issuer): Data<&Issuer>) -> Json<Value> {
    Json(issuer.jwks())
}

#[handler]
fn configuration(Data(issuer): Data<&Issuer>) -> Json<Value> {
    Json(json!({
        "issuer": issuer.url(),
        "jwks_uri": issuer.jwks_url(),
        "id_token_signing_alg_values_supported": ["ES256"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
    }))
}
