//! How much space artifacts take, where several share what they hold.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use pipe_stage::Digest;
use rayon::prelude::*;
use serde::Serialize;

use super::{CacheError, Home, Manifest, gc::list_of, inventory::objects};

/// The objects of a home, and which artifacts they are part of.
#[derive(Debug)]
pub struct Usage {
    /// By object.
    bytes: HashMap<Digest, u64>,
    /// By artifact: its objects that are there, each once, with the list of its files.
    artifacts: HashMap<Digest, Vec<Digest>>,
}

/// What some artifacts take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// How many artifacts they are.
    pub artifacts: usize,
    /// Their size, in bytes; what several of them hold counts once.
    pub bytes: u64,
    /// What no others hold, in bytes.
    pub only_bytes: u64,
}

impl Usage {
    /// Looks at the objects of a home, and at the lists of files of these artifacts.
    ///
    /// # Errors
    /// If a folder of the home cannot be read.
    pub fn measure(home: &Home, artifacts: &HashSet<Digest>) -> Result<Self, CacheError> {
        let bytes: HashMap<Digest, u64> =
            objects(home)?.into_iter().map(|object| (object.digest, object.bytes)).collect();
        let parts = |artifact: &Digest| {
            let list = list_of(home, artifact);
            let files = list.iter().flat_map(Manifest::entries).map(|entry| entry.digest);
            let parts: HashSet<Digest> = files.chain([*artifact]).filter(|part| bytes.contains_key(part)).collect();
            (*artifact, parts.into_iter().collect())
        };
        let artifacts = artifacts.par_iter().map(parts).collect();
        Ok(Self { bytes, artifacts })
    }

    /// What each of these groups of artifacts takes, and what would be free if it alone went.
    pub fn shares<Name: Eq + Hash + Clone>(&self, groups: &HashMap<Name, HashSet<Digest>>) -> HashMap<Name, Share> {
        let mut holders: HashMap<Digest, usize> = HashMap::new();
        let parts: Vec<(&Name, usize, HashSet<Digest>)> = groups
            .iter()
            .map(|(name, artifacts)| {
                let parts: HashSet<Digest> =
                    artifacts.iter().filter_map(|artifact| self.artifacts.get(artifact)).flatten().copied().collect();
                parts.iter().for_each(|part| *holders.entry(*part).or_default() += 1);
                (name, artifacts.len(), parts)
            })
            .collect();
        let share = |(name, artifacts, parts): (&Name, usize, HashSet<Digest>)| {
            let mut share = Share { artifacts, ..Share::default() };
            for part in parts {
                let bytes = self.bytes.get(&part).copied().unwrap_or_default();
                share.bytes = share.bytes.saturating_add(bytes);
                if holders.get(&part) == Some(&1) {
                    share.only_bytes = share.only_bytes.saturating_add(bytes);
                }
            }
            (name.clone(), share)
        };
        parts.into_iter().map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::fs;

    use super::*;
    use crate::cache::Store;

    #[test]
    fn what_is_shared_counts_once_in_a_group_and_is_nobodys_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let make = |files: &[(&str, &str)]| {
            let folder = temp.path().join("out");
            fs::create_dir(&folder).unwrap();
            files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
            let artifact = Store::new(&home).ingest(&folder).unwrap();
            fs::remove_dir_all(&folder).unwrap();
            artifact
        };
        let (one, two) = (make(&[("a", "12345"), ("again", "12345"), ("b", "123")]), make(&[("c", "12345")]));
        let gone = Digest::of(b"gone");
        let list = |artifact: &Digest| fs::metadata(home.object(artifact)).unwrap().len();

        let usage = Usage::measure(&home, &[one, two, gone].into()).unwrap();
        let groups = HashMap::from([("one", [one].into()), ("two", [two, gone].into()), ("both", [one, two].into())]);
        let shares = usage.shares(&groups);
        assert_eq!(shares["one"], Share { artifacts: 1, bytes: 8 + list(&one), only_bytes: 0 });
        assert_eq!(shares["two"], Share { artifacts: 2, bytes: 5 + list(&two), only_bytes: 0 });
        assert_eq!(shares["both"], Share { artifacts: 2, bytes: 8 + list(&one) + list(&two), only_bytes: 0 });

        let groups = HashMap::from([("one", [one].into()), ("two", [two].into())]);
        let shares = usage.shares(&groups);
        assert_eq!((shares["one"].only_bytes, shares["two"].only_bytes), (3 + list(&one), list(&two)));
    }
}
