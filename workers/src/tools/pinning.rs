//! Pinning: what a tool was when it was first seen is what it must stay. The hash covers what a
//! model or a person relies on, in a form that does not depend on key order or spacing.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};
use shared::{Fault, command::tools::Change, db::tools::Pinned, hex, json::Raw};

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
        changed_definition: None,
    })
}

/// How the offered definition differs from the pinned one, in the fields that the hash covers.
pub(super) fn difference(pinned: &Pinned, offered: &Pinned) -> Result<Change, Fault> {
    type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;
    fn fields(tool: &Pinned) -> Result<Fields<'_>, Fault> {
        serde_json::from_slice(&tool.definition).map_err(Fault::internal)
    }
    let canonical = |field: Option<&&RawValue>| {
        let mut text = String::new();
        let value = field.and_then(|field| serde_json::from_str(field.get()).ok());
        value.inspect(|value| write_canonical(value, &mut text)).map(|_| text)
    };
    let (mut before, mut after) = (fields(pinned)?, fields(offered)?);
    let differs: Vec<&str> =
        COVERED.into_iter().filter(|name| canonical(before.get(name)) != canonical(after.get(name))).collect();
    for fields in [&mut before, &mut after] {
        fields.retain(|name, _| differs.contains(name));
    }
    Ok(Change {
        name: offered.name.clone(),
        pinned: Raw::of(&before).map_err(Fault::internal)?,
        offered: Raw::of(&after).map_err(Fault::internal)?,
        offered_sha256: hex(&offered.definition_hash),
        differs: differs.into_iter().map(str::to_owned).collect(),
    })
}

/// The fields that matter.
const COVERED: [&str; 6] = ["annotations", "description", "inputSchema", "name", "outputSchema", "title"];

/// SHA-256 over their canonical form.
fn hash(definition: &Raw) -> Option<[u8; 32]> {
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
    fn a_difference_names_the_fields_and_shows_them_as_they_were_written() {
        let one = pinned(r#"{"name":"a","description":"adds","inputSchema":{"b":1,"a":2.50},"_meta":1}"#);
        let two = pinned(r#"{"name":"a","inputSchema":{"a":2.50, "b":1},"description":"mails","title":"T","_meta":2}"#);
        let change = difference(&one, &two).unwrap();
        assert_eq!(change.differs, ["description", "title"]);
        assert_eq!(change.pinned.bytes().as_ref(), br#"{"description":"adds"}"#);
        assert_eq!(change.offered.bytes().as_ref(), br#"{"description":"mails","title":"T"}"#);
        assert_eq!(change.offered_sha256, hex(&two.definition_hash));
        assert!(difference(&one, &one).unwrap().differs.is_empty());
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
