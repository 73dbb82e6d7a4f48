//! Looking at the place that a copy is to be put to: what is there already, and what of that may go.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pipe_stage::{Form, manifest::escape};

use super::{CacheError, Checkout, Target, Trying, is_gone, written::Place};

/// An error names so many files.
const FILES_NAMED: usize = 3;

/// What is at a place.
pub(super) enum Situation {
    /// Nothing, or an empty folder.
    Free,
    /// Something, and this makes it what it should be.
    Taken(Changes),
}

/// What makes a place what it should be.
#[derive(Default)]
pub(super) struct Changes {
    /// Indices of the targets that are to be written.
    pub(super) write: Vec<usize>,
    /// Files of an earlier copy.
    pub(super) remove: Vec<PathBuf>,
    /// What stands where a target or its folder has to be, and cannot just be replaced.
    pub(super) clear: BTreeSet<PathBuf>,
}

/// Looks at `path`, which is to hold the `targets`.
///
/// # Errors
/// If something is there that must not be overwritten.
pub(super) fn inspect(
    path: &Path,
    targets: &[Target<'_>],
    place: &Place,
    options: Checkout,
) -> Result<Situation, CacheError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if is_gone(&error) => return Ok(Situation::Free),
        metadata => metadata.trying("read", path)?,
    };
    if metadata.is_dir() && options.form == Form::File {
        return Err(CacheError::DestinationIsFolder { path: path.to_owned() });
    }
    let mut found = BTreeMap::new();
    if metadata.is_dir() {
        list(path, "", &mut found)?;
        if found.is_empty() && is_empty(path)? {
            return Ok(Situation::Free);
        }
    } else {
        found.insert(String::new(), Found { path: path.to_owned(), metadata });
    }
    let (changes, in_the_way) = compare(targets, &found, place)?;
    if !in_the_way.is_empty() && !options.force {
        return Err(if place.is_known() {
            CacheError::DestinationEdited { path: path.to_owned(), files: named(&in_the_way) }
        } else {
            CacheError::DestinationTaken { path: path.to_owned() }
        });
    }
    Ok(Situation::Taken(changes))
}

/// The names in brackets; nothing if it is the destination itself, which is no folder.
fn named(names: &[String]) -> String {
    if names.iter().all(String::is_empty) {
        return String::new();
    }
    let mut text =
        names.iter().take(FILES_NAMED).map(|name| format!("`{}`", escape(name))).collect::<Vec<_>>().join(", ");
    if names.len() > FILES_NAMED {
        text += &format!(" and {} more", names.len() - FILES_NAMED);
    }
    format!(" ({text})")
}

/// Something that is there and is no folder.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

/// What is to be changed, and the names of what that would destroy of somebody else's.
fn compare(
    targets: &[Target<'_>],
    found: &BTreeMap<String, Found>,
    place: &Place,
) -> Result<(Changes, Vec<String>), CacheError> {
    let wanted: HashMap<&str, &Target<'_>> = targets.iter().map(|target| (target.name, target)).collect();
    let folders: BTreeSet<&str> = targets.iter().flat_map(|target| folders_above(target.name)).collect();
    let mut changes = Changes::default();
    let mut in_the_way = Vec::new();
    let mut right = BTreeSet::new();
    for (name, there) in found {
        let content = if there.metadata.is_file() && (wanted.contains_key(name.as_str()) || place.knows(name)) {
            Some(place.content(name, there)?)
        } else {
            None
        };
        let is_ours = content.is_some_and(|content| place.wrote(name, &content));
        let is_in_a_file = || folders_above(name).any(|folder| wanted.contains_key(folder));
        match wanted.get(name.as_str()) {
            Some(target) if content == Some(target.entry.digest) => {
                if there.is_executable() == target.entry.executable {
                    right.insert(target.name);
                }
            }
            Some(_) if is_ours => {}
            // Left alone, unless it stands where something else has to be.
            None if place.is_known() && !place.knows(name) && !folders.contains(name.as_str()) && !is_in_a_file() => {}
            _ if is_ours => {}
            _ => in_the_way.push(name.clone()),
        }
        if folders.contains(name.as_str()) {
            changes.clear.insert(there.path.clone());
        } else if place.knows(name) && !wanted.contains_key(name.as_str()) {
            changes.remove.push(there.path.clone());
        }
    }
    for (index, target) in targets.iter().enumerate().filter(|(_, target)| !right.contains(target.name)) {
        changes.write.push(index);
        if fs::symlink_metadata(&target.path).is_ok_and(|metadata| metadata.is_dir()) {
            changes.clear.insert(target.path.clone());
        }
    }
    Ok((changes, in_the_way))
}

impl Found {
    fn is_executable(&self) -> bool {
        self.metadata.mode() & 0o100 != 0
    }
}

/// The names of the folders that a file of this name lies in, within its place; of a file in the place, the place.
fn folders_above(name: &str) -> impl Iterator<Item = &str> {
    let place = (!name.is_empty()).then_some("");
    name.match_indices('/').map(|(end, _)| &name[..end]).chain(place)
}

/// Everything below `folder` that is no folder. Links are not followed.
fn list(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Found>) -> Result<(), CacheError> {
    for entry in fs::read_dir(folder).trying("read", folder)? {
        let path = entry.trying("read", folder)?.path();
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if is_gone(&error) => continue,
            metadata => metadata.trying("read", &path)?,
        };
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if metadata.is_dir() {
            list(&path, &format!("{name}/"), found)?;
        } else {
            found.insert(name, Found { path, metadata });
        }
    }
    Ok(())
}

fn is_empty(folder: &Path) -> Result<bool, CacheError> {
    Ok(fs::read_dir(folder).trying("read", folder)?.next().is_none())
}
