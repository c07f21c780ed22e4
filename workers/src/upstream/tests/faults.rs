//! Every way in which a server can fail a call has its documented fault, and nothing of its body.

use shared::{Code, Deadline, Fault};
use tokio::net::TcpListener;
use url::Url;

use super::{
    PATIENCE, bearer, call, native_to, open,
    server::{Asked, Reply, Server},
    specification,
};

const SECRET: &str = "s3cr3t-of-the-server";

async fn fault_of(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fault {
    let server = Server::modern(reply).await;
    let fault = call(&open(&server.url).await, "t", "{}").await.unwrap_err();
    assert_eq!(server.asked_for("tools/call").len(), 1, "a call is never sent twice: {fault}");
    assert!(!fault.message.contains(SECRET), "{fault}");
    fault
}

#[tokio::test]
async fn a_status_that_is_no_success_is_a_fault_without_its_body() {
    for (status, code) in [
        (401, Code::Reconnect),
        (403, Code::UpstreamFailed),
        (404, Code::UpstreamFailed),
        (405, Code::UpstreamFailed),
        (429, Code::UpstreamFailed),
        (500, Code::UpstreamFailed),
        (503, Code::UpstreamFailed),
    ] {
        assert_eq!(fault_of(move |_| Reply::typed(status, "text/html", SECRET)).await.code, code, "{status}");
        let json = format!(r#"{{"detail":"{SECRET}"}}"#);
        assert_eq!(fault_of(move |_| Reply::json(status, &json)).await.code, code, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_elsewhere_is_not_followed() {
    let elsewhere = Server::modern(|asked| asked.result("{}")).await;
    for status in [301, 302, 303, 307, 308] {
        let target = elsewhere.url.to_string();
        fault_of(move |_| Reply::bare(status).with("location", &target)).await;
    }
    assert!(elsewhere.asked().is_empty());
}

#[tokio::test]
async fn garbage_is_a_failure_of_the_server() {
    let garbage: [fn(&Asked) -> Reply; 14] = [
        |_| Reply::typed(200, "text/html", SECRET),
        |_| Reply::bare(200),
        |_| Reply::bare(202),
        |_| Reply::json(200, ""),
        |_| Reply::json(200, SECRET),
        |_| Reply::json(200, "[]"),
        |_| Reply::json(200, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
        |asked| asked.result("null"),
        |asked| asked.result("[1]"),
        |asked| asked.result(&format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100))),
        |_| Reply::events(&[]),
        |_| Reply::events(&["data: s3cr3t-of-the-server\n\n"]),
        |_| Reply::events(&["\u{0}\u{1}\u{2}"]),
        |_| Reply::Hangup,
    ];
    for (index, reply) in garbage.into_iter().enumerate() {
        assert_eq!(fault_of(reply).await.code, Code::UpstreamFailed, "{index}");
    }
}

#[tokio::test]
async fn a_result_of_seven_mebibytes_is_carried_and_a_larger_one_is_not() {
    const MAX: usize = 7 * 1024 * 1024;
    let result_of = |size: usize| format!(r#"{{"t":"{}"}}"#, "x".repeat(size - 8));
    let largest = result_of(MAX);
    let server = Server::modern(move |asked| asked.result(&largest)).await;
    assert_eq!(call(&open(&server.url).await, "t", "{}").await.unwrap().bytes().len(), MAX);
    for size in [MAX + 1, 2 * MAX] {
        let large = result_of(size);
        assert_eq!(fault_of(move |asked| asked.result(&large)).await.code, Code::UpstreamFailed);
        let large = result_of(size);
        let streamed = move |asked: &Asked| {
            Reply::events(&[&format!("data: {{\"id\":{},\"result\":{large}}}\n\n", asked.body["id"])])
        };
        assert_eq!(fault_of(streamed).await.code, Code::UpstreamFailed);
    }
}

#[tokio::test]
async fn a_stream_that_pours_without_end_is_left() {
    let (sender, stream) = tokio::sync::mpsc::channel(1);
    let stream = std::sync::Mutex::new(Some(stream));
    let server = Server::modern(move |_| Reply::Stream(stream.lock().unwrap().take().unwrap())).await;
    let client = open(&server.url).await;
    let pouring = tokio::spawn(async move {
        let chunk = bytes::Bytes::from(vec![b'x'; 1024 * 1024]);
        let mut poured = 0_usize;
        while sender.send(chunk.clone()).await.is_ok() {
            poured += 1;
        }
        poured
    });
    assert_eq!(call(&client, "t", "{}").await.unwrap_err().code, Code::UpstreamFailed);
    let poured = tokio::time::timeout(PATIENCE, pouring).await.expect("it pours on").unwrap();
    assert!((16..64).contains(&poured), "{poured} MiB");
}

#[tokio::test]
async fn the_words_of_a_json_rpc_error_are_shown_cleaned() {
    let refused = fault_of(|asked| asked.error(200, -32602, "no\r\nsuch \u{1b}[1mtool")).await;
    assert_eq!(refused.code, Code::Invalid);
    assert_eq!(refused.message, "The MCP server refused the request: no  such  [1mtool");
    let failed = fault_of(|asked| asked.error(400, -32603, &"x".repeat(9_000))).await;
    assert_eq!(failed.code, Code::UpstreamFailed);
    assert!(failed.message.ends_with(&"x".repeat(300)) && failed.message.len() < 400);
}

#[tokio::test]
async fn a_tool_that_says_no_is_a_result() {
    let server = Server::modern(|asked| asked.result(r#"{"content":[],"isError":true}"#)).await;
    let result = call(&open(&server.url).await, "t", "{}").await.unwrap();
    assert_eq!(result.bytes().as_ref(), br#"{"content":[],"isError":true}"#);
}

async fn connecting_to(url: &Url) -> Fault {
    native_to(&[url]).client(&specification(url)).await.unwrap_err()
}

#[tokio::test]
async fn a_server_that_cannot_be_known_is_a_fault_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = Url::parse(&format!("http://{}/mcp", free.local_addr().unwrap())).unwrap();
    drop(free);
    let fault = connecting_to(&nobody).await;
    assert_eq!((fault.code, fault.message.as_str()), (Code::UpstreamFailed, "The MCP server cannot be reached."));

    for (status, code, attempts) in
        [(401, Code::Reconnect, 1), (500, Code::UpstreamFailed, 2), (404, Code::UpstreamFailed, 3)]
    {
        let server = Server::start(move |_| Reply::typed(status, "text/plain", SECRET)).await;
        let fault = connecting_to(&server.url).await;
        assert_eq!(fault.code, code, "{status}");
        assert!(!fault.message.contains(SECRET));
        assert!(server.asked().len() <= attempts, "{status}: {}", server.asked().len());
    }
    let challenging = Server::start(|_| Reply::bare(401).with("www-authenticate", "Bearer")).await;
    assert_eq!(connecting_to(&challenging.url).await.code, Code::Reconnect);
    let nonsense = Server::start(|_| Reply::json(200, "{}")).await;
    assert_eq!(connecting_to(&nonsense.url).await.code, Code::UpstreamFailed);
}

#[tokio::test]
async fn an_address_that_the_guard_refuses_is_an_invalid_endpoint_and_is_not_asked() {
    let server = Server::modern(|asked| asked.result("{}")).await;
    let elsewhere = Url::parse("http://127.0.0.1:9/mcp").unwrap();
    let upstreams = native_to(&[&elsewhere]);
    let fault = upstreams.client(&specification(&server.url)).await.unwrap_err();
    assert_eq!((fault.code, fault.field.as_deref()), (Code::Invalid, Some("endpoint")));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_token_that_no_header_carries_is_an_invalid_token_and_is_not_shown() {
    let server = Server::modern(|asked| asked.result("{}")).await;
    let mut specification = specification(&server.url);
    specification.credential = bearer("hunter2\r\nX-Evil: 1");
    let fault = native_to(&[&server.url]).client(&specification).await.unwrap_err();
    assert_eq!(fault.code, Code::Invalid);
    assert!(!format!("{fault:?}").contains("hunter2"));
    assert!(!format!("{specification:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_list_of_tools_fails_like_a_call() {
    let server = Server::modern(|asked| asked.result(r#"{"tools":{}}"#)).await;
    let fault = open(&server.url).await.list_tools(Deadline::after(PATIENCE), "test").await.unwrap_err();
    assert_eq!(fault.code, Code::UpstreamFailed);
}
