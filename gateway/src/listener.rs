//! The TCP listener with Nagle's algorithm off: small answers must not wait for the peer's delayed
//! acknowledgement (about 40 ms).

use std::io::Result;

use poem::{
    http::uri::Scheme,
    listener::{Acceptor, Listener, TcpListener},
    web::{LocalAddr, RemoteAddr},
};
use tokio::net::TcpStream;

/// Accepts connections with `TCP_NODELAY` set.
#[derive(Debug)]
pub struct Prompt<A>(A);

/// Binds an address.
pub async fn bind(address: &str) -> Result<Prompt<impl Acceptor<Io = TcpStream> + use<>>> {
    TcpListener::bind(address.to_owned()).into_acceptor().await.map(Prompt)
}

impl<A: Acceptor<Io = TcpStream>> Acceptor for Prompt<A> {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> Result<(TcpStream, LocalAddr, RemoteAddr, Scheme)> {
        let accepted = self.0.accept().await?;
        accepted.0.set_nodelay(true)?;
        Ok(accepted)
    }
}
