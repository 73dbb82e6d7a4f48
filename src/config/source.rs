//! The texts that a pipeline is read from, as one range of byte offsets.
//!
//! The pipeline file comes first; the files that it extends and every `--set` of the command line are laid out behind
//! it. So a plain span says both which text and where in it, and a value keeps its origin wherever it moves.

use std::path::{Path, PathBuf};

use pipe_stage::Digest;
use pipe_yaml::Span;

/// A pipeline file, the files that it extends, and the overrides that were given with it.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    text: String,
    behind: Vec<Behind>,
}

/// A text behind that of the pipeline file.
#[derive(Debug, Clone)]
struct Behind {
    /// Offset of the first byte, counted over all texts.
    base: usize,
    origin: Origin,
    text: String,
}

#[derive(Debug, Clone)]
enum Origin {
    /// A file that is extended.
    File {
        /// As it is shown.
        path: PathBuf,
        /// Absolute.
        folder: PathBuf,
    },
    /// What stands behind `--set`.
    Set,
}

/// A place for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location<'source> {
    /// The file as the user named it, or `--set`.
    pub origin: String,
    /// The whole text that the place is in.
    pub text: &'source str,
    /// The place, in bytes of that text.
    pub span: Span,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

impl Source {
    /// A file's text without overrides.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), behind: Vec::new() }
    }

    /// The file, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What stands behind each `--set`, in order.
    pub fn overrides(&self) -> impl Iterator<Item = &str> {
        let sets = self.behind.iter().filter(|text| matches!(text.origin, Origin::Set));
        sets.map(|given| given.text.as_str())
    }

    /// The files that are extended, as they are shown.
    pub fn bases(&self) -> impl Iterator<Item = &Path> {
        self.behind.iter().filter_map(|text| match &text.origin {
            Origin::File { path, .. } => Some(path.as_path()),
            Origin::Set => None,
        })
    }

    /// The folder of the file in which a place is, if that is a file that is extended.
    pub(super) fn base_folder(&self, span: Span) -> Option<&Path> {
        match &self.behind_at(span)?.origin {
            Origin::File { folder, .. } => Some(folder),
            Origin::Set => None,
        }
    }

    /// A digest of all that was written, and where: as long as it stays, the same `pipe` reads the same pipeline.
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(env!("CARGO_PKG_VERSION").as_bytes());
        add(self.text.as_bytes());
        for Behind { origin, text, .. } in &self.behind {
            // What a base names, it names from its own folder.
            if let Origin::File { folder, .. } = origin {
                let own = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
                add(own.parent().unwrap_or(Path::new("")).as_os_str().as_encoded_bytes());
                add(folder.as_os_str().as_encoded_bytes());
            }
            add(text.as_bytes());
        }
        hasher.finalize().into()
    }

    /// Lays out one more `--set`, and says where it starts.
    pub(super) fn push_override(&mut self, text: String) -> usize {
        self.push(Origin::Set, text)
    }

    /// Lays out a file that is extended, and says where it starts.
    pub(super) fn push_file(&mut self, path: PathBuf, folder: PathBuf, text: String) -> usize {
        self.push(Origin::File { path, folder }, text)
    }

    fn push(&mut self, origin: Origin, text: String) -> usize {
        // One byte between the texts: a span at the very end of one is not at the start of the next.
        let base = self.end() + 1;
        self.behind.push(Behind { base, origin, text });
        base
    }

    fn behind_at(&self, span: Span) -> Option<&Behind> {
        self.behind.iter().rev().find(|text| text.base <= span.start)
    }

    /// Where a span of this source is.
    pub fn locate(&self, span: Span) -> Location<'_> {
        let (origin, text, base) = match self.behind_at(span) {
            Some(Behind { base, origin: Origin::Set, text }) => ("--set".to_owned(), text.as_str(), *base),
            Some(Behind { base, origin: Origin::File { path, .. }, text }) => {
                (path.display().to_string(), text.as_str(), *base)
            }
            None => (self.path.display().to_string(), self.text.as_str(), 0),
        };
        let start = text.floor_char_boundary(span.start - base);
        let end = text.floor_char_boundary(span.end.saturating_sub(base)).max(start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let indent = before[line_start..].trim_start_matches('\u{feff}');
        Location {
            origin,
            text,
            span: Span { start, end },
            line: before.matches('\n').count() + 1,
            column: indent.chars().count() + 1,
        }
    }

    fn end(&self) -> usize {
        self.behind.last().map_or(self.text.len(), |text| text.base + text.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_start_at_one() {
        let source = Source::new("a.yaml", "x: 1\n语言: 中文\n");
        let start = source.text().find("中").unwrap_or(0);
        let location = source.locate(Span { start, end: start + 6 });
        assert_eq!((location.origin.as_str(), location.line, location.column), ("a.yaml", 2, 5));
    }

    #[test]
    fn a_span_in_an_override_is_shown_there() {
        let mut source = Source::new("a.yaml", "x: 1");
        source.push_override("x=2".to_owned());
        let base = source.push_override("y=no".to_owned());
        let location = source.locate(Span { start: base + 2, end: base + 4 });
        assert_eq!((location.origin.as_str(), location.text, location.line, location.column), ("--set", "y=no", 1, 3));
    }

    #[test]
    fn the_same_texts_in_other_folders_are_another_pipeline() {
        let digest = |path: &str, base: &str| {
            let mut source = Source::new(path, "extends: base.yaml");
            source.push_file("base.yaml".into(), base.into(), "name: a".to_owned());
            source.digest()
        };
        assert_eq!(digest("/a/x.yaml", "/b"), digest("/a/x.yaml", "/b"));
        assert_ne!(digest("/a/x.yaml", "/b"), digest("/a/x.yaml", "/c"));
        assert_ne!(digest("/a/x.yaml", "/b"), digest("/c/x.yaml", "/b"));
    }

    #[test]
    fn offsets_beyond_the_text_or_inside_a_character_are_pulled_back() {
        let source = Source::new("a.yaml", "中");
        assert_eq!(source.locate(Span { start: 1, end: 99 }).span, Span { start: 0, end: 3 });
    }
}
