//! Taking folders into the store.

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
use tempfile::TempPath;

use super::Store;
use crate::cache::{
    CacheError, Entry, Manifest, OutputError,
    atomic::sync,
    crash,
    error::Trying,
    hash::hash_file,
    stamp::{Stamp, Stamps},
    tree::{Found, Links, WalkError, walk},
};

/// A file that is ready to become an object.
struct Ready {
    entry: Entry,
    path: PathBuf,
    /// Removes the copy at `path`, if it is one, unless it was moved away.
    _copy: Option<TempPath>,
}

impl Store {
    /// Moves the files of `folder` into the store and gives their digest. What is there already is replaced by the
    /// same bytes, which mends objects that were damaged. `folder` is used up, also when this fails.
    ///
    /// # Errors
    /// [`CacheError::Output`] if the folder is no artifact (empty, links, odd names); otherwise if the disk refuses.
    pub fn ingest(&self, folder: &Path) -> Result<Digest, CacheError> {
        // A link in place of the folder would take in what the stage did not write.
        if !fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(OutputError::Missing { output: name_of(folder) }.into());
        }
        let found = walk(folder, Links::Refuse).map_err(output_error)?;
        if found.is_empty() {
            return Err(OutputError::Empty { output: name_of(folder) }.into());
        }
        let ready: Vec<Ready> = found.into_par_iter().map(|file| self.prepare(file)).collect::<Result<_, _>>()?;
        sync(&ready.iter().map(|file| file.path.as_path()).collect::<Vec<_>>())?;
        let entries: Vec<Entry> = ready.into_par_iter().map(|file| self.place(file)).collect::<Result<_, _>>()?;
        let manifest = Manifest::new(entries);
        let objects: Vec<PathBuf> = manifest.entries().iter().map(|entry| self.home.object(&entry.digest)).collect();
        let shards: BTreeSet<&Path> = objects.iter().filter_map(|object| object.parent()).collect();
        sync(&shards.into_iter().collect::<Vec<_>>())?;

        crash::point("store.objects-placed");
        let text = manifest.to_text();
        let digest = Digest::of(text.as_bytes());
        let object = self.home.object(&digest);
        self.home.write_object(&object, text.as_bytes())?;
        sync(&object.parent().into_iter().collect::<Vec<_>>())?;
        crash::point("store.manifest-written");
        self.remember(&digest, &manifest, &objects);
        crash::point("store.stamps-written");
        Ok(digest)
    }

    /// Makes a file of an output what an object must be: read-only, with no other name, and hashed.
    fn prepare(&self, file: Found) -> Result<Ready, CacheError> {
        let metadata = fs::symlink_metadata(&file.path).trying("read", &file.path)?;
        // A second name of the same file, perhaps the user's own, must neither become read-only nor stay a way to
        // change the object.
        let copy = if metadata.nlink() > 1 { Some(self.copy_in(&file.path)?) } else { None };
        let path = copy.as_ref().map_or(file.path, |copy| copy.to_path_buf());
        fs::set_permissions(&path, Permissions::from_mode(0o444)).trying("protect", &path)?;
        let digest = hash_file(&path).trying("read", &path)?;
        let executable = metadata.mode() & 0o100 != 0;
        Ok(Ready { entry: Entry { path: file.name, digest, size: metadata.len(), executable }, path, _copy: copy })
    }

    /// Moves it to its place among the objects.
    fn place(&self, file: Ready) -> Result<Entry, CacheError> {
        let object = self.home.object(&file.entry.digest);
        crash::point("object.before-rename");
        rename(&file.path, &object)?;
        crash::point("object.after-rename");
        Ok(file.entry)
    }

    /// Notes how the objects of a new artifact look. Once all are in place: equal files share an object.
    fn remember(&self, artifact: &Digest, manifest: &Manifest, objects: &[PathBuf]) {
        let look = |object: &PathBuf| fs::symlink_metadata(object).ok().map(|metadata| Stamp::of(&metadata));
        let looks: Vec<Option<Stamp>> = objects.par_iter().map(look).collect();
        if let Some(newest) = looks.iter().flatten().max_by_key(|stamp| stamp.changed_ns()) {
            // Without this the next run would hash a large artifact again, only because it is so new.
            newest.settle();
        }
        let now = SystemTime::now();
        let mut stamps = Stamps::default();
        for (entry, stamp) in manifest.entries().iter().zip(looks) {
            if let Some(stamp) = stamp.filter(|stamp| stamp.is_settled(now)) {
                stamps.insert(entry.path.clone(), stamp, entry.digest);
            }
        }
        stamps.save(&self.home, &self.home.verified(artifact));
    }

    fn copy_in(&self, path: &Path) -> Result<TempPath, CacheError> {
        let mut copy = self.home.temporary(0o600)?;
        File::open(path).and_then(|mut file| io::copy(&mut file, copy.as_file_mut())).trying("copy", path)?;
        Ok(copy.into_temp_path())
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), CacheError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = to.parent().unwrap_or(to);
            fs::create_dir_all(folder).trying("create the folder", folder)?;
            fs::rename(from, to)
        }
        renamed => renamed,
    }
    .trying("move into the cache", from)
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
