//! Argument checks against a tool's pinned schema (JSON Schema 2020-12). Schemas come from servers
//! that are not trusted: no reference is fetched, patterns run in linear time, and what a check may
//! cost is known before it starts, because nothing can stop it.

mod weight;

use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use shared::{Fault, json::Raw};
use tokio::sync::Semaphore;

use self::weight::Weight;
use super::unambiguous::Unambiguous;

/// The largest pattern once compiled, in bytes: searching costs its size times the text's length.
const MAX_PATTERN_BYTES: usize = 128 * 1024;
/// The largest arguments that are checked on the thread that serves everybody, in bytes.
const INLINE_BYTES: usize = 256 * 1024;
/// The most looks there: some 10 ms.
const INLINE_LOOKS: u64 = 100_000;
/// The most looks anywhere: some seconds. Beyond, the server is left to judge by itself.
const MAX_LOOKS: u64 = 20_000_000;
/// The most looks for which it is worked out what is wrong, which costs more than knowing that
/// something is.
const EXPLAINED_LOOKS: u64 = 10_000;
/// Searching so many bytes costs as much as one look at a value, times the schema's weight.
const SEARCHED_BYTES_PER_LOOK: usize = 4;

/// Heavy work at once in this process, so that it leaves room for everybody else's calls.
static HEAVY: Semaphore = Semaphore::const_new(2);

/// A compiled input schema. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ArgumentSchema(Option<Arc<Compiled>>);

#[derive(Debug)]
struct Compiled {
    validator: Validator,
    weight: Weight,
}

impl ArgumentSchema {
    /// Compiles a schema. One that does not compile, or could be expensive beyond bearing, checks
    /// nothing but that arguments are an object: servers with sloppy schemas stay usable.
    pub(super) fn compile(schema: &Value) -> Self {
        let Some(weight) = weight::weigh(schema) else {
            tracing::info!("a tool's schema is too heavy to be checked");
            return Self(None);
        };
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
            .build(schema)
            .inspect_err(|cause| tracing::info!(%cause, "a tool's schema does not compile"));
        Self(validator.ok().map(|validator| Arc::new(Compiled { validator, weight })))
    }

    /// Whether it checks anything beyond that arguments are an object.
    pub(super) const fn checks(&self) -> bool {
        self.0.is_some()
    }

    /// Names the first argument that does not fit.
    pub(super) async fn check(&self, arguments: &Raw) -> Result<(), Fault> {
        let bytes = arguments.bytes().len();
        // There are at most half as many values as bytes.
        if bytes <= INLINE_BYTES && self.looks(bytes / 2 + 1, bytes) <= INLINE_LOOKS {
            return self.judge(arguments);
        }
        let (schema, arguments) = (self.clone(), arguments.clone());
        heavily(move || schema.judge(&arguments)).await?
    }

    fn looks(&self, values: usize, bytes: usize) -> u64 {
        let Some(compiled) = &self.0 else { return 0 };
        let searched = if compiled.weight.searches { bytes / SEARCHED_BYTES_PER_LOOK } else { 0 };
        compiled.weight.looks.saturating_mul((values + searched) as u64)
    }

    fn judge(&self, arguments: &Raw) -> Result<(), Fault> {
        if !arguments.is_object() {
            return Err(Fault::invalid("arguments", "The arguments must be an object."));
        }
        let Unambiguous(value) = arguments.read().map_err(|_| {
            Fault::invalid("arguments", "The arguments are not JSON that every reader understands alike.")
        })?;
        let looks = self.looks(count(&value), arguments.bytes().len());
        let Some(Compiled { validator, .. }) = self.0.as_deref().filter(|_| looks <= MAX_LOOKS) else { return Ok(()) };
        if validator.is_valid(&value) {
            return Ok(());
        }
        if looks > EXPLAINED_LOOKS {
            return Err(Fault::invalid("arguments", "The arguments do not fit the tool's schema."));
        }
        let Err(error) = validator.validate(&value) else { return Ok(()) };
        let path = error.instance_path().to_string().replace('/', ".");
        let message: String = error.to_string().chars().take(300).collect();
        Err(Fault::invalid(
            format!("arguments{path}"),
            format!("The arguments do not fit the tool's schema: {message}"),
        ))
    }
}

