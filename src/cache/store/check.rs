//! Looking at single objects: whether they are there, and what they should be.

use std::{fs, io, time::SystemTime};

use pipe_stage::Digest;

use super::{Flaw, Store};
use crate::cache::{
    Entry, Manifest,
    hash::hash_file,
    quarantine::Quarantined,
    stamp::{Stamp, Stamps},
};

/// How often an object that other processes keep replacing is looked at.
const LOOKS: usize = 3;
const CHANGED: &str = "its bytes have changed";
const UNSTEADY: &str = "other processes keep replacing it";

/// What became of looking at one object.
pub(super) struct Check {
    pub(super) result: Result<(), Flaw>,
    /// How it looked, if that is worth remembering.
    pub(super) stamp: Option<Stamp>,
    pub(super) hashed: bool,
}

impl Store {
    pub(super) fn manifest(&self, artifact: &Digest) -> Result<Manifest, Flaw> {
        let object = self.home.object(artifact);
        for _ in 0..LOOKS {
            let seen = self.look(artifact).map_err(|flaw| flaw.at(None))?;
            let bytes = fs::read(&object).map_err(|error| ObjectFlaw::of(&error).at(None))?;
            if Digest::of(&bytes) == *artifact {
                let text = std::str::from_utf8(&bytes).ok();
                let manifest = text.and_then(|text| Manifest::parse(text).ok());
                return manifest.ok_or_else(|| Flaw::Damaged { file: None, why: "it is not a folder".to_owned() });
            }
            if let Some(flaw) = self.damaged(artifact, seen, CHANGED) {
                return Err(flaw.at(None));
            }
        }
        Err(ObjectFlaw::Damaged(UNSTEADY.to_owned()).at(None))
    }

    pub(super) fn check(&self, entry: &Entry, known: &Stamps) -> Check {
        let failed = |flaw: ObjectFlaw| Check { result: Err(flaw.at(Some(&entry.path))), stamp: None, hashed: true };
        for _ in 0..LOOKS {
            let stamp = match self.look(&entry.digest) {
                Ok(stamp) => stamp,
                Err(flaw) => return failed(flaw),
            };
            if known.find(&entry.path, stamp) == Some(entry.digest) {
                return Check { result: Ok(()), stamp: Some(stamp), hashed: false };
            }
            let now = SystemTime::now();
            let hashed = match hash_file(&self.home.object(&entry.digest)) {
                Ok(digest) => digest,
                Err(error) => return failed(ObjectFlaw::of(&error)),
            };
            let why = match stamp.size() {
                size if hashed == entry.digest && size == entry.size => {
                    let stamp = stamp.is_settled(now).then_some(stamp);
                    return Check { result: Ok(()), stamp, hashed: true };
                }
                // The object is what its name says, but not what the artifact was said to hold.
                _ if hashed == entry.digest => return failed(ObjectFlaw::Damaged("its size was forged".to_owned())),
                0 => format!("it is empty instead of {} bytes long", entry.size),
                size if size < entry.size => format!("it is cut to {size} of {} bytes", entry.size),
                size if size > entry.size => format!("it has grown from {} to {size} bytes", entry.size),
                _ => CHANGED.to_owned(),
            };
            if let Some(flaw) = self.damaged(&entry.digest, stamp, &why) {
                return failed(flaw);
            }
        }
        failed(ObjectFlaw::Damaged(UNSTEADY.to_owned()))
    }

    /// How an object looks.
    fn look(&self, digest: &Digest) -> Result<Stamp, ObjectFlaw> {
        for _ in 0..LOOKS {
            match fs::symlink_metadata(self.home.object(digest)) {
                Ok(metadata) if metadata.is_file() => return Ok(Stamp::of(&metadata)),
                Ok(metadata) => {
                    if let Some(flaw) = self.damaged(digest, Stamp::of(&metadata), "it is no longer a file") {
                        return Err(flaw);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.home.is_quarantined(digest) => {
                    return Err(ObjectFlaw::Damaged(format!("object {} is in quarantine", digest.short())));
                }
                Err(error) => return Err(ObjectFlaw::of(&error)),
            }
        }
        Err(ObjectFlaw::Damaged(UNSTEADY.to_owned()))
    }

    /// Puts a damaged object where nothing can use it, and says so; `None` if there is another one in its place by now.
    fn damaged(&self, digest: &Digest, seen: Stamp, why: &str) -> Option<ObjectFlaw> {
        let short = digest.short();
        match self.home.quarantine(digest, seen) {
            Quarantined::Moved => Some(ObjectFlaw::Damaged(format!("{why}; object {short} is now in quarantine"))),
            Quarantined::Stays(error) => {
                Some(ObjectFlaw::Damaged(format!("{why}; object {short} cannot be moved to quarantine: {error}")))
            }
            Quarantined::Replaced => None,
        }
    }
}

/// What is wrong with one object.
enum ObjectFlaw {
    Missing,
    Damaged(String),
}

impl ObjectFlaw {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Damaged(error.to_string()),
        }
    }

    /// The same of a file of an artifact, or of its manifest.
    fn at(self, file: Option<&str>) -> Flaw {
        let file = file.map(str::to_owned);
        match self {
            Self::Missing => Flaw::Missing { file },
            Self::Damaged(why) => Flaw::Damaged { file, why },
        }
    }
}
