//! Bodies that are wrong in one way each, and the field that must be named.

use serde_json::{Value, json};
use shared::json::MAX_DEPTH;

/// Who notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The gateway: no command is sent.
    AtEdge,
    /// The worker that runs the command: refused and audited.
    ByWorker,
}

/// One wrong body. Every one is `400 invalid`.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) body: Vec<u8>,
    /// `field` of the problem document; empty for the body as a whole.
    pub(crate) field: String,
    pub(crate) seen: Seen,
}

fn case(what: impl Into<String>, body: impl Into<Vec<u8>>, field: &str, seen: Seen) -> Case {
    Case { what: what.into(), body: body.into(), field: field.to_owned(), seen }
}

/// The valid body with one field replaced by this JSON text.
fn with(valid: &Value, field: &str, text: &str) -> String {
    let fields = valid.as_object().expect("an object");
    let mut all: Vec<String> =
        fields.iter().filter(|(name, _)| *name != field).map(|(name, value)| format!("\"{name}\":{value}")).collect();
    all.push(format!("\"{field}\":{text}"));
    format!("{{{}}}", all.join(","))
}

fn without(valid: &Value, field: &str) -> String {
    let mut body = valid.clone();
    body.as_object_mut().expect("an object").remove(field);
    body.to_string()
}

/// What is wrong with a body whatever the route: syntax, shape, depth, unknown and repeated fields.
fn in_general(valid: &Value, text_field: &str) -> Vec<Case> {
    let whole = valid.to_string();
    let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let positional = Value::Array(valid.as_object().expect("an object").values().cloned().collect());
    let mut cases: Vec<Case> = [
        ("nothing", String::new()),
        ("blank", " \n\t".to_owned()),
        ("cut off", whole[..whole.len() - 1].to_owned()),
        ("text", "hello".to_owned()),
        ("a form", "configuration=demo&tool=echo".to_owned()),
        ("null", "null".to_owned()),
        ("a number", "1".to_owned()),
        ("a string", json!(whole).to_string()),
        ("an empty array", "[]".to_owned()),
        ("its values in an array", positional.to_string()),
        ("followed by text", format!("{whole} x")),
        ("twice", format!("{whole}{whole}")),
        ("followed by NUL", format!("{whole}\0")),
        ("after a byte order mark", format!("\u{feff}{whole}")),
        ("with a comma too many", format!("{},}}", &whole[..whole.len() - 1])),
        ("with a comment", format!("/* */{whole}")),
        ("one level too deep", with(valid, "deep", &nest(MAX_DEPTH))),
        ("endlessly deep", "[".repeat(500_000)),
        ("endlessly deep in objects", "{\"a\":".repeat(150_000)),
    ]
    .into_iter()
    .map(|(what, body)| case(what, body, "", Seen::AtEdge))
    .collect();
    cases.push(case(
        "as deep as allowed, in a field unknown",
        with(valid, "deep", &nest(MAX_DEPTH - 1)),
        "deep",
        Seen::AtEdge,
    ));
    cases.push(case("with an unknown field", with(valid, "organization_id", "\"x\""), "organization_id", Seen::AtEdge));
    cases.push(case(
        "with a name in capitals",
        with(valid, &text_field.to_uppercase(), "\"x\""),
        &text_field.to_uppercase(),
        Seen::AtEdge,
    ));
    cases.push(case(
        "not UTF-8",
        [&whole.as_bytes()[..2], b"\xff\xfe", &whole.as_bytes()[2..]].concat(),
        "",
        Seen::AtEdge,
    ));
    cases.extend(in_text(valid, text_field));
    cases
}

