//! Commands as one would type them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

/// The command that was typed, for saying how to go on.
pub(super) fn again() -> String {
    let arguments = std::env::args_os().skip(1).map(|argument| any_word(&argument));
    std::iter::once("pipe".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// A word of a command, in quotes where a shell would not leave it alone.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The same for a word that is no text: bash, zsh and ksh read its bytes back.
fn any_word(argument: &OsStr) -> String {
    let Some(text) = argument.to_str() else {
        let byte = |byte: &u8| match byte {
            b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
            b' '..=b'~' => char::from(*byte).to_string(),
            byte => format!("\\x{byte:02x}"),
        };
        return format!("$'{}'", argument.as_bytes().iter().map(byte).collect::<String>());
    };
    word(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_words_back() {
        let words: [&[u8]; 6] = [b"plain-1.yaml", b"a b", b"it's", b"", "数据".as_bytes(), b"\xff'\\ \n"];
        let written: Vec<String> = words.iter().map(|word| any_word(OsStr::from_bytes(word))).collect();
        assert_eq!(written, ["plain-1.yaml", "'a b'", r"'it'\''s'", "''", "数据", r"$'\xff\'\\ \x0a'"]);
        let script = format!("printf '%s\\0' {}", written.join(" "));
        let said = std::process::Command::new("bash").args(["-c", &script]).output().map(|output| output.stdout);
        let expected: Vec<u8> = words.iter().flat_map(|word| [word, &b"\0"[..]].concat()).collect();
        assert_eq!(said.ok(), Some(expected));
    }
}