/// Does work that takes a while where it holds up nobody.
pub(super) async fn heavily<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let place = HEAVY.acquire().await.map_err(Fault::internal)?;
    // The place is held until the work ends, even if the caller has left by then.
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    working.await.map_err(Fault::internal)
}

/// How many values there are, the outermost included.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    /// Longer than any check here takes, even in a debug build on a busy machine; what these
    /// schemas would cost unguarded is minutes and more.
    const BEARABLE: Duration = Duration::from_secs(20);

    async fn check(schema: &Value, arguments: &str) -> Result<(), Fault> {
        ArgumentSchema::compile(schema).check(&Raw::parse(arguments.to_owned().into()).unwrap()).await
    }

    #[tokio::test]
    async fn the_argument_at_fault_is_named() {
        let schema = json!({
            "type": "object",
            "properties": { "a": { "type": "object", "properties": { "b": { "type": "integer" } } } },
            "required": ["a"],
        });
        assert_eq!(check(&schema, r#"{"a":{"b":"x"}}"#).await.unwrap_err().field.as_deref(), Some("arguments.a.b"));
        assert_eq!(check(&schema, "{}").await.unwrap_err().field.as_deref(), Some("arguments"));
        assert!(check(&schema, r#"{"a":{"b":1}}"#).await.is_ok());
        assert!(check(&schema, "[]").await.is_err());
    }

    #[tokio::test]
    async fn a_hostile_schema_neither_fetches_nor_hangs() {
        let remote = json!({ "$ref": "http://127.0.0.1:9/schema.json" });
        assert!(check(&remote, "{}").await.is_ok(), "it does not compile, so only the object is checked");
        let evil = json!({ "type": "object", "properties": { "s": { "pattern": "^(a+)+$" } } });
        let text = format!(r#"{{"s":"{}!"}}"#, "a".repeat(50_000));
        assert!(check(&evil, &text).await.is_err());
        let huge = json!({ "properties": { "s": { "pattern": "^(a?){0,5000}!" } } });
        assert!(check(&huge, &text).await.is_ok(), "a pattern of that size is not compiled");
    }

    #[tokio::test]
    async fn a_schema_whose_check_would_double_with_every_level_is_not_checked() {
        let started = Instant::now();
        let branch = json!({ "type": "array", "items": { "$ref": "#/$defs/a" } });
        let schema = json!({ "properties": { "x": { "$ref": "#/$defs/a" } }, "$defs": {
            "a": { "anyOf": [{ "$ref": "#/$defs/b" }, { "$ref": "#/$defs/c" }] }, "b": branch, "c": branch,
        } });
        let arguments = format!(r#"{{"x":{}"no"{}}}"#, "[".repeat(60), "]".repeat(60));
        assert!(check(&schema, &arguments).await.is_ok());
        assert!(check(&schema, "[]").await.is_err(), "an object is asked for all the same");
        assert!(started.elapsed() < BEARABLE, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_long_chain_of_references_does_not_break_the_stack() {
        let mut defs: serde_json::Map<String, Value> =
            (0..6_000).map(|n| (format!("a{n}"), json!({ "$ref": format!("#/$defs/a{}", n + 1) }))).collect();
        defs.insert("a6000".to_owned(), json!({ "type": "object" }));
        assert!(check(&json!({ "$ref": "#/$defs/a0", "$defs": defs }), "{}").await.is_ok());
    }

    #[tokio::test]
    async fn arguments_that_are_large_or_heavy_to_check_are_checked_elsewhere_and_judged_alike() {
        let schema = json!({ "properties": { "rows": { "items": { "type": "integer" } } } });
        let rows = "1,".repeat(200_000);
        assert!(check(&schema, &format!(r#"{{"rows":[{rows}1]}}"#)).await.is_ok());
        let fault = check(&schema, &format!(r#"{{"rows":[{rows}"x"]}}"#)).await.unwrap_err();
        assert_eq!(fault.field.as_deref(), Some("arguments"), "too many to say which");
    }
}
