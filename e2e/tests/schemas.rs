//! The official JSON Schemas of the Model Context Protocol. They are not ours to ship: where the
//! folder beside the repository is missing, the tests that need it are reported as ignored.

use std::path::{Path, PathBuf};

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

/// Revisions that are spoken to servers.
pub(crate) const MODERN: &str = "2026-07-28";
/// The newest of the handshake era.
pub(crate) const LEGACY: &str = "2025-11-25";

/// `SWITCHBOARD_SCHEMAS`, or `shared/schemas/mcp` beside the repository.
fn folder() -> PathBuf {
    std::env::var_os("SWITCHBOARD_SCHEMAS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/schemas/mcp"), PathBuf::from)
}

/// True when the tests that need them can run. A folder that was named must be there: then it is
/// the tests' business to fail.
pub(crate) fn are_here() -> bool {
    std::env::var_os("SWITCHBOARD_SCHEMAS").is_some() || folder().is_dir()
}

/// One definition of one revision.
#[derive(Debug)]
pub(crate) struct Schema {
    name: String,
    validator: Validator,
}

impl Schema {
    /// Compiles `$defs/<name>` of a revision.
    pub(crate) fn of(revision: &str, name: &str) -> Self {
        let path = folder().join(format!("{revision}.json"));
        let text = std::fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
        let whole: Value = serde_json::from_slice(&text).expect("a schema");
        assert!(whole["$defs"][name].is_object(), "{revision} defines no {name}");
        let schema = json!({ "$schema": whole["$schema"], "$defs": whole["$defs"], "$ref": format!("#/$defs/{name}") });
        let validator = jsonschema::options().with_draft(Draft::Draft202012).build(&schema).expect("it compiles");
        Self { name: format!("{name} of {revision}"), validator }
    }

    /// Fails with every way in which the value breaks the schema.
    #[track_caller]
    pub(crate) fn check(&self, value: &Value) {
        let errors: Vec<String> =
            self.validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "no {}: {errors:#?}\n{value:#}", self.name);
    }

    /// True when it holds.
    pub(crate) fn admits(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }
}
