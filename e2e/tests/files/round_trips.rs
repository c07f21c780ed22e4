//! What is written is read, in every size that a file may have.

use reqwest::Method;
use serde_json::json;

use super::{PART, Shared, Workspace, content, settled, tag};

pub(crate) async fn files_of_every_size_come_back_byte_for_byte_under_their_tag(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    let sizes = [0, 1, 2, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 17, 16 * 1024 * 1024];
    let mut parts = 0;
    for (number, size) in sizes.into_iter().enumerate() {
        let bytes = content(number as u64, size);
        let path = format!("by-size/{size}.bin");
        let made = workspace.put(&path, bytes.clone()).await;
        assert_eq!(made.status, 201, "{size}: {}", made.text);
        let file = made.json();
        assert_eq!((&file["path"], &file["size_bytes"]), (&json!(path), &json!(size)));
        assert_eq!(format!("\"{}\"", file["sha256"].as_str().expect("a digest")), tag(&bytes));
        assert_eq!(made.headers["etag"], tag(&bytes));
        let got = workspace.get(&path).await;
        assert_eq!((got.status.as_u16(), got.header("etag")), (200, tag(&bytes).as_str()));
        assert_eq!(got.header("content-length"), size.to_string());
        assert!(got.bytes == bytes, "{size} bytes came back as {} others", got.bytes.len());
        parts += size.div_ceil(PART);
    }
    assert_eq!(settled(&system, tenant.id).await, parts);
    assert_eq!(workspace.bytes_in_use().await, i64::try_from(sizes.iter().sum::<usize>()).expect("a number"));
}

pub(crate) async fn a_body_without_a_length_is_kept_like_one_with_it(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    for size in [0, 5, PART, 2 * PART + 5] {
        let bytes = content(7, size);
        let chunks: Vec<Result<Vec<u8>, std::io::Error>> =
            bytes.chunks(10_007).map(|chunk| Ok(chunk.to_vec())).collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let made = workspace.put(&format!("chunked/{size}"), body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        assert_eq!(made.headers["etag"], tag(&bytes), "{size}");
        assert!(workspace.read(&format!("chunked/{size}")).await == bytes, "{size}");
    }
}

pub(crate) async fn a_file_is_handed_out_as_bytes_that_no_browser_shows(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    let page = b"<script>alert(document.domain)</script>";
    let request = workspace.writing("page.html", page.to_vec()).header("content-type", "text/html");
    assert_eq!(workspace.client.send(request).await.status, 201);
    for method in [Method::GET, Method::HEAD] {
        let got = workspace.got(workspace.client.request(method.clone(), &workspace.at("page.html"))).await;
        assert_eq!(got.status, 200);
        for (name, value) in [
            ("content-type", "application/octet-stream"),
            ("content-disposition", "attachment"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("cache-control", "private, no-cache"),
            ("content-length", "39"),
            ("etag", &tag(page)),
        ] {
            assert_eq!(got.header(name), value, "{method} {name}");
        }
        let expected: &[u8] = if method == Method::HEAD { b"" } else { page };
        assert_eq!(got.bytes, expected);
    }
    let missing = workspace.client.request(Method::HEAD, &workspace.at("nothing"));
    assert_eq!(workspace.got(missing).await.status, 404);
}

pub(crate) async fn what_is_written_over_is_another_content_and_the_old_one_goes(system: Shared) {
    let tenant = system.organization().await;
    let workspace = Workspace::open(&tenant).await;
    let version = async || workspace.row(&system).await["workspace_version"].as_i64().expect("a number");
    assert_eq!(version().await, 0);
    for (number, size) in [3 * PART, 10, 0, PART + 1].into_iter().enumerate() {
        let bytes = content(number as u64, size);
        let written = workspace.put("same/path", bytes.clone()).await;
        assert_eq!(written.status, if number == 0 { 201 } else { 200 }, "{}", written.text);
        assert!(workspace.read("same/path").await == bytes);
        assert_eq!(version().await, i64::try_from(number).expect("small") + 1);
        assert_eq!(workspace.bytes_in_use().await, i64::try_from(size).expect("small"));
        assert_eq!(settled(&system, tenant.id).await, size.div_ceil(PART));
    }
    assert_eq!(workspace.delete("same/path").await.status, 204);
    workspace.delete("same/path").await.problem(404, "unknown");
    workspace.client.get(&workspace.at("same/path")).await.problem(404, "unknown");
    assert_eq!((version().await, workspace.bytes_in_use().await), (5, 0));
    assert_eq!(settled(&system, tenant.id).await, 0);
}

pub(crate) async fn files_are_listed_by_path_in_pages_and_by_their_beginning(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    assert!(workspace.paths("limit=2").await.is_empty());
    // By bytes: capitals first, and a directory's files before what only begins like it... or after.
    let paths = ["B", "a-b", "a/x", "a/y/z", "a0", "ä", "%25", "100%25"];
    for path in paths {
        workspace.write(path, path.as_bytes()).await;
    }
    let mut expected = ["B", "a-b", "a/x", "a/y/z", "a0", "ä", "%", "100%"].map(str::to_owned);
    expected.sort();
    for limit in [1, 2, 3, 200] {
        assert_eq!(workspace.paths(&format!("limit={limit}")).await, expected, "{limit}");
    }
    for (prefix, found) in [("a", 4), ("a/", 2), ("a/y", 1), ("%C3%A4", 1), ("%25", 1), ("_", 0), ("A", 0)] {
        let listed = workspace.paths(&format!("limit=1&prefix={prefix}")).await;
        assert_eq!(listed.len(), found, "{prefix}: {listed:?}");
    }
    let long = "p".repeat(1_025);
    for query in ["prefix=", &format!("prefix={long}"), "prefix=%00", "cursor=", "limit=0", "path=a"] {
        let field = query.split('=').next().expect("a name");
        let refused = workspace.client.get(&format!("{}?{query}", workspace.files())).await;
        assert_eq!(refused.problem(400, "invalid")["field"], field, "{query}");
    }
    let listed = workspace.client.get(&format!("{}?prefix=a/x", workspace.files())).await.json();
    let item = &listed["items"][0];
    assert_eq!((&item["size_bytes"], &item["path"]), (&json!(3), &json!("a/x")));
    assert_eq!(format!("\"{}\"", item["sha256"].as_str().expect("a digest")), tag(b"a/x"));
    assert!(item["written_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{item}");
}
