//! Where a cache lives.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use pipe_stage::Digest;

use super::{CacheError, Key, atomic::sync, error::Trying};

/// The version of the layout of a home.
const LAYOUT: u32 = 1;

/// The folder that holds a cache. Cheap to clone; making one touches nothing on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home of the pipelines in `folder`: `$PIPE_HOME` if it is set, else `.pipe` in the project's root.
    ///
    /// The root is the nearest of `folder` and its parents that holds `.pipe` or `.git`, else `folder` itself.
    ///
    /// # Errors
    /// If the home is of another layout, or its path cannot be made absolute.
    pub fn locate(folder: &Path) -> Result<Self, CacheError> {
        Self::open(choose(std::env::var_os("PIPE_HOME"), folder))
    }

    /// The home at `root`, which need not exist.
    ///
    /// # Errors
    /// If it is of another layout, or the path cannot be made absolute.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, CacheError> {
        let root = std::path::absolute(root.as_ref()).trying("find the folder", root.as_ref())?;
        match fs::read_to_string(root.join("version")) {
            Ok(text) if text.trim() != LAYOUT.to_string() => {
                Err(CacheError::Layout { path: root, found: text.trim().to_owned(), known: LAYOUT })
            }
            Ok(_) => Ok(Self { root }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { root }),
            Err(error) => Err(error).trying("read", &root.join("version")),
        }
    }

    /// Creates what is missing of the home. It tells git and backup programs to leave it alone.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(&self) -> Result<(), CacheError> {
        let is_new = !self.root.exists();
        for folder in ["objects", "actions", "locks", "scratch", "resume", "runs", "logs", "tmp"] {
            let path = self.root.join(folder);
            fs::create_dir_all(&path).trying("create the folder", &path)?;
        }
        let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of pipe. See https://bford.info/cachedir/\n";
        for (name, text) in [("CACHEDIR.TAG", tag), (".gitignore", "*\n"), ("version", &format!("{LAYOUT}\n"))] {
            let path = self.root.join(name);
            if !path.exists() {
                self.write(&path, text.as_bytes())?;
            }
        }
        if is_new && let Some(around) = self.root.parent() {
            // What is kept in the home lasts no longer than its name.
            sync(&[around])?;
        }
        Ok(())
    }

    /// Whether there is a cache yet.
    pub fn exists(&self) -> bool {
        self.root.join("version").exists()
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn object(&self, digest: &Digest) -> PathBuf {
        self.sharded("objects", digest)
    }

    pub(super) fn verified(&self, artifact: &Digest) -> PathBuf {
        self.sharded("verified", artifact)
    }

    pub(super) fn action(&self, key: &Key) -> PathBuf {
        self.root.join("actions").join(format!("{key}.json"))
    }

    pub(super) fn lock(&self, key: &Key) -> PathBuf {
        self.root.join("locks").join(key.to_string())
    }

    pub(super) fn scratch_folder(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Empty folders for attempts to come.
    pub(super) fn spare(&self) -> PathBuf {
        self.root.join("spare")
    }

    pub(super) fn resume(&self, key: &Key) -> PathBuf {
        self.root.join("resume").join(key.to_string())
    }

    /// The note of what was put at `path`, outside of the home.
    pub(super) fn checkout(&self, path: &Path) -> PathBuf {
        self.root.join("checkouts").join(Digest::of(path.as_os_str().as_encoded_bytes()).to_string())
    }

    pub(super) fn quarantine_folder(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The file whose lock tells those who use the home from those who remove things from it.
    pub(super) fn guard(&self) -> PathBuf {
        self.root.join("gc.lock")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn sharded(&self, folder: &str, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        let (shard, rest) = name.split_at(2);
        self.root.join(folder).join(shard).join(rest)
    }
}

fn choose(variable: Option<OsString>, folder: &Path) -> PathBuf {
    if let Some(home) = variable.filter(|home| !home.is_empty()) {
        return home.into();
    }
    let root = folder.ancestors().find(|parent| parent.join(".pipe").is_dir() || parent.join(".git").exists());
    root.unwrap_or(folder).join(".pipe")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_variable_wins_then_the_nearest_project() {
        let temp = tempfile::tempdir().unwrap();
        let deep = temp.path().join("project/pipelines/deep");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(temp.path().join("project/.git")).unwrap();
        assert_eq!(choose(None, &deep), temp.path().join("project/.pipe"));
        assert_eq!(choose(Some("".into()), &deep), temp.path().join("project/.pipe"));
        assert_eq!(choose(Some("/elsewhere".into()), &deep), Path::new("/elsewhere"));
        fs::create_dir(temp.path().join("project/pipelines/.pipe")).unwrap();
        assert_eq!(choose(None, &deep), temp.path().join("project/pipelines/.pipe"));
    }

    #[test]
    fn a_home_is_created_once_and_ignored_by_git() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        assert!(!home.exists() && !home.root().exists());
        home.create().unwrap();
        home.create().unwrap();
        assert!(home.exists());
        assert_eq!(fs::read_to_string(home.root().join(".gitignore")).unwrap(), "*\n");
        assert_eq!(fs::read_dir(home.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn another_layout_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("version"), "999\n").unwrap();
        let error = Home::open(temp.path()).unwrap_err();
        assert!(matches!(&error, CacheError::Layout { found, .. } if found == "999"), "{error}");
    }
}
