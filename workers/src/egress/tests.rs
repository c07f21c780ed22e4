//! The guard against real servers: nothing here is refused because nobody listens.

mod hostile;
pub(super) mod local;

use http::{StatusCode, header};
use http_body_util::BodyExt as _;

use super::*;
use hostile::OTHER_SCHEMES;
pub(super) use hostile::{HARMLESS, HOSTILE};
use local::{Answers, Local, open_for, redirect, text};

fn strict(names: Arc<Answers>) -> Egress {
    Egress::with_names(&EgressConfig::default(), names).unwrap()
}

fn judged(egress: &Egress, address: &str) -> Result<(), Refused> {
    egress.check(&Url::parse(address).map_err(|_| Refused::Host)?)
}

/// What an address answers: its status and text, or why the guard refused it.
type Told = Result<(StatusCode, String), Option<Refused>>;

/// Asks by the client that libraries are given.
async fn by_client(egress: &Egress, url: &str) -> Told {
    let answer = egress.client().post(url).body("body").send().await.map_err(|error| refusal_in(&error))?;
    let (head, body) = Response::from(answer).into_parts();
    let body = read_capped(body, 1000).await.unwrap();
    Ok((head.status, String::from_utf8(body.to_vec()).unwrap()))
}

/// Asks as calls do.
async fn by_sender(egress: &Egress, url: &str) -> Told {
    let target = Destination::of(&Url::parse(url).unwrap()).map_err(Some)?;
    let sent = egress.send(&target, Method::POST, HeaderMap::new(), Bytes::from_static(b"body")).await;
    let answer = sent.map_err(|error| if let SendError::Refused(refused) = error { Some(refused) } else { None })?;
    let (head, body) = answer.into_parts();
    let body = read_capped(body, 1000).await.unwrap();
    Ok((head.status, String::from_utf8(body.to_vec()).unwrap()))
}

/// Asks by both, which agree.
async fn asked(egress: &Egress, url: &str) -> Told {
    let told = by_sender(egress, url).await;
    assert_eq!(told, by_client(egress, url).await, "{url}");
    told
}

fn hello() -> (StatusCode, String) {
    (StatusCode::OK, "hello".to_owned())
}

#[tokio::test]
async fn every_hostile_address_is_refused_as_written() {
    let egress = strict(Answers::new(&[]));
    assert!(HOSTILE.len() >= 60);
    for (address, reason) in HOSTILE {
        assert_eq!(judged(&egress, address), Err(*reason), "{address}");
    }
    for address in OTHER_SCHEMES {
        assert_eq!(judged(&egress, address), Err(Refused::Scheme), "{address}");
    }
    for address in HARMLESS {
        assert_eq!(judged(&egress, address), Ok(()), "{address}");
    }
}

