//! Making folders ready to become artifacts. What is ready is put in its place by [`keep`](crate::cache::keep).

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use pipe_stage::Digest;
use rayon::prelude::*;
use tempfile::{NamedTempFile, TempPath};

use super::Store;
use crate::cache::{
    CacheError, Entry, Manifest, OutputError,
    atomic::{Folder, publish, rename, sync},
    crash,
    error::Trying,
    hash::hash_file,
    removal::make_writable,
    stamp::{Stamp, Stamps},
    tree::{Found, Links, WalkError, walk},
};

/// Artifacts of this size, or of this many files, are worth a wait of one tick of the clock, so that the next run need
/// not hash them again only because they are so new.
const WORTH_SETTLING_BYTES: u64 = 16 << 20;
const WORTH_SETTLING_FILES: usize = 500;

/// A folder that is ready to become an artifact: hashed, read-only, with a list of its files.
#[derive(Debug)]
pub struct Prepared {
    digest: Digest,
    manifest: Manifest,
    files: Vec<Ready>,
    list: NamedTempFile,
}

/// A file that is ready to become an object.
#[derive(Debug)]
struct Ready {
    digest: Digest,
    path: PathBuf,
    /// Removes the copy at `path`, if it is one, unless it was moved away.
    _copy: Option<TempPath>,
}

impl Store {
    /// Makes the files of `folder` ready to be moved into the store. `folder` is used up, also when this fails.
    ///
    /// # Errors
    /// [`CacheError::Output`] if the folder is no artifact (empty, links, odd names); otherwise if the disk refuses.
    pub fn prepare(&self, folder: &Path) -> Result<Prepared, CacheError> {
        // A link in place of the folder would take in what the stage did not write.
        if !fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(OutputError::Missing { output: name_of(folder) }.into());
        }
        let found = walk(folder, Links::Refuse).map_err(output_error)?;
        if found.is_empty() {
            return Err(OutputError::Empty { output: name_of(folder) }.into());
        }
        let (entries, files): (Vec<Entry>, Vec<Ready>) = if found.len() == 1 {
            // Not worth waking other threads up for.
            found.into_iter().map(|file| self.ready(file)).collect::<Result<_, _>>()?
        } else {
            found.into_par_iter().map(|file| self.ready(file)).collect::<Result<_, _>>()?
        };
        let manifest = Manifest::new(entries);
        let text = manifest.to_text();
        let digest = Digest::of(text.as_bytes());
        let list = self.home.filled(&self.home.object(&digest), text.as_bytes(), 0o444)?;
        Ok(Prepared { digest, manifest, files, list })
    }

    /// Makes a file of an output what an object must be: read-only, with no other name, and hashed.
    fn ready(&self, file: Found) -> Result<(Entry, Ready), CacheError> {
        let metadata = fs::symlink_metadata(&file.path).trying("read", &file.path)?;
        // A second name of the same file, perhaps the user's own, must neither become read-only nor stay a way to
        // change the object.
        let copy = if metadata.nlink() > 1 { Some(self.copy_in(&file.path)?) } else { None };
        let path = copy.as_ref().map_or(file.path, |copy| copy.to_path_buf());
        fs::set_permissions(&path, Permissions::from_mode(0o444)).trying("protect", &path)?;
        let digest = hash_file(&path).trying("read", &path)?;
        let executable = metadata.mode() & 0o100 != 0;
        let entry = Entry { path: file.name, digest, size: metadata.len(), executable };
        Ok((entry, Ready { digest, path, _copy: copy }))
    }

    /// Moves what is ready, and was synced, to its place. What is there already is replaced by the same bytes, which
    /// mends objects that were damaged. Names the folders that are still to be synced.
    pub(in crate::cache) fn place(&self, prepared: Prepared) -> Result<Placed, CacheError> {
        let Prepared { digest, manifest, files, list } = prepared;
        let mut folders = BTreeSet::new();
        for file in files {
            let object = self.home.object(&file.digest);
            crash::point("object.before-rename");
            let mut moved = rename(&file.path, &object);
            if is_denied(&moved)
                && let Some(folder) = file.path.parent()
            {
                // The stage made its folder read-only, and the file cannot leave it.
                make_writable(folder).trying("change", folder)?;
                moved = rename(&file.path, &object);
            }
            folders.extend(to_sync(&object, moved?));
            crash::point("object.after-rename");
        }
        crash::point("store.objects-placed");
        let object = self.home.object(&digest);
        folders.extend(to_sync(&object, publish(list, &object)?));
        crash::point("store.manifest-written");
        Ok(Placed { digest, manifest, folders })
    }

    /// Notes how the objects of a new artifact look, if it is large enough for that. Once all are in place: equal files
    /// share an object.
    pub(in crate::cache) fn remember(&self, placed: &Placed) {
        let Placed { digest, manifest, .. } = placed;
        if manifest.total_bytes() < WORTH_SETTLING_BYTES && manifest.entries().len() < WORTH_SETTLING_FILES {
            return;
        }
        let look = |entry: &Entry| {
            let metadata = fs::symlink_metadata(self.home.object(&entry.digest));
            metadata.ok().map(|metadata| Stamp::of(&metadata))
        };
        let looks: Vec<Option<Stamp>> = manifest.entries().par_iter().map(look).collect();
        if let Some(newest) = looks.iter().flatten().max_by_key(|stamp| stamp.changed_ns()) {
            newest.settle();
        }
        let now = SystemTime::now();
        let mut stamps = Stamps::default();
        for (entry, stamp) in manifest.entries().iter().zip(looks) {
            if let Some(stamp) = stamp.filter(|stamp| stamp.is_settled(now)) {
                stamps.insert(entry.path.clone(), stamp, entry.digest);
            }
        }
        stamps.save(&self.home, &self.home.verified(digest));
        crash::point("store.stamps-written");
    }

    fn copy_in(&self, path: &Path) -> Result<TempPath, CacheError> {
        let mut copy = self.home.temporary(0o600)?;
        File::open(path).and_then(|mut file| io::copy(&mut file, copy.as_file_mut())).trying("copy", path)?;
        Ok(copy.into_temp_path())
    }

    /// Prepares a folder and moves it into the store at once.
    #[cfg(test)]
    pub(crate) fn ingest(&self, folder: &Path) -> Result<Digest, CacheError> {
        let prepared = self.prepare(folder)?;
        sync(&prepared.unsynced().collect::<Vec<_>>())?;
        let placed = self.place(prepared)?;
        self.remember(&placed);
        Ok(placed.digest)
    }
}

