//! Faults as answers of the document: one component for each set of faults that share a status.

use std::collections::{BTreeMap, BTreeSet};

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::http::{
    operation::{Describe, Failure},
    problem::Document,
};

/// The schema of every error.
pub(super) const PROBLEM: Describe = SchemaGenerator::subschema_for::<Document<'_>>;

/// Collects the answers that operations refer to.
#[derive(Debug, Default)]
pub(super) struct Failures {
    used: BTreeMap<String, Vec<Failure>>,
}

impl Failures {
    /// An operation's faults by status, as references.
    pub(super) fn references(&mut self, failures: &BTreeSet<Failure>) -> Vec<(String, Value)> {
        let mut by_status: BTreeMap<u16, Vec<Failure>> = BTreeMap::new();
        for failure in failures {
            by_status.entry(failure.status).or_default().push(*failure);
        }
        let reference = |(status, failures): (u16, Vec<Failure>)| {
            let name = failures.iter().map(|failure| failure.name).collect::<Vec<_>>().join("_or_");
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            self.used.insert(name, failures);
            (status.to_string(), reference)
        };
        by_status.into_iter().map(reference).collect()
    }

    /// Every answer that was referred to, by name. `problem` refers to the schema of a problem.
    pub(super) fn finish(self, problem: &Value) -> Map<String, Value> {
        self.used.into_iter().map(|(name, failures)| (name, response(&failures, problem))).collect()
    }
}

fn response(failures: &[Failure], problem: &Value) -> Value {
    let codes: Vec<&str> = failures.iter().map(|failure| failure.name).collect();
    let words: Vec<String> = failures.iter().map(|failure| format!("`{}`: {}.", failure.name, failure.title)).collect();
    let status = failures.first().map(|failure| failure.status);
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/RequestId" } });
    match status {
        Some(401) => headers["WWW-Authenticate"] = json!({ "$ref": "#/components/headers/Challenge" }),
        Some(429 | 503) => headers["Retry-After"] = json!({ "$ref": "#/components/headers/RetryAfter" }),
        _ => {}
    }
    let narrowed = json!({ "properties": { "code": { "enum": codes }, "status": { "const": status } } });
    json!({
        "description": words.join(" "),
        "headers": headers,
        "content": { "application/problem+json": { "schema": { "allOf": [problem, narrowed] } } },
    })
}
