//! The content store: artifacts by digest.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use pipe_stage::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    CacheError, Entry, Home, Manifest, OutputError,
    atomic::{publish, sync_folder},
    error::Trying,
    hash::hash_file,
    stamp::{Stamp, Stamps},
    tree::{Found, Links, WalkError, walk},
};

/// The artifacts of a home. Takes folders in, and gives them out only after looking at every file.
#[derive(Debug, Clone)]
pub struct Store {
    home: Home,
}

/// What is wrong with a stored artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "flaw", rename_all = "snake_case")]
pub enum Flaw {
    /// An object is gone.
    Missing {
        /// The file; `None` for the manifest.
        file: Option<String>,
    },
    /// An object's bytes are not what they were.
    Damaged {
        /// The file; `None` for the manifest.
        file: Option<String>,
        /// How that shows.
        why: String,
    },
}

impl Store {
    /// The store of `home`.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Moves the files of `folder` into the store and gives their digest. What is there already is replaced by the
    /// same bytes, which mends objects that were damaged. `folder` is used up, also when this fails.
    ///
    /// # Errors
    /// [`CacheError::Output`] if the folder is no artifact (empty, links, odd names); otherwise if the disk refuses.
    pub fn ingest(&self, folder: &Path) -> Result<Digest, CacheError> {
        let found = walk(folder, Links::Refuse).map_err(|error| output_error(folder, error))?;
        if found.is_empty() {
            return Err(OutputError::Empty { output: name_of(folder) }.into());
        }
        let entries: Vec<Entry> = found.par_iter().map(|file| self.keep(file)).collect::<Result<_, _>>()?;
        let manifest = Manifest::new(entries);
        let objects: Vec<PathBuf> = manifest.entries().iter().map(|entry| self.home.object(&entry.digest)).collect();
        let shards: BTreeSet<&Path> = objects.iter().filter_map(|object| object.parent()).collect();
        shards.into_iter().try_for_each(sync_folder)?;

        let text = manifest.to_text();
        let digest = Digest::of(text.as_bytes());
        let object = self.home.object(&digest);
        self.home.write_object(&object, text.as_bytes())?;
        object.parent().map_or(Ok(()), sync_folder)?;
        self.remember(&digest, &manifest, &objects);
        Ok(digest)
    }

    /// Looks whether an artifact is whole and gives the list of its files. Every file whose inode changed since it was
    /// last hashed is hashed.
    ///
    /// # Errors
    /// The first flaw, in the order of the files.
    pub fn verify(&self, artifact: &Digest) -> Result<Manifest, Flaw> {
        let manifest = self.manifest(artifact)?;
        let verified = self.home.verified(artifact);
        let known = Stamps::load(&verified);
        let checks: Vec<Check> = manifest.entries().par_iter().map(|entry| self.check(entry, &known)).collect();
        if checks.iter().any(|check| check.hashed) {
            let mut stamps = Stamps::default();
            for (entry, check) in manifest.entries().iter().zip(&checks) {
                if let (Ok(()), Some(stamp)) = (&check.result, check.stamp) {
                    stamps.insert(entry.path.clone(), stamp, entry.digest);
                }
            }
            stamps.save(&self.home, &verified);
        }
        checks.into_iter().try_for_each(|check| check.result)?;
        Ok(manifest)
    }

    /// Makes `folder`, which must not exist, a view of an artifact: folders of links to its objects. For workers, who
    /// only read.
    ///
    /// # Errors
    /// If the artifact is not whole, or the folder cannot be written.
    pub fn materialise(&self, artifact: &Digest, folder: &Path) -> Result<(), CacheError> {
        let manifest = self.verified(artifact)?;
        fs::create_dir_all(folder).trying("create the folder", folder)?;
        for entry in manifest.entries() {
            let path = make_place(folder, entry)?;
            if entry.executable {
                self.copy_out(entry, &path, 0o555)?;
            } else {
                symlink(self.home.object(&entry.digest), &path).trying("create", &path)?;
            }
        }
        Ok(())
    }