/// What is wrong with a field of text whatever it means.
fn in_text(valid: &Value, text_field: &str) -> Vec<Case> {
    let whole = valid.to_string();
    let mut cases = Vec::new();
    for (what, text) in [("a number", "1"), ("null", "null"), ("a list", "[]"), ("an object", "{}"), ("true", "true")] {
        cases.push(case(format!("{text_field} is {what}"), with(valid, text_field, text), text_field, Seen::AtEdge));
    }
    for (what, text) in [
        ("a lone surrogate", r#""\ud800""#),
        ("a surrogate pair turned round", r#""\udc00\ud800""#),
        ("half an escape", r#""\u00""#),
        ("a raw line break", "\"a\nb\""),
    ] {
        cases.push(case(format!("{text_field} is {what}"), with(valid, text_field, text), text_field, Seen::AtEdge));
    }
    let bytes = with(valid, text_field, "\"@@\"").replace("@@", "\u{1}@").into_bytes();
    cases.push(case("a raw control character", bytes, text_field, Seen::AtEdge));
    let repeated = format!("{},\"{text_field}\":\"x\"}}", &whole[..whole.len() - 1]);
    cases.push(case("with a field twice", repeated, text_field, Seen::AtEdge));
    cases.push(case(format!("without {text_field}"), without(valid, text_field), text_field, Seen::AtEdge));
    cases
}

fn each(valid: &Value, field: &str, seen: Seen, texts: &[&str]) -> Vec<Case> {
    let shown = |text: &str| text.chars().take(60).collect::<String>();
    texts
        .iter()
        .map(|text| case(format!("{field} is {}", shown(text)), with(valid, field, text), field, seen))
        .collect()
}

/// Numbers and other things that are no timeout, beside what is out of range.
const NO_TIMEOUT: [&str; 8] = ["-1", "1.5", "\"1000\"", "1e3", "4294967296", "1e400", "true", "[]"];

/// Bodies for `POST /api/v1/tool-calls`.
pub(crate) fn of_a_tool_call(configuration: &str) -> Vec<Case> {
    let valid = json!({ "configuration": configuration, "tool": "echo", "arguments": { "text": "x" } });
    let long = format!("\"{}\"", "n".repeat(257));
    let names = ["\"\"", &long, r#""a\u0000b""#, r#""a\nb""#, r#""a\u007fb""#, r#""a\u0085b""#, r#""\u001b[31m""#];
    let mut cases = in_general(&valid, "configuration");
    for field in ["configuration", "tool"] {
        cases.extend(each(&valid, field, Seen::AtEdge, &names));
    }
    cases.push(case("without a tool", without(&valid, "tool"), "tool", Seen::AtEdge));
    cases.extend(each(&valid, "tool", Seen::AtEdge, &["1", "null", "[\"echo\"]"]));
    cases.extend(each(&valid, "arguments", Seen::AtEdge, &["[]", "\"text\"", "1", "true", "[{\"text\":\"x\"}]"]));
    cases.extend(each(&valid, "timeout_ms", Seen::AtEdge, &NO_TIMEOUT));
    cases.extend(each(&valid, "timeout_ms", Seen::AtEdge, &["0", "99", "300001"]));
    cases
}

/// Bodies for `POST /api/v1/tool-calls` whose arguments do not fit the tool's schema.
pub(crate) fn of_arguments(configuration: &str) -> Vec<Case> {
    let call = |tool: &str, arguments: &str| {
        format!(r#"{{"configuration":"{configuration}","tool":"{tool}","arguments":{arguments}}}"#)
    };
    let deepest = format!("{}{}", "[".repeat(MAX_DEPTH - 2), "]".repeat(MAX_DEPTH - 2));
    [
        ("nothing", "echo", "{}".to_owned(), "arguments"),
        ("null for all of them", "echo", "null".to_owned(), "arguments"),
        ("a number for text", "echo", r#"{"text":1}"#.to_owned(), "arguments.text"),
        ("null for text", "echo", r#"{"text":null}"#.to_owned(), "arguments.text"),
        ("one too many", "echo", r#"{"text":"x","more":1}"#.to_owned(), "arguments"),
        ("text for a number", "add", r#"{"a":"1","b":2}"#.to_owned(), "arguments.a"),
        ("a negative number", "sleep", r#"{"ms":-1}"#.to_owned(), "arguments.ms"),
        ("a fraction for an integer", "sleep", r#"{"ms":1.5}"#.to_owned(), "arguments.ms"),
        ("a number beyond the maximum", "sleep", r#"{"ms":600001}"#.to_owned(), "arguments.ms"),
        ("as deep as allowed", "echo", format!(r#"{{"text":{deepest}}}"#), "arguments.text"),
        ("a lone surrogate", "echo", r#"{"text":"\ud800"}"#.to_owned(), "arguments"),
        ("a lone surrogate in a name", "echo", r#"{"text":"x","\ud800":1}"#.to_owned(), "arguments"),
        // What was checked must be what the server reads: it might take the first of two.
        ("a name twice", "echo", r#"{"text":1,"text":"x"}"#.to_owned(), "arguments"),
        ("a name twice in two spellings", "echo", r#"{"text":1,"t\u0065xt":"x"}"#.to_owned(), "arguments"),
    ]
    .into_iter()
    .map(|(what, tool, arguments, field)| case(what, call(tool, &arguments), field, Seen::ByWorker))
    .collect()
}

/// Bodies for `POST /api/v1/mcp/configurations`.
pub(crate) fn of_a_configuration(endpoint: &str) -> Vec<Case> {
    let valid = json!({ "name": "fine", "endpoint": endpoint });
    let mut cases = in_general(&valid, "name");
    let long_name = format!("\"{}\"", "n".repeat(65));
    let id = "\"0190d8f2-0000-7000-8000-000000000001\"";
    let names = ["\"\"", &long_name, "\"a b\"", "\"a/b\"", r#""a\u0000b""#, r#""a\nb""#, "\"\u{fc}\"", "\"../x\"", id];
    cases.extend(each(&valid, "name", Seen::ByWorker, &names));
    cases.extend(each(
        &valid,
        "description",
        Seen::ByWorker,
        &[&format!("\"{}\"", "d".repeat(1_001)), r#""a\u0000b""#],
    ));
    cases.extend(each(&valid, "description", Seen::AtEdge, &["1", "{}", "[]"]));
    for field in ["scope", "transport", "via"] {
        cases.extend(each(&valid, field, Seen::AtEdge, &["\"other\"", "1", "[]", "\"\""]));
    }
    cases.extend(each(&valid, "timeout_ms", Seen::AtEdge, &NO_TIMEOUT));
    cases.extend(each(&valid, "timeout_ms", Seen::ByWorker, &["0", "999", "300001", "4294967295"]));
    cases.extend(each(&valid, "retries", Seen::AtEdge, &["-1", "256", "1.5", "\"1\"", "true"]));
    cases.extend(each(&valid, "retries", Seen::ByWorker, &["6", "255"]));
    cases.extend(each(&valid, "enabled", Seen::AtEdge, &["1", "\"true\"", "[]"]));
    let long_prefix = format!("\"{}\"", "p".repeat(33));
    cases.extend(each(&valid, "name_prefix", Seen::AtEdge, &["1", "[]"]));
    cases.extend(each(&valid, "name_prefix", Seen::ByWorker, &["\"a b\"", "\"a/\"", "\"\u{fc}\"", &long_prefix]));
    cases.extend(filters(&valid));
    cases.push(case("without an endpoint", without(&valid, "endpoint"), "endpoint", Seen::ByWorker));
    cases.extend(endpoints(&valid));
    cases.extend(authentication(&valid));
    cases
}

fn filters(valid: &Value) -> Vec<Case> {
    let (long, many) = ("p".repeat(129), vec!["p"; 101]);
    let shapes = [
        ("a list", "[]".to_owned(), "tools", Seen::AtEdge),
        ("its values in a list", r#"[["a"],["b"]]"#.to_owned(), "tools", Seen::AtEdge),
        ("one field too many", r#"{"only":["a"]}"#.to_owned(), "tools.only", Seen::AtEdge),
        ("text to allow", r#"{"allow":"a*"}"#.to_owned(), "tools.allow", Seen::AtEdge),
        ("numbers to deny", r#"{"deny":["a",1]}"#.to_owned(), "tools.deny[1]", Seen::AtEdge),
        ("an empty pattern", r#"{"allow":["a",""]}"#.to_owned(), "tools.allow[1]", Seen::ByWorker),
        ("a pattern with a line break", r#"{"deny":["a\nb"]}"#.to_owned(), "tools.deny[0]", Seen::ByWorker),
        ("a long pattern", json!({ "deny": [long] }).to_string(), "tools.deny[0]", Seen::ByWorker),
        ("many patterns", json!({ "allow": many }).to_string(), "tools.allow", Seen::ByWorker),
    ];
    shapes
        .map(|(what, text, field, seen)| case(format!("tools is {what}"), with(valid, "tools", &text), field, seen))
        .into()
}

fn endpoints(valid: &Value) -> Vec<Case> {
    let longest = format!("http://127.0.0.1:9/{}", "p".repeat(2_030));
    let refused = [
        "",
        "mcp",
        "/mcp",
        "//127.0.0.1/mcp",
        "127.0.0.1:9/mcp",
        "http:",
        "http://",
        "http://?",
        "http://#",
        "http://:80/",
        "http://[::1",
        "http://256.1.1.1/",
        "http://h:99999/",
        "ftp://127.0.0.1/mcp",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,x",
        "ws://127.0.0.1:9/",
        "stdio:x",
        "http://user@127.0.0.1:9/mcp",
        "http://user:secret@127.0.0.1:9/mcp",
        "http://:secret@127.0.0.1:9/mcp",
        "http://127.0.0.1:9/mcp#part",
        "http://127.0.0.1:9/mcp#",
        "http://127.0.0.1:9/a\nb",
        "http://127.0.0.1:9/a\r\nHost: x",
        "http://127.0.0.1:9/a\tb",
        "http://127.0.0.1:9/a\0b",
        " http://127.0.0.1:9/mcp",
        "http://127.0.0.1:9/mcp ",
        "http://127.0.0.1:9/a b",
        &longest,
    ];
    let mut cases: Vec<Case> = refused
        .iter()
        .map(|text| {
            case(
                format!("endpoint {text:.60?}"),
                with(valid, "endpoint", &json!(text).to_string()),
                "endpoint",
                Seen::ByWorker,
            )
        })
        .collect();
    cases.extend(each(valid, "endpoint", Seen::AtEdge, &["1", "[]", "{\"url\":\"http://h/\"}"]));
    cases.extend(each(valid, "endpoint", Seen::ByWorker, &["null"]));
    cases
}

fn authentication(valid: &Value) -> Vec<Case> {
    let long = "t".repeat(8_193);
    let tokens = ["", "a b", " a", "a\n", "a\r\nX-Injected: 1", "a\0b", "a\tb", "\u{fc}mlaut", "\u{7f}", &long];
    let bearer = |token: &str| with(valid, "auth", &json!({ "type": "bearer", "token": token }).to_string());
    let mut cases: Vec<Case> = tokens
        .iter()
        .map(|token| case(format!("token {token:.40?}"), bearer(token), "auth.token", Seen::ByWorker))
        .collect();
    let header = |name: &str, value: &str| {
        with(valid, "auth", &json!({ "type": "header", "name": name, "value": value }).to_string())
    };
    let values = ["", " v", "v ", "a\r\nX-Injected: 1", "a\0b", "a\tb", "\u{fc}mlaut", "\u{7f}", &long];
    cases.extend(
        values.map(|value| case(format!("value {value:.40?}"), header("X-Key", value), "auth.value", Seen::ByWorker)),
    );
    let names = ["", "a b", "a:b", "\u{fc}", "Host", "content-type", "MCP-Session-Id", "Cookie", "authorization", "TE"];
    cases.extend(names.map(|name| case(format!("header {name:?}"), header(name, "v"), "auth.name", Seen::ByWorker)));
    let shapes = [
        ("a string", "\"bearer\"", "auth"),
        ("its values in a list", r#"["bearer","t",null,null]"#, "auth"),
        ("no type", "{}", "auth.type"),
        ("an unknown type", r#"{"type":"basic"}"#, "auth.type"),
        ("oauth, which is not there yet", r#"{"type":"oauth"}"#, "auth.type"),
        ("a header without a name", r#"{"type":"header","value":"v"}"#, "auth.name"),
        ("a header with a token", r#"{"type":"header","name":"X-Key","value":"v","token":"t"}"#, "auth.token"),
        ("a bearer with a value", r#"{"type":"bearer","token":"t","value":"v"}"#, "auth.value"),
        ("none with a header", r#"{"type":"none","name":"X-Key"}"#, "auth.name"),
        ("a value that is a number", r#"{"type":"header","name":"X-Key","value":1}"#, "auth.value"),
        ("a type that is a number", r#"{"type":1}"#, "auth.type"),
        ("no token", r#"{"type":"bearer"}"#, "auth.token"),
        ("a token that is a number", r#"{"type":"bearer","token":12345}"#, "auth.token"),
        ("a token that is null", r#"{"type":"bearer","token":null}"#, "auth.token"),
        ("a token without use", r#"{"type":"none","token":"t"}"#, "auth.token"),
        ("one field too many", r#"{"type":"bearer","token":"t","hint":"x"}"#, "auth.hint"),
    ];
    cases
        .extend(shapes.map(|(what, text, field)| {
            case(format!("auth is {what}"), with(valid, "auth", text), field, Seen::AtEdge)
        }));
    cases
}

/// Bodies for `POST /api/v1/organizations`; what would be kept begins with `mark`.
pub(crate) fn of_an_organization(mark: &str) -> Vec<Case> {
    let valid = json!({ "slug": mark, "name": mark });
    let mut cases = in_general(&valid, "slug");
    cases.push(case("without a name", without(&valid, "name"), "name", Seen::AtEdge));
    let slug = |text: &str| json!(text).to_string();
    let slugs: Vec<String> = ["", "A", "-a", "a-", "a b", "a_b", "\u{fc}", "a\0b", "a\nb", "a.b", &"s".repeat(64)]
        .iter()
        .map(|text| slug(text))
        .collect();
    cases.extend(each(&valid, "slug", Seen::ByWorker, &slugs.iter().map(String::as_str).collect::<Vec<_>>()));
    let names: Vec<String> =
        ["", "a\0b", "a\nb", "\u{1b}[31m", &"n".repeat(201)].iter().map(|text| slug(text)).collect();
    cases.extend(each(&valid, "name", Seen::ByWorker, &names.iter().map(String::as_str).collect::<Vec<_>>()));
    cases.extend(each(&valid, "name", Seen::AtEdge, &["1", "null", "[]"]));
    cases.extend(each(&valid, "concurrency_limit", Seen::AtEdge, &["-1", "65536", "1.5", "\"8\"", "true", "1e2"]));
    cases.extend(each(&valid, "concurrency_limit", Seen::ByWorker, &["0", "257"]));
    cases
}
