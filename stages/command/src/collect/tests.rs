//! What a command may leave, and what is said of the rest.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use super::*;

/// Checks a folder with these files (folders end in `/`), of which `placed` were laid out.
fn checked(outputs: serde_json::Value, files: &[&str], placed: &[&str]) -> Result<(), (String, String)> {
    let temp = tempfile::tempdir().unwrap();
    for file in files {
        let path = temp.path().join(file);
        fs::create_dir_all(if file.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
        if !file.ends_with('/') {
            fs::write(path, "").unwrap();
        }
    }
    symlink("/", temp.path().join("link")).unwrap();
    let placed: Placed = placed.iter().chain(&["link"]).map(|file| temp.path().join(file)).collect();
    let config: Config = serde_json::from_value(json!({ "run": "a", "outputs": outputs })).unwrap();
    check(&config, temp.path(), &placed).map(|_| ()).map_err(|failure| {
        let (chain, hint) = (failure.chain(), failure.hint_text().unwrap_or_default().to_owned());
        (chain.join(": "), hint)
    })
}

fn refused(outputs: serde_json::Value, files: &[&str]) -> String {
    let (message, hint) = checked(outputs, files, &["in/data", "in/script.py"]).unwrap_err();
    format!("{message} | {hint}")
}

#[test]
fn outputs_and_what_was_laid_out_may_be_there() {
    let files = ["out.txt", "figures/a/b.png", "in/data", "in/script.py", "empty/folder/"];
    assert_eq!(checked(json!(["out.txt", "figures/"]), &files, &["in/data", "in/script.py"]), Ok(()));
    assert_eq!(checked(json!("in/out.txt"), &["in/out.txt", "in/data"], &["in/data"]), Ok(()));
}

#[test]
fn anything_else_is_an_error_that_names_it() {
    assert_eq!(
        refused(json!("out.txt"), &["out.txt", "in/data", "in/cache.db", "b.log", "a\n.log"]),
        "the command left `a\\n.log`, `b.log` and `in/cache.db`, which no output declares | declare them under \
         `outputs`, write them to $TMPDIR, or say `undeclared: ignore`"
    );
    let many: Vec<String> = (0..9).map(|number| format!("{number}")).chain(["out.txt".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(refused(json!("out.txt"), &many).contains("`3`, `4` and 4 more files, which"));
    let ignoring = json!({ "run": "a", "outputs": "out.txt", "undeclared": "ignore" });
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("out.txt"), "").unwrap();
    fs::write(temp.path().join("more"), "").unwrap();
    assert!(check(&serde_json::from_value(ignoring).unwrap(), temp.path(), &Placed::new()).is_ok());
}

#[test]
fn an_output_that_is_not_what_was_declared_is_an_error_that_says_how_to_declare_it() {
    for (outputs, files, expected) in [
        (
            json!("out.txt"),
            &["in/data"][..],
            "the command did not write its output `out.txt` | it left nothing: a command runs in a folder of its own, \
             and writes its outputs there",
        ),
        (
            json!(["out.txt", "b.txt"]),
            &["b.txt", "Out.txt"],
            "the command did not write its output `out.txt` | it left `Out.txt`",
        ),
        (
            json!("figures"),
            &["figures/a.png"],
            "the output `figures` is a folder, not a file | a folder is declared with a `/` behind it: `figures/`",
        ),
        (
            json!("scores/"),
            &["scores"],
            "the output `scores/` is a file, not a folder | a file is declared without the `/`: `scores`",
        ),
        (
            json!("figures/"),
            &["figures/a/", "figures/b/"],
            "the output `figures/` holds no files | an artifact keeps files, not empty folders",
        ),
        (json!("link"), &[], "the output `link` is a link, not a file | let the command write a copy there"),
        (json!("link/tmp/"), &[], "the output `link` is a link, not a folder | let the command write a copy there"),
        (json!("a/b"), &["a"], "the command did not write its output `a/b` | it left `a`"),
    ] {
        assert_eq!(refused(outputs, files), expected);
    }
}
