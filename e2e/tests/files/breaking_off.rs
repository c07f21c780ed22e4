//! Bodies that stop in their middle, on the way in and on the way out.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{PART, Shared, Workspace, content, settled, tag};
use crate::{
    bad_wire::{connect, head, read},
    world::PATIENCE,
};

pub(crate) async fn an_upload_that_breaks_off_changes_nothing_and_gives_its_room_back(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    workspace.write("f", b"as it was").await;
    let line = format!("PUT {}", workspace.at("f"));
    let half = content(1, 2 * PART + 100);
    // The connection goes; or only its sending side, before the announced end, within a part and within a chunk.
    for framing in ["announced", "chunked"] {
        for goes in [true, false] {
            let (from, mut to) = connect(&system).await;
            let more = match framing {
                "announced" => format!("Content-Length: {}\r\n\r\n", 4 * PART),
                _ => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", 4 * PART),
            };
            to.write_all(head(&line, &workspace.client.token, &more).as_bytes()).await.expect("it is read");
            to.write_all(&half).await.expect("it is read");
            // Some of it has been kept by then.
            until_in_use(&workspace, 9).await;
            if goes {
                drop((from, to));
            } else {
                to.shutdown().await.expect("it ends");
                let answer = read(from).await;
                assert!([0, 400].contains(&answer.status()), "{framing}: {answer:?}");
            }
            until_exactly(&workspace, 9).await;
            assert_eq!(workspace.read("f").await, b"as it was");
        }
    }
    assert_eq!(settled(&system, tenant.id).await, 1);
}

/// Waits until more than so many bytes are in use.
async fn until_in_use(workspace: &Workspace, bytes: i64) {
    let waiting = async {
        while workspace.bytes_in_use().await <= bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("some of it is kept");
}

async fn until_exactly(workspace: &Workspace, bytes: i64) {
    let waiting = async {
        while workspace.bytes_in_use().await != bytes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the room is given back");
}

pub(crate) async fn a_file_that_goes_while_it_is_read_is_cut_and_never_completed(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    // More than fits into the buffers between a gateway and a client that does not read.
    let bytes = content(1, 16 * 1024 * 1024);
    workspace.write("large", &bytes).await;
    let (mut from, mut to) = connect(&system).await;
    let line = format!("GET {}", workspace.at("large"));
    to.write_all(head(&line, &workspace.client.token, "\r\n").as_bytes()).await.expect("it is read");
    let mut first = vec![0; 4_096];
    from.read_exact(&mut first).await.expect("it begins");
    assert!(first.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&first));
    // Nobody reads on; the file is replaced, and its parts go.
    workspace.write("large", b"small now").await;
    assert_eq!(settled(&system, tenant.id).await, 1);
    let mut rest = Vec::new();
    // Cut off, whether the end is an orderly one or a reset.
    let _ = tokio::time::timeout(PATIENCE, from.read_to_end(&mut rest)).await.expect("the gateway closes");
    let head_bytes = first.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let received = [&first[head_bytes..], &rest[..]].concat();
    assert!(received.len() < bytes.len(), "all of it was in the buffers: this shows nothing");
    assert!(bytes.starts_with(&received), "what came is the content that was opened");
    assert_eq!(workspace.read("large").await, b"small now");
}

pub(crate) async fn a_part_that_is_not_what_its_row_says_is_not_handed_out_as_the_end(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    workspace.write("odd", &content(1, 2 * PART)).await;
    let database = system.database("superuser").await;
    let wrong = sqlx::query("UPDATE session_files SET sha256 = sha256('x') WHERE session_id = $1")
        .bind(workspace.id().parse::<Uuid>().expect("a uuid"))
        .execute(&database)
        .await
        .expect("the statement runs");
    assert_eq!(wrong.rows_affected(), 1);
    database.close().await;
    let request = workspace.client.request(reqwest::Method::GET, &workspace.at("odd"));
    let response = request.send().await.expect("the gateway answers");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["etag"], tag(b"x"));
    assert!(response.bytes().await.is_err(), "a body that is wrong was completed");
}
