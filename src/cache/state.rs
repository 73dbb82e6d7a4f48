//! How a pipeline stood when it was last brought up to date, in one file: what makes a run in which nothing changed a
//! matter of milliseconds.
//!
//! For each stage it holds the key, the outputs, and how every object of them looked when it was last known to be whole.
//! It is a hint: whoever relies on it looks at the objects again (one `stat` each), and without it the records and the
//! lists of files say the same, only slower.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use pipe_stage::Digest;
use rayon::prelude::*;

use super::{
    Home, Key, Store,
    hint::{self, Reader, Writer},
    record::file_name,
    stamp::Stamp,
};

const MAGIC: &str = "pipe state 1\n";

/// More objects than this are looked at by several threads, which cost some time to wake up.
const MANY: usize = 4000;

/// How a pipeline stood.
#[derive(Debug)]
pub struct State {
    home: Home,
    path: PathBuf,
    content: Content,
    changed: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Content {
    /// The digest of the pipeline as the user wrote it, and of what it came to.
    resolved: Option<(Digest, Digest)>,
    stages: HashMap<String, Stage>,
}

#[derive(Debug, PartialEq)]
struct Stage {
    key: Key,
    outputs: BTreeMap<String, Digest>,
    objects: Vec<(Digest, Stamp)>,
}

impl State {
    /// How the pipeline of this name stood; nothing is known of it if there is no such file or it is damaged.
    pub fn load(home: &Home, pipeline: &str) -> Self {
        let path = home.root().join("state").join(file_name(pipeline));
        let content = Content::decode(&hint::load(&path)).unwrap_or_default();
        Self { home: home.clone(), path, content, changed: false }
    }

    /// The outputs of a stage, if it had this key and every object of them looks as it did.
    pub fn outputs(&self, stage: &str, key: &Key) -> Option<&BTreeMap<String, Digest>> {
        let stage = self.content.stages.get(stage).filter(|stage| stage.key == *key)?;
        let same = |(digest, then): &(Digest, Stamp)| {
            let now = fs::symlink_metadata(self.home.object(digest));
            now.is_ok_and(|now| Stamp::of(&now) == *then)
        };
        let all_same = if stage.objects.len() > MANY {
            stage.objects.par_iter().all(same)
        } else {
            stage.objects.iter().all(same)
        };
        all_same.then_some(&stage.outputs)
    }

    /// The key that a stage had.
    pub fn key(&self, stage: &str) -> Option<&Key> {
        self.content.stages.get(stage).map(|stage| &stage.key)
    }

    /// Notes that a stage has this key and these outputs, which are whole. What was made within the last tick of the
    /// clock is not noted: it could change without showing. What is noted of another key is no longer true then.
    pub fn note(&mut self, store: &Store, stage: &str, key: &Key, outputs: &BTreeMap<String, Digest>) {
        let objects: Option<Vec<_>> = outputs.values().map(|artifact| store.looks(artifact)).collect();
        let Some(objects) = objects else {
            self.changed |= self.content.stages.remove(stage).is_some();
            return;
        };
        let stage_state = Stage { key: *key, outputs: outputs.clone(), objects: objects.concat() };
        if self.content.stages.get(stage) != Some(&stage_state) {
            self.content.stages.insert(stage.to_owned(), stage_state);
            self.changed = true;
        }
    }

    /// What the pipeline came to, if it is still written as it was.
    pub fn resolved(&self, written: &Digest) -> Option<Digest> {
        self.content.resolved.filter(|(known, _)| known == written).map(|(_, resolved)| resolved)
    }

    /// Notes what the pipeline came to.
    pub fn note_resolved(&mut self, written: Digest, resolved: Digest) {
        let noted = Some((written, resolved));
        self.changed |= self.content.resolved != noted;
        self.content.resolved = noted;
    }

    /// Keeps what was noted. Stages for which `exists` does not hold are forgotten.
    pub fn save(&mut self, exists: impl Fn(&str) -> bool) {
        if std::mem::take(&mut self.changed) {
            self.content.stages.retain(|stage, _| exists(stage));
            self.content.encode().save(&self.home, &self.path);
        }
    }
}

impl Content {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.resolved.is_some().into());
        for digest in self.resolved.iter().flat_map(|(written, resolved)| [written, resolved]) {
            writer.digest(digest);
        }
        // Sorted, so that the same state is the same file.
        let sorted: BTreeMap<&String, &Stage> = self.stages.iter().collect();
        for (name, stage) in sorted {
            writer.text(name);
            writer.digest(stage.key.digest());
            writer.number(stage.outputs.len() as u64);
            for (output, artifact) in &stage.outputs {
                writer.text(output);
                writer.digest(artifact);
            }
            writer.number(stage.objects.len() as u64);
            for (object, stamp) in &stage.objects {
                writer.digest(object);
                writer.stamp(stamp);
            }
        }
        writer
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes, MAGIC)?;
        let mut content = Self::default();
        if reader.number()? == 1 {
            content.resolved = Some((reader.digest()?, reader.digest()?));
        }
        while !reader.is_empty() {
            let name = reader.text()?.to_owned();
            let key = Key::from(reader.digest()?);
            let outputs = (0..reader.number()?)
                .map(|_| Some((reader.text()?.to_owned(), reader.digest()?)))
                .collect::<Option<_>>()?;
            let objects =
                (0..reader.number()?).map(|_| Some((reader.digest()?, reader.stamp()?))).collect::<Option<_>>()?;
            content.stages.insert(name, Stage { key, outputs, objects });
        }
        Some(content)
    }
}

