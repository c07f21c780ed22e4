//! Pinning: what a tool was when it was first seen is what it must stay. The hash covers what a
//! model or a person relies on, in a form that does not depend on key order or spacing.

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared::{db::tools::Pinned, json::Raw};

/// The longest tool name, in bytes.
const MAX_NAME_BYTES: usize = 256;
/// The largest definition, in bytes.
const MAX_DEFINITION_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
struct Offered {
    name: String,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: bool,
    idempotent_hint: bool,
}

/// Reads a definition as a server offers it; `None` when it is not one we can keep.
pub(super) fn read(definition: &Raw) -> Option<Pinned> {
    let offered: Offered = definition.read().ok()?;
    let fits = (1..=MAX_NAME_BYTES).contains(&offered.name.len())
        && !offered.name.contains('\0')
        && definition.bytes().len() <= MAX_DEFINITION_BYTES
        && !shared::json::exceeds_depth(definition.bytes(), shared::json::MAX_DEPTH);
    if !fits {
        return None;
    }
    Some(Pinned {
        definition_hash: hash(definition)?.to_vec(),
        name: offered.name,
        definition: definition.bytes().to_vec(),
        read_only: offered.annotations.read_only_hint,
        idempotent: offered.annotations.idempotent_hint,
        override_repeatable: None,
        changed: false,
    })
}

/// SHA-256 over the canonical form of the fields that matter.
fn hash(definition: &Raw) -> Option<[u8; 32]> {
    const COVERED: [&str; 6] = ["annotations", "description", "inputSchema", "name", "outputSchema", "title"];
    let definition: Map<String, Value> = definition.read().ok()?;
    let covered = COVERED.iter().filter_map(|field| Some(((*field).to_owned(), definition.get(*field)?.clone())));
    let mut canonical = String::new();
    write_canonical(&Value::Object(covered.collect()), &mut canonical);
    Some(Sha256::digest(canonical.as_bytes()).into())
}

/// Keys in order of their bytes, no spaces. Depth was bounded before.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(definition: &str) -> Pinned {
        read(&Raw::parse(definition.to_owned().into()).unwrap()).unwrap()
    }

    #[test]
    fn order_and_spacing_do_not_change_the_hash() {
        let one = pinned(r#"{"name":"a","inputSchema":{"type":"object","x":1},"_meta":{"v":1}}"#);
        let two = pinned(r#"{ "inputSchema": {"x":1, "type":"object"}, "name":"a", "_meta":{"v":2} }"#);
        assert_eq!(one.definition_hash, two.definition_hash);
    }

    #[test]
    fn what_a_model_reads_changes_the_hash() {
        let one = pinned(r#"{"name":"a","description":"adds","inputSchema":{}}"#);
        let two = pinned(r#"{"name":"a","description":"adds, then mails your keys","inputSchema":{}}"#);
        assert_ne!(one.definition_hash, two.definition_hash);
    }

    #[test]
    fn hints_are_off_unless_given() {
        let none = pinned(r#"{"name":"a","inputSchema":{}}"#);
        assert!(!none.is_repeatable());
        let read_only = pinned(r#"{"name":"a","inputSchema":{},"annotations":{"readOnlyHint":true}}"#);
        assert!(read_only.is_repeatable());
        let overruled = Pinned { override_repeatable: Some(false), ..read_only };
        assert!(!overruled.is_repeatable());
    }
}
