//! What a file and a session may take. Each refusal says which limit it was, and leaves nothing.

use futures::future::join_all;
use uuid::Uuid;

use super::{PART, Shared, Workspace, content, settled};
use crate::bad_wire::{exchange, head};

const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Changes a session as an operator would by hand.
async fn with_quota(system: &Shared, workspace: &Workspace, bytes: usize) {
    let database = system.database("superuser").await;
    sqlx::query("UPDATE sessions SET files_quota_bytes = $2 WHERE id = $1")
        .bind(workspace.id().parse::<Uuid>().expect("a uuid"))
        .bind(i64::try_from(bytes).expect("a number"))
        .execute(&database)
        .await
        .expect("the statement runs");
    database.close().await;
}

pub(crate) async fn a_file_over_sixteen_mebibytes_is_refused_with_and_without_a_length(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    let line = format!("PUT {}", workspace.at("huge"));
    let is_told = |answer: &crate::bad_wire::Wire| {
        assert_eq!(answer.status(), 413, "{answer:?}");
        assert!(answer.body.contains("\"code\":\"too_large\"") && answer.body.contains("16 MiB"), "{answer:?}");
    };
    // Announced: answered before a byte of it is read.
    let announced = head(&line, &workspace.client.token, &format!("Content-Length: {}\r\n\r\n", MAX_BYTES + 1));
    is_told(&exchange(&system, announced.as_bytes()).await);
    // In chunks: as soon as there is one byte too many.
    let mut bytes = head(&line, &workspace.client.token, "Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let chunk = content(3, PART);
    for _ in 0..=MAX_BYTES / PART {
        bytes.extend(format!("{PART:x}\r\n").as_bytes());
        bytes.extend(&chunk);
        bytes.extend(b"\r\n");
    }
    is_told(&exchange(&system, &bytes).await);
    assert!(workspace.paths("").await.is_empty());
    assert_eq!(settled(&system, tenant.id).await, 0);
    assert_eq!(workspace.bytes_in_use().await, 0, "the room of what was read is given back at once");
}

pub(crate) async fn a_session_that_is_full_says_so_and_has_room_again_once_something_goes(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    with_quota(&system, &workspace, 4 * PART).await;
    workspace.write("two", &content(1, 2 * PART)).await;
    workspace.write("one", &content(2, PART)).await;
    // At its beginning, in its middle, and in one piece.
    for size in [PART + 1, 2 * PART, 3 * PART] {
        let refused = workspace.put("more", content(3, size)).await.problem(429, "throttled");
        let quota = (4 * PART).to_string();
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains(&quota)), "{refused}");
    }
    workspace.write("more", &content(3, PART)).await;
    workspace.put("byte", "1").await.problem(429, "throttled");
    workspace.write("nothing", b"").await;
    // What is replaced counts until it is: there is no room for both.
    workspace.put("one", content(4, PART)).await.problem(429, "throttled");
    assert_eq!(workspace.delete("two").await.status, 204);
    workspace.write("one", &content(4, PART)).await;
    assert_eq!(settled(&system, tenant.id).await, 2);
    assert_eq!(workspace.bytes_in_use().await, i64::try_from(2 * PART).expect("small"));
    // Many at once: what is taken is never more than there is.
    let writes = (0..8).map(|n| workspace.put_owned(format!("many/{n}"), content(n, PART + 7)));
    let statuses: Vec<u16> = join_all(writes).await.iter().map(|written| written.status.as_u16()).collect();
    assert!(statuses.iter().all(|status| [201, 429].contains(status)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 201).count() <= 1, "{statuses:?}");
    assert!(workspace.bytes_in_use().await <= i64::try_from(4 * PART).expect("small"));
}

impl Workspace {
    async fn put_owned(&self, path: String, bytes: Vec<u8>) -> crate::world::Answer {
        self.put(&path, bytes).await
    }
}

pub(crate) async fn a_session_has_room_for_so_many_files_and_no_more(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    workspace.write("first", b"1").await;
    let database = system.database("superuser").await;
    let filled = sqlx::query(
        "INSERT INTO session_files (organization_id, session_id, id, state, path, size_bytes, parts, sha256) \
         SELECT organization_id, id, gen_random_uuid(), 'file', 'many/' || n, 0, 0, sha256('') \
         FROM sessions, generate_series(1, 998) n WHERE id = $1",
    )
    .bind(workspace.id().parse::<Uuid>().expect("a uuid"))
    .execute(&database)
    .await
    .expect("the statement runs");
    assert_eq!(filled.rows_affected(), 998);
    database.close().await;
    workspace.write("last", b"1000").await;
    let refused = workspace.put("one-more", "1001").await.problem(429, "throttled");
    assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("1000 files")), "{refused}");
    // Over one that is there, and in place of one that went.
    workspace.write("last", b"again").await;
    assert_eq!(workspace.delete("many/17").await.status, 204);
    workspace.write("one-more", b"1000 again").await;
    assert_eq!(workspace.paths("limit=200").await.len(), 1_000);
}

pub(crate) async fn what_is_no_whole_file_as_it_is_is_refused(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    for (name, value) in [("Content-Encoding", "gzip"), ("Content-Range", "bytes 0-3/8")] {
        let request = workspace.writing("part", "body").header(name, value);
        assert_eq!(workspace.client.send(request).await.problem(400, "invalid")["field"], name);
    }
    assert!(workspace.paths("").await.is_empty());
}
