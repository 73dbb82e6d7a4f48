//! Every file of `tests/pipelines/invalid` is refused with exactly the problems that its last lines list:
//! `# error LINE:COLUMN: message | help`, in the order in which they are shown. `# set PATH=VALUE` is an override.

use std::fs;

use super::{files, lines, parse_with};

#[test]
fn every_invalid_file_is_refused_at_the_right_places() {
    let mut wrong = String::new();
    let files = files("invalid");
    assert!(files.len() >= 40, "only {} files were found", files.len());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let listed = |prefix: &'static str| text.lines().filter_map(move |line| line.strip_prefix(prefix));
        let overrides: Vec<_> = listed("# set ").filter_map(|line| line.split_once('=')).collect();
        let expected: Vec<_> = listed("# error ").collect();
        let found = match parse_with(&text, &overrides) {
            Ok(_) => Vec::new(),
            Err(error) => lines(&error),
        };
        if found.is_empty() || found != expected {
            wrong.push_str(&format!("{}\n", path.display()));
            wrong.extend(found.iter().map(|line| format!("# error {line}\n")));
        }
    }
    assert!(wrong.is_empty(), "these files are refused otherwise than they say:\n{wrong}");
}
