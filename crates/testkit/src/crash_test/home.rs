//! What is on disk after a disturbance, read without the engine's help where that is what is tested.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use pipe::cache::{Home, Key, Records, Store};
use pipe_stage::Digest;

use super::Failure;

/// The action records in a folder's home, by stage. The pipeline has one key a stage.
pub(crate) fn committed(folder: &Path) -> Result<BTreeMap<String, Committed>, Failure> {
    let home = Home::open(folder.join("home")).map_err(io::Error::other)?;
    let records = Records::new(&home);
    let mut committed = BTreeMap::new();
    for path in files(&home.root().join("actions"))? {
        let broken = || Failure::Broken(format!("{} is no whole record", path.display()));
        let key = path.file_stem().and_then(|name| name.to_str()?.parse::<Key>().ok()).ok_or_else(broken)?;
        let record = records.get(&key).ok_or_else(broken)?;
        committed.insert(record.stage, Committed { key, outputs: record.outputs });
    }
    Ok(committed)
}

/// What a record promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) key: Key,
    pub(crate) outputs: BTreeMap<String, Digest>,
}

/// Objects whose bytes are not what their names say, and promised artifacts that are not whole.
pub(crate) fn flaws(folder: &Path, committed: &BTreeMap<String, Committed>) -> io::Result<Vec<String>> {
    let root = folder.join("home");
    let mut flaws = Vec::new();
    let mut objects = BTreeSet::new();
    for path in files(&root.join("objects"))? {
        let shard = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let name = format!("{shard}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if Digest::of(&fs::read(&path)?).to_string() != name {
            flaws.push(format!("the object {name} is visible and not whole"));
        }
        objects.insert(name);
    }
    let store = Store::new(&Home::open(&root).map_err(io::Error::other)?);
    for (stage, promise) in committed {
        for (output, artifact) in &promise.outputs {
            if let Err(flaw) = store.verify(artifact) {
                flaws.push(format!("the record of {stage} promises {output}, but {flaw}"));
            }
        }
    }
    Ok(flaws)
}

/// The steps that were done of a stage that is not committed, by its key.
pub(crate) fn steps_done(folder: &Path, key: &Key) -> Option<u64> {
    let text = fs::read_to_string(folder.join("home/resume").join(key.to_string()).join("step")).ok()?;
    text.parse().ok()
}

/// The names in one of the home's folders.
pub(crate) fn names(folder: &Path, of: &str) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder.join("home").join(of)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The processes that were started as workers in the folder's home and live.
pub(crate) fn workers_alive(folder: &Path) -> Vec<String> {
    let mut wanted = b"TMPDIR=".to_vec();
    wanted.extend(folder.as_os_str().as_encoded_bytes());
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let of_ours = entries.filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(&wanted))
    });
    of_ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
