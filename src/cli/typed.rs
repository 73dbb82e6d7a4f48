//! Commands as one would type them.

/// The command that was typed, for saying how to go on.
pub(super) fn again() -> String {
    let arguments = std::env::args().skip(1).map(|argument| word(&argument));
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
