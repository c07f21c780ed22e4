//! Hygiene of text that neither an operator nor an admin wrote: what no reader sees is removed, and
//! equal text is written equally. It stops nobody who says what they want in plain words: no defence
//! against prompt injection (docs/prompts.md).

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The text as it may stand in a prompt: no character that is not seen but acts, in normalization form C
/// (Unicode Standard Annex 15). Line breaks become line feeds and stay, and so do tabs. Sanitising twice changes nothing.
pub(super) fn sanitised(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) && is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    let text = text.replace("\r\n", "\n");
    let lines = text.chars().map(|character| if is_break(character) { '\n' } else { character });
    Cow::Owned(lines.filter(|character| !is_hidden(*character)).nfc().collect())
}

/// True of whatever ends a line but a line feed, which it becomes: words stay apart.
const fn is_break(character: char) -> bool {
    matches!(character, '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether there is more in a text than is seen. Line breaks of any kind, and what joins or colours one emoji,
/// are no secret.
pub(super) fn hides(text: &str) -> bool {
    let mut before = ' ';
    text.chars().any(|character| {
        let is_emoji = matches!(before, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
        let joins = match character {
            '\u{fe0f}' => is_emoji,
            '\u{200d}' => is_emoji || before == '\u{fe0f}',
            _ => false,
        };
        before = character;
        is_hidden(character) && !is_break(character) && !joins
    })
}

/// Sanitised, on one line, and cut with an ellipsis where it is longer than so many characters: a value
/// of a variable.
pub(super) fn value(text: &str, most_chars: usize) -> String {
    let text = sanitised(text);
    let line = text.split(['\n', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most_chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// True of characters that text can hide or rearrange itself with.
pub(super) fn is_hidden(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // Soft hyphen; combining grapheme joiner; Arabic letter mark; Hangul fillers; Khmer inherent vowels;
        // Mongolian variation selectors and vowel separator.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        // Zero width; left-to-right and right-to-left marks.
        | '\u{200b}'..='\u{200f}'
        // Line and paragraph separators; bidirectional embeddings and overrides.
        | '\u{2028}'..='\u{202e}'
        // Word joiner, invisible operators, bidirectional isolates, deprecated format characters.
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        // Variation selectors; byte order mark; half-width filler; interlinear annotation.
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        // Musical and shorthand format controls.
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        // Tags, more variation selectors, and the rest of the plane that is never seen.
        | '\u{e0000}'..='\u{e0fff}' => true,
        // C0 and C1.
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_nobody_sees_is_removed_and_the_rest_stays() {
        for (given, kept) in [
            ("a\u{0}b\u{1b}[31mc\r\n\td\u{7f}\u{85}\u{9b}", "ab[31mc\n\td\n"),
            ("first\rsecond\u{2028}third\u{2029}\u{b}\u{c}\r\nlast", "first\nsecond\nthird\n\n\n\nlast"),
            ("\u{202e}evil\u{202c} \u{2066}x\u{2069}\u{200e}", "evil x"),
            ("zero\u{200b}width\u{200d}\u{2060}\u{feff}", "zerowidth"),
            ("tags\u{e0001}\u{e0041}\u{e007f}", "tags"),
            ("selectors\u{fe0f}\u{e0100}\u{e01ef}", "selectors"),
            ("soft\u{ad}hyphen", "softhyphen"),
            ("e\u{301}", "\u{e9}"),
            ("e\u{200b}\u{301}", "\u{e9}"),
            (
                "<b>&amp;\"quotes\" {{ braces }} token: x, system prompt",
                "<b>&amp;\"quotes\" {{ braces }} token: x, system prompt",
            ),
            ("日本語 עברית العربية 👩", "日本語 עברית العربية 👩"),
        ] {
            assert_eq!(sanitised(given), kept);
        }
    }

    #[test]
    fn what_is_hidden_is_told_from_line_breaks_and_emoji() {
        for plain in [
            "one\r\ntwo\rthree\u{2028}four",
            "\u{2764}\u{fe0f}",
            "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
            "\u{1f469}\u{200d}\u{1f4bb}",
        ] {
            assert!(!hides(plain), "{plain:?}");
        }
        for hidden in
            ["zero\u{200b}width", "a\u{200d}b", "a\u{fe0f}", "\u{2764}\u{fe0f}\u{fe0f}", "\u{202e}evil", "\u{1b}[31m"]
        {
            assert!(hides(hidden), "{hidden:?}");
        }
    }

    #[test]
    fn a_value_is_one_line_of_bounded_length() {
        assert_eq!(value("one\ntwo\r\n\n\tthree", 100), "one two three");
        assert_eq!(value("ééé", 3), "ééé");
        assert_eq!(value("éééé", 3), "ééé…");
    }

    /// Any text, most of it of characters that are worth a test.
    fn text() -> impl Strategy<Value = String> {
        let odd = proptest::sample::select(vec![
            '\0',
            '\n',
            '\t',
            '\r',
            '\u{1b}',
            '\u{85}',
            'e',
            '\u{301}',
            '\u{327}',
            '\u{200b}',
            '\u{202e}',
            '\u{feff}',
            '\u{e0041}',
            '\u{fe0f}',
            '\u{1100}',
            '\u{1161}',
            '\u{11a8}',
            '\u{958}',
            '\u{fb1d}',
            '\u{1d15e}',
            '\u{344}',
        ]);
        proptest::collection::vec(prop_oneof![3 => odd, 1 => any::<char>()], 0..60)
            .prop_map(|characters| characters.into_iter().collect())
    }

    proptest! {
        #[test]
        fn sanitising_twice_changes_nothing(text in text()) {
            let once = sanitised(&text).into_owned();
            prop_assert_eq!(sanitised(&once).into_owned(), once);
        }

        #[test]
        fn nothing_hidden_is_left_and_nothing_is_added(text in text()) {
            let clean = sanitised(&text);
            prop_assert!(!clean.contains(is_hidden));
            prop_assert!(unicode_normalization::is_nfc(&clean));
            let lines = text.replace("\r\n", "\n").replace(is_break, "\n");
            let visible: String = lines.chars().filter(|character| !is_hidden(*character)).nfd().collect();
            prop_assert_eq!(clean.nfd().collect::<String>(), visible);
        }
    }
}
