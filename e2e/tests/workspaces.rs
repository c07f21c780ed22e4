//! Calls in sessions: clients of a session's own, and a program's directory that is the session's files,
//! for its member alone. What happens when processes die is in `accidents`; what a hostile program
//! withstands at the host is tried in `fastmcp/tests/test_workspaces.py`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use shared::command::files::MAX_FILE_BYTES;
use stack::{DEMO_PROGRAM, issuer::Role};

use crate::{
    faulty::TOOL,
    upstreams::BOTH,
    world::{Answer, Client, PATIENCE, System, Tenant},
};

pub(crate) mod accidents;

const CALLS: &str = "/api/v1/tool-calls";
const SESSIONS: &str = "/api/v1/sessions";

/// A session, and its member.
#[derive(Clone)]
struct Room {
    client: Client,
    id: String,
}

impl Room {
    async fn open(client: &Client) -> Self {
        Self::open_with(client, json!({})).await
    }

    async fn open_with(client: &Client, more: Value) -> Self {
        let mut body = json!({ "agent_type": "test" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let opened = client.post(SESSIONS, &body).await;
        assert_eq!(opened.status, 201, "{}", opened.text);
        let id = opened.json()["id"].as_str().expect("an id").to_owned();
        Self { client: client.clone(), id }
    }

    fn file(&self, path: &str) -> String {
        format!("{SESSIONS}/{}/files/{path}", self.id)
    }

    async fn put(&self, path: &str, content: impl Into<reqwest::Body>) {
        let request = self.client.request(Method::PUT, &self.file(path));
        let written = self.client.send(request.header("content-type", "application/octet-stream").body(content)).await;
        assert!(written.status.is_success(), "{}", written.text);
    }

    async fn read(&self, path: &str) -> String {
        let read = self.client.get(&self.file(path)).await;
        assert_eq!(read.status, 200, "{}", read.text);
        read.text
    }

    async fn files(&self) -> Vec<String> {
        let listed = self.client.get(&format!("{SESSIONS}/{}/files", self.id)).await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        let listed = listed.json();
        let items = listed["items"].as_array().expect("items").iter();
        items.map(|file| file["path"].as_str().expect("a path").to_owned()).collect()
    }

    async fn end(&self) {
        let ended = self.client.delete(&format!("{SESSIONS}/{}", self.id)).await;
        assert!(ended.status.is_success(), "{}", ended.text);
    }

    async fn call(&self, configuration: &str, tool: &str, arguments: Value) -> Answer {
        self.call_within(configuration, tool, arguments, 25_000).await
    }

    async fn call_within(&self, configuration: &str, tool: &str, arguments: Value, timeout_ms: u32) -> Answer {
        let body = json!({
            "configuration": configuration, "tool": tool, "arguments": arguments,
            "session": self.id, "timeout_ms": timeout_ms,
        });
        self.client.post(CALLS, &body).await
    }

    /// What the program answered, or the text of its refusal, and what became of the session's files.
    async fn asked(&self, tool: &str, arguments: Value) -> (Value, Value) {
        told(&self.call("files", tool, arguments).await)
    }

    async fn said(&self, tool: &str, arguments: Value) -> Value {
        self.asked(tool, arguments).await.0
    }
}

#[track_caller]
fn told(answer: &Answer) -> (Value, Value) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let result = &answer["result"];
    let said =
        if result["isError"] == true { &result["content"][0]["text"] } else { &result["structuredContent"]["result"] };
    (said.clone(), answer["files"].clone())
}

fn unchanged() -> Value {
    json!({ "written": 0, "removed": 0, "skipped": [] })
}

async fn register(tenant: &Tenant) {
    let body = json!({ "name": "files", "transport": "stdio", "catalogue": DEMO_PROGRAM });
    let made = tenant.admin.post("/api/v1/mcp/configurations", &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

/// A tenant with the demo program.
async fn tenant(system: &System) -> Tenant {
    let tenant = system.organization().await;
    register(&tenant).await;
    tenant
}

/// Where a session's directory lies on this machine, if it is there.
fn directory(system: &System, tenant: &Tenant, session: &str) -> Option<PathBuf> {
    let members = std::fs::read_dir(system.workspaces.join(tenant.id.to_string())).ok()?;
    members.flatten().map(|member| member.path().join(session)).find(|path| path.is_dir())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} never came true"));
}

pub(crate) async fn a_program_reads_what_was_put_by_http_and_http_what_it_writes(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    let large = "0123456789abcdef".repeat(100_000);
    room.put("notes.txt", "grüße").await;
    room.put("data/deep/large", large.clone()).await;
    room.put("empty", "").await;
    assert_eq!(room.asked("read_file", json!({ "path": "notes.txt" })).await, (json!("grüße"), unchanged()));
    assert_eq!(room.said("read_file", json!({ "path": "data/deep/large" })).await, large[..100_000]);
    assert_eq!(room.said("list_files", json!({})).await, json!(["data", "empty", "notes.txt"]));

    let (_, files) = room.asked("write_file", json!({ "path": "made/by/it", "text": "new" })).await;
    assert_eq!(files, json!({ "written": 1, "removed": 0, "skipped": [] }));
    room.asked("write_file", json!({ "path": "notes.txt", "text": "changed" })).await;
    let (_, files) = room.asked("remove_file", json!({ "path": "empty" })).await;
    assert_eq!(files, json!({ "written": 0, "removed": 1, "skipped": [] }));
    assert_eq!(room.files().await, ["data/deep/large", "made/by/it", "notes.txt"]);
    assert_eq!(room.read("made/by/it").await, "new");
    assert_eq!(room.read("notes.txt").await, "changed");
    assert_eq!(room.read("data/deep/large").await, large);
    // More than one part, written by the program.
    room.asked("write_big", json!({ "bytes": 3 << 20 })).await;
    assert_eq!(room.read("big").await.len(), 3 << 20);

    // What changes by HTTP meanwhile is there at the next call.
    room.put("notes.txt", "by http").await;
    let removed = room.client.delete(&room.file("made/by/it")).await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    assert_eq!(room.said("read_file", json!({ "path": "notes.txt" })).await, "by http");
    assert_eq!(room.said("list_files", json!({})).await, json!(["big", "data", "notes.txt"]));
    // Where a directory was, a file may be, and the other way round.
    room.asked("remove_file", json!({ "path": "notes.txt" })).await;
    room.asked("write_file", json!({ "path": "notes.txt/inside", "text": "x" })).await;
    assert_eq!(room.files().await, ["big", "data/deep/large", "notes.txt/inside"]);

    // The trail tells of files by their number.
    let detail = "SELECT to_jsonb(details) FROM audit_logs WHERE action = 'tools.call' AND details->>'session' = $1 \
                  AND details->>'files_removed' = '1' LIMIT 1";
    let detail = system.eventually("the trail's record", detail, &room.id).await;
    assert_eq!(detail["files_written"], 0, "{detail}");
}

pub(crate) async fn no_other_session_finds_its_files_by_any_path(system: Arc<System>) {
    let (acme, globex) = (tenant(&system).await, tenant(&system).await);
    let theirs = Room::open(&acme.user).await;
    theirs.put("secret", "of theirs").await;
    assert_eq!(theirs.said("read_file", json!({ "path": "secret" })).await, "of theirs");
    let lies_at = directory(&system, &acme, &theirs.id).expect("it is materialised");
    assert!(lies_at.join("secret").is_file());
    let member = lies_at.parent().and_then(|path| path.file_name()).expect("a member").to_string_lossy().into_owned();
    let paths = [
        lies_at.join("secret").to_string_lossy().into_owned(),
        format!("../{}/secret", theirs.id),
        format!("../../{member}/{}/secret", theirs.id),
        format!("../../../{}/{member}/{}/secret", acme.id, theirs.id),
        format!("/run/workspace/../{}/secret", theirs.id),
        format!("%2e%2e/{}/secret", theirs.id),
        format!("..%2f{}%2fsecret", theirs.id),
        format!("．．／{}／secret", theirs.id),
        format!("\u{2025}/{}/secret", theirs.id),
        format!("..\\{}\\secret", theirs.id),
        "/proc/1/root/run/workspace/secret".to_owned(),
        "/proc/1/cwd/secret".to_owned(),
    ];
    for room in [Room::open(&acme.user).await, Room::open(&acme.admin).await, Room::open(&globex.user).await] {
        for (number, path) in paths.iter().enumerate() {
            let said = room.said("read_file", json!({ "path": path })).await.to_string();
            assert!(said.contains("Error") && !said.contains("of theirs"), "{path}: {said}");
            let link = format!("link-{number}");
            assert_eq!(room.said("link", json!({ "path": link, "target": path })).await, "linked");
            let said = room.said("read_file", json!({ "path": link })).await.to_string();
            assert!(said.contains("Error"), "{path}: {said}");
            // As it is, and with each byte encoded once more.
            let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
            for path in [encoded.clone(), encoded.replace('%', "%25")] {
                let read = room.client.get(&room.file(&path)).await;
                assert!(read.status.is_client_error() && !read.text.contains("of theirs"), "{path}: {}", read.text);
            }
        }
        assert_eq!(room.files().await, Vec::<String>::new());
    }
    assert_eq!(theirs.files().await, ["secret"]);
    assert_eq!(theirs.read("secret").await, "of theirs");
}

pub(crate) async fn what_is_no_file_is_not_kept_and_told(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    room.put("kept", "x").await;
    let skips = async |tool: &str, arguments: Value| room.asked(tool, arguments).await.1["skipped"].clone();
    let passwd = json!({ "path": "passwd", "target": "/etc/passwd" });
    assert_eq!(skips("link", passwd).await, json!(["passwd"]));
    assert_eq!(skips("pipe", json!({ "path": "pipe" })).await, json!(["pipe"]));
    // Not text; a letter in another form than the one that names are kept in; a character nobody sees.
    for name in ["ff61", "65cc81", "61e2808f"] {
        let skipped = skips("write_odd", json!({ "name_hex": name })).await;
        assert_eq!(skipped.as_array().map(Vec::len), Some(1), "{name}: {skipped}");
    }
    assert_eq!(room.files().await, ["kept"]);
    assert_eq!(room.said("list_files", json!({})).await, json!(["kept"]), "the next call begins without them");
    // A file that becomes a link to something outside is gone.
    assert_eq!(room.said("remove_file", json!({ "path": "kept" })).await, "removed");
    room.put("kept", "x").await;
    room.said("swap", json!({ "path": "kept", "target": "/etc/passwd", "seconds": 1 })).await;
    for _ in 0..10 {
        room.said("echo", json!({ "text": "x" })).await;
        for path in room.files().await {
            assert_eq!(room.read(&path).await, "x", "{path}");
        }
    }
}

pub(crate) async fn what_does_not_fit_is_refused_and_the_directory_brought_back(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    room.put("kept", "x").await;
    let too_large = MAX_FILE_BYTES + (1 << 20);
    for (tool, arguments, why) in [
        ("write_big", json!({ "bytes": too_large }), "is larger than"),
        ("write_many", json!({ "count": 5, "bytes": 15 << 20 }), "more than the session's"),
        ("write_many", json!({ "count": 1_001 }), "more than 1000"),
    ] {
        let problem = room.call("files", tool, arguments).await.problem(502, "upstream_failed");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("nothing of what it did") && detail.contains(why), "{problem}");
        assert_eq!(room.said("list_files", json!({})).await, json!(["kept"]));
        assert_eq!(room.files().await, ["kept"]);
    }
    // What was refused takes no room.
    let listed = room.client.get(&format!("{SESSIONS}/{}", room.id)).await.json();
    assert_eq!(listed["files"]["bytes"], 1, "{listed}");
}

pub(crate) async fn calls_at_once_in_one_session_keep_all_their_files(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    let names: Vec<String> = (0..6).map(|number| format!("f{number}")).collect();
    let calls = names.iter().map(|name| room.asked("write_file", json!({ "path": name, "text": name })));
    for (said, files) in futures::future::join_all(calls).await {
        assert_eq!((said, &files["written"]), (json!("2 characters"), &json!(1)));
    }
    assert_eq!(room.files().await, names);
    for name in &names {
        assert_eq!(&room.read(name).await, name);
    }
    // One after the other: the second waits for the first, but not beyond its deadline.
    let sleeping = room.call("files", "sleep", json!({ "ms": 4_000 }));
    let waiting = async {
        held(&system, &room.id).await;
        room.call_within("files", "echo", json!({ "text": "x" }), 1_000).await
    };
    let (slept, waited) = tokio::join!(sleeping, waiting);
    assert_eq!(told(&slept).0, "slept 4000 ms");
    waited.problem(504, "timeout");
    assert_eq!(room.said("echo", json!({ "text": "x" })).await, "x");
}

/// Waits until a call has the session's workspace.
async fn held(system: &System, session: &str) {
    let sql = "SELECT to_jsonb(id) FROM sessions WHERE id = $1::uuid AND workspace_holder IS NOT NULL";
    system.eventually("the workspace's holder", sql, session).await;
}

pub(crate) async fn the_end_of_a_session_ends_its_programs_and_removes_its_directory(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let (room, other) = (Room::open(&tenant.user).await, Room::open(&tenant.user).await);
    for room in [&room, &other] {
        room.said("write_file", json!({ "path": "a", "text": "x" })).await;
        assert_eq!(room.said("spawn", json!({ "count": 3 })).await, 3);
    }
    assert!(directory(&system, &tenant, &room.id).is_some());
    let began = other.said("whoami", json!({})).await["started"].clone();
    // A call that runs ends with it.
    let sleeping = room.call("files", "sleep", json!({ "ms": 20_000 }));
    let ending = async {
        held(&system, &room.id).await;
        room.end().await;
    };
    let (cut, ()) = tokio::join!(sleeping, ending);
    cut.problem(502, "outcome_unknown");
    until("the directory's end", async || directory(&system, &tenant, &room.id).is_none()).await;
    let refused = room.call("files", "read_file", json!({ "path": "a" })).await.problem(409, "conflict");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("ended")), "{refused}");
    assert!(directory(&system, &tenant, &room.id).is_none(), "nothing brings it back");
    // The other one goes on as it was.
    assert_eq!(other.said("whoami", json!({})).await["started"], began);
    assert_eq!(other.said("read_file", json!({ "path": "a" })).await, "x");
}

