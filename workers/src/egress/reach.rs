//! How far a host can be reached, step by step: for telling somebody why their server is not. Within
//! the guard's walls like everything else: only addresses that it judged are connected to.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one step may take.
const STEP_LIMIT: Duration = Duration::from_secs(5);

/// Why a step was not taken, in words for the person who registered the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreached(pub &'static str);

/// Connects to the first of these addresses that answers. They come from [`super::Egress::resolve`].
pub async fn connect(judged: &[SocketAddr]) -> Result<TcpStream, Unreached> {
    let connecting = tokio::time::timeout(STEP_LIMIT, TcpStream::connect(judged)).await;
    connecting.map_err(|_| Unreached("The host does not answer."))?.map_err(|cause| {
        Unreached(match cause.kind() {
            io::ErrorKind::ConnectionRefused => "Nothing listens on this port of the host.",
            _ => "The host cannot be reached.",
        })
    })
}

/// TLS with the certificates that the platform trusts. Fails where the machine has none.
pub(super) fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(config)
}

/// Greets by TLS, with the certificates that calls trust too.
pub async fn greet(host: &str, stream: TcpStream) -> Result<(), Unreached> {
    let config = tls().map_err(|_| Unreached("This deployment has no certificates to trust."))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| Unreached("The host's name is in no certificate."))?;
    let greeting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let greeted = tokio::time::timeout(STEP_LIMIT, greeting).await;
    greeted.map_err(|_| Unreached("The host does not answer TLS."))?.map(drop).map_err(|cause| {
        let cause = cause.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        Unreached(match cause {
            Some(rustls::Error::InvalidCertificate(certificate)) => distrust(certificate),
            _ => "The host does not speak TLS.",
        })
    })
}

const fn distrust(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "The host's certificate has expired.",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "The host's certificate is not valid yet."
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "The host's certificate is for another name."
        }
        CertificateError::UnknownIssuer => "The host's certificate comes from nobody who is trusted here.",
        CertificateError::Revoked => "The host's certificate was revoked.",
        _ => "The host's certificate is not accepted.",
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_port_where_nobody_listens_and_one_without_tls_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut greeting = [0; 16];
                let _ = stream.read(&mut greeting).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let stream = connect(&[address]).await.unwrap();
        assert_eq!(greet("127.0.0.1", stream).await, Err(Unreached("The host does not speak TLS.")));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(connect(&[closed]).await.unwrap_err(), Unreached("Nothing listens on this port of the host."));
        assert!(connect(&[closed, address]).await.is_ok(), "the next address is tried");
    }
}
