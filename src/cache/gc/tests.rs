//! Tests of what is removed: against a model, and cut short at every point.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::cache::{Records, Store, record::tests::record_of};

struct Fixture {
    temp: tempfile::TempDir,
    home: Home,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        Self { temp, home }
    }

    /// An artifact whose files hold these texts.
    fn artifact(&self, texts: &BTreeSet<u8>) -> Digest {
        let folder = self.temp.path().join("out");
        fs::create_dir(&folder).unwrap();
        texts.iter().for_each(|text| fs::write(folder.join(format!("{text}.txt")), [*text]).unwrap());
        let artifact = Store::new(&self.home).ingest(&folder).unwrap();
        fs::remove_dir(folder).unwrap();
        artifact
    }

    /// The key of a record that promises an artifact, with its log.
    fn record(&self, seed: u64, artifact: Digest) -> Key {
        let mut record = record_of(seed, artifact);
        record.log = format!("logs/{seed}/a.log").into();
        self.write(record.log.to_str().unwrap());
        Records::new(&self.home).put(&record).unwrap();
        record.key
    }

    fn write(&self, path: &str) {
        let path = self.home.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"12345").unwrap();
    }

    fn collect(&self, needed: &Needed) {
        let alone = self.home.exclusive(false).unwrap().unwrap();
        let left = Division::find(&self.home, needed).unwrap().remove(&self.home, &alone).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Every file below a folder of the home.
    fn files(&self, folder: &str) -> BTreeSet<String> {
        let root = self.home.root().join(folder);
        let (mut files, mut folders) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in entries(&folder).unwrap() {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.insert(entry.path().strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        files
    }

    fn object_names(&self) -> BTreeSet<String> {
        self.files("objects").into_iter().map(|name| name.replace('/', "")).collect()
    }
}

fn all_objects(artifact: &Digest, texts: &BTreeSet<u8>) -> impl Iterator<Item = String> {
    texts
        .iter()
        .map(|text| Digest::of(&[*text]))
        .chain([*artifact])
        .map(|digest| digest.to_string())
        .collect::<Vec<_>>()
        .into_iter()
}

/// What a home holds, and what of it is needed.
#[derive(Debug, Clone)]
struct World {
    /// The texts of each artifact.
    artifacts: Vec<BTreeSet<u8>>,
    /// Which artifact each record promises; its key is given by its place.
    records: Vec<prop::sample::Index>,
    /// The stages of pipelines, each with the record that it last had.
    stages: Vec<prop::sample::Index>,
    needed_keys: BTreeSet<usize>,
    needed_artifacts: BTreeSet<usize>,
    needed_runs: BTreeSet<usize>,
    needed_pipelines: BTreeSet<usize>,
}

const MOST: usize = 5;

fn world() -> impl Strategy<Value = World> {
    let some = || prop::collection::btree_set(0..MOST, 0..=MOST);
    let index = any::<prop::sample::Index>;
    (
        prop::collection::vec(prop::collection::btree_set(0_u8..8, 1..4), 1..=MOST),
        prop::collection::vec(index(), 1..=MOST),
        prop::collection::vec(index(), 0..=MOST),
        (some(), some(), some(), some()),
    )
        .prop_map(|(artifacts, records, stages, (keys, needed_artifacts, needed_runs, needed_pipelines))| World {
            artifacts,
            records,
            stages,
            needed_keys: keys,
            needed_artifacts,
            needed_runs,
            needed_pipelines,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_needed_stays_whole_and_everything_else_goes(world in world()) {
        let fixture = Fixture::new();
        let home = &fixture.home;
        let artifacts: Vec<Digest> = world.artifacts.iter().map(|texts| fixture.artifact(texts)).collect();
        let promised: Vec<usize> = world.records.iter().map(|record| record.index(artifacts.len())).collect();
        let keys: Vec<Key> =
            promised.iter().zip(0..).map(|(artifact, seed)| fixture.record(seed, artifacts[*artifact])).collect();
        let last: Vec<usize> = world.stages.iter().map(|stage| stage.index(keys.len())).collect();
        for (number, key) in last.iter().enumerate() {
            Records::new(home).set_last(&format!("pipeline {number}"), "stage", &keys[*key]).unwrap();
        }
        for number in 0..MOST {
            fixture.write(&format!("runs/run {number}.jsonl"));
            fixture.write(&format!("logs/run {number}/b.log"));
            fixture.write(&format!("state/pipeline {number}"));
            fixture.write(&format!("pipelines/{}.yaml", Digest::of(&[b'p', number as u8])));
        }
        keys.iter().for_each(|key| fixture.write(&format!("resume/{key}/deep/checkpoint")));
        fixture.write(&format!("resume/{}/x", Digest::of(b"a key without a record")));
        fixture.write("actions/rubbish.json");
        fixture.write("quarantine/x.1");
        fixture.write("tmp/x");
        fixture.write("spare/x/y");

        let needed = Needed {
            runs: world.needed_runs.iter().map(|run| format!("run {run}")).collect(),
            pipelines: world.needed_pipelines.iter().map(|number| format!("pipeline {number}")).collect(),
            resolved: world.needed_runs.iter().map(|run| Digest::of(&[b'p', *run as u8])).collect(),
            keys: world.needed_keys.iter().filter_map(|key| keys.get(*key)).copied().collect(),
            artifacts: world.needed_artifacts.iter().filter_map(|artifact| artifacts.get(*artifact)).copied().collect(),
        };
        // The model: keys of the caller, and of the stages of needed pipelines; their artifacts, and the caller's.
        let of_stages = world.needed_pipelines.iter().filter_map(|number| last.get(*number));
        let kept_keys: BTreeSet<usize> =
            world.needed_keys.iter().filter(|key| **key < keys.len()).chain(of_stages).copied().collect();
        let kept_artifacts: BTreeSet<usize> = kept_keys.iter().map(|key| promised[*key])
            .chain(world.needed_artifacts.iter().filter(|artifact| **artifact < artifacts.len()).copied()).collect();
        let kept_objects: BTreeSet<String> = kept_artifacts.iter()
            .flat_map(|artifact| all_objects(&artifacts[*artifact], &world.artifacts[*artifact])).collect();

        let division = Division::find(home, &needed).unwrap();
        let before = fixture.object_names();
        prop_assert_eq!(division.stays(Category::Objects).files, kept_objects.len() as u64);
        prop_assert_eq!(division.goes(Category::Objects).files, (before.len() - kept_objects.len()) as u64);
        prop_assert_eq!(fixture.object_names(), before, "to look changes nothing");
        fixture.collect(&needed);

        prop_assert_eq!(fixture.object_names(), kept_objects);
        for artifact in &kept_artifacts {
            prop_assert!(Store::new(home).verify(&artifacts[*artifact]).is_ok());
        }
        let of_keys = |name: fn(&Key) -> String| kept_keys.iter().map(|key| name(&keys[*key])).collect::<BTreeSet<_>>();
        prop_assert_eq!(fixture.files("actions"), of_keys(|key| format!("{key}.json")));
        prop_assert_eq!(fixture.files("resume"), of_keys(|key| format!("{key}/deep/checkpoint")));
        prop_assert_eq!(fixture.files("runs"), world.needed_runs.iter().map(|run| format!("run {run}.jsonl")).collect());
        prop_assert_eq!(fixture.files("pipelines").len(), world.needed_runs.len());
        let logs = world.needed_runs.iter().map(|run| format!("run {run}/b.log"));
        prop_assert_eq!(fixture.files("logs"), logs.chain(kept_keys.iter().map(|key| format!("{key}/a.log"))).collect());
        let stages = world.needed_pipelines.iter().filter(|number| **number < last.len());
        prop_assert_eq!(fixture.files("stages"), stages.map(|number| format!("pipeline {number}/stage")).collect());
        let states = world.needed_pipelines.iter().map(|number| format!("pipeline {number}"));
        prop_assert_eq!(fixture.files("state"), states.collect());
        for folder in ["quarantine", "tmp", "spare"] {
            prop_assert!(fixture.files(folder).is_empty());
        }
        prop_assert!(fixture.files("verified").len() <= kept_artifacts.len());

        let after = Division::find(home, &needed).unwrap();
        prop_assert!(Category::ALL.into_iter().all(|category| after.goes(category) == Amount::default()));
    }
}

#[test]
fn the_largest_artifacts_come_first_and_count_what_goes_with_them() {
    let fixture = Fixture::new();
    let (small, large) = (fixture.artifact(&[1, 2].into()), fixture.artifact(&[2, 3, 4].into()));
    let kept = fixture.record(0, fixture.artifact(&[1].into()));
    fixture.record(1, small);
    fixture.record(2, large);
    let needed = Needed { keys: [kept].into(), ..Needed::default() };
    let found = Division::find(&fixture.home, &needed).unwrap().artifacts;
    let sizes: Vec<_> = found.iter().map(|unneeded| (unneeded.artifact, unneeded.bytes)).collect();
    assert_eq!(sizes, [(large, 3), (small, 1)]);
    assert_eq!((found[0].stage.as_str(), found[0].run.as_deref()), ("adapter", Some("2")));
}

#[test]
fn a_worker_that_is_still_alive_keeps_its_scratch_and_what_it_resumes_from() {
    let fixture = Fixture::new();
    let keys = [1, 2].map(crate::cache::key::tests::key);
    for key in keys {
        fixture.write(&format!("scratch/{key}/output/out/x"));
        fixture.write(&format!("resume/{key}/x"));
    }
    let Acquired::Held(_lock) = KeyLock::acquire(&fixture.home, &keys[0]).unwrap() else { panic!("it is free") };
    fixture.collect(&Needed::default());
    assert_eq!(fixture.files("scratch"), [format!("{}/output/out/x", keys[0])].into());
    assert_eq!(fixture.files("resume"), [format!("{}/x", keys[0])].into());
}

#[test]
fn folder_lists_of_kept_records_stay() {
    let fixture = Fixture::new();
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let mut record = record_of(0, fixture.artifact(&[1].into()));
    let identity = FileIdentity { name: "data".to_owned(), folder: true, digest: one };
    record.identity.files.insert("source".to_owned(), identity);
    record.key = record.identity.key();
    Records::new(&fixture.home).put(&record).unwrap();
    [one, two].iter().for_each(|digest| fixture.write(&format!("manifests/{digest}")));
    fixture.collect(&Needed { keys: [record.key].into(), ..Needed::default() });
    assert_eq!(fixture.files("manifests"), [one.to_string()].into());
}

/// A home with one record that is needed and two that are not, which share a file with it.
fn before_the_crash() -> (Fixture, Needed) {
    let fixture = Fixture::new();
    let kept = fixture.record(0, fixture.artifact(&[1, 2].into()));
    fixture.record(1, fixture.artifact(&[2, 3].into()));
    fixture.record(2, fixture.artifact(&[4, 5].into()));
    fixture.write("runs/old.jsonl");
    fixture.write("runs/new.jsonl");
    fs::write(fixture.temp.path().join("kept"), kept.to_string()).unwrap();
    (fixture, needed(kept))
}

fn needed(kept: Key) -> Needed {
    Needed { keys: [kept].into(), runs: ["new".to_owned()].into(), ..Needed::default() }
}

/// Dies while it removes; a test of its own only in the child process.
#[test]
fn crashing_collector() {
    let Some(folder) = std::env::var_os("PIPE_TEST_FOLDER").map(PathBuf::from) else { return };
    let home = Home::open(folder.join("home")).unwrap();
    let kept = fs::read_to_string(folder.join("kept")).unwrap().parse().unwrap();
    let alone = home.exclusive(false).unwrap().unwrap();
    let _ = Division::find(&home, &needed(kept)).unwrap().remove(&home, &alone);
    unreachable!("the crash point was not reached");
}

#[test]
fn cut_short_at_any_point_nothing_that_is_needed_is_lost_and_the_next_one_ends_it() {
    let (undisturbed, needed) = before_the_crash();
    undisturbed.collect(&needed);
    let end = undisturbed.object_names();
    let removals = (1..=5).map(|number| format!("gc.file-removed:{number}"));
    for point in ["gc.runs-removed".to_owned(), "gc.records-removed".to_owned()].into_iter().chain(removals) {
        let (fixture, needed) = before_the_crash();
        assert!(crash::child("cache::gc::tests::crashing_collector", &point, fixture.temp.path()), "{point}");
        let store = Store::new(&fixture.home);
        // Whatever record is left still has what it promises.
        for link in links(&fixture.home).unwrap().0 {
            for artifact in link.outputs.values() {
                assert!(store.verify(artifact).is_ok(), "{point}");
            }
        }
        fixture.collect(&needed);
        assert_eq!(fixture.object_names(), end, "{point}");
        assert_eq!((fixture.files("actions").len(), fixture.files("runs").len()), (1, 1), "{point}");
        for artifact in links(&fixture.home).unwrap().0.iter().flat_map(|link| link.outputs.values()) {
            assert!(store.verify(artifact).is_ok(), "{point}");
        }
    }
}
