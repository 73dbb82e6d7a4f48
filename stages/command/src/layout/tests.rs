//! What stands in the folder before a command runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pipe_stage::{FailureClass, Job, Kind, PROTOCOL, Resources};
use serde_json::json;

use super::*;
use crate::Command;

struct Project {
    folder: tempfile::TempDir,
    cancelled: Arc<AtomicBool>,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), cancelled: Arc::default() };
        fs::create_dir(project.path("work")).unwrap();
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn lay_out(
        &self,
        config: serde_json::Value,
        inputs: &[(&str, PathBuf)],
        files: &[(&str, PathBuf, Digest)],
    ) -> Result<Vec<String>, Failure> {
        let digest = Digest::of(b"");
        let input =
            |(name, path): &(&str, PathBuf)| ((*name).to_owned(), vec![Artifact { path: path.clone(), digest }]);
        let file = |(field, path, digest): &(&str, PathBuf, Digest)| {
            ((*field).to_owned(), Artifact { path: path.clone(), digest: *digest })
        };
        let job = Job {
            protocol: PROTOCOL,
            kind: Command::KIND.to_owned(),
            stage: "a".to_owned(),
            config: config.clone(),
            inputs: inputs.iter().map(input).collect::<BTreeMap<_, _>>(),
            user_files: files.iter().map(file).collect(),
            pins: [].into(),
            output: self.path("output"),
            work: self.path("work"),
            resume: self.path("resume"),
            resources: Resources::default(),
        };
        let config: Config = serde_json::from_value(config).unwrap();
        let context = Context::new(job, Box::new(std::io::sink()), Arc::clone(&self.cancelled));
        let placed = lay_out(&config, &context)?;
        let name = |path: &PathBuf| path.strip_prefix(context.work()).unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = placed.iter().map(name).collect();
        names.sort();
        Ok(names)
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn inputs_are_read_only_copies_also_where_the_cache_has_links() {
    let project = Project::new();
    let object = project.write("objects/1", "one");
    fs::create_dir_all(project.path("inputs/data/sub")).unwrap();
    symlink(&object, project.path("inputs/data/sub/a.txt")).unwrap();
    let tool = project.write("inputs/data/tool", "#!/bin/sh");
    fs::set_permissions(&tool, Permissions::from_mode(0o555)).unwrap();
    let inputs = [("data", project.path("inputs/data")), ("one/file", object.clone())];
    let placed = project.lay_out(json!({ "run": "a", "outputs": "results/x/" }), &inputs, &[]).unwrap();
    assert_eq!(placed, ["data/sub/a.txt", "data/tool", "one/file"]);

    let copy = project.path("work/data/sub/a.txt");
    assert!(fs::symlink_metadata(&copy).unwrap().is_file());
    assert_eq!((fs::read_to_string(&copy).unwrap().as_str(), mode(&copy)), ("one", 0o444));
    assert_eq!(mode(&project.path("work/data/tool")), 0o555);
    assert_eq!(fs::read_to_string(project.path("work/one/file")).unwrap(), "one");
    assert!(project.path("work/results").is_dir() && !project.path("work/results/x").exists());
}

#[test]
fn a_stage_that_is_asked_to_stop_copies_nothing_more() {
    let project = Project::new();
    project.write("inputs/data/a.txt", "one");
    project.cancelled.store(true, Ordering::Relaxed);
    let inputs = [("data", project.path("inputs/data"))];
    let failure = project.lay_out(json!({ "run": "a", "outputs": "x" }), &inputs, &[]).unwrap_err();
    assert_eq!(failure.class(), FailureClass::Cancelled);
    assert!(!project.path("work/data/a.txt").exists());
}

#[test]
fn links_are_made_where_they_are_asked_for() {
    let project = Project::new();
    project.write("inputs/data/a.txt", "one");
    let config = json!({ "run": "a", "outputs": "x", "link_inputs": true });
    let placed = project.lay_out(config, &[("data", project.path("inputs/data"))], &[]).unwrap();
    assert_eq!(placed, ["data"]);
    assert_eq!(fs::read_link(project.path("work/data")).unwrap(), project.path("inputs/data"));
}

#[test]
fn the_users_files_are_copied_and_must_be_what_the_key_says() {
    let project = Project::new();
    let script = project.write("lib/score.py", "print(1)");
    let folder = project.path("lib");
    let config = json!({ "run": "a", "outputs": "x", "scripts": ["src/score.py"] });
    let entry = Entry { path: "score.py".to_owned(), digest: Digest::of(b"print(1)"), size: 8, executable: false };
    let files = [
        ("scripts.0", script.clone(), Digest::of(b"print(1)")),
        ("inputs.lib", folder, Manifest::new(vec![entry]).digest()),
    ];
    let placed = project.lay_out(config.clone(), &[], &files).unwrap();
    assert_eq!(placed, ["lib/score.py", "src/score.py"]);
    assert_eq!(mode(&project.path("work/src/score.py")), 0o444);
    assert_ne!(mode(&script), 0o444, "the user's own file stays as it is");

    let project = Project::new();
    let script = project.write("score.py", "print(2)");
    let files = [("scripts.0", script, Digest::of(b"print(1)"))];
    let failure = project.lay_out(config, &[], &files).unwrap_err();
    assert!(failure.chain()[0].ends_with("score.py` changed since the run looked at it"), "{:?}", failure.chain());
}
