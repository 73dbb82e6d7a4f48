//! The crash test covers every crash point.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// The names of the crash points in the Rust files below `folder`.
fn points_in(folder: &Path, points: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            points_in(&path, points);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for (_, rest) in text.match_indices("crash::point(").map(|(at, call)| (at, &text[at + call.len()..])) {
                let name = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (name, _) = name.unwrap_or_else(|| panic!("{}: name the point here", path.display()));
                points.insert(name.to_owned());
            }
        }
    }
}

#[test]
fn every_crash_point_in_the_source_is_covered_by_the_crash_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut there = BTreeSet::new();
    for folder in ["src", "stages", "crates/stage/src", "crates/testkit/src/kinds"] {
        points_in(&root.join(folder), &mut there);
    }
    let listed = Command::new(env!("CARGO_BIN_EXE_crash-test")).arg("--list").output().unwrap();
    let covered: BTreeSet<String> = String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(there.len() > 20, "only {} crash points found", there.len());
    assert_eq!(there, covered);
}