pub(crate) async fn a_session_is_its_members_alone_and_only_while_it_lasts(system: Arc<System>) {
    let (acme, globex) = (tenant(&system).await, tenant(&system).await);
    let room = Room::open(&acme.user).await;
    let colleague = system.client(&system.token(acme.id, &format!("colleague-of-{}", acme.id), Role::User));
    for client in [&acme.admin, &globex.user, &globex.admin, &colleague] {
        for configuration in ["files", "demo"] {
            let stranger = Room { client: client.clone(), ..room.clone() };
            stranger.call(configuration, "echo", json!({ "text": "x" })).await.problem(404, "unknown");
        }
    }
    let nobodys = Room { id: uuid::Uuid::new_v4().to_string(), ..room.clone() };
    nobodys.call("demo", "echo", json!({ "text": "x" })).await.problem(404, "unknown");
    for wrong in [json!(""), json!("x"), json!(1), json!({}), json!(format!("{}/..", room.id))] {
        let body = json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "x" }, "session": wrong });
        let problem = acme.user.post(CALLS, &body).await.problem(400, "invalid");
        assert_eq!(problem["field"], "session", "{problem}");
    }
    // A native server needs no files, and none are told of.
    let called = room.call("demo", "echo", json!({ "text": "x" })).await;
    assert_eq!((called.status.as_u16(), called.json().get("files")), (200, None), "{}", called.text);

    let short = Room::open_with(&acme.user, json!({ "idle_seconds": 1 })).await;
    until("the session's time is over", async || {
        short.client.get(&format!("{SESSIONS}/{}", short.id)).await.json()["state"] == "expired"
    })
    .await;
    let refused = short.call("demo", "echo", json!({ "text": "x" })).await.problem(409, "conflict");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("expired")), "{refused}");
}

