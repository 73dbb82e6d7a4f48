//! What was written to a place: noted in the home, and only trusted as far as the files still look or read that way.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    time::SystemTime,
};

use pipe_stage::{Digest, Form};

use super::{CacheError, CheckedOut, Target, Trying, inspect::Found};
use crate::cache::{
    Home,
    hash::hash_file,
    hint::{self, Reader, Writer},
    stamp::{Stamp, Stamps},
};

const MAGIC: &str = "pipe checkout 1\n";

/// A place outside of the cache, locked against others who would write to it from this home.
pub(super) struct Place {
    home: Home,
    path: PathBuf,
    note: PathBuf,
    /// What a finished checkout wrote.
    written: Option<Written>,
    /// What one that did not come to its end was about to write.
    intended: Option<Written>,
    /// Held open. `None` if the home cannot be written.
    lock: Option<File>,
}

/// What a checkout wrote.
#[derive(Debug, PartialEq)]
struct Written {
    artifact: Digest,
    /// How many files it has: more than there are stamps if not all could be kept.
    files: u64,
    stamps: Stamps,
}

impl Place {
    /// Waits for those who write to the same place, and reads what was written there.
    pub(super) fn lock(home: &Home, path: &Path) -> Result<Self, CacheError> {
        let note = home.checkout(path);
        let lock = open_lock(&note.with_extension("lock"));
        if let Some(lock) = &lock {
            lock.lock().trying("lock", &note)?;
        }
        let written = Written::load(&note);
        let intended = Written::load(&note.with_extension("next"));
        Ok(Self { home: home.clone(), path: path.to_owned(), note, written, intended, lock })
    }

    /// Whether anything was ever written there.
    pub(super) fn is_known(&self) -> bool {
        self.notes().next().is_some()
    }

    /// Whether a file of this name was written there.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.notes().any(|note| note.stamps.digest(name).is_some())
    }

    /// Whether a file of this name and content was written there, or is what a checkout that was cut short wrote.
    pub(super) fn wrote(&self, name: &str, content: &Digest) -> bool {
        self.notes().any(|note| note.stamps.digest(name) == Some(*content))
    }

    fn notes(&self) -> impl Iterator<Item = &Written> {
        self.written.iter().chain(&self.intended)
    }

    /// The content of a file there, read only if it does not look as it did when it was written.
    pub(super) fn content(&self, name: &str, there: &Found) -> Result<Digest, CacheError> {
        let stamp = Stamp::of(&there.metadata);
        let known = self.written.as_ref().and_then(|written| written.stamps.find(name, stamp));
        known.map_or_else(|| hash_file(&there.path).trying("read", &there.path), Ok)
    }

    /// What a checkout of `artifact` would do, if every file of it was written there before and looks as it did then.
    pub(super) fn is_untouched(&self, artifact: &Digest, form: Form) -> Option<CheckedOut> {
        let written = self.written.as_ref().filter(|written| written.artifact == *artifact)?;
        let files = usize::try_from(written.files).ok().filter(|files| *files == written.stamps.len())?;
        let is_file = files == 1 && written.stamps.digest("").is_some();
        if self.intended.is_some() || is_file != (form == Form::File) {
            return None;
        }
        let mut bytes = 0_u64;
        for (name, stamp, _) in written.stamps.iter() {
            let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
            if fs::symlink_metadata(path).ok().is_none_or(|now| Stamp::of(&now) != stamp) {
                return None;
            }
            bytes = bytes.saturating_add(stamp.size());
        }
        Some(CheckedOut { files, bytes, ..CheckedOut::default() })
    }

    /// Notes that files are about to be written, so that they are known for what they are if that is cut short.
    pub(super) fn intend(&self, artifact: &Digest, targets: &[Target<'_>]) {
        let mut stamps = Stamps::default();
        for target in targets {
            stamps.insert(target.name.to_owned(), Stamp::NONE, target.entry.digest);
        }
        let intended = Written { artifact: *artifact, files: targets.len() as u64, stamps };
        self.keep(&self.note.with_extension("next"), intended.encode(&self.path));
    }

    /// Notes what is there now.
    pub(super) fn note(&self, artifact: &Digest, targets: &[Target<'_>]) {
        let looks: Vec<_> =
            targets.iter().map(|target| Some((target, Stamp::of(&fs::symlink_metadata(&target.path).ok()?)))).collect();
        if let Some((_, newest)) = looks.iter().flatten().max_by_key(|(_, stamp)| stamp.changed_ns()) {
            newest.settle();
        }
        let now = SystemTime::now();
        let mut stamps = Stamps::default();
        for (target, stamp) in looks.into_iter().flatten().filter(|(_, stamp)| stamp.is_settled(now)) {
            stamps.insert(target.name.to_owned(), stamp, target.entry.digest);
        }
        let written = Written { artifact: *artifact, files: targets.len() as u64, stamps };
        if self.written.as_ref() != Some(&written) {
            self.keep(&self.note, written.encode(&self.path));
        }
        let _ = fs::remove_file(self.note.with_extension("next"));
    }

    /// Losing it only means that the next checkout asks before it overwrites.
    fn keep(&self, note: &Path, writer: Writer) {
        if self.lock.is_some() {
            writer.save(&self.home, note);
        }
    }
}

impl Written {
    fn encode(&self, path: &Path) -> Writer {
        let mut writer = Writer::new(MAGIC);
        writer.text(&path.to_string_lossy());
        writer.digest(&self.artifact);
        writer.number(self.files);
        for (name, stamp, digest) in self.stamps.iter() {
            writer.text(name);
            writer.stamp(&stamp);
            writer.digest(&digest);
        }
        writer
    }

    fn load(note: &Path) -> Option<Self> {
        let bytes = hint::load(note);
        let mut reader = Reader::new(&bytes, MAGIC)?;
        let _path = reader.text()?;
        let mut written = Self { artifact: reader.digest()?, files: reader.number()?, stamps: Stamps::default() };
        while !reader.is_empty() {
            let name = reader.text()?.to_owned();
            let stamp = reader.stamp()?;
            written.stamps.insert(name, stamp, reader.digest()?);
        }
        Some(written)
    }
}

fn open_lock(path: &Path) -> Option<File> {
    let open = || OpenOptions::new().write(true).create(true).truncate(false).open(path);
    open().or_else(|_| fs::create_dir(path.parent().unwrap_or(path)).and_then(|()| open())).ok()
}
