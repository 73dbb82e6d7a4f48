//! A first pipeline.

use std::fs;

use serde_json::Value;

use super::Project;

#[test]
fn it_runs_as_it_is_and_a_change_reruns_what_it_must() {
    let project = Project::new();
    let made = project.run(&["init"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(made.stdout.starts_with("pipeline.yaml is written\n"), "{}", made.stdout);
    assert_eq!(fs::read_to_string(project.path(".gitignore")).unwrap(), ".pipe/\n");

    let ran = project.run(&["run", "pipeline.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("done: 3 stages run"), "{}", ran.stderr);
    let again = project.run(&["run", "pipeline.yaml"]);
    assert!(again.stderr.starts_with("up to date: 3 stages"), "{}", again.stderr);
    assert_eq!(project.run(&["get", "report", "report.md"]).code, 0);
    // The points are the same on every machine.
    assert_eq!(fs::read_to_string(project.path("report.md")).unwrap(), "y = 3.005 x + 0.993\n");

    let other = project.run(&["run", "pipeline.yaml", "--set", "seed=2"]);
    assert!(other.stderr.contains("done: 3 stages run"), "{}", other.stderr);
    let same = project.run(&["run", "pipeline.yaml", "--set", "noise=0.5001"]);
    assert!(same.stderr.contains("done: 2 stages run, 1 up to date"), "{}", same.stderr);
}

#[test]
fn what_is_there_is_left_alone() {
    let project = Project::new();
    fs::write(project.path("pipeline.yaml"), "mine").unwrap();
    let refused = project.run(&["init"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("pipeline.yaml is there already, and is left as it is"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(project.path("pipeline.yaml")).unwrap(), "mine");
    assert!(!project.path(".gitignore").exists());

    for (before, after) in
        [("target", "target\n.pipe/\n"), ("a\n", "a\n.pipe/\n"), ("/.pipe\nb\n", "/.pipe\nb\n"), ("", ".pipe/\n")]
    {
        let project = Project::new();
        fs::write(project.path(".gitignore"), before).unwrap();
        assert_eq!(project.run(&["init"]).code, 0);
        assert_eq!(fs::read_to_string(project.path(".gitignore")).unwrap(), after);
    }
}

#[test]
fn a_folder_of_any_name_gives_a_pipeline_of_that_name() {
    let project = Project::new();
    for name in ["sft", "微调 实验", "${x} \"quoted\"", "2024", "true", "it's: #1"] {
        let made = project.run(&["init", &format!("new/{name}"), "--format", "json"]);
        assert_eq!(made.code, 0, "{name}: {}", made.stderr);
        let file = serde_json::from_str::<Value>(&made.stdout).unwrap()["file"].as_str().unwrap().to_owned();
        assert_eq!(file, format!("new/{name}/pipeline.yaml"));
        let checked = project.run(&["check", &file, "--format", "json"]);
        let pipeline: Value = serde_json::from_str(&checked.stdout).unwrap();
        assert_eq!((checked.code, pipeline["name"].as_str()), (0, Some(name)), "{}", checked.stdout);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_said() {
    let project = Project::new();
    fs::write(project.path("file"), "").unwrap();
    let refused = project.run(&["init", "file/below"]);
    assert!(refused.code == 3 && refused.stderr.contains("cannot write to file/below"), "{}", refused.stderr);
}
