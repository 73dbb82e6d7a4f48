//! Which files of a folder changed.

use std::{cmp::Ordering, fmt};

use serde::Serialize;

use crate::{
    cache::{Entry, Manifest},
    report,
};

/// As many files are named in JSON.
const KEPT: usize = 100;

/// As many files are named in a sentence.
const TOLD: usize = 3;

/// What differs between two states of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FolderChange {
    /// The first files that differ, in the order of their paths.
    pub files: Vec<FileChange>,
    /// How many files have other bytes, or may now be executed, or no longer.
    pub changed: usize,
    /// How many are new.
    pub added: usize,
    /// How many are gone.
    pub removed: usize,
    /// How many files the folder has now.
    pub total: usize,
}

/// A file of a folder that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path in the folder.
    pub path: String,
    /// In which way.
    pub change: ChangeKind,
}

/// How a file of a folder differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It has other bytes, or may now be executed, or no longer.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl FolderChange {
    /// Compares two states of a folder, in one pass over both.
    pub fn between(before: &Manifest, now: &Manifest) -> Self {
        let mut change = Self { files: Vec::new(), changed: 0, added: 0, removed: 0, total: now.entries().len() };
        let (mut before, mut now) = (before.entries().iter().peekable(), now.entries().iter().peekable());
        loop {
            // Both are sorted by path.
            let order = match (before.peek(), now.peek()) {
                (None, None) => return change,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            let old = if order.is_le() { before.next() } else { None };
            let new = if order.is_ge() { now.next() } else { None };
            change.compare(old, new);
        }
    }

    fn compare(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let content = |entry: &Entry| (entry.digest, entry.executable);
        let (kind, count) = match (old, new) {
            (Some(old), Some(new)) if content(old) == content(new) => return,
            (Some(_), Some(_)) => (ChangeKind::Changed, &mut self.changed),
            (None, _) => (ChangeKind::Added, &mut self.added),
            (_, None) => (ChangeKind::Removed, &mut self.removed),
        };
        *count += 1;
        if let (true, Some(entry)) = (self.files.len() < KEPT, new.or(old)) {
            self.files.push(FileChange { path: entry.path.clone(), change: kind });
        }
    }
}

/// `a.jsonl changed (1 of 20,000 files)`.
impl fmt::Display for FolderChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |kind| match kind {
            ChangeKind::Changed => "changed",
            ChangeKind::Added => "is new",
            ChangeKind::Removed => "is gone",
        };
        let told = self.files.iter().take(TOLD);
        let names: Vec<String> = told.map(|file| format!("`{}` {}", file.path, word(file.change))).collect();
        f.write_str(&names.join(", "))?;
        let count = self.changed + self.added + self.removed;
        if count > TOLD {
            write!(f, " and {} more", report::count((count - TOLD) as u64))?;
        }
        write!(f, " ({} of {} files)", report::count(count as u64), report::count(self.total as u64))
    }
}

#[cfg(test)]
mod tests {
    use pipe_stage::Digest;

    use super::*;

    fn manifest(files: &[(&str, &str)]) -> Manifest {
        let entry = |(path, text): &(&str, &str)| Entry {
            path: (*path).to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: 1,
            executable: false,
        };
        Manifest::new(files.iter().map(entry).collect())
    }

    #[test]
    fn every_file_that_differs_is_counted_and_the_first_are_named() {
        let before = manifest(&[("a", "1"), ("b", "1"), ("d", "1"), ("e", "1"), ("f", "1")]);
        let now = manifest(&[("a", "1"), ("b", "2"), ("c", "1"), ("e", "2")]);
        let change = FolderChange::between(&before, &now);
        assert_eq!((change.changed, change.added, change.removed, change.total), (2, 1, 2, 4));
        assert_eq!(change.to_string(), "`b` changed, `c` is new, `d` is gone and 2 more (5 of 4 files)");
        assert_eq!(FolderChange::between(&before, &before).files, []);
    }

    #[test]
    fn one_file_of_many_is_found() {
        let names: Vec<String> = (0..20_000).map(|index| format!("{index:05}.jsonl")).collect();
        let files = |changed: usize| {
            let text = |index| if index == changed { "2" } else { "1" };
            manifest(&names.iter().enumerate().map(|(index, name)| (name.as_str(), text(index))).collect::<Vec<_>>())
        };
        let change = FolderChange::between(&files(usize::MAX), &files(777));
        assert_eq!(change.to_string(), "`00777.jsonl` changed (1 of 20,000 files)");
    }
}
