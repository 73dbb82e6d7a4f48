//! Golden keys: the key of a stage of each kind with its defaults.
//!
//! A key that changes voids what every user has cached of its kind. A new field with a default does that, and so does
//! a new default; then the change of the snapshot belongs in the changelog.

use std::{collections::BTreeMap, path::Path};

use pipe::{
    cache::{ActionRecord, FileIdentity, Flaw, Key},
    config::{StageName, StageSpec},
    plan::{self, External, Lookup},
    registry::KINDS,
};
use pipe_stage::Digest;

/// A cache with nothing in it.
struct Empty;

impl Lookup for Empty {
    fn record(&self, _: &Key) -> Option<ActionRecord> {
        None
    }

    fn last(&self, _: &StageName) -> Option<ActionRecord> {
        None
    }

    fn verify(&self, _: &Digest) -> Result<(), Flaw> {
        Ok(())
    }
}

/// The key of a stage whose inputs and files are made up from their names.
fn key(spec: &StageSpec) -> Key {
    let inputs = spec.inputs.keys().map(|port| (port.clone(), vec![Digest::of(port.as_bytes())])).collect();
    let identity =
        |field: &str| FileIdentity { name: field.to_owned(), folder: true, digest: Digest::of(field.as_bytes()) };
    let files: BTreeMap<String, FileIdentity> =
        spec.user_files.iter().map(|file| (file.field.clone(), identity(&file.field))).collect();
    plan::decide(spec, inputs, &External { files, ..External::default() }, &Empty).key
}

#[test]
fn the_key_of_every_kind_is_known() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/pipeline.yaml");
    let pipeline = pipe::config::load(&path, &[], KINDS).unwrap();
    let stages = pipeline.stages.values();
    let keys: Vec<String> =
        stages.map(|spec| format!("{} {}: {}", spec.declaration.kind, spec.declaration.version, key(spec))).collect();
    let kinds: Vec<&str> = pipeline.stages.values().map(|spec| spec.declaration.kind).collect();
    assert_eq!(kinds, KINDS.iter().map(|kind| kind.kind).collect::<Vec<_>>(), "every kind, in the registry's order");
    insta::assert_snapshot!(keys.join("\n"));
}