#[tokio::test]
async fn the_client_refuses_them_even_where_nobody_asked_the_guard() {
    let names = Answers::new(&[]);
    let egress = open_for(&[], names.clone());
    for (address, reason) in HOSTILE {
        let Ok(url) = Url::parse(address) else { continue };
        // A deployment that allows http opens port 80, whatever the scheme.
        if url.port() == Some(80) {
            continue;
        }
        for scheme in ["https", "http"] {
            let mut url = url.clone();
            let port = url.port_or_known_default();
            url.set_scheme(scheme).unwrap();
            url.set_port(port).unwrap();
            assert_eq!(by_sender(&egress, url.as_str()).await, Err(Some(*reason)), "{scheme} {address}");
            // reqwest turns user information into an `Authorization` header before our gate sees the
            // URL; the host behind it is judged all the same.
            let behind = match *reason {
                Refused::UserInfo if url.host_str() == Some("mcp.example.com") => continue,
                Refused::UserInfo => Refused::Address,
                other => other,
            };
            assert_eq!(by_client(&egress, url.as_str()).await, Err(Some(behind)), "{scheme} {address}");
        }
    }
    assert_eq!(names.look_ups(), 0, "a refused host was looked up");
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused() {
    let server = Local::hello().await;
    let port = server.addr.port();
    let names = Answers::new(&[
        ("loop.example.com", &["127.0.0.1"]),
        ("mapped.example.com", &["::ffff:127.0.0.1"]),
        ("six.example.com", &["::1", "fd00::1"]),
        ("meta.example.com", &["169.254.169.254"]),
        ("ten.example.com", &["10.0.0.7", "192.168.0.7"]),
        ("none.example.com", &[]),
    ]);
    let egress = open_for(&[], names);
    for (name, reason) in [
        ("loop.example.com", Refused::Address),
        ("mapped.example.com", Refused::Address),
        ("six.example.com", Refused::Address),
        ("meta.example.com", Refused::Address),
        ("ten.example.com", Refused::Address),
        ("none.example.com", Refused::Unresolved),
        ("missing.example.com", Refused::Unresolved),
    ] {
        assert_eq!(asked(&egress, &format!("http://{name}:{port}/")).await, Err(Some(reason)), "{name}");
        assert_eq!(egress.resolve(name, port).await, Err(reason), "{name}");
        assert!(!format!("{}", Refused::Address).contains("127"));
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_open_port_of_an_address_opens_no_other_way_there() {
    let (open, closed) = (Local::hello().await, Local::hello().await);
    let names = Answers::new(&[("rebound.example.com", &["127.0.0.1"])]);
    let egress = open_for(&[open.addr.to_string()], names);
    assert_eq!(asked(&egress, &open.url("/")).await, Ok(hello()));
    for address in [
        closed.url("/"),
        format!("http://rebound.example.com:{}/", closed.addr.port()),
        format!("http://rebound.example.com:{}/", open.addr.port()),
        format!("http://[::ffff:127.0.0.1]:{}/", closed.addr.port()),
        format!("http://localhost:{}/", open.addr.port()),
    ] {
        assert!(matches!(asked(&egress, &address).await, Err(Some(_))), "{address}");
    }
    assert_eq!((open.connections(), closed.connections()), (2, 0), "one of each client");
}

#[tokio::test]
async fn a_listed_name_is_open_on_its_port_alone() {
    let (open, closed) = (Local::hello().await, Local::hello().await);
    let names = Answers::new(&[("demo.internal", &["127.0.0.1"])]);
    let egress = open_for(&[format!("demo.internal:{}", open.addr.port())], names);
    assert_eq!(asked(&egress, &format!("http://demo.internal:{}/", open.addr.port())).await, Ok(hello()));
    for port in [closed.addr.port(), 80] {
        assert_eq!(asked(&egress, &format!("http://demo.internal:{port}/")).await, Err(Some(Refused::Port)));
    }
    assert_eq!(closed.connections(), 0);
}

#[tokio::test]
async fn the_address_judged_is_the_address_connected_to() {
    let server = Local::hello().await;
    let port = server.addr.port();
    // The first answer is open to this name's port, the second would be the metadata service.
    let twice = || Answers::new(&[("demo.internal", &["127.0.0.1"]), ("demo.internal", &["169.254.169.254"])]);
    let (first, second) = (twice(), twice());
    let url = format!("http://demo.internal:{port}/");
    let opened = |names| open_for(&[format!("demo.internal:{port}")], names);
    assert_eq!(by_sender(&opened(first.clone()), &url).await, Ok(hello()));
    assert_eq!(by_client(&opened(second.clone()), &url).await, Ok(hello()));
    assert_eq!((first.look_ups(), second.look_ups(), server.connections()), (1, 1, 2));
    // The other way round: public when it was registered, private when it is used.
    let names = Answers::new(&[("turn.example.com", &["8.8.8.8"]), ("turn.example.com", &["127.0.0.1"])]);
    let egress = open_for(&[], names);
    assert_eq!(egress.resolve("turn.example.com", port).await.unwrap(), [SocketAddr::new([8, 8, 8, 8].into(), port)]);
    let url = format!("http://turn.example.com:{port}/");
    assert_eq!(asked(&egress, &url).await, Err(Some(Refused::Address)));
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn forbidden_addresses_are_left_out_of_a_mixed_answer() {
    let names =
        Answers::new(&[("mixed.example.com", &["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1111", "169.254.169.254"])]);
    let open = strict(names).resolve("mixed.example.com", 443).await.unwrap();
    assert_eq!(open, ["8.8.8.8:443".parse().unwrap(), "[2606:4700::1111]:443".parse().unwrap()]);
}

#[tokio::test]
async fn a_listed_name_does_not_lead_to_the_metadata_service() {
    let names = Answers::new(&[("demo.internal", &["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"])]);
    let egress = open_for(&["demo.internal:8443".to_owned()], names);
    assert_eq!(egress.resolve("demo.internal", 8443).await, Err(Refused::Address));
}

#[tokio::test]
async fn what_the_operator_closes_stays_closed() {
    let config = EgressConfig {
        allow: vec!["bad.example.com:8443".into(), "10.0.0.0/8".into()],
        deny: vec!["example.com".into(), "10.9.0.0/16".into(), "8.8.8.8".into()],
        ..EgressConfig::default()
    };
    let names = Answers::new(&[("sneaky.example.org", &["10.9.0.1"]), ("inner.example.org", &["10.8.0.1"])]);
    let egress = Egress::with_names(&config, names).unwrap();
    for address in ["https://bad.example.com:8443/", "https://example.com./", "https://10.9.0.1/", "https://8.8.8.8/"] {
        assert_eq!(judged(&egress, address), Err(Refused::Denied), "{address}");
    }
    assert_eq!(judged(&egress, "https://10.8.0.1/"), Ok(()));
    assert_eq!(egress.resolve("sneaky.example.org", 443).await, Err(Refused::Address));
    assert!(egress.resolve("inner.example.org", 443).await.is_ok());
}

/// `/hops/<n>` redirects n times by 307 and then echoes; `/go?<status>,<location>` redirects there.
async fn redirecting() -> Local {
    Local::serve(|request| async move {
        let path = request.uri().path().to_owned();
        if let Some(left) =
            path.strip_prefix("/hops/").and_then(|left| left.parse::<u32>().ok()).filter(|left| *left > 0)
        {
            return redirect(307, &format!("/hops/{}", left - 1));
        }
        if let Some((status, location)) = request.uri().query().and_then(|query| query.split_once(',')) {
            return redirect(status.parse().unwrap(), location);
        }
        let seen = format!("{} {:?}", request.method(), request.headers().get(header::REFERER));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        text(StatusCode::OK, &format!("{seen} {}", String::from_utf8_lossy(&body)))
    })
    .await
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_method_and_body_and_says_nothing_of_where_it_came_from() {
    let server = redirecting().await;
    let egress = open_for(&[server.addr.to_string()], Answers::new(&[]));
    let echoed = Ok((StatusCode::OK, "POST None body".to_owned()));
    assert_eq!(asked(&egress, &server.url("/hops/3")).await, echoed);
    assert_eq!(asked(&egress, &server.url("/hops/4")).await, Err(Some(Refused::RedirectLoop)));
}

#[tokio::test]
async fn a_redirect_anywhere_else_is_refused() {
    let (server, other) = (redirecting().await, Local::hello().await);
    // Both are open: what refuses is the rule about redirects.
    let egress = open_for(&[server.addr.to_string(), other.addr.to_string()], Answers::new(&[]));
    let userinfo = format!("http://user@{}/", server.addr);
    for (status, location) in [
        (307, other.url("/").as_str()),
        (308, other.url("/").as_str()),
        (302, other.url("/").as_str()),
        (302, "/same"),
        (301, "/same"),
        (303, "/same"),
        (307, "http://169.254.169.254/latest/meta-data/"),
        (307, "http://127.0.0.1/"),
        (308, "http://[::1]/"),
        (307, "//localhost/"),
        (307, &format!("https://{}/", server.addr)),
        (307, &format!("http://localhost:{}/", server.addr.port())),
        (307, &userinfo),
        (307, "ftp://127.0.0.1/"),
        (307, "file:///etc/passwd"),
    ] {
        let url = server.url(&format!("/go?{status},{location}"));
        assert_eq!(by_sender(&egress, &url).await, Err(Some(Refused::Redirect)), "{location}");
        match by_client(&egress, &url).await {
            // It may refuse by itself what is no HTTP, or hand it back as it came.
            Err(refused) => assert!(matches!(refused, Some(Refused::Redirect) | None), "{location}: {refused:?}"),
            Ok((handed_back, _)) => assert_eq!(handed_back, status, "{location}"),
        }
        let handed_back = egress.unredirected().get(url).send().await.unwrap();
        assert_eq!(handed_back.status(), status);
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_body_over_the_cap_is_not_read_to_its_end() {
    let server = Local::serve(|request| async move {
        match request.uri().path() {
            "/long" => text(StatusCode::OK, &"x".repeat(1001)),
            "/chunked" => {
                let chunks =
                    futures::stream::iter((0..11).map(|_| Ok(hyper::body::Frame::data(Bytes::from(vec![b'x'; 100])))));
                Response::new(http_body_util::StreamBody::new(chunks).boxed())
            }
            _ => text(StatusCode::OK, &"x".repeat(1000)),
        }
    })
    .await;
    let egress = open_for(&[server.addr.to_string()], Answers::new(&[]));
    let get = async |path: &str| {
        let target = Destination::of(&Url::parse(&server.url(path)).unwrap()).unwrap();
        let answer = egress.send(&target, Method::GET, HeaderMap::new(), Bytes::new()).await.unwrap();
        read_capped(answer.into_body(), 1000).await
    };
    assert_eq!(get("/fits").await.unwrap().len(), 1000);
    assert!(matches!(get("/long").await, Err(BodyError::TooLarge { max_bytes: 1000 })));
    assert!(matches!(get("/chunked").await, Err(BodyError::TooLarge { .. })));
}

#[tokio::test]
async fn an_answer_of_endless_headers_is_not_read() {
    let server = Local::serve(|request| async move {
        let mut answer = text(StatusCode::OK, "hello");
        let (count, length) = match request.uri().path() {
            "/many" => (101, 1),
            "/long" => (1, 2 * 1024 * 1024),
            _ => (90, 64),
        };
        for number in 0..count {
            let name: header::HeaderName = format!("x-{number}").parse().unwrap();
            answer.headers_mut().insert(name, "v".repeat(length).parse().unwrap());
        }
        answer
    })
    .await;
    let egress = open_for(&[server.addr.to_string()], Answers::new(&[]));
    assert_eq!(asked(&egress, &server.url("/fits")).await, Ok(hello()));
    for path in ["/many", "/long"] {
        assert_eq!(asked(&egress, &server.url(path)).await, Err(None), "{path}");
    }
}

#[tokio::test]
async fn plain_http_is_refused_unless_allowed() {
    let server = Local::hello().await;
    let config = EgressConfig { allow: vec![server.addr.to_string()], ..EgressConfig::default() };
    let egress = Egress::with_names(&config, Answers::new(&[])).unwrap();
    assert_eq!(judged(&egress, &server.url("/")), Err(Refused::Scheme));
    assert_eq!(by_sender(&egress, &server.url("/")).await, Err(Some(Refused::Scheme)));
    assert!(by_client(&egress, &server.url("/")).await.is_err());
    assert_eq!(server.connections(), 0);
}
