//! One caller: one kept connection, one call at a time.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Order;
use super::tally::{Tally, Window};
use crate::shape::{TEXT_BYTES, holds};

/// A pause after a call without a good answer, so that a target that refuses is not also flooded.
const PAUSE: Duration = Duration::from_millis(20);
/// Below so many answers a window says more about its edges than about the target.
const ANSWERS_PER_CALLER: u32 = 4;
/// How much of a bad answer is told.
const TOLD_BYTES: usize = 300;

/// What all callers of a process share.
pub(crate) struct Prepared {
    order: Order,
    uri: Uri,
    headers: HeaderMap,
    expected: Vec<u8>,
}

impl Prepared {
    /// Reads the order once.
    pub(crate) fn new(order: Order) -> Result<Arc<Self>> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&order.address.to_string())?);
        for (name, value) in &order.headers {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        }
        let uri = order.path.parse().context("the path is no path")?;
        let expected = order.shape.expected();
        Ok(Arc::new(Self { order, uri, headers, expected }))
    }

    /// A window in which nothing is counted.
    pub(crate) fn warm_up(&self) -> Window {
        Window::begin(Duration::from_secs_f64(self.order.warm_up_s), 1)
    }

    /// The length of the window in which something is, and how many answers make a figure.
    pub(crate) fn window(&self) -> (Duration, u32) {
        (Duration::from_secs_f64(self.order.window_s), u32::from(self.order.callers) * ANSWERS_PER_CALLER)
    }
}

/// A caller.
pub(crate) struct Caller {
    prepared: Arc<Prepared>,
    sender: SendRequest<Full<Bytes>>,
    number: u16,
    calls: u64,
}

impl Caller {
    /// Connects.
    pub(crate) async fn connect(prepared: Arc<Prepared>, number: u16) -> Result<Self> {
        let sender = connect(&prepared).await?;
        Ok(Self { prepared, sender, number, calls: 0 })
    }

    /// Calls until the window is over, at least once; finishes the last call.
    pub(crate) async fn call_until_over(&mut self, window: &Window) -> Tally {
        let mut tally = Tally::default();
        loop {
            let began = Instant::now();
            match self.call().await {
                Ok(finished) => tally.good(window, began, finished),
                Err(error) => {
                    tally.bad(format!("{error:#}"));
                    tokio::time::sleep(PAUSE).await;
                    if let Ok(sender) = connect(&self.prepared).await {
                        self.sender = sender;
                    }
                }
            }
            if window.is_over() {
                return tally;
            }
        }
    }

    /// One call; answers when the last byte of its answer was there.
    async fn call(&mut self) -> Result<Instant> {
        let (body, text) = self.body();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.prepared.uri.clone();
        *request.headers_mut() = self.prepared.headers.clone();
        self.sender.ready().await.context("the connection was closed")?;
        let answer = self.sender.send_request(request).await.context("no answer")?;
        let status = answer.status();
        let body = answer.into_body().collect().await.context("half an answer")?.to_bytes();
        let finished = Instant::now();
        let expected = if self.prepared.order.shape.has_text() { text.as_slice() } else { &self.prepared.expected };
        if status != StatusCode::OK || !holds(&body, expected) {
            let told = String::from_utf8_lossy(&body[..body.len().min(TOLD_BYTES)]);
            anyhow::bail!("not this call's answer: {status} {told}");
        }
        Ok(finished)
    }

    /// The body of the next call, and the text in it: by process, caller and count, so no two calls of a run share one.
    fn body(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.calls += 1;
        let (before, after) = &self.prepared.order.body;
        let mut text = Vec::new();
        if self.prepared.order.shape.has_text() {
            text.reserve_exact(TEXT_BYTES);
            let process = std::process::id();
            // A vector never refuses.
            let _ = write!(text, "{process:08x}{:08x}{:016x}abcdefghijklmnopqrstuvwxyz012345", self.number, self.calls);
        }
        let mut body = Vec::with_capacity(before.len() + text.len() + after.len());
        body.extend_from_slice(before.as_bytes());
        body.extend_from_slice(&text);
        body.extend_from_slice(after.as_bytes());
        (body, text)
    }
}

async fn connect(prepared: &Prepared) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(prepared.order.address).await.context("no connection")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = Builder::new().handshake(TokioIo::new(stream)).await?;
    // Its end shows at the next call.
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{shape::Shape, targets::aim};

    async fn caller(address: std::net::SocketAddr, number: u16) -> Caller {
        let mut order = aim::direct(address, Shape::Echo);
        order.callers = 1;
        Caller::connect(Prepared::new(order).unwrap(), number).await.unwrap()
    }

    #[tokio::test]
    async fn every_call_has_a_text_of_64_bytes_that_no_other_call_has() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut one, mut two) = (caller(address, 1).await, caller(address, 2).await);
        let texts: std::collections::BTreeSet<_> = (0..50).flat_map(|_| [one.body().1, two.body().1]).collect();
        assert_eq!(texts.len(), 100);
        assert!(texts.iter().all(|text| text.len() == TEXT_BYTES));
    }

    #[tokio::test]
    async fn the_demo_answers_a_caller_and_a_server_that_says_no_is_counted_as_errors() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let legacy = stack::demo::Options { legacy_only: true, ..Default::default() };
        let refusing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let no = refusing.local_addr().unwrap();
        tokio::spawn(stack::demo::serve(listener, stack::demo::Options::default(), stop.clone()));
        tokio::spawn(stack::demo::serve(refusing, legacy, stop.clone()));
        let length = Duration::from_millis(100);
        let window = Window::begin(length, 1);
        let good = caller(address, 1).await.call_until_over(&window).await.figures(length, 1);
        assert_eq!((good.errors, good.first_error), (0, None));
        assert!(good.calls > 0);
        let window = Window::begin(length, 1);
        let bad = caller(no, 1).await.call_until_over(&window).await.figures(length, 1);
        assert!(bad.errors > 0 && bad.calls == 0 && bad.first_error.is_some_and(|error| error.contains("400")));
        stop.cancel();
    }
}
