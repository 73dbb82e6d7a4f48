//! GPUs between the `pipe` processes of a machine: what one of them has handed out, no other hands out.
//!
//! Each GPU has a file, and whoever hands the GPU out has its kernel lock. The worker inherits it, so a GPU is free once
//! both are gone, however they went. Nothing needs to be removed, and nothing is: the files stay, empty of meaning.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::report::printable;

/// The variable that names the folder of the files.
pub(super) const FOLDER_VARIABLE: &str = "PIPE_GPU_LOCKS";

/// The folder without it: the same for all users of the machine, and gone when it starts anew.
const FOLDER: &str = "/tmp/pipe-gpus";

/// So much of what a file says is told, in bytes.
const LONGEST_USER: u64 = 300;

/// Where the processes of this machine agree.
#[derive(Debug)]
pub(super) struct GpuLocks {
    folder: PathBuf,
    /// Folders of the driver, one a GPU.
    driver: PathBuf,
    /// What the others are told.
    user: String,
}

/// A GPU that this process may hand out. Dropping it gives the GPU back.
#[derive(Debug)]
pub(super) struct GpuLock(File);

/// What became of asking for a GPU.
#[derive(Debug)]
pub(super) enum Asked {
    /// It is ours.
    Ours(GpuLock),
    /// Another process has it: which one, if it has said so yet.
    Theirs(Option<String>),
}

impl GpuLocks {
    /// Those of this machine. `user`: who asks, in words.
    pub(super) fn here(user: String) -> Self {
        let folder = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
        let folder = folder.map_or_else(|| FOLDER.into(), PathBuf::from);
        Self { folder, driver: "/proc/driver/nvidia/gpus".into(), user }
    }

    /// Takes a GPU if no other process has it. Never waits. `name`: as CUDA takes it.
    ///
    /// # Errors
    /// If there can be no such files: then nobody can agree on anything.
    pub(super) fn ask(&self, name: &str) -> io::Result<Asked> {
        let path = self.folder.join(self.identity(name));
        loop {
            let (mut file, ours) = self.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Asked::Theirs(user_of(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Somebody who tidies up may have removed it in between.
            let there = fs::symlink_metadata(&path).ok().map(|there| (there.dev(), there.ino()));
            let here = file.metadata()?;
            if there != Some((here.dev(), here.ino())) {
                continue;
            }
            if ours {
                // Without it the others only do not know who has it.
                let _ = file.set_len(0).and_then(|()| file.write_all(self.user.as_bytes()));
            }
            return Ok(Asked::Ours(GpuLock(file)));
        }
    }

    /// The model of a GPU, where the driver tells.
    pub(super) fn model(&self, name: &str) -> Option<String> {
        field(&self.information(name)?, "Model:")
    }

    /// One name for a GPU that has several.
    fn identity(&self, name: &str) -> String {
        let known = self.information(name).and_then(|text| field(&text, ID));
        let name = known.unwrap_or_else(|| name.to_owned());
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
    }

    /// What the driver says of a GPU. CUDA takes its number, and its id or the beginning of that. A number counts in the
    /// order of the bus, in which the driver's folders are.
    fn information(&self, name: &str) -> Option<String> {
        let mut folders: Vec<PathBuf> =
            fs::read_dir(&self.driver).ok()?.filter_map(|folder| Some(folder.ok()?.path())).collect();
        folders.sort();
        let read = |folder: &PathBuf| fs::read_to_string(folder.join("information")).ok();
        match name.parse::<usize>() {
            Ok(number) => folders.get(number).and_then(read),
            Err(_) => {
                folders.iter().filter_map(read).find(|text| field(text, ID).is_some_and(|id| id.starts_with(name)))
            }
        }
    }

    /// The file, and whether it may be written: it may be another user's.
    fn open(&self, path: &Path) -> io::Result<(File, bool)> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        loop {
            match options.clone().write(true).open(path) {
                Ok(file) => return Ok((file, true)),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok((options.open(path)?, false)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.create_folder()?;
            match options.clone().write(true).create_new(true).open(path) {
                // For all users, whatever this one's mask is.
                Ok(file) => {
                    let _ = file.set_permissions(Permissions::from_mode(0o666));
                    return Ok((file, true));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn create_folder(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o1777).create(&self.folder) {
            Ok(()) => fs::set_permissions(&self.folder, Permissions::from_mode(0o1777)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The line of a GPU's information that holds its id.
const ID: &str = "GPU UUID:";

fn field(information: &str, name: &str) -> Option<String> {
    Some(information.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

fn user_of(file: &mut File) -> Option<String> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(LONGEST_USER).read_to_end(&mut text).ok()?;
    let text = printable(&String::from_utf8_lossy(&text));
    (!text.is_empty()).then_some(text)
}

/// For handing it to a worker, which keeps the GPU if the scheduler dies first.
impl AsFd for GpuLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for GpuLock {
    fn drop(&mut self) {
        // The worker has ended: what it left behind and is being killed does not keep the GPU.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn locks(folder: &Path, user: &str) -> GpuLocks {
        GpuLocks { folder: folder.join("locks"), driver: folder.join("driver"), user: user.to_owned() }
    }

    fn ours(asked: io::Result<Asked>) -> GpuLock {
        match asked.unwrap() {
            Asked::Ours(lock) => lock,
            Asked::Theirs(user) => panic!("{user:?} has it"),
        }
    }

    #[test]
    fn one_has_a_gpu_and_the_other_is_told_who() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (locks(temp.path(), "process 1"), locks(temp.path(), "process 2"));
        let lock = ours(one.ask("0"));
        let asked = two.ask("0").unwrap();
        assert!(matches!(&asked, Asked::Theirs(Some(user)) if user == "process 1"), "{asked:?}");
        let _other = ours(two.ask("1"));
        drop(lock);
        let _lock = ours(two.ask("0"));
        let asked = one.ask("0").unwrap();
        assert!(matches!(&asked, Asked::Theirs(Some(user)) if user == "process 2"), "{asked:?}");
    }

    #[test]
    fn a_gpu_is_the_same_by_number_and_by_id() {
        let temp = tempfile::tempdir().unwrap();
        for (bus, id) in [("0000:81:00.0", "GPU-bbbb"), ("0000:01:00.0", "GPU-aaaa")] {
            let folder = temp.path().join("driver").join(bus);
            fs::create_dir_all(&folder).unwrap();
            let text = format!("Model: \t\t NVIDIA H100\nGPU UUID: \t {id}\nDevice Minor: \t 0\n");
            fs::write(folder.join("information"), text).unwrap();
        }
        let locks = locks(temp.path(), "");
        let names = ["0", "1", "GPU-bb", "GPU-bbbb", "2", "MIG-x/1"].map(|name| locks.identity(name));
        assert_eq!((locks.model("1").as_deref(), locks.model("7")), (Some("NVIDIA H100"), None));
        assert_eq!(names, ["GPU-aaaa", "GPU-bbbb", "GPU-bbbb", "GPU-bbbb", "2", "MIG-x_1"]);
    }

    #[test]
    fn no_link_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let locks = locks(temp.path(), "process 1");
        let precious = temp.path().join("precious");
        fs::write(&precious, "text").unwrap();
        locks.create_folder().unwrap();
        std::os::unix::fs::symlink(&precious, locks.folder.join("0")).unwrap();
        assert!(locks.ask("0").is_err());
        assert_eq!(fs::read_to_string(precious).unwrap(), "text");
    }
}
