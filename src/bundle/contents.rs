//! The manifest: what is in a bundle.
//!
//! ```text
//! pipe bundle 1
//! 7e1c...0f - 1234 experiment.json
//! 9ab0...44 x 56 project/tools/run.sh
//! ```
//! One line an entry, sorted by the bytes of the path: digest, `x` if it is executable, size in bytes, path.

use pipe_stage::Digest;

use super::{BundleError, Limits, path};

/// The first line: the format and its version.
pub(super) const FORMAT: &str = "pipe bundle 1";

/// What [`BundleError::Limit`] calls the size of all entries together.
pub const UNPACKED: &str = "bytes when unpacked";

/// Of a first line that is another, this much is shown, in characters.
const SHOWN: usize = 40;

/// What is in a bundle beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    entries: Vec<Entry>,
}

/// A file in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it belongs, relative to the folder that a bundle is unpacked into.
    pub path: String,
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether it can be executed.
    pub executable: bool,
}

impl Contents {
    /// The manifest of these entries, which may come in any order.
    ///
    /// # Errors
    /// If they cannot stand in one bundle, which the reader would find too.
    pub fn new(mut entries: Vec<Entry>, limits: &Limits) -> Result<Self, BundleError> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let contents = Self { entries };
        contents.check(limits)?;
        let bytes = contents.to_text().len() as u64;
        within("bytes of manifest", bytes, limits.manifest_bytes)?;
        Ok(contents)
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        Some(&self.entries[index])
    }

    /// The size of all entries, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |total, entry| total.saturating_add(entry.size))
    }

    /// The text of the manifest. Its digest is the name of the experiment.
    pub fn to_text(&self) -> String {
        let mut text = format!("{FORMAT}\n");
        for Entry { path, digest, size, executable } in &self.entries {
            let mode = if *executable { 'x' } else { '-' };
            text.push_str(&format!("{digest} {mode} {size} {path}\n"));
        }
        text
    }

    /// Reads a manifest that came from elsewhere: nothing but what [`Contents::to_text`] writes, and only paths that
    /// stay in the folder that they are unpacked into.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &[u8], limits: &Limits) -> Result<Self, BundleError> {
        let mut lines = text.split(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        if first != FORMAT.as_bytes() {
            let found = String::from_utf8_lossy(first).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            return Err(BundleError::Format { found, known: FORMAT });
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut ended = false;
        for (line, number) in lines.zip(2..) {
            // Every line ends with a newline, so the last piece is empty, and no other is.
            if ended {
                return Err(BundleError::Line { line: number - 1 });
            }
            if line.is_empty() {
                ended = true;
                continue;
            }
            within("entries", entries.len() as u64 + 1, limits.entries as u64)?;
            let entry = std::str::from_utf8(line).ok().and_then(parse_line);
            entries.push(entry.ok_or(BundleError::Line { line: number })?);
            if let [.., before, last] = &entries[..]
                && before.path >= last.path
            {
                return Err(BundleError::Line { line: number });
            }
        }
        if !ended {
            return Err(BundleError::Line { line: entries.len() + 1 });
        }
        let contents = Self { entries };
        contents.check(limits)?;
        Ok(contents)
    }

    fn check(&self, limits: &Limits) -> Result<(), BundleError> {
        within("entries", self.entries.len() as u64, limits.entries as u64)?;
        let wrong = |path: &str, problem| BundleError::Path { path: path.to_owned(), problem };
        for entry in &self.entries {
            path::check(&entry.path, &entry.digest, limits).map_err(|problem| wrong(&entry.path, problem))?;
        }
        let paths = self.entries.iter().map(|entry| entry.path.as_str());
        path::check_together(paths).map_err(|(path, problem)| wrong(path, problem))?;
        within(UNPACKED, self.total_bytes(), limits.total_bytes)
    }
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), BundleError> {
    if found > limit { Err(BundleError::Limit { what, found, limit }) } else { Ok(()) }
}

fn parse_line(line: &str) -> Option<Entry> {
    let mut fields = line.splitn(4, ' ');
    let digest = fields.next()?.parse().ok()?;
    let executable = match fields.next()? {
        "x" => true,
        "-" => false,
        _ => return None,
    };
    let size_text = fields.next()?;
    let size: u64 = size_text.parse().ok()?;
    let path = fields.next()?.to_owned();
    (size.to_string() == size_text).then_some(Entry { path, digest, size, executable })
}
