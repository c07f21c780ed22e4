//! The house rules that a compiler does not check: which crate may know which,
//! who may import what, how long a file may be, where a context comes from.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// The longest file, tests apart.
const HARD_LIMIT_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of the product's crates: path from the root, text without its test modules.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for krate in ["shared", "gateway", "workers"] {
        for entry in WalkDir::new(root().join(krate).join("src")) {
            let entry = entry.expect("readable sources");
            let path = entry.path().strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
            if entry.path().extension() != Some("rs".as_ref()) || is_test {
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).expect("readable sources");
            let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
            sources.push((path, text));
        }
    }
    assert!(sources.len() > 30, "the sources were not found");
    sources
}

/// True when code (comments apart) names the crate as a path.
fn names(text: &str, krate: &str) -> bool {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        line.match_indices(&format!("{krate}::")).any(|(at, _)| {
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
        })
    })
}

pub(crate) fn crates_depend_one_way() {
    let forbidden = [
        ("shared", vec!["gateway", "workers", "stack"]),
        ("gateway", vec!["workers", "stack", "sqlx", "async-nats", "aes-gcm", "oauth2"]),
        ("workers", vec!["gateway", "stack", "sqlx", "async-nats"]),
    ];
    for (krate, forbidden) in forbidden {
        let manifest = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
        let dependencies =
            manifest.split("[dependencies]").nth(1).expect("dependencies").split("\n[").next().unwrap_or_default();
        for name in forbidden {
            assert!(
                !dependencies.lines().any(|line| line.starts_with(&format!("{name}."))),
                "{krate} depends on {name}"
            );
        }
    }
}

pub(crate) fn forbidden_imports_stand_nowhere() {
    type Allowed = fn(&str) -> bool;
    let rules: [(&str, Allowed); 9] = [
        ("async_nats", |path| path.starts_with("shared/src/bus")),
        ("sqlx", |path| path.starts_with("shared/src/db") || path == "shared/src/macros.rs"),
        ("poem", |path| path.starts_with("gateway/") || path == "workers/src/ops.rs"),
        ("oauth2", |path| path.starts_with("workers/")),
        ("aes_gcm", |path| path.starts_with("workers/")),
        ("reqwest", |path| path.starts_with("workers/") || path == "gateway/src/auth/jwks.rs"),
        // Whatever leads to an address of a tenant goes by the guard.
        ("hyper_rustls", |path| path == "workers/src/egress/sender.rs"),
        ("legacy", |path| path == "workers/src/egress/sender.rs"),
        ("crate::bus", |path| !path.starts_with("shared/src/db")),
    ];
    for (path, text) in sources() {
        for (krate, allowed) in rules {
            assert!(allowed(&path) || !names(&text, krate), "{path} names {krate}");
        }
        let in_bus = path.starts_with("shared/src/bus");
        assert!(!in_bus || !names(&text, "crate::db"), "{path}: bus and db do not know each other");
    }
}

pub(crate) fn no_file_is_longer_than_the_hard_limit() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= HARD_LIMIT_LINES, "{path} has {lines} lines");
    }
}

pub(crate) fn contexts_are_built_in_two_places_only() {
    let built: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| {
            path != "shared/src/context.rs" && text.contains("Context {\n") && text.contains("organization:")
        })
        .filter(|(_, text)| text.contains("= Context {") || text.contains("(Context {"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(built, ["shared/src/bus/envelope.rs", "gateway/src/access.rs"]);
}
