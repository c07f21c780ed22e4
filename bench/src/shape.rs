//! What is called: the tool, its arguments, and how an answer is recognised as this call's own.

use serde::{Deserialize, Serialize};

/// Bytes of text in an `echo`.
pub(crate) const TEXT_BYTES: usize = 64;
/// How long the upstream takes for a `sleep`, in milliseconds.
pub(crate) const SLEEP_MS: u32 = 20;
/// Bytes of text in a `big` result.
pub(crate) const BIG_BYTES: usize = 1_000_000;
/// What the demo's `big` repeats, as JSON escapes it.
const BIG_PATTERN: &str = r"0123456789abcdefghijklmnopqrstuvwxyz\n";
/// The bytes of one repetition before escaping.
const BIG_PATTERN_BYTES: usize = 37;

/// A kind of call. Results are those of the demo servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// 64 bytes there and back, different in every call.
    Echo,
    /// An upstream that takes 20 ms.
    Sleep,
    /// A result of 1 MB.
    Big,
}

impl Shape {
    /// The tool's name.
    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Sleep => "sleep",
            Self::Big => "big",
        }
    }

    /// The arguments, before and after the text that differs from call to call.
    pub(crate) fn arguments(self) -> (String, String) {
        match self {
            Self::Echo => (r#"{"text":""#.to_owned(), r#""}"#.to_owned()),
            Self::Sleep => (format!(r#"{{"ms":{SLEEP_MS}}}"#), String::new()),
            Self::Big => (format!(r#"{{"bytes":{BIG_BYTES}}}"#), String::new()),
        }
    }

    /// Whether every call has a text of its own.
    pub(crate) fn has_text(self) -> bool {
        self == Self::Echo
    }

    /// What every answer holds; an `echo` has a text of its own instead.
    pub(crate) fn expected(self) -> Vec<u8> {
        match self {
            Self::Echo => Vec::new(),
            Self::Sleep => format!("slept {SLEEP_MS} ms").into_bytes(),
            Self::Big => {
                let rest = &BIG_PATTERN[..BIG_BYTES % BIG_PATTERN_BYTES];
                format!("\"{}{rest}\"", BIG_PATTERN.repeat(BIG_BYTES / BIG_PATTERN_BYTES)).into_bytes()
            }
        }
    }
}

/// True when an answer holds what was expected and no tool said that it failed. Answers in an event stream or inside
/// our own document hold the result's bytes too, so nothing is parsed.
pub(crate) fn holds(body: &[u8], expected: &[u8]) -> bool {
    contains(body, expected)
        && !contains(&body[..body.len().min(TOP_BYTES)], FAILED)
        && !contains(&body[body.len().saturating_sub(TOP_BYTES)..], FAILED)
}

const FAILED: &[u8] = br#""isError":true"#;
/// `isError` stands before or after the content, never in the midst of a large one.
const TOP_BYTES: usize = 1_024;

fn contains(body: &[u8], expected: &[u8]) -> bool {
    let Some(first) = expected.first() else { return true };
    body.windows(expected.len()).any(|window| window[0] == *first && window == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_result_that_lost_a_piece_is_no_answer() {
        let expected = Shape::Big.expected();
        let mut body = br#"{"result":{"content":[{"type":"text","text":"#.to_vec();
        body.extend_from_slice(&expected);
        body.extend_from_slice(br"}]}}");
        assert!(holds(&body, &expected));
        body.drain(500_000..500_038);
        assert!(!holds(&body, &expected));
    }

    #[test]
    fn the_expected_large_text_is_what_the_demo_makes() {
        let expected = Shape::Big.expected();
        let text: String = serde_json::from_slice(&expected).unwrap();
        assert_eq!(text.len(), BIG_BYTES);
        assert!(text.starts_with("0123456789abc") && text.contains("xyz\n0123"));
    }

    #[test]
    fn a_tool_that_failed_is_no_answer_even_when_it_repeats_the_text() {
        let text = b"0123456789";
        assert!(holds(br#"{"content":[{"text":"0123456789"}],"isError":false}"#, text));
        assert!(!holds(br#"{"content":[{"text":"0123456789"}],"isError":true}"#, text));
        assert!(!holds(br#"{"content":[{"text":"012345678"}],"isError":false}"#, text));
    }
}
