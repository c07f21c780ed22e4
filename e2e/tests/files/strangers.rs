//! Files are their member's alone: for everybody else the session does not exist, by any path.

use reqwest::Method;
use serde_json::json;
use stack::issuer::Role;
use uuid::Uuid;

use super::{Shared, Workspace, settled};
use crate::{
    sessions,
    world::{Answer, Client},
};

/// Everything that can be asked of files, as somebody.
async fn everything(client: &Client, files: &str) -> Vec<Answer> {
    let mut answers = vec![client.get(files).await, client.get(&format!("{files}?prefix=s&limit=1")).await];
    for path in ["secret", "nothing"] {
        let one = format!("{files}/{path}");
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request = client.request(method.clone(), &one);
            let request = if method == Method::PUT { request.body("theirs") } else { request };
            answers.push(client.send(request).await);
        }
        let large = vec![7; 3 * super::PART];
        answers.push(client.send(client.request(Method::PUT, &one).body(large)).await);
    }
    answers
}

pub(crate) async fn nobody_else_reaches_a_members_files(system: Shared) {
    let (tenant, other) = (system.organization().await, system.organization().await);
    let workspace = Workspace::open(&tenant).await;
    workspace.write("secret", b"mine").await;
    let colleague = system.client(&system.token(tenant.id, &format!("colleague-{}", tenant.id.simple()), Role::User));
    let nowhere = format!("{}/{}/files", sessions::SESSIONS, Uuid::now_v7());
    for stranger in [&colleague, &tenant.admin, &other.admin, &other.user] {
        let asked = everything(stranger, &workspace.files()).await;
        let missing = everything(stranger, &nowhere).await;
        for (asked, missing) in asked.iter().zip(&missing) {
            let (mut asked, mut missing) = (asked.problem(404, "unknown"), missing.problem(404, "unknown"));
            for problem in [&mut asked, &mut missing] {
                problem.as_object_mut().expect("an object").remove("instance");
            }
            assert_eq!(asked, missing, "another's and a missing session are told apart");
        }
    }
    // An admin sees that there is a session, and may end it; nothing of its files but their size.
    let seen = tenant.admin.get(&sessions::item(&workspace.session)).await;
    assert_eq!((seen.status.as_u16(), &seen.json()["files"]["bytes"]), (200, &json!(4)));
    assert_eq!(workspace.read("secret").await, b"mine");
    assert_eq!(workspace.paths("").await, ["secret"]);
    assert_eq!((settled(&system, tenant.id).await, settled(&system, other.id).await), (1, 0));
}

pub(crate) async fn a_members_sessions_have_each_their_own_files(system: Shared) {
    let tenant = system.organization().await;
    let (one, two) = (Workspace::open(&tenant).await, Workspace::open(&tenant).await);
    one.write("same", b"of the first").await;
    two.write("same", b"of the second").await;
    assert_eq!(one.read("same").await, b"of the first");
    assert_eq!(two.delete("same").await.status, 204);
    two.client.get(&two.at("same")).await.problem(404, "unknown");
    assert_eq!(one.read("same").await, b"of the first");
}

pub(crate) async fn a_session_that_is_over_gives_and_takes_nothing(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    workspace.write("secret", b"mine").await;
    assert_eq!(tenant.user.delete(&sessions::item(&workspace.session)).await.status, 204);
    for answer in everything(&workspace.client, &workspace.files()).await {
        answer.problem(409, "conflict");
    }
    // Past its time, swept or not.
    let short = Workspace::of(&tenant.user, tenant.id).await;
    short.write("secret", b"mine").await;
    let database = system.database("superuser").await;
    sqlx::query("UPDATE sessions SET touched_at = now() - make_interval(secs => idle_seconds + 1) WHERE id = $1")
        .bind(short.id().parse::<Uuid>().expect("a uuid"))
        .execute(&database)
        .await
        .expect("the statement runs");
    database.close().await;
    for answer in everything(&short.client, &short.files()).await {
        answer.problem(409, "conflict");
    }
}

pub(crate) async fn using_files_keeps_a_session_alive(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    workspace.write("f", b"1").await;
    let database = system.database("superuser").await;
    let aged = async || {
        sqlx::query("UPDATE sessions SET touched_at = now() - interval '100 seconds' WHERE id = $1")
            .bind(workspace.id().parse::<Uuid>().expect("a uuid"))
            .execute(&database)
            .await
            .expect("the statement runs");
    };
    let is_fresh = async || {
        let fresh: bool =
            sqlx::query_scalar("SELECT touched_at > now() - interval '50 seconds' FROM sessions WHERE id = $1")
                .bind(workspace.id().parse::<Uuid>().expect("a uuid"))
                .fetch_one(&database)
                .await
                .expect("the session");
        fresh
    };
    aged().await;
    assert!(!is_fresh().await);
    for (number, act) in ["list", "get", "put", "large", "delete"].into_iter().enumerate() {
        aged().await;
        let status = match act {
            "list" => workspace.client.get(&workspace.files()).await.status,
            "get" => workspace.get("f").await.status,
            "put" => workspace.put("f", number.to_string()).await.status,
            "large" => workspace.put("large", vec![1; super::PART + 1]).await.status,
            _ => workspace.delete("f").await.status,
        };
        assert!(status.is_success(), "{act}: {status}");
        assert!(is_fresh().await, "{act} is a use");
    }
    database.close().await;
}
