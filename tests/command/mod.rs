//! The kind `command` through the whole engine, with real shells and Python.

mod environment;
mod failures;
mod processes;
mod work;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A temporary project with a pipeline and a cache of its own.
struct Project {
    folder: tempfile::TempDir,
}

/// A run that has ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    errors: String,
}

impl Project {
    fn new(pipeline: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("p.yaml", pipeline);
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(arguments).current_dir(self.folder.path()).env("PIPE_HOME", self.path("home"));
        command
    }

    fn pipe(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran { code: output.status.code().unwrap(), errors: String::from_utf8(output.stderr).unwrap() }
    }

    /// Runs the pipeline, which must come through.
    fn run(&self) -> Ran {
        let ran = self.pipe(&["run", "p.yaml"]);
        assert_eq!(ran.code, 0, "{}", ran.errors);
        ran
    }

    fn start(&self) -> Child {
        self.command(&["run", "p.yaml"]).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The stages that a run would run.
    fn to_run(&self) -> Vec<String> {
        let output = self.command(&["plan", "p.yaml", "--format", "json"]).output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let stages = plan["stages"].as_array().unwrap().iter().filter(|stage| stage["action"] != "hit");
        stages.map(|stage| stage["stage"].as_str().unwrap().to_owned()).collect()
    }

    /// The text of a file in the last artifact of an output.
    fn text(&self, output: &str, file: &str) -> String {
        let copy = tempfile::tempdir().unwrap();
        let got = self.pipe(&["get", output, copy.path().join("copy").to_str().unwrap()]);
        assert_eq!(got.code, 0, "{}", got.errors);
        let place = copy.path().join("copy");
        let place = if place.is_dir() { place.join(file) } else { place };
        fs::read_to_string(place).unwrap()
    }

    fn log(&self, stage: &str) -> String {
        String::from_utf8(self.command(&["log", stage]).output().unwrap().stdout).unwrap()
    }
}
