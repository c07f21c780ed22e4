//! A real HTTP server on a free port of this machine, and a name server whose answers a test
//! chooses, because no real one answers with what an attacker's would.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::AbortHandle};

use crate::egress::{Egress, EgressConfig, Names};

pub(crate) type LocalBody = BoxBody<Bytes, Infallible>;

/// Serves until dropped; counts what reached it.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

impl Local {
    pub(crate) async fn serve<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<LocalBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let handler = handler.clone();
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        })
        .abort_handle();
        Self { addr, connections, accepting }
    }

    /// A server that answers `hello`.
    pub(crate) async fn hello() -> Self {
        Self::serve(|_| async { text(StatusCode::OK, "hello") }).await
    }

    /// Connections that reached it so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) fn text(status: StatusCode, body: &str) -> Response<LocalBody> {
    Response::builder().status(status).body(Full::new(Bytes::copy_from_slice(body.as_bytes())).boxed()).unwrap()
}

pub(crate) fn redirect(status: u16, location: &str) -> Response<LocalBody> {
    let mut response = text(StatusCode::from_u16(status).unwrap(), "");
    response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
    response
}

/// Answers per name, one look-up after the other; the last answer stays.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    look_ups: AtomicUsize,
}

impl Answers {
    pub(crate) fn new(names: &[(&str, &[&str])]) -> Arc<Self> {
        let answers = Self::default();
        for (name, addresses) in names {
            let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
            answers.answers.lock().unwrap().entry((*name).to_owned()).or_default().push_back(addresses);
        }
        Arc::new(answers)
    }

    pub(crate) fn look_ups(&self) -> usize {
        self.look_ups.load(Ordering::SeqCst)
    }
}

impl Names for Answers {
    fn look_up<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.look_ups.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = answers.get_mut(name).map(|queue| match queue.len() {
            1 => queue[0].clone(),
            _ => queue.pop_front().unwrap_or_default(),
        });
        Box::pin(std::future::ready(answer.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))))
    }
}

/// A guard that allows plain HTTP and these entries.
pub(crate) fn open_for(allow: &[String], names: Arc<Answers>) -> Egress {
    let config = EgressConfig { allow: allow.to_vec(), allow_http: true, ..EgressConfig::default() };
    Egress::with_names(&config, names).unwrap()
}
