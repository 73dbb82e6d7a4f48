//! What may stand in `source`.

use std::{collections::BTreeSet, path::Path};

use pipe_stage::{Digest, Kind, Problems, UserFile, Validate};
use stage_download::{Config, Download, Source};

use crate::{config, download};

fn problems(config: &Config) -> Vec<(String, String, Option<String>)> {
    let mut problems = Problems::default();
    config.validate(&BTreeSet::new(), &mut problems);
    problems.into_inner()
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
fn remote_sources_are_recognised_and_not_built_yet() {
    for source in [
        "hf://Qwen/Qwen3-1.7B",
        "hf://Qwen/Qwen3-1.7B@main",
        "hf://datasets/tatsu-lab/alpaca@refs/convert/parquet",
        "ms://Qwen/Qwen3-1.7B",
        "https://example.org/chat.jsonl?download=true",
        "s3://bucket/data/chat.jsonl",
    ] {
        assert!(problems(&config(source)).is_empty(), "{source}");
        assert!(Download::user_files(&config(source)).is_empty());
        let dir = tempfile::tempdir().unwrap();
        let failure = download(&config(source), Path::new("/nowhere"), Digest::of(b""), dir.path()).unwrap_err();
        let scheme = source.split_once("://").unwrap().0;
        assert_eq!(failure.chain(), [format!("cannot fetch {source}: {scheme}:// sources are not built yet")]);
    }
}

#[test]
fn what_is_no_source_gets_help() {
    for (source, expected, help) in [
        ("data/chat.jsonl", "`data/chat.jsonl` has no scheme", "write `file://data/chat.jsonl`"),
        ("", "`` has no scheme", "write `file://"),
        ("file://", "`file://` names no file", "file://data/chat.jsonl"),
        ("file://~/chat.jsonl", "only a shell knows what `~` is", "from `/` on"),
        ("http://example.org/x", "`http` is not supported", "https://"),
        ("ftp://example.org/x", "`ftp` is not a known scheme", "file://, hf://, ms://, https:// and s3://"),
        ("hf://Qwen", "`hf://Qwen` is not a valid hf:// source", "hf://OWNER/NAME"),
        ("hf://Qwen/", "is not a valid hf:// source", "hf://OWNER/NAME"),
        ("hf://Qwen/Qwen3/file", "is not a valid hf:// source", "hf://OWNER/NAME"),
        ("hf://Qwen/Qwen3@", "is not a valid hf:// source", "@REVISION"),
        ("ms://../x", "is not a valid ms:// source", "ms://OWNER/NAME"),
        ("https://example.org", "is not a valid https:// source", "https://HOST/PATH"),
        ("https:///x", "is not a valid https:// source", "https://HOST/PATH"),
        ("s3://bucket/", "is not a valid s3:// source", "s3://BUCKET/KEY"),
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
