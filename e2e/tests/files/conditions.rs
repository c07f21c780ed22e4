//! `If-Match` and `If-None-Match`: what does not hold changes nothing, and says so.

use futures::future::join_all;
use reqwest::Method;

use super::{PART, Shared, Workspace, content, settled, tag};

pub(crate) async fn a_file_that_is_known_is_not_sent_again(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    let bytes = content(1, PART + 1);
    workspace.write("known", &bytes).await;
    let ask = async |name: &str, value: &str| {
        let request = workspace.client.request(Method::GET, &workspace.at("known")).header(name, value);
        workspace.got(request).await
    };
    let own = tag(&bytes);
    for known in [own.clone(), "*".to_owned(), format!("W/{own}"), format!("\"other\", {own}")] {
        let got = ask("if-none-match", &known).await;
        assert_eq!((got.status.as_u16(), got.bytes.len()), (304, 0), "{known}");
        assert_eq!(got.header("etag"), own);
    }
    for unknown in ["\"other\"", &tag(b"other")] {
        assert!(ask("if-none-match", unknown).await.bytes == bytes, "{unknown}");
    }
    for right in [own.clone(), "*".to_owned()] {
        assert_eq!(ask("if-match", &right).await.status, 200, "{right}");
    }
    for wrong in [tag(b"other"), format!("W/{own}"), "\"1\"".to_owned()] {
        assert_eq!(ask("if-match", &wrong).await.status, 412, "{wrong}");
    }
    for name in ["If-Match", "If-None-Match"] {
        let request = workspace.client.request(Method::GET, &workspace.at("known")).header(name, "bare");
        assert_eq!(workspace.client.send(request).await.problem(400, "invalid")["field"], name);
    }
}

pub(crate) async fn a_condition_that_does_not_hold_changes_nothing(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    let (first, second) = (content(1, 3 * PART), content(2, 2 * PART));
    let put = async |path: &str, bytes: &[u8], name: &str, value: &str| {
        workspace.client.send(workspace.writing(path, bytes.to_vec()).header(name, value)).await
    };
    put("f", &first, "if-match", "*").await.problem(412, "stale");
    put("f", &first, "if-match", &tag(&first)).await.problem(412, "stale");
    assert_eq!(put("f", &first, "if-none-match", "*").await.status, 201);
    // Small and large ones are refused alike, and leave nothing.
    for bytes in [&second[..], b"small"] {
        put("f", bytes, "if-none-match", "*").await.problem(412, "stale");
        put("f", bytes, "if-none-match", &tag(&first)).await.problem(412, "stale");
        put("f", bytes, "if-match", &tag(bytes)).await.problem(412, "stale");
    }
    assert!(workspace.read("f").await == first);
    assert_eq!(workspace.bytes_in_use().await, 3 * i64::try_from(PART).expect("small"));
    assert_eq!(put("f", &second, "if-match", &tag(&first)).await.status, 200);
    assert!(workspace.read("f").await == second);
    let delete = async |value: &str| {
        let request = workspace.client.request(Method::DELETE, &workspace.at("f")).header("if-match", value);
        workspace.client.send(request).await
    };
    delete(&tag(&first)).await.problem(412, "stale");
    assert_eq!(delete(&tag(&second)).await.status, 204);
    delete(&tag(&second)).await.problem(404, "unknown");
    assert_eq!((settled(&system, tenant.id).await, workspace.bytes_in_use().await), (0, 0));
}

pub(crate) async fn of_many_who_write_one_path_at_once_one_wins_whole(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    // Larger and smaller than a part, so that both roads meet.
    let contents: Vec<Vec<u8>> = (0..6).map(|n| content(n, if n % 2 == 0 { 2 * PART + 1 } else { 100 })).collect();
    let writes = contents.iter().map(|bytes| workspace.put("contended", bytes.clone()));
    for written in join_all(writes).await {
        assert!(
            [200, 201].contains(&written.status.as_u16()),
            "without a condition the last one wins: {}",
            written.text
        );
    }
    let last = workspace.read("contended").await;
    assert!(contents.contains(&last), "one of them, whole");
    let all_over_the_same = contents.iter().enumerate().map(|(n, _)| {
        let bytes = content(100 + n as u64, if n % 2 == 0 { PART + 1 } else { 50 });
        let request = workspace.writing("contended", bytes).header("if-match", tag(&last));
        workspace.client.send(request)
    });
    let statuses: Vec<u16> = join_all(all_over_the_same).await.iter().map(|written| written.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), contents.len() - 1, "{statuses:?}");
    let last = workspace.read("contended").await;
    assert_eq!(settled(&system, tenant.id).await, last.len().div_ceil(PART));
    assert_eq!(workspace.bytes_in_use().await, i64::try_from(last.len()).expect("small"));
}

pub(crate) async fn whoever_reads_while_others_write_gets_one_content_or_sees_that_it_is_not_whole(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    let contents: Vec<Vec<u8>> = (0..8).map(|n| content(n, 4 * PART)).collect();
    workspace.write("moving", &contents[0]).await;
    let reads = async {
        let (mut whole, mut cut) = (0, 0);
        while whole < 5 {
            let request = workspace.client.request(Method::GET, &workspace.at("moving"));
            let response = request.send().await.expect("the gateway answers");
            assert_eq!(response.status(), 200, "there is a file at every moment");
            let own = response.headers()["etag"].to_str().expect("a tag").to_owned();
            match response.bytes().await {
                Ok(bytes) => {
                    assert!(contents.iter().any(|content| *content == bytes), "a mixture");
                    assert_eq!(tag(&bytes), own);
                    whole += 1;
                }
                Err(_) => cut += 1,
            }
            if cut > 200 {
                break;
            }
        }
        whole
    };
    let writes = async {
        for bytes in contents.iter().skip(1) {
            workspace.write("moving", bytes).await;
        }
    };
    let (whole, ()) = tokio::join!(reads, writes);
    assert!(whole > 0, "nothing was ever read");
}
