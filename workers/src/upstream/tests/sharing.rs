//! Who shares a client, and how long it lives.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::future::join_all;
use http::Method;
use shared::{
    Code,
    command::configurations::{Transport, Via},
    id::OrganizationId,
};
use tokio::sync::mpsc;

use super::{
    super::{IDLE, Target, Upstreams},
    bearer, call, egress_to, native_to,
    server::{Asked, Reply, Server, discovered},
    specification,
};

#[tokio::test]
async fn concurrent_first_uses_open_one_client() {
    let server = Server::handshake(|asked| asked.result("{}")).await;
    let upstreams = native_to(&[&server.url]);
    let specification = specification(&server.url);
    let clients = join_all((0..64).map(|_| upstreams.client(&specification))).await;
    let first = clients[0].as_ref().unwrap();
    assert!(clients.iter().all(|client| Arc::ptr_eq(first, client.as_ref().unwrap())));
    assert_eq!(server.asked_for("initialize").len(), 1);
}

#[tokio::test]
async fn nothing_is_shared_between_organizations_credentials_or_generations() {
    let server = Server::handshake(|asked| asked.result("{}")).await;
    let upstreams = native_to(&[&server.url]);
    let mut own = specification(&server.url);
    own.credential = bearer("one");
    let mut others = vec![own.clone(); 4];
    others[0].organization = OrganizationId::new();
    others[1].credential = bearer("two");
    others[2].generation += 1;
    others[3].target = Target::Endpoint(server.url.join("/other").unwrap());
    let client = upstreams.client(&own).await.unwrap();
    for other in &others {
        assert!(!Arc::ptr_eq(&client, &upstreams.client(other).await.unwrap()));
    }
    assert!(Arc::ptr_eq(&client, &upstreams.client(&own).await.unwrap()));
    assert_eq!(server.asked_for("initialize").len(), 5, "each has a session of its own");

    call(&upstreams.client(&others[1]).await.unwrap(), "theirs", "{}").await.unwrap();
    call(&client, "ours", "{}").await.unwrap();
    let sent = server.asked_for("tools/call");
    let of = |index: usize| (sent[index].header("authorization"), sent[index].header("mcp-session-id"));
    assert_eq!(of(0), ("Bearer two", "session-3"));
    assert_eq!(of(1), ("Bearer one", "session-1"));
}

#[tokio::test]
async fn a_failure_to_connect_is_not_remembered() {
    let healthy = Arc::new(AtomicBool::new(false));
    let script = {
        let healthy = Arc::clone(&healthy);
        move |asked: &Asked| {
            if healthy.load(SeqCst) {
                discovered(asked).unwrap_or_else(|| asked.result("{}"))
            } else {
                Reply::bare(503)
            }
        }
    };
    let server = Server::start(script).await;
    let upstreams = native_to(&[&server.url]);
    let specification = specification(&server.url);
    assert_eq!(upstreams.client(&specification).await.unwrap_err().code, Code::UpstreamFailed);
    healthy.store(true, SeqCst);
    upstreams.client(&specification).await.unwrap();
}

#[tokio::test]
async fn a_client_of_an_older_generation_is_closed_after_its_running_call() {
    let (answer, stream) = mpsc::channel(1);
    let stream = Mutex::new(Some(stream));
    let server = Server::handshake(move |asked| match asked.method() {
        "tools/call" => Reply::Stream(stream.lock().unwrap().take().unwrap()),
        _ => asked.result("{}"),
    })
    .await;
    let upstreams = native_to(&[&server.url]);
    let specification = specification(&server.url);
    let client = upstreams.client(&specification).await.unwrap();
    let calling = tokio::spawn(async move { call(&client, "t", "{}").await });
    let asked = server.until(|asked| asked.method() == "tools/call").await;

    upstreams.forget(specification.organization, specification.configuration, specification.generation + 1).await;
    let _again = upstreams.client(&specification).await.unwrap();
    assert_eq!(server.asked_for("initialize").len(), 2, "nobody finds the old client");
    assert!(!server.asked().iter().any(|asked| asked.http == Method::DELETE), "its call still runs");

    let result = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{}}}}\n\n", asked.body["id"]);
    answer.send(result.into()).await.unwrap();
    calling.await.unwrap().unwrap();
    let ended = server.until(|asked| asked.http == Method::DELETE).await;
    assert_eq!(ended.header("mcp-session-id"), "session-1");
}

#[tokio::test]
async fn a_client_that_nobody_uses_is_let_go() {
    let server = Server::handshake(|asked| asked.result("{}")).await;
    let upstreams = Upstreams::bounded(egress_to(&[&server.url]), None, None, Duration::from_millis(100), 10);
    drop(upstreams.client(&specification(&server.url)).await.unwrap());
    server.until(|asked| asked.http == Method::DELETE).await;
}

#[tokio::test]
async fn there_are_never_more_clients_than_the_bound() {
    let server = Server::handshake(|asked| asked.result("{}")).await;
    let upstreams = Upstreams::bounded(egress_to(&[&server.url]), None, None, IDLE, 3);
    for _ in 0..10 {
        let client = upstreams.client(&specification(&server.url)).await.unwrap();
        call(&client, "t", "{}").await.unwrap();
    }
    upstreams.0.open.run_pending_tasks().await;
    assert!(upstreams.0.open.entry_count() <= 3, "{}", upstreams.0.open.entry_count());
    server.until(|asked| asked.http == Method::DELETE).await;
}

#[tokio::test]
async fn what_needs_the_fastmcp_service_says_so_where_there_is_none() {
    let server = Server::modern(|asked| asked.result("{}")).await;
    let upstreams = native_to(&[&server.url]);
    let (mut sse, mut via) = (specification(&server.url), specification(&server.url));
    sse.transport = Transport::Sse;
    via.via = Via::Fastmcp;
    let mut program = specification(&server.url);
    program.target = Target::Program { catalogue: "p".to_owned(), workspace: "o/_/c".to_owned(), is_kept: false };
    for (specification, field) in [(sse, "via"), (via, "via"), (program, "transport")] {
        let fault = upstreams.client(&specification).await.unwrap_err();
        assert_eq!((fault.code, fault.field.as_deref()), (Code::Invalid, Some(field)));
    }
    assert_eq!(server.connections(), 0);
}
