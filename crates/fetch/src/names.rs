//! Names of files, as servers give them: none may lead out of the folder, or stand for two files.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::Error;

/// What file systems take as one part of a path, bytes.
const PART_BYTES: usize = 255;

/// What an artifact takes as a path, bytes.
const PATH_BYTES: usize = 2048;

/// Checks a name: a relative path with `/` between its parts.
///
/// # Errors
/// If it could do harm, or no artifact can hold it.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.starts_with('/') {
        "is absolute"
    } else if name.contains('\\') {
        "has a backslash"
    } else if name.chars().any(char::is_control) {
        "has a control character"
    } else if name.chars().any(reorders) {
        "has a character that changes the direction of the text"
    } else if name.split('/').any(|part| part == ".." || part == ".") {
        "leads out of its folder"
    } else if name.split('/').any(str::is_empty) {
        "has an empty part"
    } else if name.len() > PATH_BYTES || name.split('/').any(|part| part.len() > PART_BYTES) {
        "is too long"
    } else {
        return Ok(());
    };
    Err(Error::Name { name: name.to_owned(), reason })
}

/// Characters with which a name looks like another (`exe.txt` for `txt.exe`).
fn reorders(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Checks that all these names can stand side by side on every file system.
///
/// # Errors
/// If two are the same, or differ only in case or in how accents are written, or one is a folder of another.
pub(crate) fn check_together<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<(), Error> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let folded = |name: &str| name.nfc().flat_map(char::to_lowercase).nfc().collect::<String>();
    let error = |one: &str, other: &str, reason| {
        let (one, other) = if one <= other { (one, other) } else { (other, one) };
        Err(Error::Names { one: one.to_owned(), other: other.to_owned(), reason })
    };
    for name in names.clone() {
        if let Some(other) = seen.insert(folded(name), name) {
            let reason = if other == name {
                "are listed twice"
            } else {
                "differ only in case, or in how accents are written: many file systems hold only one of them"
            };
            return error(name, other, reason);
        }
    }
    for name in names {
        for (at, _) in name.match_indices('/') {
            if let Some(other) = seen.get(&folded(&name[..at])) {
                return error(name, other, "cannot both be: one is a file, and a folder of the other");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_do_harm_are_refused() {
        for (name, reason) in [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("a/../../b", "leads out of its folder"),
            ("..", "leads out of its folder"),
            ("./a", "leads out of its folder"),
            ("a//b", "has an empty part"),
            ("a/", "has an empty part"),
            ("..\\..\\b", "has a backslash"),
            ("a\0b", "has a control character"),
            ("a\nb", "has a control character"),
            ("a\u{202e}txt.exe", "has a character that changes the direction of the text"),
            (&"x".repeat(256), "is too long"),
            (&"x/".repeat(1500), "has an empty part"),
            (&vec!["x"; 1500].join("/"), "is too long"),
        ] {
            let Err(Error::Name { reason: found, .. }) = check(name) else { panic!("{name:?} is taken") };
            assert_eq!(found, reason, "{name:?}");
        }
        for name in ["model.safetensors", "数据/第一.jsonl", "a b/…🎉", ".gitattributes", "...", "a/..b"] {
            check(name).unwrap();
        }
    }

    #[test]
    fn names_that_are_the_same_somewhere_are_refused() {
        let together = |names: &[&str]| check_together(names.iter().copied()).map_err(|error| error.to_string());
        together(&["a", "b/a", "b/c", "ab"]).unwrap();
        assert!(together(&["README.md", "readme.md"]).unwrap_err().contains("differ only in case"));
        assert!(together(&["é", "e\u{301}"]).unwrap_err().contains("differ only in case"));
        assert!(together(&["a", "a"]).unwrap_err().contains("listed twice"));
        assert!(together(&["a/b/c", "A"]).unwrap_err().contains("a folder of the other"));
    }
}
