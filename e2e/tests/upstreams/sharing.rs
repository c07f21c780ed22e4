//! What is kept open between calls, and between whom it is not shared.

use std::{collections::HashSet, sync::Arc};

use serde_json::json;

use super::BOTH;
use crate::{faulty::TOOL, servers::stats, world::System};

pub(crate) async fn fifty_calls_in_a_row_open_at_most_two_connections(system: Arc<System>) {
    let tenant = system.organization().await;
    let endpoint = &system.servers.counted_url;
    for via in BOTH {
        tenant.register(via, endpoint, json!({ "via": via })).await;
        let before = stats(&system.http, endpoint).await;
        for number in 0..50 {
            let answer = tenant.call(via, "add", json!({ "a": number, "b": 1 })).await;
            assert_eq!(answer.json()["result"]["structuredContent"]["sum"], number + 1, "{}", answer.text);
        }
        let after = stats(&system.http, endpoint).await;
        let grew = |what: fn(&serde_json::Value) -> &serde_json::Value| {
            what(&after).as_u64().unwrap_or(u64::MAX) - what(&before).as_u64().unwrap_or_default()
        };
        assert_eq!(grew(|stats| &stats["calls"]["add"]), 50, "{via}: a call was repeated or lost");
        let connections = grew(|stats| &stats["connections"]);
        assert!(connections <= 2, "{via}: {connections} connections for 50 calls");
    }
}

pub(crate) async fn two_organizations_never_share_a_session_of_a_server(system: Arc<System>) {
    let (one, other) = (system.organization().await, system.organization().await);
    for via in BOTH {
        let path = format!("/record/legacy/sessions-{via}-{}", one.id);
        for tenant in [&one, &other] {
            tenant.register(via, &system.faulty.url(&path), json!({ "via": via })).await;
        }
        for round in 0..3 {
            for tenant in [&one, &other] {
                let text = tenant.id.to_string();
                let answer = tenant.call(via, TOOL, json!({ "text": text })).await;
                assert_eq!(answer.json()["result"]["content"][0]["text"], text, "{via} {round}: {}", answer.text);
            }
        }
        let calls: Vec<_> =
            system.faulty.recorded(&path).into_iter().filter(|asked| asked.method() == "tools/call").collect();
        let sessions_of = |id: uuid::Uuid| -> HashSet<String> {
            let id = id.to_string();
            let own = calls.iter().filter(|asked| asked.body["params"]["arguments"]["text"] == id.as_str());
            own.map(|asked| asked.header("mcp-session-id").to_owned()).collect()
        };
        let (ours, theirs) = (sessions_of(one.id), sessions_of(other.id));
        assert_eq!((calls.len(), ours.len(), theirs.len()), (6, 1, 1), "{via}: {ours:?} {theirs:?}");
        assert!(ours.is_disjoint(&theirs) && !ours.contains(""), "{via}: {ours:?} {theirs:?}");
    }
}

pub(crate) async fn a_removed_configuration_ends_its_session_on_the_server(system: Arc<System>) {
    let tenant = system.organization().await;
    let path = format!("/record/legacy/removed-{}", tenant.id);
    let id = tenant.register("going", &system.faulty.url(&path), json!({})).await;
    assert_eq!(tenant.call("going", TOOL, json!({ "text": "x" })).await.status, 200);
    assert_eq!(tenant.admin.delete(&format!("/api/v1/mcp/configurations/{id}")).await.status, 204);
    tenant.call("going", TOOL, json!({ "text": "x" })).await.problem(404, "unknown");
    let goodbye = async {
        while !system.faulty.recorded(&path).iter().any(|asked| asked.http == "DELETE") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, goodbye).await.expect("the session stays open on the server");
}
