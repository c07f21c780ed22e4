//! The schemas of types. What is read and what is answered are described apart: a field that may be
//! absent from a request stands in every answer.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::http::operation::Describe;

/// Collects the schemas that the document refers to.
#[derive(Debug)]
pub(super) struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                "/components/schemas".clone_into(settings.definitions_path.to_mut());
                settings.meta_schema = None;
            })
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    /// A type as it is read.
    pub(super) fn of_request(&mut self, describe: Describe) -> Value {
        describe(&mut self.requests).to_value()
    }

    /// A type as it is answered.
    pub(super) fn of_answer(&mut self, describe: Describe) -> Value {
        describe(&mut self.answers).to_value()
    }

    /// The fields of a type as parameters of the query. An absent field is not sent: null does not
    /// exist there.
    pub(super) fn query(&mut self, describe: Describe) -> Vec<Value> {
        let schema = self.of_request(describe);
        let required = |name: &String| {
            schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
        };
        let fields = schema["properties"].as_object().into_iter().flatten();
        let parameter = |(name, field): (&String, &Value)| {
            let mut field = without_null(field.clone());
            let about = field.as_object_mut().and_then(|field| field.remove("description"));
            json!({ "name": name, "in": "query", "required": required(name), "description": about, "schema": field })
        };
        fields.map(parameter).collect()
    }

    /// Every schema that was referred to, by name.
    pub(super) fn finish(mut self) -> Map<String, Value> {
        let mut all = self.answers.take_definitions(true);
        for (name, schema) in self.requests.take_definitions(true) {
            // A type that is read and answered alike is one component; two different ones of a name
            // are a mistake, which a test finds by the name that the second gets.
            let name = if all.get(&name).is_some_and(|known| *known != schema) { format!("{name}2") } else { name };
            all.insert(name, schema);
        }
        all.sort_keys();
        all
    }
}

fn without_null(mut field: Value) -> Value {
    if let Some(kinds) = field["type"].as_array() {
        let mut kinds = kinds.iter().filter(|kind| *kind != "null");
        field["type"] = kinds.next().cloned().unwrap_or_default();
    } else if let Some(either) = field["anyOf"].as_array() {
        let real = either.iter().find(|schema| schema["type"] != "null").cloned().unwrap_or_default();
        if let (Some(field), Value::Object(real)) = (field.as_object_mut(), real) {
            field.remove("anyOf");
            field.extend(real);
        }
    }
    field
}
