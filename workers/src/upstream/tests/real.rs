//! Against rmcp's own server, in both eras: what the scripts of the other tests assume, it really says.

use std::{convert::Infallible, sync::Arc};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams,
        ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use shared::{Code, Deadline};
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

use super::{PATIENCE, call, open, raw, request, text};

#[derive(Clone)]
struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![Tool::new("echo", "says it again", serde_json::Map::new())]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name != "echo" {
            return Err(ErrorData::invalid_params("there is no such tool", None));
        }
        if let Some(token) = context.meta.get_progress_token() {
            let step = ProgressNotificationParam::new(token, 1.0);
            let _ = context.peer.notify_progress(step).await;
        }
        let said = serde_json::to_string(&request.arguments).unwrap();
        Ok(CallToolResult::success(vec![ContentBlock::text(said)]).into())
    }
}

/// The server and the tasks that it lives in.
async fn start(knows_discover: bool, answers_json: bool) -> (Url, JoinSet<()>) {
    let config = StreamableHttpServerConfig::default().with_json_response(answers_json);
    let service = StreamableHttpService::new(|| Ok(Echo), Arc::<LocalSessionManager>::default(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/mcp", listener.local_addr().unwrap())).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            open.spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| {
                    let service = service.clone();
                    async move {
                        let version = request.headers().get("mcp-protocol-version");
                        if !knows_discover && version.is_some_and(|version| version == "2026-07-28") {
                            let mut refusal = http::Response::new(Full::default().boxed());
                            *refusal.status_mut() = StatusCode::BAD_REQUEST;
                            return Ok::<_, Infallible>(refusal);
                        }
                        Ok(service.handle(request).await)
                    }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });
    (url, tasks)
}

#[tokio::test]
async fn a_real_server_is_called_in_either_era_and_either_form() {
    for (knows_discover, answers_json) in [(true, true), (true, false), (false, true), (false, false)] {
        let (url, _tasks) = start(knows_discover, answers_json).await;
        let client = open(&url).await;
        let result = call(&client, "echo", r#"{"a":1}"#).await.unwrap();
        assert!(text(&result).contains(r#"{\"a\":1}"#), "{}", text(&result));
        assert_eq!(text(&result).contains("resultType"), knows_discover, "the era is the one that was meant");

        let steps = std::sync::Mutex::new(0);
        let note = |_| *steps.lock().unwrap() += 1;
        let arguments = raw("{}");
        let mut watched = request("echo", &arguments);
        watched.progress = Some(&note);
        client.call(watched).await.unwrap();
        if !answers_json {
            assert_eq!(*steps.lock().unwrap(), 1);
        }

        let tools = client.list_tools(Deadline::after(PATIENCE), "test").await.unwrap();
        assert!(tools.len() == 1 && text(&tools[0]).contains("says it again"));
        let fault = call(&client, "missing", "{}").await.unwrap_err();
        assert_eq!((fault.code, fault.message.contains("no such tool")), (Code::Invalid, true));
    }
}
