//! Files of this machine: copied, and hashed on the way.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use pipe_stage::{
    Context, Failure,
    manifest::{self, Manifest},
};
use rayon::prelude::*;

use crate::{Config, digests::FileHasher};

/// What is read at once, bytes.
const BUFFER_BYTES: usize = 4 << 20;

/// Why files cannot be brought in.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} is neither a file nor a folder", path.display())]
    Special { path: PathBuf },
    #[error("{} has a name that is not UTF-8, which an artifact cannot hold", path.display())]
    Name { path: PathBuf },
    #[error("{} holds no file", path.display())]
    Empty { path: PathBuf },
    #[error("{} is a folder; `sha256` is for a single file", path.display())]
    FolderSha256 { path: PathBuf },
    #[error("{} has the {algorithm} {found}, the pipeline asks for {expected}", path.display())]
    Mismatch { path: PathBuf, algorithm: &'static str, expected: String, found: String },
    #[error("{} changed while it was read", path.display())]
    Changed { path: PathBuf },
}

/// A file to copy.
struct Entry {
    from: PathBuf,
    /// Relative to source and output.
    name: String,
    bytes: u64,
}

/// A file that was copied.
struct Copied {
    entry: manifest::Entry,
    sha256: Option<String>,
}

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let source = context.user_file("source")?;
    let root = source.path.as_path();
    let is_folder = fs::metadata(root).map_err(read(root))?.is_dir();
    let mut entries = Vec::new();
    if is_folder {
        if config.sha256.is_some() {
            return Err(Failure::from(Error::FolderSha256 { path: root.to_owned() }).hint("use `blake3`"));
        }
        list(root, "", &mut entries)?;
        if entries.is_empty() {
            return Err(Error::Empty { path: root.to_owned() }.into());
        }
    } else {
        let name = root.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::Name { path: root.to_owned() })?.to_owned();
        entries.push(entry(root.to_owned(), name)?);
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));

    let output = context.output();
    let progress = Progress { context, done: AtomicU64::new(0), total: entries.iter().map(|entry| entry.bytes).sum() };
    let copied =
        entries.par_iter().map(|entry| copy(entry, &output, config, &progress)).collect::<Result<Vec<_>, Failure>>()?;

    if let [Copied { sha256: Some(sha256), .. }] = copied.as_slice() {
        expect(root, "SHA-256", config.sha256.as_deref(), sha256)?;
    }
    let manifest = Manifest::new(copied.into_iter().map(|file| file.entry).collect());
    let found = match manifest.entries() {
        [file] if !is_folder => file.digest,
        _ => manifest.digest(),
    };
    expect(root, "BLAKE3", config.blake3.as_deref(), &found.to_string())?;
    if found != source.digest {
        // The key of this stage stands for other bytes than these.
        return Err(Failure::from(Error::Changed { path: root.to_owned() }).hint("run again when nothing writes to it"));
    }
    context.figure("files", manifest.entries().len());
    context.figure("bytes", manifest.total_bytes());
    Ok(())
}

/// Lists the files below a folder; links are followed. The engine has walked the same folder before, and found no loop.
fn list(folder: &Path, prefix: &str, entries: &mut Vec<Entry>) -> Result<(), Error> {
    for child in fs::read_dir(folder).map_err(read(folder))? {
        let path = child.map_err(read(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::Name { path });
        };
        let name = format!("{prefix}{name}");
        if fs::metadata(&path).map_err(read(&path))?.is_dir() {
            list(&path, &format!("{name}/"), entries)?;
        } else {
            entries.push(entry(path, name)?);
        }
    }
    Ok(())
}

fn entry(from: PathBuf, name: String) -> Result<Entry, Error> {
    let metadata = fs::metadata(&from).map_err(read(&from))?;
    if !metadata.is_file() {
        return Err(Error::Special { path: from });
    }
    Ok(Entry { name, bytes: metadata.len(), from })
}

fn copy(entry: &Entry, output: &Path, config: &Config, progress: &Progress<'_>) -> Result<Copied, Failure> {
    let target = output.join(&entry.name);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(write(parent))?;
    }
    let mut from = File::open(&entry.from).map_err(read(&entry.from))?;
    let mode = from.metadata().map_err(read(&entry.from))?.permissions().mode();
    let executable = mode & 0o100 != 0;
    // Where the file system can share blocks, nothing is written, and the copy is what gets hashed.
    let shared = reflink_copy::reflink(&entry.from, &target).is_ok();
    let mut into = None;
    if shared {
        from = File::open(&target).map_err(read(&target))?;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(write(&target))?;
    } else {
        let mode = if executable { 0o755 } else { 0o644 };
        let created = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&target);
        into = Some(created.map_err(write(&target))?);
    }

    let mut hasher = FileHasher::new(config.sha256.is_some());
    let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(entry.bytes).unwrap_or(BUFFER_BYTES).max(1))];
    let mut bytes = 0_u64;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(&entry.from)(error).into()),
        };
        hasher.update(&buffer[..count]);
        if let Some(into) = &mut into {
            into.write_all(&buffer[..count]).map_err(write(&target))?;
        }
        bytes += count as u64;
        progress.advance(count as u64)?;
    }
    let (blake3, sha256) = hasher.finish();
    Ok(Copied { entry: manifest::Entry { path: entry.name.clone(), digest: blake3, size: bytes, executable }, sha256 })
}

fn expect(path: &Path, algorithm: &'static str, expected: Option<&str>, found: &str) -> Result<(), Failure> {
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(found) => {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            let error = Error::Mismatch { path: path.to_owned(), algorithm, expected, found };
            Err(Failure::from(error).hint("fetch the file again, or correct the digest in the pipeline"))
        }
        _ => Ok(()),
    }
}

struct Progress<'a> {
    context: &'a Context,
    done: AtomicU64,
    total: u64,
}

impl Progress<'_> {
    fn advance(&self, bytes: u64) -> Result<(), Failure> {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.context.progress("bytes", done, Some(self.total));
        if self.context.cancelled() { Err(Failure::cancelled()) } else { Ok(()) }
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Read { path, source }
}

fn write(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}
