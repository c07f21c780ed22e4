//! Mutated bodies: whatever arrives, the answer is a result or the caller's fault, never ours. The
//! sequence is the same in every run, so that a failure can be repeated.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::world::{Answer, Client, System};

const REQUESTS: usize = 300;
/// With `SWITCHBOARD_FULL` set.
const REQUESTS_FULL: usize = 5_000;

/// What parsers, databases and people stumble over.
const SPLINTERS: [&str; 40] = [
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "-0",
    "1e999",
    "-1",
    "18446744073709551616",
    "0.1e-400",
    "\"\"",
    "{}",
    "[]",
    "\\u0000",
    "\\ud800",
    "\\udc00\\ud800",
    "\\n",
    "\u{0}",
    "\u{7f}",
    "\u{feff}",
    "\u{202e}",
    "🦀",
    "%00",
    "%s%n",
    "'; DROP TABLE users; --",
    "../../",
    "$ne",
    "__proto__",
    "http://",
    "ftp://x",
    "http://user:pw@",
    "#",
    "\r\nX: y",
    "00000000-0000-0000-0000-000000000000",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

/// Xorshift (Marsaglia 2003), 64 bits: repeatable everywhere.
struct Dice(u64);

impl Dice {
    const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % limit).unwrap_or_default()
    }
}

/// One to four mutations of a valid body.
fn mutate(dice: &mut Dice, valid: &str) -> Vec<u8> {
    let mut body = valid.as_bytes().to_vec();
    for _ in 0..=dice.below(4) {
        let (from, to) = (dice.below(body.len()), dice.below(body.len()));
        let (from, to) = (from.min(to), from.max(to));
        match dice.below(7) {
            0 if !body.is_empty() => body[from] = dice.next().to_le_bytes()[0],
            1 if !body.is_empty() => body[from] ^= 1 << dice.below(8),
            2 => drop(body.drain(from..to.min(from + 16))),
            3 => {
                let piece = body[from..to.min(from + 64)].to_vec();
                body.splice(to..to, piece);
            }
            4 => body.truncate(to),
            _ => {
                let splinter = SPLINTERS[dice.below(SPLINTERS.len())].bytes();
                let end = if dice.below(2) == 0 { from } else { to.min(from + 8) };
                body.splice(from..end, splinter);
            }
        }
    }
    body
}

fn check(number: usize, body: &[u8], answer: &Answer) {
    let status = answer.status.as_u16();
    let shown = || format!("request {number}, {status}: {:?} -> {}", String::from_utf8_lossy(body), answer.text);
    assert!(answer.status.is_success() || answer.status.is_client_error(), "{}", shown());
    if answer.status.is_client_error() {
        let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        answer.problem(status, &code);
        assert!(answer.text.len() < 8 * 1024, "a long answer to a bad body: {}", shown());
    }
}

async fn fuzz(client: &Client, path: &str, seed: u64, valid: &[String]) {
    let full = std::env::var_os("SWITCHBOARD_FULL").is_some();
    let mut dice = Dice(seed);
    let (mut good, mut bad) = (0, 0);
    for number in 0..if full { REQUESTS_FULL } else { REQUESTS } {
        let body = mutate(&mut dice, &valid[number % valid.len()]);
        let request = client.request(Method::POST, path).header("content-type", "application/json").body(body.clone());
        let answer = client.send(request).await;
        check(number, &body, &answer);
        *if answer.status.is_success() { &mut good } else { &mut bad } += 1;
    }
    assert!(good > 0 && bad > good, "{good} good and {bad} bad bodies test too little");
}

pub(crate) async fn mutated_tool_calls_are_never_our_failure(system: Arc<System>) {
    let tenant = system.organization().await;
    let bodies = [
        json!({ "configuration": "demo", "tool": "echo", "arguments": { "text": "a longer text to cut into pieces" } }),
        json!({ "configuration": "demo", "tool": "add", "arguments": { "a": 12.5, "b": -3 } }),
        json!({ "arguments": {}, "tool": "odd", "configuration": "demo" }),
    ];
    fuzz(&tenant.user, "/api/v1/tool-calls", 0x5eed_0001, &bodies.map(|body| body.to_string())).await;
}

pub(crate) async fn mutated_configurations_are_never_our_failure(system: Arc<System>) {
    let tenant = system.organization().await;
    // Names are new each time, so that a body that stayed valid is kept and not a duplicate.
    let bodies: Vec<String> = (0..97)
        .map(|number| {
            let auth = json!({ "type": "bearer", "token": "0123456789abcdef" });
            let body = json!({ "name": format!("f{number}"), "endpoint": system.demo_url, "description": "d", "scope": "user", "transport": "http", "via": "native", "timeout_ms": 30_000, "auth": auth });
            body.to_string()
        })
        .collect();
    fuzz(&tenant.admin, "/api/v1/mcp/configurations", 0x5eed_0002, &bodies).await;
    let list = tenant.admin.get("/api/v1/mcp/configurations?limit=200").await;
    assert_eq!(list.status, 200, "what was kept can be read: {}", list.text);
}

pub(crate) async fn mutated_organizations_are_never_our_failure(system: Arc<System>) {
    let operator = system.client(&system.seeded.operator_token);
    let mark = Uuid::now_v7().simple().to_string();
    let bodies: Vec<String> = (0..97)
        .map(|number| {
            json!({ "slug": format!("f-{}-{number}", &mark[20..]), "name": "Fuzzed", "concurrency_limit": 8 })
                .to_string()
        })
        .collect();
    fuzz(&operator, "/api/v1/organizations", 0x5eed_0003, &bodies).await;
    assert_eq!(operator.get("/api/v1/organizations?limit=200").await.status, 200, "what was kept can be read");
}
