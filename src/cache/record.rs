//! Action records: what came out of a key, and how.

use std::{collections::BTreeMap, fs, path::PathBuf};

use indexmap::IndexMap;
use pipe_stage::Digest;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{CacheError, Home, Identity, Key, inventory::entries};

/// The longest name of a pipeline that is used as the name of a folder, in bytes.
const LONGEST_NAME_BYTES: usize = 120;

/// The story of the run that made a key's artifacts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionRecord {
    /// The key: always that of `identity`.
    pub key: Key,
    /// The stage that was run.
    pub stage: String,
    /// What went in.
    pub identity: Identity,
    /// The artifacts that came out, by the name of the output.
    pub outputs: BTreeMap<String, Digest>,
    /// What the stage reported of the finished work.
    pub figures: IndexMap<String, serde_json::Value>,
    /// The last measurements that it reported.
    pub metrics: IndexMap<String, f64>,
    /// Where it ran. Never part of the key.
    pub environment: Environment,
    /// When its worker began.
    pub started: jiff::Timestamp,
    /// When its worker ended.
    pub ended: jiff::Timestamp,
    /// In between, by a clock that nobody sets.
    pub duration_seconds: f64,
    /// Its log, relative to the home.
    pub log: PathBuf,
}

/// What a stage ran on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// `cpu`, or the name of the CUDA device.
    pub device: Option<String>,
    /// How many threads it was given.
    pub threads: Option<usize>,
    /// Programs and libraries with their versions.
    pub versions: BTreeMap<String, String>,
}

/// The action records of a home.
#[derive(Debug, Clone)]
pub struct Records {
    home: Home,
}

impl Records {
    /// The records of `home`.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// The record of `key`. One that cannot be read, or is not of this key, counts as none: the stage runs again.
    pub fn get(&self, key: &Key) -> Option<ActionRecord> {
        let bytes = fs::read(self.home.action(key)).ok()?;
        let record: ActionRecord = serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(%key, %error, "an action record cannot be read"))
            .ok()?;
        let genuine = record.key == *key && record.identity.key() == *key;
        genuine.then_some(record)
    }

    /// Writes a record beside its place.
    pub(super) fn draft(&self, record: &ActionRecord) -> Result<Draft, CacheError> {
        let path = self.home.action(&record.key);
        let bytes = serde_json::to_vec(record).map_err(|error| CacheError::Io {
            action: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        Ok(Draft { file: self.home.filled(&path, &bytes, 0o666)?, path })
    }

    /// Keeps a record at once. Its artifacts must be in the store already.
    #[cfg(test)]
    pub(crate) fn put(&self, record: &ActionRecord) -> Result<(), CacheError> {
        let draft = self.draft(record)?;
        super::atomic::publish(draft.file, &draft.path).map(drop)
    }

    /// The record that a stage of a pipeline last had, if it is still there. Only for saying what changed.
    pub fn last(&self, pipeline: &str, stage: &str) -> Option<ActionRecord> {
        let text = fs::read_to_string(self.index(pipeline, stage)).ok()?;
        self.get(&text.trim().parse().ok()?)
    }

    /// The same for all stages of a pipeline, by name.
    ///
    /// # Errors
    /// If the folder that says so cannot be read.
    pub fn all_last(&self, pipeline: &str) -> Result<BTreeMap<String, ActionRecord>, CacheError> {
        let stages = entries(&self.home.root().join("stages").join(file_name(pipeline)))?;
        let names = stages.iter().filter_map(|stage| stage.file_name().into_string().ok());
        Ok(names.filter_map(|stage| self.last(pipeline, &stage).map(|record| (stage, record))).collect())
    }

    /// Notes that a stage of a pipeline has this key now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn set_last(&self, pipeline: &str, stage: &str, key: &Key) -> Result<(), CacheError> {
        let path = self.index(pipeline, stage);
        let text = format!("{key}\n");
        if fs::read_to_string(&path).is_ok_and(|current| current == text) {
            return Ok(());
        }
        self.home.write_hint(&path, text.as_bytes())
    }

    fn index(&self, pipeline: &str, stage: &str) -> PathBuf {
        self.home.root().join("stages").join(file_name(pipeline)).join(stage)
    }
}

