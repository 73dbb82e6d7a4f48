//! Looking at all of a home: whether each object is what its name says, and each record has what it promises.
//!
//! Unlike a run, which hashes what it is about to use and what has changed, this reads every byte. It changes nothing:
//! what is to become of the damage it finds is the caller's to say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
};

use pipe_stage::{Digest, manifest::escape};
use rayon::prelude::*;

use super::{
    CacheError, Home, Manifest,
    hash::hash_file_telling,
    inventory::{BadRecord, Link, Object, links, objects},
    quarantine::Quarantined,
    stamp::Stamp,
};

/// What was found in a home.
#[derive(Debug)]
pub struct Health {
    /// How many objects there are.
    pub objects: usize,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// The objects that are not what they should be, sorted by digest.
    pub flawed: Vec<Flawed>,
    /// The action records, sorted by key.
    pub links: Vec<Link>,
    /// What lies among the action records and is none. It counts as if it were not there.
    pub bad_records: Vec<BadRecord>,
}

/// An object that is not what it should be.
#[derive(Debug, PartialEq)]
pub struct Flawed {
    /// What its name says.
    pub digest: Digest,
    /// What is wrong with it.
    pub harm: Harm,
    /// The artifacts that need it, each with the file that it is to them; `None` for the list of the files itself.
    pub parts: BTreeSet<(Digest, Option<String>)>,
    seen: Option<Stamp>,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// It is not there.
    Missing,
    /// It was found damaged before, and set aside.
    SetAside,
    /// Its bytes are not what its name says, as this tells.
    Damaged(String),
    /// It is what its name says, and yet not what an artifact was said to hold.
    Forged(String),
}

impl Health {
    /// Looks at everything in `home`, by several threads. `others` are artifacts that should be there though no record
    /// promises them. `tell` is called with the number of bytes that were read since it was called last.
    ///
    /// # Errors
    /// If a folder of the home cannot be read. What is wrong with single files is no error.
    pub fn examine(home: &Home, others: &[Digest], tell: &(dyn Fn(u64) + Sync)) -> Result<Self, CacheError> {
        let present = objects(home)?;
        let damaged: HashMap<Digest, (String, Option<Stamp>)> = present
            .par_iter()
            .filter_map(|object| damage(home, &object.digest, tell).map(|damage| (object.digest, damage)))
            .collect();
        let (links, bad_records) = links(home)?;
        let promised: BTreeSet<Digest> =
            links.iter().flat_map(|link| link.outputs.values()).chain(others).copied().collect();
        let sizes: HashMap<Digest, u64> = present.iter().map(|object| (object.digest, object.bytes)).collect();
        let found: Vec<Vec<Finding>> =
            promised.par_iter().map(|artifact| examine_artifact(home, artifact, &sizes, &damaged)).collect();
        Ok(Self {
            objects: present.len(),
            bytes: present.iter().fold(0, |sum, object: &Object| sum.saturating_add(object.bytes)),
            flawed: flawed(found.into_iter().flatten(), damaged),
            links,
            bad_records,
        })
    }

    /// The artifacts that cannot be used.
    pub fn broken(&self) -> BTreeSet<Digest> {
        self.flawed.iter().flat_map(|flawed| &flawed.parts).map(|(artifact, _)| *artifact).collect()
    }
}

impl Flawed {
    /// Puts a damaged object where nothing can use it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_aside(&self, home: &Home) -> io::Result<()> {
        match self.seen.map(|seen| home.quarantine(&self.digest, seen)) {
            Some(Quarantined::Stays(error)) => Err(error),
            // If another process replaced it, it is no longer the one that is damaged.
            Some(Quarantined::Moved | Quarantined::Replaced) | None => Ok(()),
        }
    }
}

/// One thing that is wrong with an artifact.
struct Finding {
    object: Digest,
    harm: Harm,
    part: (Digest, Option<String>),
}