pub(crate) async fn a_session_that_is_called_in_does_not_become_idle(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open_with(&tenant.user, json!({ "idle_seconds": 4 })).await;
    let began = std::time::Instant::now();
    // Longer than it may stand unused.
    while began.elapsed() < Duration::from_secs(7) {
        let called = room.call("demo", "sleep", json!({ "ms": 400 })).await;
        assert_eq!(called.status, 200, "{}", called.text);
    }
}

pub(crate) async fn a_call_longer_than_the_idle_time_keeps_its_session_in_use(system: Arc<System>) {
    let tenant = tenant(&system).await;
    for configuration in ["demo", "files"] {
        let room = Room::open_with(&tenant.user, json!({ "idle_seconds": 2 })).await;
        let called = room.call(configuration, "sleep", json!({ "ms": 5_000 })).await;
        assert_eq!(called.status, 200, "{configuration}: {}", called.text);
        let shown = room.client.get(&format!("{SESSIONS}/{}", room.id)).await.json();
        assert_eq!(shown["state"], "active", "{configuration}: {shown}");
    }
}

pub(crate) async fn a_call_that_writes_a_thousand_files_keeps_all_of_them(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    let called = room.call_within("files", "write_many", json!({ "count": 1_000 }), 28_000).await;
    assert_eq!(told(&called), (json!("written"), json!({ "written": 1_000, "removed": 0, "skipped": [] })));
    let count = system.eventually(
        "the files",
        "SELECT to_jsonb(count(*)) FROM session_files WHERE session_id = $1::uuid AND state = 'file'",
        &room.id,
    );
    assert_eq!(count.await, 1_000);
}

