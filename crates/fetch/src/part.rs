//! A file that is not complete yet, and beside it how much of each of its pieces is there: both are written as bytes
//! come, so that whoever was killed goes on at the next byte.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{Error, RemoteFile, digest::sha256_hex};

/// The state begins with the identity, 64 hexadecimal digits; then come the lengths of the pieces, 8 bytes each.
const IDENTITY_BYTES: u64 = 64;

/// A partial file.
pub(crate) struct Part {
    path: PathBuf,
    data: File,
    state: File,
    /// The length of the file; of a file whose length is not known, as much as there can be.
    bytes: u64,
    piece_bytes: u64,
    /// How much of each piece is there.
    pieces: Vec<AtomicU64>,
    /// More is there.
    pub(crate) advanced: Notify,
}

impl Part {
    /// Opens what an earlier attempt left in `folder`, if it is of the same file with the same content; else begins anew.
    pub(crate) fn open(folder: &Path, source: &str, file: &RemoteFile, piece_bytes: u64) -> Result<Self, Error> {
        let path = Self::path_of(folder, file);
        let state_path = path.with_extension("state");
        let bytes = file.bytes.unwrap_or(u64::MAX);
        let open = |path: &Path| {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            opened.map_err(Error::write(path))
        };
        let (data, state) = (open(&path)?, open(&state_path)?);
        let count = if file.bytes.is_some() { bytes.div_ceil(piece_bytes).max(1) } else { 1 };
        let identity = identity(source, file, piece_bytes);
        let mut part = Self {
            path: path.clone(),
            data,
            state,
            bytes,
            piece_bytes: if file.bytes.is_some() { piece_bytes } else { u64::MAX },
            pieces: (0..count).map(|_| AtomicU64::new(0)).collect(),
            advanced: Notify::new(),
        };
        if !part.take_up(&identity).map_err(Error::read(&state_path))? {
            part.begin(&identity).map_err(Error::write(&state_path))?;
        }
        Ok(part)
    }

    /// Where a file is until it is complete.
    pub(crate) fn path_of(folder: &Path, file: &RemoteFile) -> PathBuf {
        folder.join(format!("{}.part", &sha256_hex(file.key.as_bytes())[..32]))
    }

    /// Whether an earlier attempt left something of the file at `path`.
    pub(crate) fn is_begun(path: &Path) -> bool {
        path.with_extension("state").exists()
    }

    fn take_up(&mut self, identity: &str) -> io::Result<bool> {
        let mut found = [0; IDENTITY_BYTES as usize];
        match self.state.read_exact_at(&mut found, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if found != identity.as_bytes() || (self.bytes == u64::MAX && !self.pieces.is_empty()) {
            return Ok(false);
        }
        let there = self.data.metadata()?.len();
        for index in 0..self.pieces.len() {
            let mut length = [0; 8];
            match self.state.read_exact_at(&mut length, IDENTITY_BYTES + 8 * index as u64) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                other => other?,
            }
            let (start, end) = self.range(index);
            // What is not in the file cannot be there, whatever the state says.
            let length = u64::from_le_bytes(length).min(end - start).min(there.saturating_sub(start));
            self.pieces[index].store(length, Ordering::Relaxed);
        }
        Ok(true)
    }

    fn begin(&self, identity: &str) -> io::Result<()> {
        // Not of new files: ext4 writes a file that was cut to nothing to the disk as soon as it is closed.
        for file in [&self.state, &self.data] {
            if file.metadata()?.len() > 0 {
                file.set_len(0)?;
            }
        }
        self.state.write_all_at(identity.as_bytes(), 0)
    }

    /// Forgets all that is there.
    pub(crate) fn reset(&self) -> Result<(), Error> {
        let reset = self.state.set_len(IDENTITY_BYTES).and_then(|()| self.data.set_len(0));
        for piece in &self.pieces {
            piece.store(0, Ordering::Relaxed);
        }
        reset.map_err(Error::write(&self.path))
    }

    /// The bytes of a piece: first and behind the last.
    pub(crate) fn range(&self, index: usize) -> (u64, u64) {
        let start = self.piece_bytes.saturating_mul(index as u64);
        (start, start.saturating_add(self.piece_bytes).min(self.bytes))
    }

    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// How much of a piece is there.
    pub(crate) fn done(&self, index: usize) -> u64 {
        self.pieces[index].load(Ordering::Acquire)
    }

    /// How much is there in all.
    pub(crate) fn total_done(&self) -> u64 {
        (0..self.pieces()).map(|index| self.done(index)).sum()
    }

    /// Adds bytes to the end of what is there of a piece.
    pub(crate) fn write(&self, index: usize, bytes: &[u8]) -> Result<(), Error> {
        let done = self.done(index);
        self.data.write_all_at(bytes, self.range(index).0 + done).map_err(Error::write(&self.path))?;
        self.note(index, done + bytes.len() as u64)?;
        self.advanced.notify_one();
        Ok(())
    }

    /// Notes that as much of a piece is there, once it is.
    fn note(&self, index: usize, done: u64) -> Result<(), Error> {
        let written = self.state.write_all_at(&done.to_le_bytes(), IDENTITY_BYTES + 8 * index as u64);
        written.map_err(Error::write(&self.path))?;
        self.pieces[index].store(done, Ordering::Release);
        Ok(())
    }

    /// Up to where there is no gap.
    pub(crate) fn prefix(&self) -> u64 {
        for index in 0..self.pieces() {
            let (start, end) = self.range(index);
            let done = self.done(index);
            if start + done < end {
                return start + done;
            }
        }
        self.bytes
    }

    pub(crate) fn data(&self) -> &File {
        &self.data
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the complete file to `target`, and forgets how it came to be.
    pub(crate) fn finish(path: &Path, target: &Path) -> Result<(), Error> {
        use std::{fs, os::unix::fs::PermissionsExt};
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(Error::write(parent))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(Error::write(path))?;
        match fs::rename(path, target) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                fs::copy(path, target).map_err(Error::write(target))?;
                fs::remove_file(path).map_err(Error::write(path))?;
            }
            other => other.map_err(Error::write(target))?,
        }
        let _ = fs::remove_file(path.with_extension("state"));
        Ok(())
    }
}

/// What a partial file must be a part of to be taken up again.
fn identity(source: &str, file: &RemoteFile, piece_bytes: u64) -> String {
    // Without a digest nothing would show that the machine lost, with its power, bytes that had been noted.
    let boot = match file.digest {
        Some(_) => String::new(),
        None => std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
    };
    sha256_hex(format!("{source:?} {file:?} {piece_bytes} {boot}").as_bytes())
}
