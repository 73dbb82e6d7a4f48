//! Where damaged objects go, so that nothing can use them: out of the store, and kept for whoever wants to know why.
//!
//! An object whose bytes are not what its name says is moved to `quarantine/DIGEST.N` in the moment in which that is
//! found. From then on it is missing, and the stage that made it runs again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pipe_stage::Digest;

use super::{Home, atomic::rename_to_free, stamp::Stamp};

/// More damaged objects of one name are refused all the same, and stay where they are.
const MOST_OF_A_NAME: u32 = 1000;

/// What became of a damaged object.
#[derive(Debug)]
pub(super) enum Quarantined {
    /// It is out of the way.
    Moved,
    /// Between the look at it and the move, another process replaced it: look again.
    Replaced,
    /// The system refused to move it.
    Stays(io::Error),
}

impl Home {
    /// Moves a damaged object, which looked like `seen` when its damage was found, to the quarantine.
    pub(super) fn quarantine(&self, digest: &Digest, seen: Stamp) -> Quarantined {
        let object = self.object(digest);
        match self.set_aside(&digest.to_string(), &object) {
            Ok(place) if fs::symlink_metadata(&place).is_ok_and(|now| Stamp::of(&now).is_same_file(&seen)) => {
                tracing::warn!(%digest, place = %place.display(), "a damaged object was moved to the quarantine");
                Quarantined::Moved
            }
            Ok(place) => {
                // The stage ran again in another process meanwhile, and what was moved is what it made.
                if rename_to_free(&place, &object).is_err() {
                    let _ = fs::remove_file(&place);
                }
                Quarantined::Replaced
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Quarantined::Replaced,
            Err(error) => Quarantined::Stays(error),
        }
    }

    /// Whether an object that is missing lies in the quarantine.
    pub(super) fn is_quarantined(&self, digest: &Digest) -> bool {
        self.place(&digest.to_string(), 1).exists()
    }

    /// Moves a file to the quarantine, and gives its place there.
    pub(super) fn set_aside(&self, name: &str, file: &Path) -> io::Result<PathBuf> {
        for number in 1..=MOST_OF_A_NAME {
            let place = self.place(name, number);
            match rename_to_free(file, &place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.quarantine_folder().exists() => {
                    fs::create_dir_all(self.quarantine_folder())?;
                    return rename_to_free(file, &place).map(|()| place);
                }
                moved => return moved.map(|()| place),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn place(&self, name: &str, number: u32) -> PathBuf {
        self.quarantine_folder().join(format!("{name}.{number}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn object(home: &Home, bytes: &[u8]) -> (Digest, Stamp) {
        let digest = Digest::of(b"good");
        home.write_object(&home.object(&digest), bytes).unwrap();
        (digest, Stamp::of(&fs::metadata(home.object(&digest)).unwrap()))
    }

    #[test]
    fn each_damaged_object_gets_a_place_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        for (number, bytes) in [(1, "bad 1"), (2, "bad 2")] {
            let (digest, seen) = object(&home, bytes.as_bytes());
            assert!(matches!(home.quarantine(&digest, seen), Quarantined::Moved));
            assert!(!home.object(&digest).exists() && home.is_quarantined(&digest));
            assert_eq!(fs::read_to_string(home.place(&digest.to_string(), number)).unwrap(), bytes);
        }
    }

    #[test]
    fn what_was_made_again_meanwhile_stays() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let (_, seen) = object(&home, b"bad");
        let (digest, _) = object(&home, b"good");
        assert!(matches!(home.quarantine(&digest, seen), Quarantined::Replaced));
        assert_eq!(fs::read(home.object(&digest)).unwrap(), b"good");
        assert!(!home.is_quarantined(&digest));
        fs::remove_file(home.object(&digest)).unwrap();
        assert!(matches!(home.quarantine(&digest, seen), Quarantined::Replaced));
    }
}