fn examine_artifact(
    home: &Home,
    artifact: &Digest,
    sizes: &HashMap<Digest, u64>,
    damaged: &HashMap<Digest, (String, Option<Stamp>)>,
) -> Vec<Finding> {
    let finding = |object: &Digest, harm, file| Finding { object: *object, harm, part: (*artifact, file) };
    let absent = |object: &Digest| if home.is_quarantined(object) { Harm::SetAside } else { Harm::Missing };
    if let Some((why, _)) = damaged.get(artifact) {
        return vec![finding(artifact, Harm::Damaged(why.clone()), None)];
    }
    let text = match fs::read_to_string(home.object(artifact)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![finding(artifact, absent(artifact), None)];
        }
        Err(error) => return vec![finding(artifact, Harm::Forged(error.to_string()), None)],
    };
    let Ok(manifest) = Manifest::parse(&text) else {
        return vec![finding(artifact, Harm::Forged("it is no list of an artifact's files".to_owned()), None)];
    };
    let mut found = Vec::new();
    for entry in manifest.entries() {
        let file = Some(entry.path.clone());
        match (damaged.get(&entry.digest), sizes.get(&entry.digest)) {
            (Some(_), Some(&size)) if size != entry.size => {
                let why = match size {
                    0 => format!("it is empty instead of {} bytes long", entry.size),
                    size if size < entry.size => format!("it is cut to {size} of {} bytes", entry.size),
                    size => format!("it has grown from {} to {size} bytes", entry.size),
                };
                found.push(finding(&entry.digest, Harm::Damaged(why), file));
            }
            (Some((why, _)), _) => found.push(finding(&entry.digest, Harm::Damaged(why.clone()), file)),
            (None, None) => found.push(finding(&entry.digest, absent(&entry.digest), file)),
            (None, Some(&size)) if size != entry.size => {
                let why = format!("the list gives `{}` another size than it has", escape(&entry.path));
                found.push(finding(artifact, Harm::Forged(why), None));
            }
            (None, Some(_)) => {}
        }
    }
    found
}

/// Each object with all that it is part of. What is damaged and part of nothing is among them.
fn flawed(findings: impl Iterator<Item = Finding>, damaged: HashMap<Digest, (String, Option<Stamp>)>) -> Vec<Flawed> {
    let mut flawed: BTreeMap<Digest, Flawed> = BTreeMap::new();
    for Finding { object, harm, part } in findings {
        let entry = flawed.entry(object);
        entry.or_insert_with(|| Flawed { digest: object, harm, parts: BTreeSet::new(), seen: None }).parts.insert(part);
    }
    for (digest, (why, seen)) in damaged {
        let entry = flawed.entry(digest);
        let harm = Harm::Damaged(why);
        entry.or_insert_with(|| Flawed { digest, harm, parts: BTreeSet::new(), seen }).seen = seen;
    }
    flawed.into_values().collect()
}