pub(crate) async fn what_changes_by_http_during_a_call_stays_beside_what_the_call_writes(system: Arc<System>) {
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    room.put("mine", "x").await;
    room.said("echo", json!({ "text": "started" })).await;
    let writing = room.asked("write_then_sleep", json!({ "path": "a", "ms": 3_000 }));
    let meanwhile = async {
        held(&system, &room.id).await;
        for (path, content) in [("mine", "changed"), ("b", "by http"), ("a", "overtaken")] {
            room.put(path, content).await;
        }
    };
    let ((said, files), ()) = tokio::join!(writing, meanwhile);
    assert_eq!((said, &files["written"]), (json!("written"), &json!(1)));
    assert_eq!(room.files().await, ["a", "b", "mine"]);
    for (path, content) in [("a", "whole"), ("b", "by http"), ("mine", "changed")] {
        assert_eq!(room.read(path).await, content);
        assert_eq!(room.said("read_file", json!({ "path": path })).await, content);
    }
}

pub(crate) async fn sessions_share_no_client_and_take_theirs_along(system: Arc<System>) {
    let tenant = tenant(&system).await;
    for via in BOTH {
        let path = format!("/record/legacy/in-sessions-{via}-{}", tenant.id);
        tenant.register(via, &system.faulty.url(&path), json!({ "via": via })).await;
        let rooms = [Room::open(&tenant.user).await, Room::open(&tenant.user).await];
        for _ in 0..3 {
            assert_eq!(tenant.call(via, TOOL, json!({ "text": "outside" })).await.status, 200);
            for room in &rooms {
                let called = room.call(via, TOOL, json!({ "text": room.id })).await;
                assert_eq!(called.status, 200, "{}", called.text);
            }
        }
        let recorded = system.faulty.recorded(&path);
        let calls: Vec<_> = recorded.iter().filter(|asked| asked.method() == "tools/call").collect();
        let clients_of = |text: &str| -> std::collections::HashSet<&str> {
            let own = calls.iter().filter(|asked| asked.body["params"]["arguments"]["text"] == text);
            own.map(|asked| asked.header("mcp-session-id")).collect()
        };
        let clients = [clients_of("outside"), clients_of(&rooms[0].id), clients_of(&rooms[1].id)];
        assert!(clients.iter().all(|own| own.len() == 1), "{via}: {clients:?}");
        assert_eq!(clients.iter().flatten().collect::<std::collections::HashSet<_>>().len(), 3, "{via}: {clients:?}");
        let its = clients[1].iter().next().expect("a client").to_string();
        rooms[0].end().await;
        until("the end of the session's client on the server", async || {
            let asked = system.faulty.recorded(&path);
            asked.iter().any(|asked| asked.http == "DELETE" && asked.header("mcp-session-id") == its)
        })
        .await;
        assert_eq!(rooms[1].call(via, TOOL, json!({ "text": "x" })).await.status, 200);
    }
}
