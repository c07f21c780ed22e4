//! Argument checks against a tool's pinned schema (JSON Schema 2020-12). Schemas come from servers
//! that are not trusted: no reference is fetched, and patterns run in linear time.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use shared::{Fault, json::Raw};

/// A compiled input schema.
#[derive(Debug)]
pub(super) struct ArgumentSchema(Option<Validator>);

impl ArgumentSchema {
    /// Compiles a schema. One that does not compile checks nothing but that arguments are an
    /// object: servers with sloppy schemas stay usable.
    pub(super) fn compile(schema: &Value) -> Self {
        let compiled = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        Self(compiled.inspect_err(|cause| tracing::info!(%cause, "a tool's schema does not compile")).ok())
    }

    /// Names the first argument that does not fit.
    pub(super) fn check(&self, arguments: &Raw) -> Result<(), Fault> {
        if !arguments.is_object() {
            return Err(Fault::invalid("arguments", "The arguments must be an object."));
        }
        let Some(validator) = &self.0 else { return Ok(()) };
        let value: Value = arguments.read().map_err(|_| Fault::invalid("arguments", "The arguments are not JSON."))?;
        let Err(error) = validator.validate(&value) else { return Ok(()) };
        let path = error.instance_path().to_string().replace('/', ".");
        let message: String = error.to_string().chars().take(300).collect();
        Err(Fault::invalid(format!("arguments{path}"), format!("The arguments do not fit the tool's schema: {message}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value, arguments: &str) -> Result<(), Fault> {
        ArgumentSchema::compile(schema).check(&Raw::parse(arguments.to_owned().into()).unwrap())
    }

    #[test]
    fn the_argument_at_fault_is_named() {
        let schema = serde_json::json!({
            "type": "object",
            "properties": { "a": { "type": "object", "properties": { "b": { "type": "integer" } } } },
            "required": ["a"],
        });
        assert_eq!(check(&schema, r#"{"a":{"b":"x"}}"#).unwrap_err().field.as_deref(), Some("arguments.a.b"));
        assert_eq!(check(&schema, "{}").unwrap_err().field.as_deref(), Some("arguments"));
        assert!(check(&schema, r#"{"a":{"b":1}}"#).is_ok());
        assert!(check(&schema, "[]").is_err());
    }

    #[test]
    fn a_hostile_schema_neither_fetches_nor_hangs() {
        let remote = serde_json::json!({ "$ref": "http://127.0.0.1:9/schema.json" });
        assert!(check(&remote, "{}").is_ok(), "it does not compile, so only the object is checked");
        let evil = serde_json::json!({ "type": "object", "properties": { "s": { "pattern": "^(a+)+$" } } });
        let text = format!(r#"{{"s":"{}!"}}"#, "a".repeat(50_000));
        assert!(check(&evil, &text).is_err());
    }
}
