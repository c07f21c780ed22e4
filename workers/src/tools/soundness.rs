//! What is wrong with the tools that a server offers, before somebody relies on them. Servers and
//! their authors are told in words that hold none of the server's own, but for names made printable.

use std::collections::HashMap;

use serde_json::Value;
use shared::{
    command::configurations::{ToolProblem, ToolProblemCode as Code, ToolReport},
    json::Raw,
};

use super::{pinning, schema::ArgumentSchema};
use crate::upstream::{HeaderParameter, printable};

/// The longest name that every client takes (MCP 2026-07-28, tool names), in characters.
const MAX_NAME_CHARS: usize = 128;
/// The most problems that are told of one tool.
const MAX_PROBLEMS: usize = 16;

/// Looks at every tool of a list. Takes time: not on a thread that serves everybody.
pub(super) fn examine(tools: &[Raw]) -> Vec<ToolReport> {
    let values: Vec<Value> = tools.iter().map(|tool| tool.read().unwrap_or_default()).collect();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for name in values.iter().filter_map(name) {
        *names.entry(name).or_default() += 1;
    }
    let each = tools.iter().zip(&values);
    each.map(|(raw, value)| {
        let mut problems = Vec::new();
        about_the_name(value, &names, &mut problems);
        about_the_schemas(value, &mut problems);
        about_keeping(raw, value, &mut problems);
        about_hidden_text(value, "", &mut problems);
        problems.truncate(MAX_PROBLEMS);
        ToolReport { name: printable(name(value).unwrap_or_default()), problems }
    })
    .collect()
}

fn name(tool: &Value) -> Option<&str> {
    tool.get("name").and_then(Value::as_str)
}

fn problem(code: Code, detail: impl Into<String>) -> ToolProblem {
    ToolProblem { code, detail: detail.into() }
}

fn about_the_name(tool: &Value, names: &HashMap<&str, usize>, problems: &mut Vec<ToolProblem>) {
    let Some(name) = name(tool) else {
        problems.push(problem(Code::NameMissing, "The tool has no name."));
        return;
    };
    if !(1..=MAX_NAME_CHARS).contains(&name.chars().count()) {
        problems.push(problem(Code::NameLength, "The name is not 1 to 128 characters long."));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        problems.push(problem(Code::NameCharacters, "The name has characters other than A-Z a-z 0-9 . _ -."));
    }
    if names.get(name).is_some_and(|count| *count > 1) {
        problems.push(problem(Code::NameDuplicate, "The server offers more than one tool of this name."));
    }
}

fn about_the_schemas(tool: &Value, problems: &mut Vec<ToolProblem>) {
    let input = tool.get("inputSchema").unwrap_or(&Value::Null);
    if !input.is_object() || input.get("type").and_then(Value::as_str) != Some("object") {
        problems.push(problem(Code::InputSchema, "`inputSchema` must be there, and be a schema of type `object`."));
    }
    for field in ["inputSchema", "outputSchema"] {
        let Some(schema) = tool.get(field) else { continue };
        if !jsonschema::draft202012::meta::is_valid(schema) {
            problems.push(problem(Code::SchemaInvalid, format!("`{field}` is no JSON Schema 2020-12.")));
        } else if field == "inputSchema" && !ArgumentSchema::compile(schema).checks() {
            let detail = "`inputSchema` cannot be checked: it is too heavy, or refers to what is not in it.";
            problems.push(problem(Code::SchemaHeavy, detail));
        }
    }
}

fn about_keeping(raw: &Raw, tool: &Value, problems: &mut Vec<ToolProblem>) {
    if name(tool).is_some() && pinning::read(raw).is_none() {
        problems.push(problem(Code::Size, "The definition is too large or nests too deep: the tool is not offered."));
    }
    if HeaderParameter::in_schema(tool.get("inputSchema").unwrap_or(&Value::Null)).is_err() {
        let detail = "An `x-mcp-header` of it cannot be obeyed: the tool is not offered.";
        problems.push(problem(Code::HeaderAnnotation, detail));
    }
}

/// Characters that show nothing and still reach a model: directions, zero widths, tags. Joiners are
/// left out, which writing systems and emoji need.
fn is_hidden(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}')
        || (character.is_control() && !matches!(character, '\n' | '\r' | '\t'))
}

