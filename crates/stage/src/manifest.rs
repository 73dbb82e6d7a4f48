//! A folder as text: the canonical list of its files, whose digest is the folder's digest.
//!
//! ```text
//! pipe manifest 1
//! 7e1c...0f - 1234 adapter_config.json
//! 9ab0...44 x 56 tools/run.sh
//! \31f7...c2 - 7 two\nlines
//! ```
//! One line a file, sorted by the bytes of the path: digest, `x` if it is executable, size in bytes, path. No times, no
//! owners, no empty folders: what a copy would not keep is not part of the content.
//!
//! A path with control characters would break the line. As in the lists of `sha256sum` and `b3sum`, its line begins
//! with a backslash and the path is written by [`escape`]; every other path stands as it is.

use std::borrow::Cow;

use crate::Digest;

const HEADER: &str = "pipe manifest 1";
/// Begins a line whose path is escaped.
const ESCAPED: &str = "\\";

/// The files of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the artifact, `/` between the parts: UTF-8, never out of the folder.
    pub path: String,
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Text that is no manifest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a manifest (line {line})")]
pub struct InvalidManifest {
    /// Counted from 1.
    pub line: usize,
}

impl Manifest {
    /// The manifest of these files, whose paths must differ and be [storable](is_storable).
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// The files, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The size of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |total, entry| total.saturating_add(entry.size))
    }

    /// The canonical text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for Entry { path, digest, size, executable } in &self.entries {
            let mode = if *executable { 'x' } else { '-' };
            let path = escape(path);
            let mark = if matches!(path, Cow::Owned(_)) { ESCAPED } else { "" };
            text.push_str(&format!("{mark}{digest} {mode} {size} {path}\n"));
        }
        text
    }

    /// The digest of the canonical text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }

    /// Reads the canonical text, and nothing but it.
    ///
    /// # Errors
    /// On any text that [`Manifest::to_text`] does not write: in particular, no path that leaves the folder passes.
    pub fn parse(text: &str) -> Result<Self, InvalidManifest> {
        let lines = text.strip_suffix('\n').ok_or(InvalidManifest { line: 1 })?;
        let mut entries: Vec<Entry> = Vec::new();
        for (i, line) in lines.split('\n').enumerate() {
            let invalid = InvalidManifest { line: i + 1 };
            if i == 0 {
                if line != HEADER {
                    return Err(invalid);
                }
                continue;
            }
            let entry = parse_entry(line).ok_or(invalid)?;
            if entries.last().is_some_and(|last| last.path >= entry.path) {
                return Err(InvalidManifest { line: i + 1 });
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }
}

/// Whether a relative path may stand in a manifest: parts that are not empty, `.` or `..`, and no NUL.
pub fn is_storable(path: &str) -> bool {
    path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0')
}

/// A path on one line that cannot steer a terminal: as it is, or, if it has control characters, with those and the
/// backslash escaped as Rust escapes them (`\n`, `\u{1b}`, `\\`).
pub fn escape(path: &str) -> Cow<'_, str> {
    if !path.contains(char::is_control) {
        return Cow::Borrowed(path);
    }
    let mut escaped = String::with_capacity(path.len() + 8);
    for character in path.chars() {
        if character == '\\' || character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// What [`escape`] made this of. `None` if it would have written it in another way, or left it as it was.
fn unescape(escaped: &str) -> Option<String> {
    let mut path = String::with_capacity(escaped.len());
    let mut rest = escaped.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            path.push(character);
            continue;
        }
        path.push(match rest.next()? {
            '\\' => '\\',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (digits, behind) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                rest = behind.chars();
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        });
    }
    let canonical = matches!(escape(&path), Cow::Owned(again) if again == escaped);
    canonical.then_some(path)
}

