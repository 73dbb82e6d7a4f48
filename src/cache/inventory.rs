//! What lies in a home: its objects and its action records, and what hangs on what.

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use pipe_stage::Digest;
use rayon::prelude::*;

use super::{ActionRecord, CacheError, FileIdentity, Home, Key, error::Trying};

/// A file of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    /// Its name: what the digest of its bytes should be.
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// An action record, as far as it says what hangs on what.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Its key.
    pub key: Key,
    /// The stage that ran.
    pub stage: String,
    /// Its kind and the kind's version.
    pub kind: (String, u32),
    /// The id of the run that made the artifacts, if the record names it.
    pub run: Option<String>,
    /// The user's files that went in, by the field that named them.
    pub files: BTreeMap<String, FileIdentity>,
    /// The declared environment variables with the digests of their values.
    pub environment: BTreeMap<String, Option<Digest>>,
    /// The artifacts that went in.
    pub inputs: Vec<Digest>,
    /// The artifacts that came out, by the name of the output.
    pub outputs: BTreeMap<String, Digest>,
    /// The log of the run that made them, relative to the home.
    pub log: PathBuf,
    /// The size of the record itself, in bytes.
    pub bytes: u64,
}

/// A file among the action records that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Its name within its folder.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
    /// Its size in bytes.
    pub bytes: u64,
}

impl BadRecord {
    /// Moves it to the quarantine. What it stood for runs again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_aside(&self, home: &Home) -> io::Result<()> {
        home.set_aside(&self.name, &home.root().join("actions").join(&self.name)).map(drop)
    }
}

/// The objects of a home, sorted.
///
/// # Errors
/// If a folder cannot be read.
pub(super) fn objects(home: &Home) -> Result<Vec<Object>, CacheError> {
    let shards = entries(&home.root().join("objects"))?;
    let listed: Vec<Vec<Object>> = shards
        .par_iter()
        .map(|shard| {
            let prefix = shard.file_name();
            let Some(prefix) = prefix.to_str().filter(|name| name.len() == 2) else { return Ok(Vec::new()) };
            let object = |entry: DirEntry| {
                let digest = format!("{prefix}{}", entry.file_name().to_str()?).parse().ok()?;
                // One that is gone by now was set aside by somebody else.
                Some(Object { digest, bytes: entry.metadata().ok()?.len() })
            };
            Ok(entries(&shard.path())?.into_iter().filter_map(object).collect())
        })
        .collect::<Result<_, CacheError>>()?;
    let mut objects = listed.concat();
    objects.par_sort_unstable();
    Ok(objects)
}

/// The action records of a home, sorted by key, and what lies among them that is none.
///
/// # Errors
/// If the folder cannot be read.
pub(super) fn links(home: &Home) -> Result<(Vec<Link>, Vec<BadRecord>), CacheError> {
    let files = entries(&home.root().join("actions"))?;
    let read = files.par_iter().filter_map(|file| read_link(&file.path()));
    let (mut links, mut bad): (Vec<Link>, Vec<BadRecord>) = read.partition_map(|read| match read {
        Ok(link) => rayon::iter::Either::Left(link),
        Err(bad) => rayon::iter::Either::Right(bad),
    });
    links.sort_unstable_by_key(|link| link.key);
    bad.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok((links, bad))
}

/// What is in a folder; nothing if there is no such folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<DirEntry>, CacheError> {
    match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect).trying("read", folder),
    }
}

/// `None` if the file is gone by now.
fn read_link(path: &Path) -> Option<Result<Link, BadRecord>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(BadRecord { name, why: format!("it cannot be read: {error}"), bytes: 0 })),
        Ok(text) => text,
    };
    let bytes = text.len() as u64;
    let bad = |why: String| Some(Err(BadRecord { name: name.clone(), why, bytes }));
    let record: ActionRecord = match serde_json::from_slice(&text) {
        Ok(record) => record,
        Err(error) => return bad(format!("it is no action record: {error}")),
    };
    if record.identity.key() != record.key {
        return bad("what it says went in does not give its key".to_owned());
    }
    if name != format!("{}.json", record.key) {
        return bad("it lies under another key's name".to_owned());
    }
    let run = record.log.iter().nth(1).and_then(|run| run.to_str()).map(str::to_owned);
    Some(Ok(Link {
        key: record.key,
        stage: record.stage,
        kind: (record.identity.kind, record.identity.version),
        run,
        files: record.identity.files,
        environment: record.identity.environment,
        inputs: record.identity.inputs.into_values().flatten().collect(),
        outputs: record.outputs,
        log: record.log,
        bytes,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn objects_are_listed_and_whatever_else_lies_there_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        assert_eq!(objects(&home).unwrap(), []);
        for text in ["one", "three"] {
            home.write_object(&home.object(&Digest::of(text.as_bytes())), text.as_bytes()).unwrap();
        }
        home.write(&home.root().join("objects/README"), b"x").unwrap();
        home.write(&home.root().join("objects/ab/x"), b"x").unwrap();
        let mut expected =
            ["one", "three"].map(|text| Object { digest: Digest::of(text.as_bytes()), bytes: text.len() as u64 });
        expected.sort_unstable();
        assert_eq!(objects(&home).unwrap(), expected);
    }
}
