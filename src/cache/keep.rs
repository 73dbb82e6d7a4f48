//! Keeping what stages made: their artifacts and action records, several stages at a time.
//!
//! A record is put in place only after the artifacts that it promises are sure to survive a power cut. Waiting for the
//! disk is what costs, so stages that end at the same time wait together.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    ActionRecord, CacheError, Home, Prepared, Records, Store,
    atomic::{copy_of, publish, sync_telling},
    crash,
    error::Trying,
    record::Draft,
};

/// A stage whose work is done, and not yet kept.
#[derive(Debug)]
pub struct Unkept {
    /// What it made, by the name of the output.
    pub outputs: Vec<(String, Prepared)>,
    /// Its record, with the outputs left out.
    pub record: ActionRecord,
}

/// Keeps a group of stages. Each is kept whole or not at all; the answers come in the order of the group.
pub fn keep(home: &Home, group: Vec<Unkept>) -> Vec<Result<ActionRecord, CacheError>> {
    let keeper = Keeper { store: Store::new(home), records: Records::new(home) };
    keeper.keep(group)
}

struct Keeper {
    store: Store,
    records: Records,
}

/// A stage on its way: the next step's material, or why it goes no further.
type OnTheWay<T> = Result<T, CacheError>;

impl Keeper {
    fn keep(&self, group: Vec<Unkept>) -> Vec<Result<ActionRecord, CacheError>> {
        let drafted: Vec<OnTheWay<Drafted>> = group.into_iter().map(|stage| self.draft(stage)).collect();
        let drafted = synced(drafted, |stage| stage.unsynced().map(Path::to_owned).collect(), sync_telling);
        let placed: Vec<OnTheWay<Recorded>> =
            drafted.into_iter().map(|stage| stage.and_then(|stage| self.place(stage))).collect();
        let placed = synced(placed, |stage| stage.folders.clone(), sync_telling);
        crash::point("scheduler.ingested");
        let recorded: Vec<OnTheWay<Recorded>> = placed
            .into_iter()
            .map(|stage| {
                let mut stage = stage?;
                crash::point("record.before");
                if let Some(draft) = stage.draft.take() {
                    publish(draft.file, &draft.path)?;
                }
                crash::point("record.after");
                Ok(stage)
            })
            .collect();
        // One folder holds all records.
        let recorded = synced(recorded, |stage| stage.record_folder.iter().cloned().collect(), sync_telling);
        recorded.into_iter().map(|stage| stage.map(|stage| stage.record)).collect()
    }

    fn draft(&self, stage: Unkept) -> OnTheWay<Drafted> {
        let Unkept { outputs, mut record } = stage;
        record.outputs = outputs.iter().map(|(name, prepared)| (name.clone(), prepared.digest())).collect();
        let draft = self.records.draft(&record)?;
        let outputs = outputs.into_iter().map(|(_, prepared)| prepared).collect();
        Ok(Drafted { outputs, record, draft })
    }

    fn place(&self, stage: Drafted) -> OnTheWay<Recorded> {
        let Drafted { outputs, record, draft } = stage;
        let mut folders = Vec::new();
        for prepared in outputs {
            let placed = self.store.place(prepared)?;
            self.store.remember(&placed);
            folders.extend(placed.folders);
        }
        let record_folder = draft.path.parent().map(Path::to_owned);
        Ok(Recorded { record, draft: Some(draft), folders, record_folder })
    }
}

/// A stage whose record is written, but not yet in place.
struct Drafted {
    outputs: Vec<Prepared>,
    record: ActionRecord,
    draft: Draft,
}

/// A stage whose artifacts are in place.
struct Recorded {
    record: ActionRecord,
    draft: Option<Draft>,
    folders: Vec<PathBuf>,
    record_folder: Option<PathBuf>,
}

impl Drafted {
    fn unsynced(&self) -> impl Iterator<Item = &Path> {
        self.outputs.iter().flat_map(Prepared::unsynced).chain([self.draft.file.path()])
    }
}

