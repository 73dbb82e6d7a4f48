//! A plan's questions, answered by the cache on disk.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use pipe_stage::Digest;

use super::Lookup;
use crate::{
    cache::{ActionRecord, Flaw, Home, Key, Manifest, Records, State, Store, UserFiles},
    config::StageName,
    runs::{RunId, RunRecord, Runs, Story, Unsuccessful},
};

/// What a home knows of one pipeline.
#[derive(Debug)]
pub struct CacheLookup {
    store: Store,
    records: Records,
    state: State,
    files: UserFiles,
    runs: Runs,
    pipeline: String,
    /// Read when the first stage is met that is no hit.
    unsuccessful: OnceLock<HashMap<String, Unsuccessful>>,
    /// The records of runs that were asked for: many artifacts are of the same run.
    journals: Mutex<HashMap<RunId, Option<Arc<RunRecord>>>>,
}

impl CacheLookup {
    /// What `home` knows of the pipeline of this name.
    pub fn new(home: &Home, pipeline: &str) -> Self {
        Self {
            store: Store::new(home),
            records: Records::new(home),
            state: State::load(home, pipeline),
            files: UserFiles::new(home),
            runs: Runs::new(home),
            pipeline: pipeline.to_owned(),
            unsuccessful: OnceLock::new(),
            journals: Mutex::default(),
        }
    }

    fn journal(&self, run: &RunId) -> Option<Arc<RunRecord>> {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.entry(run.clone()).or_insert_with(|| self.runs.get(run).map(Arc::new)).clone()
    }

    /// How the pipeline stood when it was last brought up to date.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same, to be changed.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Notes that a stage is up to date. That is only for the sake of later runs, and not worth failing for.
    pub fn note(&mut self, stage: &StageName, key: &Key, outputs: &BTreeMap<String, Digest>) {
        if self.state.key(stage.as_str()) != Some(key)
            && let Err(error) = self.records.set_last(&self.pipeline, stage.as_str(), key)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the key of a stage is not noted");
        }
        self.state.note(&self.store, stage.as_str(), key, outputs);
    }
}

impl Lookup for CacheLookup {
    fn record(&self, key: &Key) -> Option<ActionRecord> {
        self.records.get(key)
    }

    fn last(&self, stage: &StageName) -> Option<ActionRecord> {
        self.records.last(&self.pipeline, stage.as_str())
    }

    fn known(&self, stage: &StageName, key: &Key) -> Option<BTreeMap<String, Digest>> {
        self.state.outputs(stage.as_str(), key).cloned()
    }

    fn verify(&self, artifact: &Digest) -> Result<(), Flaw> {
        self.store.verify(artifact).map(|_| ())
    }

    fn unsuccessful(&self, stage: &StageName) -> Option<Unsuccessful> {
        self.unsuccessful.get_or_init(|| self.runs.unsuccessful(&self.pipeline)).get(stage.as_str()).cloned()
    }

    fn folder(&self, digest: &Digest) -> Option<Manifest> {
        self.files.folder(digest)
    }

    fn story(&self, record: &ActionRecord) -> Option<Story> {
        let run = RunId::that_made(record)?;
        let journal = self.journal(&run);
        Some(Story::of(record, run, journal.as_deref()))
    }