fn parse_entry(line: &str) -> Option<Entry> {
    let (line, escaped) = line.strip_prefix(ESCAPED).map_or((line, false), |line| (line, true));
    let mut fields = line.splitn(4, ' ');
    let digest = fields.next()?.parse().ok()?;
    let executable = match fields.next()? {
        "x" => true,
        "-" => false,
        _ => return None,
    };
    let size_text = fields.next()?;
    let size: u64 = size_text.parse().ok()?;
    let path = fields.next()?;
    let path = if escaped { unescape(path)? } else { path.to_owned() };
    let plain = !path.contains(char::is_control);
    let canonical = size.to_string() == size_text && is_storable(&path) && plain != escaped;
    canonical.then_some(Entry { path, digest, size, executable })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            digest: Digest::of(path.as_bytes()),
            size: 12,
            executable: path.ends_with(".sh"),
        }
    }

    #[test]
    fn the_text_is_canonical_and_comes_back() {
        let manifest = Manifest::new(vec![entry("b"), entry("a/名 前.sh"), entry("a-b"), entry("a")]);
        let text = manifest.to_text();
        let paths: Vec<_> = manifest.entries().iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["a", "a-b", "a/名 前.sh", "b"]);
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        assert_eq!(Manifest::parse(&text).unwrap().to_text(), text);
        assert_eq!(manifest.total_bytes(), 48);
    }

    #[test]
    fn names_with_control_characters_are_escaped_and_no_others() {
        for (path, escaped) in [
            ("two\nlines", r"two\nlines"),
            ("tab\tand\r", r"tab\tand\r"),
            ("\u{1b}[2J\u{85}\u{7f}", r"\u{1b}[2J\u{85}\u{7f}"),
            ("a\\b\n名", r"a\\b\n名"),
        ] {
            assert_eq!(escape(path), escaped);
            assert_eq!(unescape(escaped).as_deref(), Some(path));
            let manifest = Manifest::new(vec![entry(path)]);
            let text = manifest.to_text();
            assert_eq!(text, format!("{HEADER}\n\\{} - 12 {escaped}\n", Digest::of(path.as_bytes())));
            assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        }
        for path in [r"two\nlines", r"C:\temp", "\"quoted\"", "空 格 🎉", "e\u{301}", "\u{202e}txt"] {
            let text = Manifest::new(vec![entry(path)]).to_text();
            assert_eq!(text, format!("{HEADER}\n{} - 12 {path}\n", Digest::of(path.as_bytes())));
            assert_eq!(Manifest::parse(&text).unwrap().entries()[0].path, path);
        }
    }

    #[test]
    fn the_digest_of_a_folder_never_changes() {
        let manifest = Manifest::new(vec![entry("config.json"), entry("run.sh")]);
        assert_eq!(manifest.digest().to_string(), "3f97d2a29a72a030477a7e08eb42d49e1179a1ef6926157e57987e93d909c9cc");
    }

    #[test]
    fn nothing_but_the_canonical_text_passes() {
        let digest = Digest::of(b"");
        let line = format!("{digest} - 0 a");
        for text in [
            String::new(),
            HEADER.to_owned(),
            format!("pipe manifest 2\n{line}\n"),
            format!("{HEADER}\n{line}"),
            format!("{HEADER}\n{line}\n\n"),
            format!("{HEADER}\n{line}\n{line}\n"),
            format!("{HEADER}\n{digest} - 0 b\n{line}\n"),
            format!("{HEADER}\n{digest} - 00 a\n"),
            format!("{HEADER}\n{digest} - +1 a\n"),
            format!("{HEADER}\n{digest} r 0 a\n"),
            format!("{HEADER}\n{digest} - 0\n"),
            format!("{HEADER}\n{digest} - 0 \n"),
            format!("{HEADER}\n{digest} - 0 ../a\n"),
            format!("{HEADER}\n{digest} - 0 /a\n"),
            format!("{HEADER}\n{digest} - 0 a/\n"),
            format!("{HEADER}\n{digest} - 0 a/./b\n"),
            format!("{HEADER}\n{digest} - 0 a\r\n"),
            format!("{HEADER}\n{digest} - 0 a\0b\n"),
            format!("{HEADER}\n\\{digest} - 0 a\n"),
            format!("{HEADER}\n\\{digest} - 0 a\\\\b\n"),
            format!("{HEADER}\n\\{digest} - 0 a\r\n"),
            format!("{HEADER}\n\\{digest} - 0 a\\u{{a}}\n"),
            format!("{HEADER}\n\\{digest} - 0 a\\u{{01b}}\n"),
            format!("{HEADER}\n\\{digest} - 0 a\\u{{1B}}\n"),
            format!("{HEADER}\n\\{digest} - 0 a\\u{{+1b}}\n"),
            format!("{HEADER}\n\\{digest} - 0 a\\u{{0}}\n"),
            format!("{HEADER}\n\\{digest} - 0 \\n\\x\n"),
            format!("{HEADER}\n\\{digest} - 0 \\n\\\n"),
            format!("{HEADER}\n\\\\{digest} - 0 \\n\n"),
        ] {
            assert!(Manifest::parse(&text).is_err(), "{text:?}");
        }
        assert_eq!(Manifest::parse(&format!("{HEADER}\n{line}\n{digest} - 0 \n")), Err(InvalidManifest { line: 3 }));
    }
}
