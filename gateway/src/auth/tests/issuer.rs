//! An identity provider: signs tokens with test keys and serves its key set over HTTP, counting
//! who asks.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use poem::{Endpoint, Response, Server, endpoint::make, http::StatusCode, listener::TcpAcceptor};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinHandle,
};

use super::{Authenticator, Pace};
use crate::auth::AuthConfig;
use shared::{context::now_unix_ms, id::OrganizationId};

/// A signing key with its name: `(kid, algorithm, PEM)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct TestKey {
    pub(super) kid: &'static str,
    pub(super) algorithm: Algorithm,
    pem: &'static str,
}

pub(super) const EC_A: TestKey =
    TestKey { kid: "ec-a", algorithm: Algorithm::ES256, pem: include_str!("../fixtures/test-only-ec-a.pem") };
pub(super) const EC_B: TestKey =
    TestKey { kid: "ec-b", algorithm: Algorithm::ES256, pem: include_str!("../fixtures/test-only-ec-b.pem") };
pub(super) const RSA: TestKey =
    TestKey { kid: "rsa", algorithm: Algorithm::RS256, pem: include_str!("../fixtures/test-only-rsa.pem") };

pub(super) const EC_A_PUBLIC_PEM: &str = include_str!("../fixtures/test-only-ec-a-public.pem");
pub(super) const RSA_PUBLIC_PEM: &str = include_str!("../fixtures/test-only-rsa-public.pem");

pub(super) const LEEWAY_S: u64 = 5;

impl TestKey {
    fn signing(self) -> EncodingKey {
        let pem = self.pem.as_bytes();
        if self.algorithm == Algorithm::ES256 { EncodingKey::from_ec_pem(pem) } else { EncodingKey::from_rsa_pem(pem) }
            .unwrap()
    }

    /// The public half as published (RFC 7517 section 4).
    pub(super) fn jwk(self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.signing(), self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }
}

/// The header the issuer itself would write.
pub(super) fn header(key: TestKey) -> Header {
    Header { kid: Some(key.kid.to_owned()), ..Header::new(key.algorithm) }
}

pub(super) fn sign(header: &Header, key: TestKey, claims: &Value) -> String {
    jsonwebtoken::encode(header, claims, &key.signing()).unwrap()
}

pub(super) fn token(key: TestKey, claims: &Value) -> String {
    sign(&header(key), key, claims)
}

/// Signed by `key`, but naming another key id.
pub(super) fn token_naming(kid: &str, key: TestKey, claims: &Value) -> String {
    sign(&Header { kid: Some(kid.to_owned()), ..header(key) }, key, claims)
}

pub(super) fn organization() -> OrganizationId {
    "0190d8f2-0000-7000-8000-000000000001".parse().unwrap()
}

pub(super) fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// What the key server answers with: status, header fields, body.
type Answer = (StatusCode, Vec<(&'static str, String)>, Vec<u8>);

/// The key server's state: its answer, who asked, and whether it lets anybody through.
struct Desk {
    answer: Mutex<Answer>,
    fetches: AtomicUsize,
    asked: Notify,
    doors: Semaphore,
}

/// A running issuer; dropped, it is gone.
pub(super) struct Issuer {
    pub(super) url: String,
    desk: Arc<Desk>,
    server: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Issuer {
    pub(super) async fn publishing(keys: &[TestKey]) -> Self {
        let jwks: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        Self::answering(&key_set(&jwks)).await
    }

    pub(super) async fn answering(body: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Desk {
            answer: Mutex::new((StatusCode::OK, Vec::new(), body.as_bytes().to_vec())),
            fetches: AtomicUsize::new(0),
            asked: Notify::new(),
            doors: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let server = serve(listener, Arc::clone(&desk));
        Self { url, desk, server }
    }

    /// The port is closed afterwards.
    pub(super) async fn die(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.unwrap_err().is_cancelled());
    }

    /// Back at the same address.
    pub(super) async fn revive(&mut self) {
        let address = self.url.strip_prefix("http://").unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        self.server = serve(listener, Arc::clone(&self.desk));
    }

    pub(super) fn publish(&self, keys: &[TestKey]) {
        let jwks: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(StatusCode::OK, &[], key_set(&jwks).into_bytes());
    }

    pub(super) fn answer(&self, status: StatusCode, headers: &[(&'static str, String)], body: Vec<u8>) {
        *self.desk.answer.lock().unwrap() = (status, headers.to_vec(), body);
    }

    /// From now on requests are taken, but not answered before [`Issuer::open`].
    pub(super) fn close(&self) {
        assert_eq!(self.desk.doors.forget_permits(Semaphore::MAX_PERMITS), Semaphore::MAX_PERMITS);
    }

    pub(super) fn open(&self) {
        self.desk.doors.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Returns once a request has arrived that nobody awaited yet.
    pub(super) async fn asked(&self) {
        self.desk.asked.notified().await;
    }

    pub(super) fn fetches(&self) -> usize {
        self.desk.fetches.load(Ordering::SeqCst)
    }

    /// Good claims: an admin of [`organization`], for an hour.
    pub(super) fn claims(&self) -> Value {
        let now_s = now_unix_ms() / 1_000;
        json!({
            "iss": self.url,
            "aud": "authenticated",
            "sub": "8f14e45f-ceea-467f-a8b5-0c1b2f3d4e5f",
            "email": "ada@acme.example",
            "role": "authenticated",
            "iat": now_s,
            "exp": now_s + 3_600,
            "app_metadata": { "org_id": organization(), "org_role": "admin" },
            "user_metadata": { "name": "Ada" },
        })
    }

    pub(super) fn config(&self) -> AuthConfig {
        serde_json::from_value(json!({ "issuer": self.url, "audiences": "authenticated, switchboard" })).unwrap()
    }

    pub(super) fn authenticator(&self) -> Authenticator {
        self.authenticator_at(Pace::default())
    }

    pub(super) fn authenticator_at(&self, pace: Pace) -> Authenticator {
        install_tls();
        Authenticator::at_pace(&self.config(), pace).unwrap()
    }

    pub(super) fn authenticator_with_secret(&self, secret: &str) -> Authenticator {
        install_tls();
        let mut config = self.config();
        config.hs256_secret = Some(shared::secret::Secret::new(secret.to_owned()));
        Authenticator::new(&config).unwrap()
    }
}

/// What the gateway's `main` does; a second time is refused, which is fine.
pub(super) fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn serve(listener: TcpListener, desk: Arc<Desk>) -> JoinHandle<()> {
    let acceptor = TcpAcceptor::from_tokio(listener).unwrap();
    tokio::spawn(async move { Server::new_with_acceptor(acceptor).run(endpoint(desk)).await.unwrap() })
}

fn endpoint(desk: Arc<Desk>) -> impl Endpoint {
    make(move |request: poem::Request| {
        let desk = Arc::clone(&desk);
        async move {
            desk.fetches.fetch_add(1, Ordering::SeqCst);
            desk.asked.notify_one();
            let _pass = desk.doors.acquire().await.unwrap();
            let (mut status, headers, body) = desk.answer.lock().unwrap().clone();
            if request.uri().path() != "/.well-known/jwks.json" && status == StatusCode::OK {
                status = StatusCode::NOT_FOUND;
            }
            let response = headers
                .into_iter()
                .fold(Response::builder().status(status), |response, (name, value)| response.header(name, value));
            response.body(body)
        }
    })
}
