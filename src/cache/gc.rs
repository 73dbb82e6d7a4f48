//! Removing what nothing needs.
//!
//! What is needed, the caller says: keys, artifacts and runs. All that hangs on them stays. Everything else goes, in an
//! order in which a kill at any moment leaves nothing that points at what is gone: first what names records, then the
//! records, and only when those are sure to be gone what they promise.
//!
//! It needs the home for itself: see [`Home::exclusive`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use pipe_stage::Digest;
use rayon::prelude::*;
use serde::Serialize;

use super::{
    Acquired, CacheError, Exclusive, FileIdentity, Home, Key, KeyLock, Manifest, attempt, crash,
    error::Trying,
    inventory::{Link, Object, entries, links, objects},
    record::file_name,
};

/// What is to stay, beside all that hangs on it.
#[derive(Debug, Default)]
pub struct Needed {
    /// Ids of runs, whose journals and logs stay.
    pub runs: HashSet<String>,
    /// Names of pipelines. What each of their stages last had stays.
    pub pipelines: HashSet<String>,
    /// Digests of resolved pipelines.
    pub resolved: HashSet<Digest>,
    /// Keys, whose records and artifacts stay, and what a later attempt at them resumes from.
    pub keys: HashSet<Key>,
    /// Artifacts.
    pub artifacts: HashSet<Digest>,
}

/// A kind of thing that takes space, in the order in which they are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Journals of runs, and the pipelines that they ran.
    Runs,
    /// Action records, and the notes of which one a stage last had.
    Records,
    /// Files of artifacts, and the lists of them.
    Objects,
    /// Logs of stages.
    Logs,
    /// What a killed or failed attempt left to the next one.
    Resume,
    /// Objects that were found damaged.
    Quarantine,
    /// What is kept for speed only.
    Hints,
    /// What is written to while stages run, and was left by killed ones.
    Scratch,
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many files.
    pub files: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
}

/// An artifact that goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unneeded {
    /// The artifact.
    pub artifact: Digest,
    /// The stage that made it.
    pub stage: String,
    /// The run in which it did, if the record names it.
    pub run: Option<String>,
    /// The size of those of its files that go with it, in bytes.
    pub bytes: u64,
}

/// What a home holds, divided into what stays and what goes.
#[derive(Debug)]
pub struct Division {
    stays: BTreeMap<Category, Amount>,
    goes: BTreeMap<Category, Vec<Item>>,
    /// The artifacts that go, the largest first.
    pub artifacts: Vec<Unneeded>,
}

/// A file that goes.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    bytes: u64,
}