    /// Copies an artifact out of the cache, into `folder`, which must be new or empty. It appears all at once, and no
    /// write to it reaches the cache. Where the file system can share the bytes of copies, it does.
    ///
    /// # Errors
    /// If the artifact is not whole, the folder is taken, or the disk refuses.
    pub fn checkout(&self, artifact: &Digest, folder: &Path) -> Result<Manifest, CacheError> {
        let folder = std::path::absolute(folder).trying("find the folder", folder)?;
        let manifest = self.verified(artifact)?;
        refuse_taken(&folder)?;
        let parent = folder.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).trying("create the folder", parent)?;
        let beside = tempfile::Builder::new().prefix(".pipe-get-").tempdir_in(parent).trying("write in", parent)?;
        let copy = beside.path().join("artifact");
        manifest.entries().par_iter().try_for_each(|entry| {
            let path = make_place(&copy, entry)?;
            self.copy_out(entry, &path, if entry.executable { 0o777 } else { 0o666 })
        })?;
        fs::rename(&copy, &folder).trying("write", &folder)?;
        Ok(manifest)
    }

    fn verified(&self, artifact: &Digest) -> Result<Manifest, CacheError> {
        self.verify(artifact).map_err(|flaw| CacheError::Artifact { digest: *artifact, flaw })
    }

    /// Moves one file of an output to its place among the objects.
    fn keep(&self, file: &Found) -> Result<Entry, CacheError> {
        let metadata = fs::symlink_metadata(&file.path).trying("read", &file.path)?;
        // A second name of the same file, perhaps the user's own, must neither become read-only nor stay a way to
        // change the object.
        let copy = (metadata.nlink() > 1).then(|| self.copy_in(&file.path)).transpose()?;
        let source = copy.as_ref().map_or(file.path.as_path(), |copy| copy.path());
        fs::set_permissions(source, Permissions::from_mode(0o444)).trying("protect", source)?;
        let digest = hash_file(source).trying("read", source)?;
        File::open(source).and_then(|file| file.sync_all()).trying("write", source)?;
        let object = self.home.object(&digest);
        match copy {
            Some(copy) => publish(copy, &object)?,
            None => rename(source, &object)?,
        }
        let executable = metadata.mode() & 0o100 != 0;
        Ok(Entry { path: file.name.clone(), digest, size: metadata.len(), executable })
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

    fn copy_in(&self, path: &Path) -> Result<tempfile::NamedTempFile, CacheError> {
        let mut copy = self.home.temporary(0o600)?;
        File::open(path).and_then(|mut file| io::copy(&mut file, copy.as_file_mut())).trying("copy", path)?;
        Ok(copy)
    }

    fn copy_out(&self, entry: &Entry, path: &Path, mode: u32) -> Result<(), CacheError> {
        let object = self.home.object(&entry.digest);
        let mut from = File::open(&object).trying("read", &object)?;
        let to = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        to.and_then(|mut to| io::copy(&mut from, &mut to)).trying("write", path)?;
        Ok(())
    }

    fn manifest(&self, artifact: &Digest) -> Result<Manifest, Flaw> {
        let bytes = fs::read(self.home.object(artifact)).map_err(|error| unreadable(None, &error))?;
        let damaged = |why: &str| Flaw::Damaged { file: None, why: why.to_owned() };
        if Digest::of(&bytes) != *artifact {
            return Err(damaged("its bytes have changed"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not a folder"))?;
        Manifest::parse(text).map_err(|_| damaged("it is not a folder"))
    }

    fn check(&self, entry: &Entry, known: &Stamps) -> Check {
        let object = self.home.object(&entry.digest);
        let failed =
            |error: &io::Error| Check { result: Err(unreadable(Some(&entry.path), error)), stamp: None, hashed: false };
        let stamp = match fs::symlink_metadata(&object) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) => return failed(&error),
        };
        if known.find(&entry.path, stamp) == Some(entry.digest) {
            return Check { result: Ok(()), stamp: Some(stamp), hashed: false };
        }
        let now = SystemTime::now();
        match hash_file(&object) {
            Ok(digest) if digest == entry.digest => {
                Check { result: Ok(()), stamp: stamp.is_settled(now).then_some(stamp), hashed: true }
            }
            Ok(_) => {
                let why = "its bytes have changed".to_owned();
                let result = Err(Flaw::Damaged { file: Some(entry.path.clone()), why });
                Check { result, stamp: None, hashed: true }
            }
            Err(error) => failed(&error),
        }
    }
}

/// What became of looking at one object.
struct Check {
    result: Result<(), Flaw>,
    /// How it looked, if that is worth remembering.
    stamp: Option<Stamp>,
    hashed: bool,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, flaw) = match self {
            Self::Missing { file } => (file, "is missing from the cache".to_owned()),
            Self::Damaged { file, why } => (file, format!("is damaged in the cache ({why})")),
        };
        match file {
            Some(file) => write!(f, "its file `{file}` {flaw}"),
            None => write!(f, "the list of its files {flaw}"),
        }
    }
}

fn unreadable(file: Option<&str>, error: &io::Error) -> Flaw {
    let file = file.map(str::to_owned);
    match error.kind() {
        io::ErrorKind::NotFound => Flaw::Missing { file },
        _ => Flaw::Damaged { file, why: error.to_string() },
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

/// The path of an entry below `folder`, its parents created.
fn make_place(folder: &Path, entry: &Entry) -> Result<PathBuf, CacheError> {
    let path = folder.join(&entry.path);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).trying("create the folder", parent)?;
    Ok(path)
}

fn refuse_taken(folder: &Path) -> Result<(), CacheError> {
    let taken = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).trying("read", folder),
        Ok(metadata) if metadata.is_dir() => fs::read_dir(folder).trying("read", folder)?.next().is_some(),
        Ok(_) => true,
    };
    if taken { Err(CacheError::DestinationTaken { path: folder.to_owned() }) } else { Ok(()) }
}

fn output_error(folder: &Path, error: WalkError) -> CacheError {
    match error {
        WalkError::Io { path, source } if path == folder && source.kind() == io::ErrorKind::NotFound => {
            OutputError::Missing { output: name_of(folder) }.into()
        }
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

#[cfg(test)]
mod tests;