/// See `fuzzing`.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(content: &[u8]) {
    let Some(state) = Content::decode(&hint::sealed(MAGIC, content)) else { return };
    assert_eq!(Content::decode(&state.encode().finish()), Some(state));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{
        os::unix::fs::{MetadataExt, PermissionsExt},
        path::Path,
    };

    use super::*;
    use crate::cache::key::tests::key;

    struct Fixture {
        _temp: tempfile::TempDir,
        home: Home,
        store: Store,
        outputs: BTreeMap<String, Digest>,
    }

    /// A home with one artifact that is old enough to be noted.
    fn fixture() -> Fixture {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::open(temp.path().join("home")).unwrap();
        home.create().unwrap();
        let store = Store::new(&home);
        let folder = temp.path().join("out");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.txt"), "alpha").unwrap();
        let digest = store.ingest(&folder).unwrap();
        Stamp::of(&fs::metadata(home.object(&digest)).unwrap()).settle();
        store.verify(&digest).unwrap();
        Fixture { _temp: temp, home, store, outputs: [("out".to_owned(), digest)].into() }
    }

    fn noted(fixture: &Fixture) -> State {
        let mut state = State::load(&fixture.home, "数据");
        state.note(&fixture.store, "a", &key(1), &fixture.outputs);
        state.note_resolved(Digest::of(b"written"), Digest::of(b"resolved"));
        state.save(|_| true);
        State::load(&fixture.home, "数据")
    }

    #[test]
    fn what_was_noted_is_known_in_the_next_run_and_only_of_that_key() {
        let fixture = fixture();
        let state = noted(&fixture);
        assert_eq!(state.outputs("a", &key(1)), Some(&fixture.outputs));
        assert_eq!(state.outputs("a", &key(2)), None);
        assert_eq!(state.outputs("b", &key(1)), None);
        assert_eq!(state.resolved(&Digest::of(b"written")), Some(Digest::of(b"resolved")));
        assert_eq!(state.resolved(&Digest::of(b"other")), None);
        assert_eq!(State::load(&fixture.home, "another").outputs("a", &key(1)), None);
    }

    #[test]
    fn what_cannot_be_noted_makes_what_was_noted_untrue() {
        let fixture = fixture();
        let mut state = noted(&fixture);
        // As if it were too new: nothing is known of how it looks.
        let outputs = [("out".to_owned(), Digest::of(b"elsewhere"))].into();
        state.note(&fixture.store, "a", &key(2), &outputs);
        state.save(|_| true);
        assert_eq!(State::load(&fixture.home, "数据").key("a"), None);
    }

    #[test]
    fn an_object_that_looks_different_is_not_vouched_for() {
        let fixture = fixture();
        let object = fixture.home.object(&Digest::of(b"alpha"));
        let state = noted(&fixture);
        let times = fs::metadata(&object).unwrap().modified().unwrap();
        fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&object, "alphA").unwrap();
        fs::File::options().write(true).open(&object).unwrap().set_modified(times).unwrap();
        fs::set_permissions(&object, fs::Permissions::from_mode(0o444)).unwrap();
        assert_eq!(fs::metadata(&object).unwrap().len(), 5);
        assert_eq!(state.outputs("a", &key(1)), None, "a flipped bit of the same size, time and mode");
        fs::remove_file(&object).unwrap();
        assert_eq!(state.outputs("a", &key(1)), None, "no object at all");
    }

    #[test]
    fn the_list_of_files_counts_as_an_object() {
        let fixture = fixture();
        let state = noted(&fixture);
        fs::remove_file(fixture.home.object(&fixture.outputs["out"])).unwrap();
        assert_eq!(state.outputs("a", &key(1)), None);
    }

    #[test]
    fn an_unchanged_state_is_not_written_and_gone_stages_are_forgotten() {
        let fixture = fixture();
        let mut state = noted(&fixture);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let before = inode(&state.path);
        state.note(&fixture.store, "a", &key(1), &fixture.outputs);
        state.save(|_| true);
        assert_eq!(inode(&state.path), before);
        state.note(&fixture.store, "b", &key(2), &fixture.outputs);
        state.save(|stage| stage == "b");
        let state = State::load(&fixture.home, "数据");
        assert_eq!((state.key("a"), state.key("b")), (None, Some(&key(2))));
    }

    #[test]
    fn damage_of_any_byte_makes_it_unknown() {
        let fixture = fixture();
        let path = noted(&fixture).path;
        let bytes = fs::read(path).unwrap();
        assert!(Content::decode(&bytes).is_some());
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert_eq!(Content::decode(&damaged), None, "byte {i}");
            assert_eq!(Content::decode(&bytes[..i]), None, "cut at {i}");
        }
    }
}
