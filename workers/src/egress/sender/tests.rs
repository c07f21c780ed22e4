use std::{sync::Arc, time::Instant};

use http_body_util::Empty;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{io::AsyncReadExt as _, net::TcpListener, sync::oneshot};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::egress::{
    Egress,
    tests::local::{Answers, open_for},
};

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn send(egress: &Egress, url: &str) -> Result<Response<Incoming>, SendError> {
    let destination = Destination::of(&Url::parse(url).unwrap()).unwrap();
    egress.send(&destination, Method::POST, HeaderMap::new(), Bytes::from_static(b"secret")).await
}

/// What a client sees whose one HTTP/2 request is ended for this reason.
async fn ended(reason: h2::Reason) -> legacy::Error {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut answer))) = connection.accept().await {
            answer.send_reset(reason);
        }
    });
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build(HttpConnector::new());
    let request = Request::get(format!("http://{address}/")).body(Empty::<Bytes>::new()).unwrap();
    client.request(request).await.unwrap_err()
}

#[tokio::test]
async fn only_what_a_server_says_it_left_unread_is_sent_again() {
    assert!(was_left_unread(&ended(h2::Reason::REFUSED_STREAM).await));
    for reason in [h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        assert!(!was_left_unread(&ended(reason).await), "{reason}");
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_that_nobody_trusts_is_sent_nothing() {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let (listener, address) = listen().await;
    let (sender, received) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        if let Ok(mut greeted) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            let _ = greeted.read_to_end(&mut read).await;
        }
        let _ = sender.send(read);
    });
    let egress = open_for(std::slice::from_ref(&address), Answers::new(&[]));
    let error = send(&egress, &format!("https://{address}/")).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
    assert!(received.await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let (listener, address) = listen().await;
    let egress = open_for(std::slice::from_ref(&address), Answers::new(&[]));
    let began = Instant::now();
    let error = send(&egress, &format!("https://{address}/")).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
    let took = began.elapsed();
    assert!(took >= CONNECT_LIMIT && took < CONNECT_LIMIT * 4, "{took:?}");
    drop(listener);
}

#[test]
fn a_destination_is_printed_without_what_may_be_a_key() {
    let url = Url::parse("https://mcp.example.com:8443/key-in-path?key=in-query").unwrap();
    assert_eq!(format!("{:?}", Destination::of(&url).unwrap()), "Destination(Some(mcp.example.com:8443))");
}
