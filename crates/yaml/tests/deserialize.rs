//! Documents to types: what each type takes, and that every problem is reported, each at its place.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{collections::BTreeMap, num::NonZeroU32};

use pipe_yaml::{deserialize, parse};
use serde::{Deserialize, de::DeserializeOwned};

/// The problems of a text as a `T`: `TEXT AT THE PLACE: message | help`.
fn problems<T: DeserializeOwned>(text: &str) -> Vec<String> {
    let node = parse(text).unwrap();
    let Err(problems) = deserialize::<T>(&node) else { return Vec::new() };
    let line = |problem: pipe_yaml::Problem| {
        let span = problem.span.unwrap();
        let help = problem.help.map(|help| format!(" | {help}")).unwrap_or_default();
        format!("{}: {}{help}", &text[span.start..span.end], problem.message)
    };
    problems.into_iter().map(line).collect()
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    let node = parse(text).unwrap();
    deserialize(&node).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    name: String,
    count: u32,
    #[serde(default)]
    rate: f64,
    inner: Inner,
    #[serde(default)]
    mode: Mode,
    limit: Option<u64>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[serde(alias = "on")]
    enabled: bool,
    list: Vec<i8>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Plain,
    Scaled(f64),
    Pair(u8, u8),
    Named {
        x: u8,
    },
}

const GOOD: &str = "{ name: no, count: 3, rate: 1e-4, inner: { enabled: true, list: [1, -2] }, limit: ~ }";

#[test]
fn a_good_document_is_read() {
    let inner = Inner { enabled: true, list: vec![1, -2] };
    let expected = Outer { name: "no".to_owned(), count: 3, rate: 1e-4, inner, mode: Mode::Plain, limit: None };
    assert_eq!(read::<Outer>(GOOD), expected);
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = "{ nam: x, count: \"3\", rate: fast, inner: { enabled: yes, list: [1, 300, x], lst: 1 }, mode: plane, limit: -1 }";
    let mut found = problems::<Outer>(text);
    found.sort();
    let mut expected = [
        "nam: unknown field `nam` | did you mean `name`? expected one of `name`, `count`, `rate`, `inner`, `mode`, `limit`",
        "\"3\": expected a whole number from 0 to 4294967295, found the text \"3\" | remove the quotes",
        "fast: expected a number, found `fast`",
        "lst: unknown field `lst` | did you mean `list`? expected one of `enabled`, `on`, `list`",
        "yes: expected true or false, found `yes` | write true",
        "300: expected a whole number from -128 to 127, found `300`",
        "x: expected a whole number from -128 to 127, found `x`",
        "plane: unknown value `plane` | did you mean `plain`? expected one of `plain`, `scaled`, `pair`, `named`",
        "-1: expected a whole number from 0, found `-1`",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.push(format!("{text}: missing field `name`"));
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_a_failed_value_hides_is_not_reported() {
    // `inner` is no mapping: that its fields are missing follows.
    assert_eq!(
        problems::<Outer>("{ name: x, count: 1, inner: 5 }"),
        ["5: expected a mapping, found `5` | its fields: enabled, on, list"]
    );
    // All of several missing fields, and no more than those.
    assert_eq!(
        problems::<Outer>("{ name: x }"),
        ["{ name: x }: missing field `count`", "{ name: x }: missing field `inner`"]
    );
}

#[test]
fn checks_of_a_whole_value_wait_until_its_parts_are_right() {
    #[derive(Deserialize)]
    #[serde(try_from = "Raw")]
    struct Range;
    #[derive(Deserialize)]
    struct Raw {
        low: u8,
        high: u8,
    }
    impl TryFrom<Raw> for Range {
        type Error = &'static str;
        fn try_from(raw: Raw) -> Result<Self, &'static str> {
            if raw.low < raw.high { Ok(Self) } else { Err("low must be below high") }
        }
    }
    type Both = BTreeMap<String, Range>;
    assert_eq!(problems::<Both>("{ a: { low: 2, high: 1 } }"), ["{ low: 2, high: 1 }: low must be below high"]);
    assert_eq!(problems::<Both>("{ a: { low: x, high: 1 } }"), ["x: expected a whole number from 0 to 255, found `x`"]);
}

#[test]
fn enums_are_names_or_mappings_of_one() {
    assert_eq!(read::<Mode>("plain"), Mode::Plain);
    assert_eq!(read::<Mode>("{ scaled: .5 }"), Mode::Scaled(0.5));
    assert_eq!(read::<Mode>("{ pair: [1, 2] }"), Mode::Pair(1, 2));
    assert_eq!(read::<Mode>("{ named: { x: 1 } }"), Mode::Named { x: 1 });
    let all = "one of `plain`, `scaled`, `pair`, `named`";
    assert_eq!(problems::<Mode>("[plain]"), [format!("[plain]: expected {all}, found a list")]);
    assert_eq!(
        problems::<Mode>("~"),
        [format!("~: expected {all}, found nothing | quote it if the text \"~\" is meant")]
    );
    assert_eq!(problems::<Mode>("scaled"), ["scaled: `scaled` needs values: write `scaled: ...`"]);
    assert_eq!(problems::<Mode>("{ pair: [1] }"), ["[1]: expected a list of 2, found 1"]);
    assert_eq!(
        problems::<Mode>("{ named: { y: 1 } }"),
        ["y: unknown field `y` | did you mean `x`?", "{ y: 1 }: missing field `x`"]
            .map(|line| line.replace("did you mean `x`?", "expected `x`"))
    );
}

#[test]
fn options_and_texts_meet_nothing_differently() {
    assert_eq!(read::<Option<u8>>("~"), None);
    assert_eq!(read::<Option<u8>>("7"), Some(7));
    assert_eq!(read::<Option<String>>("null"), None);
    assert_eq!(read::<Option<String>>("'null'"), Some("null".to_owned()));
    assert_eq!(
        problems::<String>("null"),
        ["null: expected text, found nothing | quote it if the text \"null\" is meant"]
    );
    for text in ["no", "010", "1e-4", "true", "12:30"] {
        assert_eq!(read::<String>(text), text);
    }
}

#[test]
fn numbers_keep_to_their_ranges() {
    assert_eq!(read::<u64>("18446744073709551615"), u64::MAX);
    assert_eq!(read::<i64>("-9223372036854775808"), i64::MIN);
    assert_eq!(read::<f64>("3"), 3.0);
    assert_eq!(read::<f32>("0.5"), 0.5);
    for text in ["18446744073709551616", "-1", "1.5", "~", "[1]"] {
        assert_eq!(problems::<u64>(text).len(), 1, "{text}");
    }
    assert_eq!(problems::<f32>("1e300"), ["1e300: expected a number of single precision, found `1e300`"]);
    assert_eq!(problems::<NonZeroU32>("0").len(), 1);
}

#[test]
fn a_type_without_a_name_gets_what_yaml_makes_of_the_scalars() {
    let value: serde_json::Value = read("{ a: [~, true, 1, -1, 1e-4, text, '1'], b: {} }");
    assert_eq!(value, serde_json::json!({ "a": [null, true, 1, -1, 1e-4, "text", "1"], "b": {} }));
    assert_eq!(parse("{ a: [~, true, 1, -1, 1e-4, text, '1'], b: {} }").unwrap().to_json(), value);
}

#[test]
fn there_are_never_more_problems_than_anyone_reads() {
    let text = format!("[{}]", "x, ".repeat(5000));
    assert_eq!(problems::<Vec<u8>>(&text).len(), 100);
}
