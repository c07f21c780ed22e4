//! The TCP listener: with Nagle's algorithm off, because small answers must not wait for the peer's
//! delayed acknowledgement (about 40 ms), and with a bound on connections, so that whoever opens
//! many of them finds the door busy instead of the process out of files or memory.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use poem::{
    http::uri::Scheme,
    listener::{Acceptor, Listener, TcpListener},
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// How long the door stays closed after a connection could not be taken. Out of files, the next
/// attempt would fail at once, and the one after it.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts a bounded number of connections, each with `TCP_NODELAY` set.
#[derive(Debug)]
pub struct Prompt<A> {
    acceptor: A,
    places: Arc<Semaphore>,
}

/// Binds an address. At most `connections` are open at once; more wait in the system's queue.
pub async fn bind(address: &str, connections: usize) -> io::Result<Prompt<impl Acceptor<Io = TcpStream> + use<>>> {
    let acceptor = TcpListener::bind(address.to_owned()).into_acceptor().await?;
    Ok(Prompt::new(acceptor, connections))
}

impl<A> Prompt<A> {
    fn new(acceptor: A, connections: usize) -> Self {
        Self { acceptor, places: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))) }
    }
}

impl<A: Acceptor<Io = TcpStream>> Acceptor for Prompt<A> {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.acceptor.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Connection, LocalAddr, RemoteAddr, Scheme)> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        match self.acceptor.accept().await {
            Ok((stream, local, remote, scheme)) => {
                // A peer that is gone already; the first read says so.
                let _ = stream.set_nodelay(true);
                Ok((Connection { stream, _place: place }, local, remote, scheme))
            }
            Err(cause) => {
                tracing::warn!(%cause, "a connection could not be taken");
                metrics::counter!("switchboard_accept_failures_total").increment(1);
                tokio::time::sleep(PAUSE).await;
                Err(cause)
            }
        }
    }
}

/// A connection, and the place it holds until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Connection {
    /// The end of the stream is an error: a client that is gone. The server would take it for an answer
    /// that may still be waited for, and hold what the client held (a stream's place) until a write fails.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream().poll_read(cx, buffer))?;
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Instant};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    async fn open(connections: usize) -> (Prompt<impl Acceptor<Io = TcpStream>>, SocketAddr) {
        let door = bind("127.0.0.1:0", connections).await.unwrap();
        let address = *door.local_addr()[0].as_socket_addr().unwrap();
        (door, address)
    }

    #[tokio::test]
    async fn a_connection_above_the_bound_is_taken_once_another_ends() {
        let (mut door, address) = open(1).await;
        let mut one = TcpStream::connect(address).await.unwrap();
        let _other = TcpStream::connect(address).await.unwrap();
        let (taken, ..) = door.accept().await.unwrap();
        assert!(taken.stream.nodelay().unwrap());
        assert!(timeout(Duration::from_millis(100), door.accept()).await.is_err(), "the second waits");
        drop(taken);
        assert_eq!(one.read(&mut [0]).await.unwrap(), 0, "the first is closed");
        timeout(Duration::from_secs(20), door.accept()).await.expect("the second is taken").unwrap();
    }

    #[tokio::test]
    async fn what_an_answer_holds_is_given_back_once_its_client_is_gone() {
        let (door, address) = open(8).await;
        let (place, mut given_back) = tokio::sync::mpsc::channel::<()>(1);
        let endless = poem::endpoint::make_sync(move |_| {
            let place = place.clone();
            poem::Body::from_bytes_stream(futures::stream::poll_fn(move |_| {
                let _place = &place;
                Poll::<Option<io::Result<bytes::Bytes>>>::Pending
            }))
        });
        let server = tokio::spawn(poem::Server::new_with_acceptor(door).run(endless));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        let mut head = [0; 4];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP");
        // Not dropped: what it has not read would make the system tell the server more than that it left.
        client.shutdown().await.unwrap();
        server.abort();
        timeout(Duration::from_secs(20), given_back.recv()).await.expect("given back");
    }

    /// Fails as the system does when no file is left.
    struct Exhausted;

    impl Acceptor for Exhausted {
        type Io = TcpStream;

        fn local_addr(&self) -> Vec<LocalAddr> {
            Vec::new()
        }

        async fn accept(&mut self) -> io::Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
            Err(io::Error::from_raw_os_error(24))
        }
    }

    #[tokio::test]
    async fn a_failure_to_accept_is_not_repeated_at_once_and_keeps_no_place() {
        let mut door = Prompt::new(Exhausted, 1);
        let started = Instant::now();
        for _ in 0..3 {
            assert!(door.accept().await.is_err());
        }
        assert!(started.elapsed() >= 3 * PAUSE, "{:?}", started.elapsed());
    }
}
