//! Which of a server's tools an organization offers at all. What is filtered out is as unknown as
//! what the server does not have: neither listed, nor pinned, nor called.

use serde::Deserialize;
use shared::{command::configurations::ToolFilter, json::Raw};

/// Whether a tool of this name is offered.
pub(crate) fn admits(filter: &ToolFilter, tool: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern.as_bytes(), tool.as_bytes()));
    (filter.allow.is_empty() || any(&filter.allow)) && !any(&filter.deny)
}

/// Leaves those that are offered.
pub(super) fn sift(filter: &ToolFilter, mut definitions: Vec<Raw>) -> Vec<Raw> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    if *filter != ToolFilter::default() {
        definitions.retain(|tool| tool.read::<Named>().is_ok_and(|tool| admits(filter, &tool.name)));
    }
    definitions
}

/// Whether the text fits the pattern, in which `*` stands for any bytes. Of several stars only the
/// last is tried again, so that no pattern costs more than its length times the text's.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < text.len() {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                at += 1;
                star = Some((at, read));
            }
            (Some(byte), _) if *byte == text[read] => {
                at += 1;
                read += 1;
            }
            (_, Some((after, from))) => {
                at = after;
                read = from + 1;
                star = Some((after, read));
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(allow: &[&str], deny: &[&str]) -> ToolFilter {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        ToolFilter { allow: owned(allow), deny: owned(deny) }
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_is_special() {
        for (pattern, text, fits) in [
            ("read_*", "read_file", true),
            ("read_*", "read_", true),
            ("read_*", "reread_x", false),
            ("*", "anything", true),
            ("*_file", "read_file", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*b*b", "abxb", true),
            ("**", "", true),
            ("echo", "Echo", false),
            ("e.ho", "echo", false),
            ("[e]cho", "echo", false),
            ("gr*e", "größe", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_denied_is_denied_though_it_is_allowed() {
        assert!(admits(&filter(&[], &[]), "echo"));
        assert!(!admits(&filter(&[], &["ec*"]), "echo"));
        assert!(!admits(&filter(&["add"], &[]), "echo"));
        assert!(!admits(&filter(&["echo"], &["echo"]), "echo"));
        assert!(admits(&filter(&["add", "e*"], &["*x"]), "echo"));
    }

    #[test]
    fn a_list_holds_what_is_offered() {
        let raw = |text: &str| Raw::parse(text.to_owned().into()).unwrap();
        let tools = || vec![raw(r#"{"name":"echo"}"#), raw(r#"{"name":"add"}"#), raw(r#"{"no":"name"}"#)];
        assert_eq!(sift(&filter(&[], &[]), tools()).len(), 3, "without a filter as the server wrote it");
        assert_eq!(sift(&filter(&["e*"], &[]), tools()).len(), 1);
    }

    #[test]
    fn many_stars_cost_no_more_than_length_times_length() {
        let pattern = format!("{}b", "*a".repeat(60));
        assert!(!matches(pattern.as_bytes(), &[b'a'; 256]));
    }
}
