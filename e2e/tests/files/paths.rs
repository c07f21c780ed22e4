//! Paths that mean something else to somebody: sent as raw bytes, since a client library would tidy them
//! up. Each is refused by name, or is a plain name and nothing else.

use super::{Shared, Workspace};
use crate::bad_wire::{Wire, exchange, head};

/// As the sender spells it after `/files/`, and a word of the rule that it breaks.
const REFUSED: [(&str, &str); 50] = [
    ("..", "`..`"),
    ("../secret", "`..`"),
    ("a/../../secret", "`..`"),
    ("a/..", "`..`"),
    (".", "`..`"),
    ("a/./b", "`..`"),
    ("%2e%2e", "`..`"),
    ("%2e%2e/secret", "`..`"),
    ("%2E%2E%2Fsecret", "`..`"),
    (".%2e/secret", "`..`"),
    ("a/%2e%2e/%2e%2e/b", "`..`"),
    ("..%2f..%2fetc%2fpasswd", "`..`"),
    ("%EF%BC%8E%EF%BC%8E/secret", "`..`"),
    ("%E2%80%A4%E2%80%A4/secret", "`..`"),
    ("%E2%80%A5/secret", "`..`"),
    ("/etc/passwd", "slash"),
    ("%2Fetc%2Fpasswd", "slash"),
    ("//etc/passwd", "slash"),
    ("a//b", "empty"),
    ("a%2F%2Fb", "empty"),
    ("a/", "empty"),
    ("a%2F", "empty"),
    ("..%5C..%5Csecret", "backslash"),
    ("a%5Cb", "backslash"),
    ("a%EF%BC%8Fb", "looks like"),
    ("a%EF%BC%BCb", "looks like"),
    ("a%E2%88%95b", "looks like"),
    ("a%E2%81%84b", "looks like"),
    ("a%00b", "control"),
    ("%00", "control"),
    ("a%0Ab", "control"),
    ("a%0D%0Ab", "control"),
    ("a%7Fb", "control"),
    ("a%C2%85b", "control"),
    ("a%E2%80%AEgpj.exe", "bidirectional"),
    ("a%E2%81%A6b", "bidirectional"),
    ("a%E2%80%8Bb", "invisible"),
    ("%EF%BB%BFa", "invisible"),
    ("a%F3%A0%81%81", "invisible"),
    ("u%CC%88", "normalization"),
    ("%E2%84%AB", "normalization"),
    ("%C0%AE%C0%AE/secret", "UTF-8"),
    ("%E0%80%AE", "UTF-8"),
    ("%C0%AF", "UTF-8"),
    ("%FF", "UTF-8"),
    ("%ED%A0%80", "UTF-8"),
    ("a%", "percent"),
    ("a%2", "percent"),
    ("a%zz", "percent"),
    ("%u002e%u002e/secret", "percent"),
];

/// What looks like an attack and is a name: where it goes, and as what it is listed.
const NAMES: [(&str, &str); 8] = [
    ("%252e%252e/x", "%2e%2e/x"),
    ("%252e%252e%252fx", "%2e%2e%2fx"),
    ("...", "..."),
    ("..a/.b", "..a/.b"),
    ("a%2Fb", "a/b"),
    ("c%20d;e=f,g", "c d;e=f,g"),
    ("%C3%BC/%E6%97%A5.txt", "ü/日.txt"),
    ("~/$HOME%60id%60", "~/$HOME`id`"),
];

async fn sent(system: &Shared, workspace: &Workspace, method: &str, path: &str) -> Wire {
    let line = format!("{method} {}/{path}", workspace.files());
    let body = if method == "PUT" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    exchange(system, head(&line, &workspace.client.token, body).as_bytes()).await
}

pub(crate) async fn a_hostile_path_is_refused_by_the_rule_that_it_breaks(system: Shared) {
    let tenant = system.organization().await;
    let (workspace, beside) = (Workspace::open(&tenant).await, Workspace::open(&tenant).await);
    beside.write("secret", b"of another session").await;
    let neighbour = format!("../{}/files/secret", beside.id());
    let encoded = format!("..%2f{}%2ffiles%2fsecret", beside.id());
    let long = "n".repeat(256);
    let longer = "d/".repeat(600);
    let deep = ["d"; 33].join("/");
    let more = [
        (neighbour.as_str(), "`..`"),
        (&encoded, "`..`"),
        (&long, "255 bytes"),
        (&longer, "1,024 bytes"),
        (&deep, "32 names"),
    ];
    for (path, rule) in REFUSED.into_iter().chain(more) {
        for method in ["PUT", "GET", "DELETE"] {
            let answer = sent(&system, &workspace, method, path).await;
            assert_eq!(answer.status(), 400, "{method} {path}: {answer:?}");
            assert!(answer.body.contains("\"field\":\"path\""), "{method} {path}: {answer:?}");
            assert!(answer.body.contains(rule), "{method} {path} should say `{rule}`: {answer:?}");
        }
    }
    assert!(workspace.paths("").await.is_empty());
    assert_eq!(beside.paths("").await, ["secret"]);
    assert_eq!(beside.read("secret").await, b"of another session");
}

pub(crate) async fn what_only_looks_like_an_attack_is_a_name_and_is_decoded_once(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    for (path, _) in NAMES {
        let answer = sent(&system, &workspace, "PUT", path).await;
        assert_eq!(answer.status(), 201, "{path}: {answer:?}");
        assert!(sent(&system, &workspace, "GET", path).await.body == "body", "{path}");
    }
    let mut expected = NAMES.map(|(_, name)| name.to_owned());
    expected.sort();
    assert_eq!(workspace.paths("limit=3").await, expected);
    // The longest and the deepest that there may be.
    let longest = [["n"; 255].concat(), ["m"; 255].concat(), ["o"; 255].concat(), ["p"; 256 - 1].concat()].join("/");
    let deepest = ["d"; 32].join("/");
    for path in [&longest, &deepest] {
        assert_eq!(sent(&system, &workspace, "PUT", path).await.status(), 201);
        assert!(sent(&system, &workspace, "GET", path).await.body == "body");
    }
    assert_eq!(workspace.paths("limit=1").await.len(), NAMES.len() + 2, "pages end at long paths too");
}

pub(crate) async fn a_file_is_not_where_a_directory_is(system: Shared) {
    let workspace = Workspace::open(&system.organization().await).await;
    workspace.write("a/b/c", b"1").await;
    workspace.write("a/b0", b"beside").await;
    for path in ["a", "a/b"] {
        workspace.put(path, "2").await.problem(409, "conflict");
    }
    for path in ["a/b/c/d", "a/b/c/d/e"] {
        let refused = workspace.put(path, "2").await.problem(409, "conflict");
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("`a/b/c` is a file")), "{refused}");
    }
    // Directories are nothing of their own: once their last file is gone, so are they.
    assert_eq!(workspace.delete("a/b/c").await.status, 204);
    workspace.write("a/b", b"3").await;
    workspace.put("a/b/c", "4").await.problem(409, "conflict");
    workspace.client.get(&workspace.at("a")).await.problem(404, "unknown");
    assert_eq!(workspace.paths("").await, ["a/b", "a/b0"]);
}