/// Every text of the definition, names of fields included. The depth was bounded when it was read.
fn about_hidden_text(value: &Value, path: &str, problems: &mut Vec<ToolProblem>) {
    if problems.len() >= MAX_PROBLEMS {
        return;
    }
    let found = |text: &str, what: &str, problems: &mut Vec<ToolProblem>| {
        if let Some(character) = text.chars().find(|character| is_hidden(*character)) {
            let detail = format!("{what} holds a character that nobody sees (U+{:04X}).", u32::from(character));
            problems.push(problem(Code::HiddenText, detail));
        }
    };
    match value {
        Value::String(text) => found(text, &format!("`{}`", printable(path)), problems),
        Value::Array(items) => items.iter().for_each(|item| about_hidden_text(item, path, problems)),
        Value::Object(fields) => {
            for (field, value) in fields {
                let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
                found(field, "The name of a field", problems);
                about_hidden_text(value, &path, problems);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(tools: &[Value]) -> Vec<Vec<Code>> {
        let raw: Vec<Raw> = tools.iter().map(|tool| Raw::of(tool).unwrap()).collect();
        let reports = examine(&raw);
        reports.iter().map(|tool| tool.problems.iter().map(|problem| problem.code).collect()).collect()
    }

    fn code(tool: Value) -> Vec<Code> {
        codes(&[tool]).remove(0)
    }

    #[test]
    fn a_sound_tool_has_no_problems() {
        let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] });
        let text = "Says “grüße” to 👩‍👩‍👧 and नमस्ते.\nIn two lines.";
        assert_eq!(code(json!({ "name": "read_file.v2-x", "description": text, "inputSchema": schema })), []);
    }

    #[test]
    fn what_is_wrong_with_a_name_is_told() {
        let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        assert_eq!(code(json!({ "inputSchema": { "type": "object" } })), [Code::NameMissing]);
        assert_eq!(code(tool("a b")), [Code::NameCharacters]);
        assert_eq!(code(tool("größe")), [Code::NameCharacters]);
        assert_eq!(code(tool(&"n".repeat(129))), [Code::NameLength]);
        let twice = codes(&[tool("a"), tool("b"), tool("a")]);
        assert_eq!(twice, [vec![Code::NameDuplicate], vec![], vec![Code::NameDuplicate]]);
    }

    #[test]
    fn what_is_wrong_with_a_schema_is_told() {
        let tool = |schema: Value| json!({ "name": "a", "inputSchema": schema });
        assert_eq!(code(json!({ "name": "a" })), [Code::InputSchema]);
        assert_eq!(code(tool(json!({}))), [Code::InputSchema]);
        assert_eq!(code(tool(json!({ "type": "string" }))), [Code::InputSchema]);
        assert_eq!(code(tool(json!({ "type": "object", "required": "a" }))), [Code::SchemaInvalid]);
        assert_eq!(
            code(tool(json!({ "type": "object", "properties": { "a": { "type": "text" } } }))),
            [Code::SchemaInvalid]
        );
        let elsewhere = json!({ "type": "object", "properties": { "a": { "$ref": "https://elsewhere.example/s" } } });
        assert_eq!(code(tool(elsewhere)), [Code::SchemaHeavy]);
        let header =
            json!({ "type": "object", "properties": { "a": { "type": "string", "x-mcp-header": "no header" } } });
        assert_eq!(code(tool(header)), [Code::HeaderAnnotation]);
        let output = json!({ "name": "a", "inputSchema": { "type": "object" }, "outputSchema": { "type": 1 } });
        assert_eq!(code(output), [Code::SchemaInvalid]);
    }

    #[test]
    fn what_nobody_sees_is_told_wherever_it_stands() {
        let schema = |text: &str| json!({ "type": "object", "properties": { "a": { "description": text } } });
        for hidden in ["\u{200b}", "\u{202e}", "\u{2066}", "\u{feff}", "\u{e0041}", "\u{1b}", "\u{0}"] {
            let text = format!("adds{hidden} two numbers");
            let sound = json!({ "type": "object" });
            assert_eq!(code(json!({ "name": "a", "description": text, "inputSchema": sound })), [Code::HiddenText]);
            assert_eq!(code(json!({ "name": "a", "inputSchema": schema(&text) })), [Code::HiddenText]);
        }
        let tools = [Raw::of(&json!({ "name": "a\u{202e}b", "inputSchema": schema("x\u{e0041}") })).unwrap()];
        let report = examine(&tools).remove(0);
        assert_eq!(report.name, "a b");
        assert!(report.problems.iter().all(|problem| !problem.detail.contains(is_hidden)), "{report:?}");
        let detail = &report.problems.last().unwrap().detail;
        assert_eq!(detail, "`inputSchema.properties.a.description` holds a character that nobody sees (U+E0041).");
    }

    #[test]
    fn a_definition_that_is_too_large_is_told_and_problems_are_bounded() {
        let tool = json!({ "name": "a", "description": "d".repeat(300_000), "inputSchema": { "type": "object" } });
        assert_eq!(code(tool), [Code::Size]);
        let hidden: Vec<String> = (0..1_000).map(|_| "\u{200b}".to_owned()).collect();
        assert_eq!(code(json!({ "name": "a", "inputSchema": { "type": "object", "enum": hidden } })).len(), 16);
    }
}