    fn keys_beside(&self, record: &ActionRecord) -> HashMap<String, Key> {
        let journal = RunId::that_made(record).and_then(|run| self.journal(&run));
        let stages = journal.iter().flat_map(|journal| &journal.stages);
        stages.filter_map(|(name, stage)| Some((name.clone(), stage.key?))).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

    use super::*;
    use crate::{
        cache::{Acquired, Attempt, Environment, KeyLock, UserFiles},
        config::{Pipeline, StageSpec},
        graph::{
            Graph,
            tests::{name, pipeline},
        },
        pins::Pins,
        plan::{Action, Decision, External, Externals, Plan, decide},
        selection::Request,
    };

    /// Runs one stage as the scheduler does; its work is to write `text`.
    fn run(home: &Home, spec: &StageSpec, external: &External, text: &str) {
        let lookup = CacheLookup::new(home, "test");
        let Decision { identity, key, action, .. } = decide(spec, BTreeMap::new(), external, &lookup);
        assert!(matches!(action, Action::Run { .. }), "{action:?}");
        let Acquired::Held(lock) = KeyLock::acquire(home, &key).unwrap() else { panic!("the lock is free") };
        let attempt = Attempt::begin(home, lock, &spec.outputs).unwrap();
        fs::write(attempt.output().join("out/file.txt"), text).unwrap();
        let artifact = lookup.store.ingest(&attempt.output().join("out")).unwrap();
        let record = ActionRecord {
            key,
            stage: spec.name.to_string(),
            identity,
            outputs: [("out".to_owned(), artifact)].into(),
            figures: Default::default(),
            metrics: Default::default(),
            environment: Environment::default(),
            started: jiff::Timestamp::now(),
            ended: jiff::Timestamp::now(),
            duration_seconds: 0.0,
            log: "logs/1/a.log".into(),
        };
        lookup.records.put(&record).unwrap();
        lookup.records.set_last("test", spec.name.as_str(), &key).unwrap();
        attempt.succeed();
    }

    fn plan(home: &Home, pipeline: &Pipeline, externals: &Externals) -> Action {
        let graph = Graph::new(pipeline).unwrap();
        let selection = Request::default().select(&graph).unwrap();
        let mut plan = Plan::new(pipeline, &graph, &selection, externals, &CacheLookup::new(home, "test"));
        plan.stages.remove(0).action
    }

    fn reasons(action: &Action) -> String {
        let Action::Run { reasons } = action else { panic!("{action:?}") };
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn objects(folder: &Path) -> Vec<std::path::PathBuf> {
        let shards = fs::read_dir(folder).unwrap().flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
        shards.map(|object| object.unwrap().path()).collect()
    }

    #[test]
    fn on_disk_a_run_is_followed_by_hits_until_the_data_or_the_cache_changes() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join(".pipe")).unwrap();
        home.create().unwrap();
        let mut pipeline = pipeline("a:");
        pipeline.folder = temp.path().to_owned();
        let spec = pipeline.stages.get_mut("a").unwrap();
        spec.user_files = vec![pipe_stage::UserFile { field: "source".to_owned(), path: "chat.jsonl".into() }];
        let spec = spec.clone();
        let look = || {
            Externals::identify(&pipeline, &[name("a")].into(), &UserFiles::new(&home), &Pins::default(), |_| None)
                .unwrap()
        };

        fs::write(temp.path().join("chat.jsonl"), "one").unwrap();
        assert_eq!(reasons(&plan(&home, &pipeline, &look())), "never run");
        run(&home, &spec, look().of(&spec.name), "made of one");
        assert!(matches!(plan(&home, &pipeline, &look()), Action::Hit { .. }));

        fs::write(temp.path().join("chat.jsonl"), "two").unwrap();
        assert_eq!(reasons(&plan(&home, &pipeline, &look())), "the file `chat.jsonl` of `source` changed");
        run(&home, &spec, look().of(&spec.name), "made of two");
        fs::write(temp.path().join("chat.jsonl"), "one").unwrap();
        assert!(matches!(plan(&home, &pipeline, &look()), Action::Hit { .. }), "what was made before is still there");

        for object in objects(&home.root().join("objects")) {
            if fs::read_to_string(&object).unwrap() == "made of one" {
                fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
                fs::write(&object, "made of onE").unwrap();
            }
        }
        let short = Digest::of(b"made of one").short();
        assert_eq!(
            reasons(&plan(&home, &pipeline, &look())),
            format!(
                "output `out` is damaged (`file.txt`): its bytes have changed; object {short} is now in quarantine"
            )
        );
        run(&home, &spec, look().of(&spec.name), "made of one");
        assert!(matches!(plan(&home, &pipeline, &look()), Action::Hit { .. }), "the rerun mended it");
        fs::remove_dir_all(home.root().join("objects")).unwrap();
        assert_eq!(reasons(&plan(&home, &pipeline, &look())), "output `out` is missing");
    }
}
