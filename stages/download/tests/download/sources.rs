//! What may stand in `source`.

use pipe_stage::{Kind, UserFile};
use stage_download::{Config, Download, Source};

use crate::config;

fn problems(config: &Config) -> Vec<(String, String, Option<String>)> {
    pipe_trial::problems::<Download>(serde_json::to_value(config).unwrap(), &[])
}

#[test]
fn paths_are_taken_as_they_stand() {
    for (source, path) in [
        ("file:///data/chat.jsonl", "/data/chat.jsonl"),
        ("file://data/chat.jsonl", "data/chat.jsonl"),
        ("file://../数据/a b%20c", "../数据/a b%20c"),
    ] {
        assert_eq!(source.parse(), Ok(Source::File(path.into())));
        assert_eq!(Download::user_files(&config(source)), [UserFile { field: "source".to_owned(), path: path.into() }]);
        assert!(problems(&config(source)).is_empty());
    }
}

#[test]
fn what_may_move_is_a_reference_and_what_may_not_is_none() {
    let commit = "c1899de289a04d12100db370d81485cdf75e47ca";
    let reference = |source: &str| {
        let config = config(source);
        assert_eq!(Download::user_files(&config).len(), usize::from(source.starts_with("file://")));
        let references = Download::references(&config);
        assert!(references.iter().all(|reference| reference.field == "source"));
        references.into_iter().map(|reference| reference.name).collect::<Vec<_>>()
    };
    assert_eq!(reference("hf://Qwen/Qwen3-1.7B"), ["hf://Qwen/Qwen3-1.7B@main"]);
    // The same branch has one pin, whichever part of it is taken.
    assert_eq!(reference("hf://Qwen/Qwen3-1.7B@main/config.json"), ["hf://Qwen/Qwen3-1.7B@main"]);
    assert_eq!(reference("hf://datasets/a/b@refs/convert/parquet"), ["hf://datasets/a/b@refs/convert/parquet"]);
    assert_eq!(reference("ms://Qwen/Qwen3-1.7B"), ["ms://Qwen/Qwen3-1.7B@master"]);
    assert_eq!(reference("s3://bucket/data/"), ["s3://bucket/data/"]);
    assert!(reference(&format!("hf://Qwen/Qwen3-1.7B@{commit}")).is_empty());
    assert!(reference("https://example.org/chat.jsonl?download=true").is_empty());
    assert!(reference("file://x").is_empty() && reference("nonsense").is_empty());
}

#[test]
fn an_address_of_the_web_needs_a_digest() {
    for source in ["https://example.org/chat.jsonl", "http://10.0.0.7:8000/chat.jsonl"] {
        let found = problems(&config(source));
        let [(field, message, Some(help))] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(field, "sha256");
        assert!(message.contains("which bytes are meant") && help.contains("sha256sum"), "{message} {help}");
        assert!(problems(&Config { sha256: Some("0".repeat(64)), ..config(source) }).is_empty());
    }
}

#[test]
fn patterns_are_checked_and_not_for_local_files() {
    let with = |source: &str, include: &[&str], exclude: &[&str]| {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
        let config = Config { include: Some(owned(include)), exclude: owned(exclude), ..config(source) };
        problems(&config).into_iter().map(|(path, message, _)| format!("{path} {message}")).collect::<Vec<_>>()
    };
    assert!(with("hf://a/b", &["*.json", "data/"], &["{a,b}"]).is_empty());
    assert!(with("hf://a/b", &["{a"], &[])[0].contains("include `{a` is no pattern"));
    assert!(with("hf://a/b", &[], &[])[0].contains("include takes nothing"));
    assert!(with("file://x", &["*"], &[])[0].contains("is not for file:// sources"));
}

#[test]
fn what_is_no_source_gets_help() {
    for (source, expected, help) in [
        ("data/chat.jsonl", "`data/chat.jsonl` has no scheme", "write `file://data/chat.jsonl`"),
        ("", "`` has no scheme", "write `file://"),
        ("file://", "`file://` names no file", "file://data/chat.jsonl"),
        ("file://~/chat.jsonl", "only a shell knows what `~` is", "from `/` on"),
        ("ftp://example.org/x", "`ftp` is not a known scheme", "file://, hf://, ms://, https:// and s3://"),
        ("hf://Qwen", "`hf://Qwen` is not a valid hf:// source", "hf://ORG/NAME"),
        ("hf://Qwen/", "is not a valid hf:// source", "hf://ORG/NAME"),
        ("hf://Qwen/Qwen3/../file", "is not a valid hf:// source", "hf://ORG/NAME/PATH"),
        ("hf://Qwen/Qwen3@", "is not a valid hf:// source", "@REVISION"),
        ("ms://../x", "is not a valid ms:// source", "ms://ORG/NAME"),
        ("https://example.org", "is not a valid https:// source", "https://HOST/PATH"),
        ("https:///x", "is not a valid https:// source", "https://HOST/PATH"),
        ("s3://bucket", "is not a valid s3:// source", "s3://BUCKET/KEY"),
    ] {
        let found = problems(&config(source));
        assert_eq!(found.len(), 1, "{source}");
        let (path, message, found_help) = &found[0];
        assert_eq!(path, "source");
        assert!(message.contains(expected), "{source}: {message}");
        assert!(found_help.as_ref().unwrap().contains(help), "{source}: {found_help:?}");
        assert!(Download::user_files(&config(source)).is_empty());
    }
}

#[test]
fn digests_are_64_hexadecimal_digits() {
    for bad in ["", "abc", &"g".repeat(64), &"0".repeat(65)] {
        let config = Config { sha256: Some(bad.to_owned()), blake3: Some(bad.to_owned()), ..config("file://x") };
        let fields: Vec<_> =
            problems(&config).into_iter().map(|(path, message, _)| format!("{path} {message}")).collect();
        assert_eq!(fields, ["sha256 must be 64 hexadecimal digits", "blake3 must be 64 hexadecimal digits"]);
    }
}