impl Prepared {
    /// The digest that the artifact will have.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The size of all its files, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.manifest.total_bytes()
    }

    /// Makes its bytes survive a power cut.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync(&self) -> Result<(), CacheError> {
        sync(&self.unsynced().collect::<Vec<_>>())
    }

    /// The files whose bytes must be synced before it is placed.
    pub(in crate::cache) fn unsynced(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path()).chain([self.list.path()])
    }
}

/// An artifact whose files are in their places.
pub(in crate::cache) struct Placed {
    pub(in crate::cache) digest: Digest,
    manifest: Manifest,
    /// The folders whose names must still be synced.
    pub(in crate::cache) folders: BTreeSet<PathBuf>,
}

/// The folders whose names must be synced for an object to be found after a power cut: its own, and the one in which
/// that was just made.
fn to_sync(object: &Path, folder: Folder) -> impl Iterator<Item = PathBuf> {
    let folders = match folder {
        Folder::Was => 1,
        Folder::Made => 2,
    };
    object.ancestors().skip(1).take(folders).map(Path::to_owned)
}

fn is_denied<T>(result: &Result<T, CacheError>) -> bool {
    matches!(result, Err(CacheError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied)
}

fn output_error(error: WalkError) -> CacheError {
    match error {
        WalkError::Io { path, source } => CacheError::Io { action: "read", path, source },
        // A walk that refuses links meets no loop.
        WalkError::Link(path) | WalkError::Loop(path) => OutputError::Link { path }.into(),
        WalkError::Special(path) => OutputError::Special { path }.into(),
        WalkError::Name(path) => OutputError::Name { path }.into(),
    }
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned()
}
