//! Names that a user gives to stages and outputs: what they may hold.
//!
//! A name stands in commands, in references (`STAGE.OUTPUT`, `STAGE[r=8]`) and as the name of files, so it has no
//! blanks, no quotes and no separators. Letters may be of any script.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The longest name, in characters.
pub const MAX_CHARACTERS: usize = 64;

/// The longest name, in bytes of UTF-8: `MAX_CHARACTERS` of Chinese. The name of a file may have 255 in all.
pub const MAX_BYTES: usize = 3 * MAX_CHARACTERS;

/// What a pattern of a JSON Schema can say about a name without classes of Unicode, which not every checker knows.
pub const PATTERN: &str = r"[^\s\x00-,./:-@\[-^`{-\x7f-][^\s\x00-,./:-@\[-^`{-\x7f]{0,63}";

/// Letters that show nothing, or as good as nothing: with them, two names that differ would look the same.
const INVISIBLE: &[(char, char)] = &[
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200c}', '\u{200d}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{e0100}', '\u{e01ef}'),
];

/// Why a text is no name. Says what would be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has other characters, the wrong first one, or none.
    #[error("use letters and digits of any script, `_` and `-`, at most {MAX_CHARACTERS}, not first a `-`")]
    Characters,
    /// It is too long.
    #[error("use at most {MAX_CHARACTERS} characters, and at most {MAX_BYTES} bytes of UTF-8")]
    Length,
    /// It has more than one form, and this is not the one that everybody types.
    #[error("it is not in Unicode's normal form C: write `{0}`, which looks the same")]
    Form(String),
}

/// Whether `text` is a name: letters and digits of any script, `_` and `-`; not first a `-` or a combining mark; in
/// normal form C, so that what looks the same is the same.
///
/// # Errors
/// Why it is none.
pub fn check(text: &str) -> Result<(), NameError> {
    let first = |c: char| c == '_' || unicode_ident::is_xid_start(c) || c.is_numeric();
    if !text.starts_with(first) || !text.chars().all(is_character) {
        return Err(NameError::Characters);
    }
    if let Cow::Owned(normal) = normal_form(text) {
        return Err(NameError::Form(normal));
    }
    if text.len() > MAX_BYTES || text.chars().count() > MAX_CHARACTERS {
        return Err(NameError::Length);
    }
    Ok(())
}

/// Whether a name may have this character in it.
pub fn is_character(c: char) -> bool {
    let visible = || !INVISIBLE.iter().any(|(from, to)| (*from..=*to).contains(&c));
    c.is_ascii_alphanumeric()
        || matches!(c, '_' | '-')
        || (!c.is_ascii() && unicode_ident::is_xid_continue(c) && visible())
}

/// A text in Unicode's normal form C; borrowed if it is.
pub fn normal_form(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    let normal: String = text.nfc().collect();
    if normal == text { Cow::Borrowed(text) } else { Cow::Owned(normal) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn names_may_be_of_any_script() {
        let chinese = "数".repeat(MAX_CHARACTERS);
        for name in
            ["a", "0", "_", "a-b_c", "数据", "语料2", "2号", "модель", "データ", "한국어", "café", "हिन्दी", &chinese]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        assert_eq!(check(&"a".repeat(MAX_CHARACTERS + 1)), Err(NameError::Length));
        assert_eq!(check(&"𠀀".repeat(MAX_CHARACTERS)), Err(NameError::Length), "four bytes each");
    }

    #[test]
    fn what_steers_or_separates_or_cannot_be_seen_is_no_name() {
        for name in [
            "",
            "-",
            "-a",
            ".a",
            "a.b",
            "a/b",
            "a b",
            "a\u{3000}b",
            "a\n",
            "a\0",
            "a\u{7f}",
            "a@b",
            "a=b",
            "a\"",
            "数，据",
            "数。",
            "🚀",
            "a\u{200b}b",
            "a\u{200d}b",
            "a\u{202e}b",
            "a\u{fe0f}",
            "a\u{3164}",
            "\u{301}a",
            "½",
            "a\\",
        ] {
            assert_eq!(check(name), Err(NameError::Characters), "{name:?}");
        }
    }

    #[test]
    fn a_name_in_another_form_is_told_its_normal_one() {
        for (given, normal) in [("cafe\u{301}", "café"), ("\u{1112}\u{1161}\u{11ab}", "한"), ("\u{212b}", "Å")] {
            let error = check(given).unwrap_err();
            assert_eq!(error, NameError::Form(normal.to_owned()));
            assert!(error.to_string().contains(normal), "{error}");
            assert_eq!(check(normal), Ok(()));
        }
    }
}