impl Category {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Runs,
        Self::Records,
        Self::Objects,
        Self::Logs,
        Self::Resume,
        Self::Quarantine,
        Self::Hints,
        Self::Scratch,
    ];
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Division {
    /// Looks at everything in `home`, and changes nothing.
    ///
    /// # Errors
    /// If a folder of the home cannot be read.
    pub fn find(home: &Home, needed: &Needed) -> Result<Self, CacheError> {
        let mut division = Self { stays: BTreeMap::new(), goes: BTreeMap::new(), artifacts: Vec::new() };
        division.runs(home, needed)?;
        let mut keys = needed.keys.clone();
        division.last_keys(home, needed, &mut keys)?;
        let (kept, dropped) = division.records(home, &keys)?;
        let mut artifacts = needed.artifacts.clone();
        artifacts.extend(kept.iter().flat_map(|link| link.outputs.values()));
        let gone = division.objects(home, &artifacts)?;
        division.artifacts = biggest(home, &dropped, &gone);
        division.logs(home, needed, &kept)?;
        division.resume(home, &keys)?;
        division.hints(home, &artifacts, &kept)?;
        division.folder(Category::Quarantine, &home.quarantine_folder(), |_| false)?;
        for folder in [home.scratch_folder(), home.spare(), home.tmp()] {
            division.folder(Category::Scratch, &folder, |_| false)?;
        }
        Ok(division)
    }

    /// What goes of a kind.
    pub fn goes(&self, category: Category) -> Amount {
        let mut amount = Amount::default();
        self.goes.get(&category).into_iter().flatten().for_each(|item| amount.add(item.bytes));
        amount
    }

    /// What stays of a kind.
    pub fn stays(&self, category: Category) -> Amount {
        self.stays.get(&category).copied().unwrap_or_default()
    }

    /// Removes what goes, and gives what could not be removed, with the reason.
    ///
    /// # Errors
    /// If what names others could not be removed: those stay then.
    pub fn remove(self, home: &Home, _alone: &Exclusive) -> Result<Vec<(PathBuf, io::Error)>, CacheError> {
        let mut left = Vec::new();
        for (category, items) in self.goes {
            match category {
                Category::Runs | Category::Records => {
                    for item in &items {
                        unlink(&item.path).trying("remove", &item.path)?;
                    }
                    let folders: HashSet<&Path> = items.iter().filter_map(|item| item.path.parent()).collect();
                    for folder in folders {
                        File::open(folder).and_then(|folder| folder.sync_all()).trying("write", folder)?;
                    }
                }
                Category::Scratch => {
                    // Whoever is still at work there has the lock of its key.
                    attempt::sweep(home)?;
                    let nobodys = |item: &Item| !item.path.starts_with(home.scratch_folder());
                    left.extend(removed(items.into_iter().filter(nobodys).collect()));
                }
                Category::Resume => left.extend(removed_with_locks(home, items)?),
                _ => left.extend(removed(items)),
            }
            match category {
                Category::Runs => crash::point("gc.runs-removed"),
                Category::Records => crash::point("gc.records-removed"),
                _ => {}
            }
        }
        remove_empty_folders(home);
        Ok(left)
    }

    fn put(&mut self, category: Category, path: PathBuf, bytes: u64, stays: bool) {
        if stays {
            self.stays.entry(category).or_default().add(bytes);
        } else {
            self.goes.entry(category).or_default().push(Item { path, bytes });
        }
    }

    /// Puts every file below a folder where `stays` says, which is asked with its path relative to the folder.
    fn folder(&mut self, category: Category, folder: &Path, stays: impl Fn(&Path) -> bool) -> Result<(), CacheError> {
        let mut folders = vec![folder.to_owned()];
        while let Some(inner) = folders.pop() {
            for entry in entries(&inner)? {
                let (path, metadata) = (entry.path(), entry.metadata());
                match metadata {
                    Ok(metadata) if metadata.is_dir() => folders.push(path),
                    Ok(metadata) => {
                        let stays = path.strip_prefix(folder).is_ok_and(&stays);
                        self.put(category, path, metadata.len(), stays);
                    }
                    // Gone by now.
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn runs(&mut self, home: &Home, needed: &Needed) -> Result<(), CacheError> {
        let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        self.folder(Category::Runs, &home.root().join("runs"), |path| needed.runs.contains(&stem(path)))?;
        self.folder(Category::Runs, &home.root().join("pipelines"), |path| {
            stem(path).parse().is_ok_and(|digest: Digest| needed.resolved.contains(&digest))
        })
    }

    /// Adds the keys that the stages of needed pipelines last had.
    fn last_keys(&mut self, home: &Home, needed: &Needed, keys: &mut HashSet<Key>) -> Result<(), CacheError> {
        let names: HashSet<String> = needed.pipelines.iter().map(|name| file_name(name)).collect();
        let is_needed =
            |path: &Path| path.iter().next().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name));
        let stages = home.root().join("stages");
        for name in &names {
            for entry in entries(&stages.join(name))? {
                keys.extend(fs::read_to_string(entry.path()).ok().and_then(|text| text.trim().parse::<Key>().ok()));
            }
        }
        self.folder(Category::Records, &stages, is_needed)?;
        self.folder(Category::Hints, &home.root().join("state"), is_needed)
    }

    fn records(&mut self, home: &Home, keys: &HashSet<Key>) -> Result<(Vec<Link>, Vec<Link>), CacheError> {
        let (links, bad) = links(home)?;
        let (kept, dropped): (Vec<Link>, Vec<Link>) = links.into_iter().partition(|link| keys.contains(&link.key));
        for (links, stays) in [(&kept, true), (&dropped, false)] {
            links.iter().for_each(|link| self.put(Category::Records, home.action(&link.key), link.bytes, stays));
        }
        for bad in bad {
            self.put(Category::Records, home.root().join("actions").join(bad.name), bad.bytes, false);
        }
        Ok((kept, dropped))
    }

    /// Gives the objects that go.
    fn objects(&mut self, home: &Home, artifacts: &HashSet<Digest>) -> Result<HashMap<Digest, u64>, CacheError> {
        let listed: Vec<&Digest> = artifacts.iter().collect();
        let files = listed.par_iter().flat_map_iter(|artifact| {
            let manifest = list_of(home, artifact);
            let files: Vec<Digest> = manifest.iter().flat_map(Manifest::entries).map(|entry| entry.digest).collect();
            files
        });
        let mut needed: HashSet<Digest> = files.collect();
        needed.extend(artifacts);
        let mut gone = HashMap::new();
        for Object { digest, bytes } in objects(home)? {
            let stays = needed.contains(&digest);
            if !stays {
                gone.insert(digest, bytes);
            }
            self.put(Category::Objects, home.object(&digest), bytes, stays);
        }
        Ok(gone)
    }

    fn logs(&mut self, home: &Home, needed: &Needed, kept: &[Link]) -> Result<(), CacheError> {
        let told: HashSet<&Path> = kept.iter().map(|link| link.log.as_path()).collect();
        self.folder(Category::Logs, &home.root().join("logs"), |path| {
            let run = path.iter().next().and_then(|run| run.to_str());
            run.is_some_and(|run| needed.runs.contains(run)) || told.contains(Path::new("logs").join(path).as_path())
        })
    }

    fn resume(&mut self, home: &Home, keys: &HashSet<Key>) -> Result<(), CacheError> {
        self.folder(Category::Resume, &home.root().join("resume"), |path| {
            let key = path.iter().next().and_then(|key| key.to_str()).and_then(|key| key.parse().ok());
            key.is_some_and(|key: Key| keys.contains(&key))
        })
    }

    fn hints(&mut self, home: &Home, artifacts: &HashSet<Digest>, kept: &[Link]) -> Result<(), CacheError> {
        self.folder(Category::Hints, &home.root().join("verified"), |path| {
            let name: String = path.iter().filter_map(|part| part.to_str()).collect();
            name.parse().is_ok_and(|artifact: Digest| artifacts.contains(&artifact))
        })?;
        let folders: HashSet<Digest> =
            kept.iter().flat_map(|link| link.files.values()).map(|file: &FileIdentity| file.digest).collect();
        self.folder(Category::Hints, &home.root().join("manifests"), |path| {
            path.file_stem().and_then(|name| name.to_str()?.parse().ok()).is_some_and(|name| folders.contains(&name))
        })?;
        for folder in ["files", "checkouts"] {
            // Small, and each speaks of a place of the user's that may still be there.
            self.folder(Category::Hints, &home.root().join(folder), |_| true)?;
        }
        Ok(())
    }
}

/// The list of an artifact's files, if it is whole.
pub(super) fn list_of(home: &Home, artifact: &Digest) -> Option<Manifest> {
    let text = fs::read_to_string(home.object(artifact)).ok()?;
    Manifest::parse(&text).ok().filter(|_| Digest::of(text.as_bytes()) == *artifact)
}

/// The artifacts of these records, the largest first, each counted by what goes with it.
fn biggest(home: &Home, dropped: &[Link], gone: &HashMap<Digest, u64>) -> Vec<Unneeded> {
    let made: BTreeMap<Digest, &Link> =
        dropped.iter().flat_map(|link| link.outputs.values().map(move |artifact| (*artifact, link))).collect();
    let unneeded = |(artifact, link): (&Digest, &&Link)| {
        let list = list_of(home, artifact)?;
        let files: HashSet<Digest> = list.entries().iter().map(|entry| entry.digest).collect();
        let bytes = files.iter().filter_map(|file| gone.get(file)).sum();
        gone.contains_key(artifact).then(|| Unneeded {
            artifact: *artifact,
            stage: link.stage.clone(),
            run: link.run.clone(),
            bytes,
        })
    };
    let mut artifacts: Vec<Unneeded> = made.par_iter().filter_map(unneeded).collect();
    artifacts.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.artifact.cmp(&b.artifact)));
    artifacts
}

