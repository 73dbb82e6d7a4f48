//! Which paths may stand in a bundle.

use pipe_stage::Digest;

use super::{EXPERIMENT, Limits, PathProblem};

/// The longest part of a path that file systems take, in bytes.
const PART_BYTES: usize = 255;

/// Looks at one path by itself. What it names must have the digest `digest`.
pub(super) fn check(path: &str, digest: &Digest, limits: &Limits) -> Result<(), PathProblem> {
    if path.starts_with('/') {
        return Err(PathProblem::Absolute);
    }
    if path.chars().any(|c| c.is_control() || turns_text(c)) {
        return Err(PathProblem::Characters);
    }
    if path.len() > limits.path_bytes || path.split('/').any(|part| part.len() > PART_BYTES) {
        return Err(PathProblem::Long);
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(PathProblem::Parts);
    }
    match path.split_once('/') {
        None if path == EXPERIMENT => Ok(()),
        Some(("project", _)) => Ok(()),
        Some(("logs", name)) if !name.contains('/') => Ok(()),
        Some(("objects", name)) if name == digest.to_string() => Ok(()),
        Some(("objects", _)) => Err(PathProblem::Object),
        _ => Err(PathProblem::Unknown),
    }
}

/// Characters by which a name is shown as another.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Looks for paths that cannot stand beside each other on every file system: they are the same but for the case of
/// letters, or one is a file and needed as a folder. Gives the later one and what is wrong with it.
pub(super) fn check_together<'path>(paths: impl Iterator<Item = &'path str>) -> Result<(), (&'path str, PathProblem)> {
    // Sorted part by part, whatever lies in a folder stands together, right behind a file of the folder's name.
    let mut sorted: Vec<(String, &str)> = paths.map(|path| (lower(path).replace('/', "\0"), path)).collect();
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let (one, other) = (pair[0].1, pair[1].1);
        if collide(one, other) {
            return Err((other, PathProblem::Collides { with: one.to_owned() }));
        }
    }
    Ok(())
}

fn collide(one: &str, other: &str) -> bool {
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    loop {
        match (ones.next(), others.next()) {
            (Some(one), Some(other)) if one == other => {}
            (Some(one), Some(other)) => return lower(one) == lower(other),
            // One of them is a file where the other needs a folder, or both are the same.
            (None, _) | (_, None) => return true,
        }
    }
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
