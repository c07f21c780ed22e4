//! Workers and the host of programs that are killed while sessions have files: the files are elsewhere,
//! so the session goes on with them wherever there is a worker and a host.

use std::sync::Arc;

use serde_json::json;
use stack::Options;

use super::{Room, directory, held, tenant, told};
use crate::world::System;

/// What one of these kills, the other one needs.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Two workers of each pool.
pub(crate) fn two_workers(options: &mut Options) {
    options.workers_per_pool = 2;
}

pub(crate) async fn a_session_goes_on_with_its_files_when_worker_and_host_are_killed(system: Arc<System>) {
    let _turn = TURN.lock().await;
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    room.put("by-http", "put").await;
    room.said("write_file", json!({ "path": "by/the/program", "text": "written" })).await;
    let before = directory(&system, &tenant, &room.id).expect("it is materialised");
    let stack = system.stack().await;
    for round in 0..2 {
        // Everything that has seen the files: a worker, and the host with its directories.
        stack.kill("tool-1").await.expect("it ran");
        stack.kill("fastmcp-stdio").await.expect("it ran");
        stack.restart("fastmcp-stdio").await.expect("it starts");
        assert!(!before.join("by-http").exists(), "a host begins with nothing");
        assert_eq!(room.said("read_file", json!({ "path": "by-http" })).await, "put");
        assert_eq!(room.said("read_file", json!({ "path": "by/the/program" })).await, "written");
        let name = format!("round-{round}");
        room.said("write_file", json!({ "path": name, "text": "x" })).await;
        assert_eq!(room.read(&name).await, "x");
        stack.restart("tool-1").await.expect("it starts");
    }
    assert_eq!(room.files().await, ["by-http", "by/the/program", "round-0", "round-1"]);
}

pub(crate) async fn a_call_whose_worker_is_killed_leaves_the_workspace_to_others(system: Arc<System>) {
    let _turn = TURN.lock().await;
    let tenant = tenant(&system).await;
    let room = Room::open(&tenant.user).await;
    room.said("write_file", json!({ "path": "a", "text": "kept" })).await;
    // Not to be repeated: it says of itself that it writes.
    let overwriting = room.call_within("files", "write_then_sleep", json!({ "path": "a", "ms": 60_000 }), 60_000);
    let stack = system.stack().await;
    let accident = async {
        held(&system, &room.id).await;
        let changed = directory(&system, &tenant, &room.id).expect("it is materialised").join("a");
        super::until("what the call writes", async || std::fs::read(&changed).is_ok_and(|text| text == b"half")).await;
        for worker in ["tool-1", "tool-2"] {
            stack.kill(worker).await.expect("it ran");
        }
        stack.restart("tool-1").await.expect("it starts");
    };
    let (cut, ()) = tokio::join!(overwriting, accident);
    cut.problem(502, "outcome_unknown");
    // Nobody gave the workspace back; its lease runs out, and what was not collected does not stand.
    let read = room.call_within("files", "read_file", json!({ "path": "a" }), 30_000).await;
    assert_eq!(told(&read).0, "kept");
    assert_eq!(room.read("a").await, "kept");
    stack.restart("tool-2").await.expect("it starts");
}