/// A record that is written, but not yet where it is found.
pub(super) struct Draft {
    pub(super) file: NamedTempFile,
    pub(super) path: PathBuf,
}

/// The name of a pipeline, which may be any text, as the name of a folder. Different names stay different.
pub(super) fn file_name(name: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    if name.chars().all(safe) && (1..=LONGEST_NAME_BYTES).contains(&name.len()) {
        name.to_owned()
    } else {
        // A dot is not safe, so that no safe name looks like this.
        format!("by-digest.{}", Digest::of(name.as_bytes()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::{super::key::tests::identity, *};

    fn record(seed: u64) -> ActionRecord {
        let identity = identity(json!({ "learning_rate": 1e-4, "zero": -0.0, "seed": seed, "名": "值" }));
        ActionRecord {
            key: identity.key(),
            stage: "adapter".to_owned(),
            identity,
            outputs: BTreeMap::from([("out".to_owned(), Digest::of(b"out"))]),
            figures: IndexMap::from([("rows".to_owned(), json!(3))]),
            metrics: IndexMap::from([("loss".to_owned(), 0.1 + 0.2)]),
            environment: Environment { threads: Some(2), ..Environment::default() },
            started: jiff::Timestamp::UNIX_EPOCH,
            ended: jiff::Timestamp::UNIX_EPOCH,
            duration_seconds: 0.25,
            log: "logs/1/adapter.log".into(),
        }
    }

    /// A record that promises this artifact; another seed gives another key.
    pub(in crate::cache) fn record_of(seed: u64, artifact: Digest) -> ActionRecord {
        ActionRecord { outputs: BTreeMap::from([("out".to_owned(), artifact)]), ..record(seed) }
    }

    #[test]
    fn a_record_comes_back_under_its_key_and_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let records = Records::new(&home);
        let (one, two) = (record(1), record(2));
        assert_eq!(records.get(&one.key), None);
        records.put(&one).unwrap();
        assert_eq!(records.get(&one.key), Some(one.clone()));
        assert_eq!(records.get(&two.key), None);
        fs::copy(home.action(&one.key), home.action(&two.key)).unwrap();
        assert_eq!(records.get(&two.key), None, "a record under another key's name");
    }

    #[test]
    fn a_damaged_record_counts_as_none() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path()).unwrap();
        let records = Records::new(&home);
        let record = record(1);
        records.put(&record).unwrap();
        let text = fs::read_to_string(home.action(&record.key)).unwrap();
        fs::write(home.action(&record.key), text.replace("0.0001", "0.0002")).unwrap();
        assert_eq!(records.get(&record.key), None, "an altered configuration");
        fs::write(home.action(&record.key), &text[..text.len() / 2]).unwrap();
        assert_eq!(records.get(&record.key), None, "half a record");
    }

    #[test]
    fn the_last_record_of_a_stage_is_found_by_pipeline_and_stage() {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::new(&Home::open(temp.path()).unwrap());
        let (one, two) = (record(1), record(2));
        records.put(&one).unwrap();
        records.put(&two).unwrap();
        records.set_last("微调", "adapter", &one.key).unwrap();
        records.set_last("../微调", "adapter", &two.key).unwrap();
        assert_eq!(records.last("微调", "adapter"), Some(one));
        assert_eq!(records.last("../微调", "adapter"), Some(two));
        assert_eq!(records.last("微调", "other"), None);
        assert_eq!(records.all_last("微调").unwrap().into_keys().collect::<Vec<_>>(), ["adapter"]);
        assert!(records.all_last("other").unwrap().is_empty());
    }

    #[test]
    fn no_two_pipelines_share_a_folder_and_none_leaves_the_home() {
        let names = ["a", "A", "a/b", "a b", "", ".", "..", "/", "a\0", "a.b", &"x".repeat(1000), &"数".repeat(100)];
        let folders: BTreeSet<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(folders.len(), names.len());
        assert!(folders.iter().all(|folder| !folder.contains(['/', '\0']) && folder.len() < 200));
        assert!(folders.iter().all(|folder| !folder.starts_with('.') && !folder.is_empty()));
    }
}
