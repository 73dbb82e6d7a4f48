//! Tests of the key.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Some key; different numbers give different ones.
pub(crate) fn key(number: u64) -> Key {
    identity(json!(number)).key()
}

/// An identity with this configuration.
pub(crate) fn identity(config: Value) -> Identity {
    Identity {
        kind: "tokenize".to_owned(),
        version: 1,
        config,
        files: BTreeMap::new(),
        pins: BTreeMap::new(),
        environment: BTreeMap::new(),
        inputs: BTreeMap::new(),
    }
}

fn full() -> Identity {
    let file = FileIdentity { name: "chat.jsonl".to_owned(), folder: false, digest: Digest::of(b"file") };
    Identity {
        kind: "tokenize".to_owned(),
        version: 3,
        config: json!({ "max_length": 384, "add_eos": true, "ratio": 0.5, "low": -1, "none": null, "list": ["a", 1] }),
        files: BTreeMap::from([("template".to_owned(), file)]),
        pins: BTreeMap::from([("source".to_owned(), "c1899de".to_owned())]),
        environment: BTreeMap::from([("LEVEL".to_owned(), Some(Digest::of(b"3"))), ("UNSET".to_owned(), None)]),
        inputs: BTreeMap::from([("data".to_owned(), vec![Digest::of(b"one"), Digest::of(b"two")])]),
    }
}

/// If this fails, every cache in the world is void: raise `KEY_SCHEMA` and say so in the changelog.
#[test]
fn the_key_of_an_identity_never_changes() {
    assert_eq!(full().key().to_string(), "c1a5aef9bbfe638c7354fe8f49755f3a6de221d330535ab4811624862724306b");
}

#[test]
fn everything_in_an_identity_counts() {
    let changes: [fn(&mut Identity); 20] = [
        |identity| identity.kind.push('x'),
        |identity| identity.version += 1,
        |identity| identity.config["max_length"] = json!(385),
        |identity| identity.config["max_length"] = json!("384"),
        |identity| identity.config["max_length"] = json!(384.0),
        |identity| identity.config["low"] = json!(-2),
        |identity| identity.config["ratio"] = json!(0.5 + f64::EPSILON),
        |identity| identity.config["none"] = json!(false),
        |identity| identity.config["list"] = json!([1, "a"]),
        |identity| identity.config["more"] = json!(null),
        |identity| identity.files.get_mut("template").unwrap().name.push('x'),
        |identity| identity.files.get_mut("template").unwrap().folder = true,
        |identity| identity.files.get_mut("template").unwrap().digest = Digest::of(b"other"),
        |identity| identity.pins = BTreeMap::new(),
        |identity| identity.pins.get_mut("source").unwrap().push('x'),
        |identity| identity.environment = BTreeMap::new(),
        |identity| *identity.environment.get_mut("LEVEL").unwrap() = None,
        |identity| *identity.environment.get_mut("UNSET").unwrap() = Some(Digest::of(b"")),
        |identity| identity.inputs.get_mut("data").unwrap().reverse(),
        |identity| identity.inputs = BTreeMap::from([("model".to_owned(), identity.inputs["data"].clone())]),
    ];
    let mut keys = vec![full().key()];
    for change in changes {
        let mut identity = full();
        change(&mut identity);
        keys.push(identity.key());
    }
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

#[test]
fn the_order_of_fields_and_the_sign_of_zero_do_not_count() {
    assert_eq!(identity(json!({ "a": 1, "b": 0.0 })).key(), identity(json!({ "b": -0.0, "a": 1 })).key());
}

#[test]
fn lists_of_inputs_do_not_run_into_each_other() {
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let with = |inputs: &[(&str, Vec<Digest>)]| {
        let inputs = inputs.iter().map(|(name, digests)| ((*name).to_owned(), digests.clone())).collect();
        Identity { inputs, ..full() }.key()
    };
    assert_ne!(with(&[("a", vec![one, two])]), with(&[("a", vec![one]), ("b", vec![two])]));
    assert_ne!(with(&[("a", vec![one]), ("b", vec![])]), with(&[("a", vec![]), ("b", vec![one])]));
    assert_ne!(with(&[("a", vec![])]), with(&[]));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4_u64).prop_map(Value::from),
        (-4..0_i64).prop_map(Value::from),
        prop_oneof![Just(0.0), Just(1.0), Just(0.5)].prop_map(Value::from),
        "[ab\u{0}]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[ab]{0,2}", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn keys_agree_just_where_configurations_do(a in any_json(), b in any_json()) {
        prop_assert_eq!(identity(a.clone()).key() == identity(b.clone()).key(), a == b);
    }

    #[test]
    fn text_never_runs_into_what_follows(a in "[ab]{0,4}", b in "[ab]{0,4}", c in "[ab]{0,4}", d in "[ab]{0,4}") {
        let same = identity(json!([a, b])).key() == identity(json!([c, d])).key();
        prop_assert_eq!(same, (a, b) == (c, d));
    }
}