/// How an object shows that it is damaged, and how it looked then. `None` if it is whole, or gone by now.
fn damage(home: &Home, digest: &Digest, tell: &(dyn Fn(u64) + Sync)) -> Option<(String, Option<Stamp>)> {
    let object = home.object(digest);
    let metadata = fs::symlink_metadata(&object).ok()?;
    let seen = Some(Stamp::of(&metadata));
    if !metadata.is_file() {
        return Some(("it is no longer a file".to_owned(), seen));
    }
    match hash_file_telling(&object, tell) {
        Ok(hashed) if hashed == *digest => None,
        Ok(_) if metadata.len() == 0 => Some(("it is empty".to_owned(), seen)),
        Ok(_) => Some(("its bytes have changed".to_owned(), seen)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // What cannot be read is not touched: the next one may be allowed to.
        Err(error) => Some((format!("it cannot be read: {error}"), None)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{
        os::unix::fs::PermissionsExt,
        path::Path,
        sync::atomic::{AtomicU64, Ordering},
    };

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

        /// An artifact with these files, promised by a record.
        fn made(&self, seed: u64, files: &[(&str, &str)]) -> Digest {
            let folder = self.temp.path().join("out");
            fs::create_dir(&folder).unwrap();
            for (name, text) in files {
                fs::write(folder.join(name), text).unwrap();
            }
            let artifact = Store::new(&self.home).ingest(&folder).unwrap();
            fs::remove_dir_all(folder).unwrap();
            Records::new(&self.home).put(&record_of(seed, artifact)).unwrap();
            artifact
        }

        fn examine(&self) -> Health {
            Health::examine(&self.home, &[], &|_| ()).unwrap()
        }

        fn harms(&self) -> Vec<(Digest, Harm)> {
            self.examine().flawed.into_iter().map(|flawed| (flawed.digest, flawed.harm)).collect()
        }
    }

    fn overwrite(path: &Path, bytes: &[u8]) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn damaged(text: &str, why: &str) -> (Digest, Harm) {
        (Digest::of(text.as_bytes()), Harm::Damaged(why.to_owned()))
    }

    #[test]
    fn a_whole_home_is_read_to_the_last_byte_and_found_whole() {
        let fixture = Fixture::new();
        fixture.made(1, &[("a", "alpha"), ("b", "beta")]);
        fixture.made(2, &[("a", "alpha")]);
        let read = AtomicU64::new(0);
        let health = Health::examine(&fixture.home, &[], &|bytes| {
            read.fetch_add(bytes, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!((health.objects, health.links.len()), (4, 2));
        assert_eq!(health.bytes, read.into_inner());
        assert!(health.flawed.is_empty() && health.bad_records.is_empty() && health.broken().is_empty());
    }

    #[test]
    fn each_kind_of_damage_is_told_with_all_that_it_is_part_of() {
        let fixture = Fixture::new();
        let one = fixture.made(1, &[("a", "alpha"), ("b", "beta"), ("c", "gamma")]);
        let two = fixture.made(2, &[("x", "alpha"), ("y", "delta")]);
        let object = |text: &str| fixture.home.object(&Digest::of(text.as_bytes()));
        overwrite(&object("alpha"), b"Alpha");
        overwrite(&object("beta"), b"");
        overwrite(&object("gamma"), b"gam");
        fs::remove_file(object("delta")).unwrap();
        let mut expected = [
            damaged("alpha", "its bytes have changed"),
            damaged("beta", "it is empty instead of 4 bytes long"),
            damaged("gamma", "it is cut to 3 of 5 bytes"),
            (Digest::of(b"delta"), Harm::Missing),
        ];
        expected.sort_by_key(|(digest, _)| *digest);
        assert_eq!(fixture.harms(), expected);
        let health = fixture.examine();
        assert_eq!(health.broken(), [one, two].into());
        let alpha = health.flawed.iter().find(|flawed| flawed.digest == Digest::of(b"alpha")).unwrap();
        assert_eq!(alpha.parts, [(one, Some("a".to_owned())), (two, Some("x".to_owned()))].into());
        assert!(object("alpha").exists(), "to look changes nothing");

        alpha.set_aside(&fixture.home).unwrap();
        assert!(!object("alpha").exists());
        assert!(fixture.harms().contains(&(Digest::of(b"alpha"), Harm::SetAside)));
        fixture.made(3, &[("a", "alpha"), ("b", "beta"), ("c", "gamma"), ("d", "delta")]);
        assert_eq!(fixture.harms(), []);
    }

    #[test]
    fn lists_of_files_are_looked_at_too() {
        let fixture = Fixture::new();
        let one = fixture.made(1, &[("a", "alpha")]);
        overwrite(&fixture.home.object(&one), b"rubbish");
        assert_eq!(fixture.harms(), [(one, Harm::Damaged("its bytes have changed".to_owned()))]);
        fs::remove_file(fixture.home.object(&one)).unwrap();
        assert_eq!(fixture.harms(), [(one, Harm::Missing)]);

        let fixture = Fixture::new();
        Records::new(&fixture.home).put(&record_of(1, fixture.made(2, &[("a", "alpha")]))).unwrap();
        let no_list = Digest::of(b"alpha");
        Records::new(&fixture.home).put(&record_of(1, no_list)).unwrap();
        assert_eq!(fixture.harms(), [(no_list, Harm::Forged("it is no list of an artifact's files".to_owned()))]);
    }

    #[test]
    fn what_no_record_promises_is_looked_at_if_it_is_named_and_damage_anywhere_is_found() {
        let fixture = Fixture::new();
        let stray = Digest::of(b"stray");
        fixture.home.write_object(&fixture.home.object(&stray), b"Stray").unwrap();
        let gone = Digest::of(b"gone");
        let health = Health::examine(&fixture.home, &[gone], &|_| ()).unwrap();
        let mut flawed: Vec<_> = health.flawed.iter().map(|flawed| (flawed.digest, flawed.parts.len())).collect();
        flawed.sort_by_key(|(_, parts)| *parts);
        assert_eq!(flawed, [(stray, 0), (gone, 1)]);
    }

    #[test]
    fn records_that_are_none_are_named() {
        let fixture = Fixture::new();
        let artifact = fixture.made(1, &[("a", "alpha")]);
        let record = record_of(2, artifact);
        let actions = fixture.home.root().join("actions");
        fs::write(actions.join("half.json"), "{").unwrap();
        let text = serde_json::to_string(&record).unwrap();
        fs::write(actions.join("other.json"), &text).unwrap();
        let key = record.key;
        fs::write(fixture.home.action(&key), text.replace("tokenize", "tokenise")).unwrap();
        let why: Vec<_> = fixture.examine().bad_records.into_iter().map(|bad| (bad.name, bad.why)).collect();
        assert_eq!(why.len(), 3, "{why:?}");
        assert_eq!(why[0], (format!("{key}.json"), "what it says went in does not give its key".to_owned()));
        assert!(why[1].1.starts_with("it is no action record: "), "{why:?}");
        assert_eq!(why[2], ("other.json".to_owned(), "it lies under another key's name".to_owned()));
    }
}
