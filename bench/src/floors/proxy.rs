//! The HTTP floor: a reverse proxy that does nothing but pass messages on. Each connection of a caller has one kept
//! connection to the upstream, so nothing is shared and nothing is waited for.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use http::{HeaderValue, Request, Response, header::HOST};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::{announce, runtime};

/// Serves until it is killed.
///
/// # Errors
/// When it cannot listen.
pub(crate) fn run(upstream: SocketAddr) -> Result<()> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        announce(&listener.local_addr()?.to_string())?;
        serve(listener, upstream).await
    })
}

async fn serve(listener: TcpListener, upstream: SocketAddr) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let road = Road { upstream, sender: Mutex::new(None) };
            let service = service_fn(|request| road.pass(request));
            // A caller that goes away is no event.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A caller's connection to the upstream. HTTP/1.1 has one request at a time, so the lock is never waited for.
struct Road {
    upstream: SocketAddr,
    sender: Mutex<Option<SendRequest<Incoming>>>,
}

impl Road {
    async fn pass(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>> {
        let mut sender = self.sender.lock().await;
        if sender.as_ref().is_none_or(SendRequest::is_closed) {
            *sender = Some(self.connect().await?);
        }
        let Some(sender) = sender.as_mut() else { anyhow::bail!("no connection") };
        let host = HeaderValue::from_str(&self.upstream.to_string())?;
        request.headers_mut().insert(HOST, host);
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> Result<SendRequest<Incoming>> {
        let stream = TcpStream::connect(self.upstream).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::load::caller::{Caller, Prepared};
    use crate::load::tally::Window;
    use crate::shape::Shape;
    use crate::targets::aim;

    #[tokio::test]
    async fn the_http_floor_carries_small_and_large_answers_whole() {
        let stop = CancellationToken::new();
        let demo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = demo.local_addr().unwrap();
        tokio::spawn(stack::demo::serve(demo, stack::demo::Options::default(), stop.clone()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, upstream));
        for shape in [Shape::Echo, Shape::Sleep, Shape::Big] {
            let prepared = Prepared::new(aim::direct(address, shape)).unwrap();
            let length = Duration::from_millis(50);
            let window = Window::begin(length, 1);
            let mut caller = Caller::connect(prepared, 0).await.unwrap();
            let figures = caller.call_until_over(&window).await.figures(length, 1);
            assert_eq!((figures.errors, figures.first_error), (0, None), "{shape:?}");
            assert!(figures.calls > 0);
        }
        stop.cancel();
    }
}
