//! When a child may be relied on: each kind of server is asked in its own language.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http;

/// One question may take this long; then it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a child must answer before others use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Running is enough.
    Started,
    /// Something accepts connections on this loopback port.
    Listens(u16),
    /// The address answers 200.
    Answers(String),
    /// `PostgreSQL` on this port accepts clients: it listens earlier, while it recovers.
    Postgres(u16),
}

impl Ready {
    /// Asks once.
    pub(crate) async fn holds(&self) -> bool {
        let asked = async {
            match self {
                Self::Started => true,
                Self::Listens(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await.is_ok(),
                Self::Answers(url) => {
                    let answer = http::client().get(url).timeout(PATIENCE).send().await;
                    answer.is_ok_and(|answer| answer.status() == 200)
                }
                Self::Postgres(port) => postgres_asks_for_a_password(*port).await.unwrap_or(false),
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or(false)
    }
}

/// Sends a `StartupMessage` and reads the first byte of the answer: `R` asks for a password, `E` says that the server
/// is still starting (`PostgreSQL`, "Message Formats").
async fn postgres_asks_for_a_password(port: u16) -> std::io::Result<bool> {
    const BODY: &[u8] = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let length = u32::try_from(BODY.len() + 4).unwrap_or_default();
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(BODY).await?;
    let mut kind = [0; 1];
    stream.read_exact(&mut kind).await?;
    Ok(kind == *b"R")
}
