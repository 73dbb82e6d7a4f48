//! `pipe reproduce`: what is no bundle, or has nothing to compare, is told apart from what is equal.

use std::fs;

use super::Project;

#[test]
fn a_run_that_made_nothing_is_equal_to_none() {
    let project = Project::new();
    let text = "stages:\n  a: { kind: command, with: { run: exit 1, outputs: o } }\n";
    fs::write(project.path("p.yaml"), text).unwrap();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 1);
    assert_eq!(project.run(&["share", "last", "--partial", "-o", "x.pipe"]).code, 0);
    let ran = project.run(&["reproduce", "x.pipe", "--allow-commands"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("made nothing that could be compared"), "{}", ran.stderr);
}

#[test]
fn what_is_no_bundle_is_called_so() {
    let project = Project::new();
    fs::write(project.path("p.yaml"), "stages: {}\n").unwrap();
    fs::create_dir_all(project.path("full/folder")).unwrap();
    for (arguments, said) in [
        (&["nothing.pipe"][..], "`nothing.pipe` cannot be read: No such file"),
        (&["full"], "`full` is no file"),
        (&["p.yaml"], "it is not a bundle"),
        (&["p.yaml", "--into", "full"], "full` is taken\n   help: name a folder that is new or empty"),
    ] {
        let ran = project.run(&[&["reproduce"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}");
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
}
