//! Names that are no text, and places that take none.

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

#[test]
fn that_nothing_can_be_said_is_no_reason_to_panic() {
    let project = Project::new();
    std::fs::write(project.path("p.yaml"), "stages:\n  a: { kind: comand }\n").unwrap();
    std::fs::write(project.path("q.yaml"), "stages:\n  a: { kind: command, with: { run: exit 1, outputs: o } }\n")
        .unwrap();
    for (arguments, code) in [
        (&["check", "p.yaml"][..], 2),
        (&["run", "q.yaml", "b"], 2),
        (&["run", "q.yaml"], 1),
        (&["reproduce", "p.yaml"], 2),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let status = project.command(arguments).stderr(full).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}
