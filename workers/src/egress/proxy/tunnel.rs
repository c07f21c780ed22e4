//! `CONNECT`: bytes both ways to an address that the guard resolved and judged.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream, sync::OwnedSemaphorePermit};
use url::Url;

use super::{Body, Refused, Shared, plain, refusal, unreachable};

/// How long connecting may take, all addresses of a host together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a tunnel may stand; a client that still needs it opens another.
const TUNNEL_LIMIT: Duration = Duration::from_hours(1);

pub(super) async fn open(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let Some((host, port)) = target(request.uri()) else {
        return plain(StatusCode::BAD_REQUEST, "CONNECT needs host:port.");
    };
    let Ok(place) = shared.tunnels.clone().try_acquire_owned() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "The proxy has no tunnel left.");
    };
    let upstream = match connect(shared, &host, port).await {
        Ok(upstream) => upstream,
        Err(Failed::Refused(refused)) => return refusal(refused),
        Err(Failed::Unreachable) => return unreachable(),
    };
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = carry(request, upstream, place) => {}
        }
    });
    Response::new(Empty::new().map_err(|never| match never {}).boxed())
}

/// The authority as the guard must see it: through the same parser as any URL, so that `0x7f.1`
/// is 127.0.0.1 here too. User info in it is refused by having no place.
fn target(uri: &Uri) -> Option<(String, u16)> {
    let authority = uri.authority()?;
    let port = authority.port_u16()?;
    if authority.as_str().contains('@') {
        return None;
    }
    let url = Url::parse(&format!("https://{authority}/")).ok()?;
    Some((url.host_str()?.to_owned(), port))
}

enum Failed {
    Refused(Refused),
    Unreachable,
}

async fn connect(shared: &Shared, host: &str, port: u16) -> Result<TcpStream, Failed> {
    let addresses = shared.egress.resolve(host, port).await.map_err(Failed::Refused)?;
    let connecting = TcpStream::connect(addresses.as_slice());
    match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        _ => Err(Failed::Unreachable),
    }
}

async fn carry(request: Request<Incoming>, mut upstream: TcpStream, place: OwnedSemaphorePermit) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let mut client = TokioIo::new(upgraded);
    // How either side ends is the business of the two ends.
    let _ = tokio::time::timeout(TUNNEL_LIMIT, copy_bidirectional(&mut client, &mut upstream)).await;
    drop(place);
}
