//! An upstream in this process that writes down when each call began and ended, by organization: the
//! only honest witness of a concurrency limit is the one who is called. The organization is the
//! endpoint's path, which no caller can choose.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::world::PATIENCE;

/// What its tools promise of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No hint: must never run twice.
    Once,
    /// `readOnlyHint`.
    Read,
    /// `idempotentHint`.
    Repeat,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Once, Self::Read, Self::Repeat];

    /// The tool's name.
    pub(crate) const fn tool(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Read => "read",
            Self::Repeat => "repeat",
        }
    }

    fn definition(self) -> Value {
        let schema = json!({
            "type": "object",
            "properties": { "id": { "type": "string" }, "ms": { "type": "integer", "minimum": 0 } },
            "required": ["id", "ms"],
        });
        let hints = json!({ "readOnlyHint": self == Self::Read, "idempotentHint": self == Self::Repeat });
        json!({ "name": self.tool(), "description": "waits", "inputSchema": schema, "annotations": hints })
    }
}

/// One run of a call.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The caller's name of the call.
    pub(crate) id: String,
    /// When it arrived.
    pub(crate) began: Instant,
    /// When it ended; absent while it runs.
    pub(crate) ended: Option<Instant>,
    /// False when the caller hung up before the end.
    pub(crate) finished: bool,
}

/// The running upstream. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    address: SocketAddr,
    log: Arc<Log>,
}

#[derive(Debug)]
struct Log {
    runs: Mutex<HashMap<String, Vec<Run>>>,
    changes: watch::Sender<()>,
}

impl Recorder {
    pub(crate) async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let recorder = Self { address, log: Arc::new(Log { runs: Mutex::default(), changes: watch::Sender::new(()) }) };
        let state = recorder.clone();
        // Never stopped: it ends with the tests' runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                // A peer that hangs up in the middle is part of the exercise.
                tokio::spawn(async move { state.serve(stream).await });
            }
        });
        Ok(recorder)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint whose calls are written down under this key.
    pub(crate) fn url(&self, key: &str) -> String {
        format!("http://{}/{key}", self.address)
    }

    /// Every run under a key, in the order of arrival.
    pub(crate) fn runs(&self, key: &str) -> Vec<Run> {
        self.log.lock().get(key).cloned().unwrap_or_default()
    }

    /// How often a call arrived.
    pub(crate) fn runs_of(&self, key: &str, id: &str) -> usize {
        self.log.lock().get(key).map_or(0, |runs| runs.iter().filter(|run| run.id == id).count())
    }

    /// Calls running now under a key.
    pub(crate) fn running(&self, key: &str) -> usize {
        self.log.lock().get(key).map_or(0, |runs| runs.iter().filter(|run| run.ended.is_none()).count())
    }

    /// Forgets what ended.
    pub(crate) fn forget(&self, key: &str) {
        if let Some(runs) = self.log.lock().get_mut(key) {
            assert!(runs.iter().all(|run| run.ended.is_some()), "calls of {key} still run");
            runs.clear();
        }
    }

    /// Waits until a condition on the runs of a key holds.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, key: &str, holds: impl Fn(&[Run]) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut changes = self.log.changes.subscribe();
            let waiting = async {
                while !holds(&self.runs(key)) {
                    changes.changed().await.expect("the recorder lives");
                }
            };
            let came = tokio::time::timeout(PATIENCE, waiting).await;
            assert!(
                came.is_ok(),
                "{what} never came ({caller}): {} runs, {} running",
                self.runs(key).len(),
                self.running(key)
            );
        }
    }

    /// Waits until exactly this many calls run under a key.
    #[track_caller]
    pub(crate) fn until_running(&self, key: &str, count: usize) -> impl Future<Output = ()> {
        self.until("the number of running calls", key, move |runs| {
            runs.iter().filter(|run| run.ended.is_none()).count() == count
        })
    }

    fn begin(&self, key: &str, id: &str) -> Running {
        let mut all = self.log.lock();
        let runs = all.entry(key.to_owned()).or_default();
        runs.push(Run { id: id.to_owned(), began: Instant::now(), ended: None, finished: false });
        let index = runs.len() - 1;
        drop(all);
        self.log.changes.send_replace(());
        Running { log: Arc::clone(&self.log), key: key.to_owned(), index, finished: false }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that has not ended; dropped before it finished when the caller hangs up.
struct Running {
    log: Arc<Log>,
    key: String,
    index: usize,
    finished: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(run) = self.log.lock().get_mut(&self.key).and_then(|runs| runs.get_mut(self.index)) {
            (run.ended, run.finished) = (Some(Instant::now()), self.finished);
        }
        self.log.changes.send_replace(());
    }
}

impl Recorder {
    /// HTTP/1.1 by hand, because a caller that hangs up must end its run at once.
    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        while let Some(Asked { method, key, body }) = read_request(&mut stream).await? {
            let (status, body) = tokio::select! {
                answer = self.answer(&method, &key, &body) => answer,
                // Nobody pipelines: what comes before the answer is the end.
                _ = stream.fill_buf() => return Ok(()),
            };
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).await?;
        }
        Ok(())
    }

    /// A minimal server of 2026-07-28.
    async fn answer(&self, method: &str, key: &str, asked: &Value) -> (&'static str, String) {
        if method != "POST" {
            return ("405 Method Not Allowed", String::new());
        }
        if asked["id"].is_null() {
            return ("202 Accepted", String::new());
        }
        let info = json!({ "io.modelcontextprotocol/serverInfo": { "name": "recorder", "version": "1" } });
        let result = match asked["method"].as_str().unwrap_or_default() {
            "server/discover" => json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
                "ttlMs": 0, "cacheScope": "private", "_meta": info,
            }),
            "tools/list" => {
                let tools = Kind::ALL.map(Kind::definition);
                json!({ "resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private", "_meta": info })
            }
            "tools/call" => self.run(key, &asked["params"]["arguments"]).await,
            _ => {
                let error = json!({ "code": -32601, "message": "Method not found" });
                return ("200 OK", json!({ "jsonrpc": "2.0", "id": asked["id"], "error": error }).to_string());
            }
        };
        ("200 OK", json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }).to_string())
    }

    async fn run(&self, key: &str, arguments: &Value) -> Value {
        let id = arguments["id"].as_str().unwrap_or_default();
        let mut running = self.begin(key, id);
        tokio::time::sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap_or_default())).await;
        running.finished = true;
        json!({ "resultType": "complete", "content": [{ "type": "text", "text": id }] })
    }
}

/// One request.
struct Asked {
    method: String,
    /// The path without its slash.
    key: String,
    body: Value,
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let key = target.rsplit('/').next().unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).await?;
        match field.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap_or(0);
            }
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0_u8; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Asked { method, key, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }))
}