fn removed(items: Vec<Item>) -> Vec<(PathBuf, io::Error)> {
    let remove = |item: Item| {
        let failed = unlink(&item.path).err().map(|error| (item.path, error));
        crash::point("gc.file-removed");
        failed
    };
    items.into_par_iter().filter_map(remove).collect()
}

/// Removes files of `resume/KEY/` for which nobody has the lock of the key: a worker that outlived its run has it.
fn removed_with_locks(home: &Home, items: Vec<Item>) -> Result<Vec<(PathBuf, io::Error)>, CacheError> {
    let folder = home.root().join("resume");
    let mut by_key: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in items {
        let key = item.path.strip_prefix(&folder).ok().and_then(|path| path.iter().next());
        by_key.entry(key.unwrap_or_default().to_string_lossy().into_owned()).or_default().push(item);
    }
    let mut left = Vec::new();
    for (key, items) in by_key {
        let lock = match key.parse() {
            Ok(key) => KeyLock::acquire(home, &key)?,
            Err(_) => {
                left.extend(removed(items));
                continue;
            }
        };
        if let Acquired::Held(_lock) = lock {
            left.extend(removed(items));
        }
    }
    Ok(left)
}

fn unlink(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the folders that held what was removed. One that still holds something stays.
fn remove_empty_folders(home: &Home) {
    for folder in ["objects", "verified", "stages", "logs", "resume", "spare"] {
        remove_empty_below(&home.root().join(folder));
    }
}

fn remove_empty_below(folder: &Path) {
    for entry in entries(folder).unwrap_or_default() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
