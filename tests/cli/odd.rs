//! Names that are no text.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::{Project, Ran};

#[test]
fn a_pipeline_file_may_have_any_name() {
    let project = Project::new();
    let name = OsStr::from_bytes(b"p\xff.yaml");
    let text = "name: odd\nstages:\n  a: { kind: command, with: { run: exit 1, outputs: o } }\n";
    std::fs::write(project.path("").join(name), text).unwrap();
    let ran: Ran = project.command(&["run"]).arg(name).output().unwrap().into();
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.ends_with("to go on from here: pipe run $'p\\xff.yaml'\n"), "{}", ran.stderr);
    for command in ["check", "plan", "dag"] {
        let ran: Ran = project.command(&[command]).arg(name).output().unwrap().into();
        assert_eq!(ran.code, 0, "{command}: {}", ran.stderr);
    }
    let shown = project.run(&["runs", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
}