/// Syncs what the stages name, all together and once: see [`sync_telling`]. What fails, fails each stage that named it.
fn synced<T>(
    stages: Vec<OnTheWay<T>>,
    paths: impl Fn(&T) -> Vec<PathBuf>,
    sync: impl Fn(&[&Path]) -> Vec<(usize, io::Error)>,
) -> Vec<OnTheWay<T>> {
    let all: Vec<PathBuf> = {
        let mut all: Vec<PathBuf> = stages.iter().flatten().flat_map(&paths).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let failed: BTreeMap<&Path, io::Error> = sync(&all.iter().map(PathBuf::as_path).collect::<Vec<_>>())
        .into_iter()
        .map(|(place, error)| (all[place].as_path(), error))
        .collect();
    if failed.is_empty() {
        return stages;
    }
    let judge = |stage: T| match paths(&stage).iter().find_map(|path| failed.get_key_value(path.as_path())) {
        Some((path, error)) => Err(copy_of(error)).trying("write", path),
        None => Ok(stage),
    };
    stages.into_iter().map(|stage| stage.and_then(judge)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{fs, os::unix::fs::PermissionsExt};

    use serde_json::json;

    use super::*;
    use crate::cache::{Environment, key::tests::identity};

    fn unkept(home: &Home, seed: u64, text: &str) -> Unkept {
        let folder = home.tmp().join(format!("out{seed}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file.txt"), text).unwrap();
        let identity = identity(json!(seed));
        let record = ActionRecord {
            key: identity.key(),
            stage: format!("stage{seed}"),
            identity,
            outputs: Default::default(),
            figures: Default::default(),
            metrics: Default::default(),
            environment: Environment::default(),
            started: jiff::Timestamp::UNIX_EPOCH,
            ended: jiff::Timestamp::UNIX_EPOCH,
            duration_seconds: 0.0,
            log: "logs/1/a.log".into(),
        };
        Unkept { outputs: vec![("out".to_owned(), Store::new(home).prepare(&folder).unwrap())], record }
    }

    #[test]
    fn a_group_is_kept_with_its_records_and_equal_files_are_kept_once() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let group = (0..200).map(|seed| unkept(&home, seed, if seed % 2 == 0 { "even" } else { "odd" })).collect();
        let kept = keep(&home, group);
        let records = Records::new(&home);
        for record in kept {
            let record = record.unwrap();
            assert_eq!(records.get(&record.key), Some(record.clone()));
            Store::new(&home).verify(&record.outputs["out"]).unwrap();
        }
        let left = fs::read_dir(home.tmp()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
        assert_eq!(left, 0, "no temporary file is left");
    }

    #[test]
    fn a_stage_that_cannot_be_kept_leaves_the_others_alone() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let group: Vec<Unkept> = (0..3).map(|seed| unkept(&home, seed, &seed.to_string())).collect();
        // What was prepared for the second one is gone before it is kept.
        fs::remove_file(home.tmp().join("out1/file.txt")).unwrap();
        let kept = keep(&home, group);
        assert!(kept[0].is_ok() && kept[2].is_ok());
        let error = kept[1].as_ref().unwrap_err().to_string();
        assert!(error.contains("out1/file.txt"), "{error}");
        assert_eq!(fs::read_dir(home.root().join("actions")).unwrap().count(), 2);
    }

    #[test]
    fn what_could_not_be_synced_is_not_asked_for_again() {
        let asked = std::cell::Cell::new(0);
        // As the kernel does: a write that failed is told of once, and then forgotten.
        let sync = |paths: &[&Path]| {
            asked.set(asked.get() + 1);
            let lost = paths.iter().position(|path| path.ends_with("lost")).filter(|_| asked.get() == 1);
            lost.map(|place| (place, io::Error::from_raw_os_error(5))).into_iter().collect()
        };
        let stages = vec![Ok(vec!["a", "shared"]), Ok(vec!["lost", "shared"]), Ok(vec!["b"])];
        let paths = |stage: &Vec<&str>| stage.iter().map(PathBuf::from).collect();
        let synced = synced(stages, paths, sync);
        assert_eq!(asked.get(), 1);
        assert!(synced[0].is_ok() && synced[2].is_ok());
        assert_eq!(synced[1].as_ref().unwrap_err().to_string(), "cannot write `lost`");
    }

    #[test]
    fn a_file_that_its_stage_locked_into_a_read_only_folder_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let stage = unkept(&home, 1, "text");
        fs::set_permissions(home.tmp().join("out1"), fs::Permissions::from_mode(0o555)).unwrap();
        let kept = crate::cache::removal::as_anybody(|| keep(&home, vec![stage]));
        Store::new(&home).verify(&kept[0].as_ref().unwrap().outputs["out"]).unwrap();
    }

    #[test]
    fn the_folder_of_the_first_object_in_it_is_synced_by_its_name_too() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let store = Store::new(&home);
        let folders = |seed: u64| {
            let (_, prepared) = unkept(&home, seed, "text").outputs.remove(0);
            store.place(prepared).unwrap().folders
        };
        let objects = home.root().join("objects");
        assert!(folders(1).contains(&objects));
        assert!(!folders(1).contains(&objects), "it is there now");
    }
}
