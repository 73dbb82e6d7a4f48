//! Models and data from elsewhere, through the whole program: the hubs are a server on loopback.

#[path = "../../../crates/fetch/tests/hub/mod.rs"]
mod hub;

mod pins;
mod refused;
mod resumed;
mod secrets;

use std::{fs, process::Command};

use hub::{COMMIT, Hub, noise};
use serde_json::Value;

use super::{Project, Ran};

/// The commit after [`COMMIT`].
const LATER: &str = "2222222222222222222222222222222222222222";

const PIPELINE: &str = "\
stages:
  model: { kind: download, with: { source: 'hf://org/name' } }
  size:
    kind: command
    inputs: { model: model }
    with: { run: 'wc -c < model/model.safetensors > out.txt', outputs: out.txt }
";

/// The files of a model: one small, one that the hub keeps elsewhere.
fn model(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    vec![("config.json", b"{}".to_vec()), ("model.safetensors", noise(seed, 5000))]
}

/// A project, and a hub that it takes things from.
struct Site {
    project: Project,
    hub: Hub,
}

impl Site {
    fn new(pipeline: &str, hub: Hub) -> Self {
        let project = Project::new();
        fs::create_dir(project.path("user")).unwrap();
        fs::write(project.path("p.yaml"), pipeline).unwrap();
        Self { project, hub }
    }

    /// The program, with the hub for all hubs, no token, and a home folder of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.command(arguments);
        let kept = ["PIPE_OFFLINE", "HF_", "HUGGING", "MODELSCOPE_", "AWS_", "XDG_"];
        for (name, _) in std::env::vars().filter(|(name, _)| kept.iter().any(|kept| name.starts_with(kept))) {
            command.env_remove(name);
        }
        command.env("HOME", self.project.path("user")).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command.env("HF_ENDPOINT", &self.hub.address).env("MODELSCOPE_ENDPOINT", &self.hub.address);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(&[], arguments)
    }

    fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
        self.command(arguments).envs(variables.iter().copied()).output().unwrap().into()
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.project.path("p.yaml").with_file_name("pipe.lock")).unwrap_or_default()
    }

    /// How many requests there were.
    fn requests(&self) -> usize {
        self.hub.content.log.lock().unwrap().len()
    }

    /// What a person sees, without what differs from run to run.
    fn seen(&self, text: &str) -> String {
        let folder = self.project.folder.path().display().to_string();
        let text =
            text.replace(&self.hub.address, "HUB").replace(&self.hub.store(), "STORE").replace(&folder, "PROJECT");
        text.lines().map(without_chance).collect::<Vec<_>>().join("\n")
    }

    /// The figures of a stage in the last run.
    fn figures(&self, stage: &str) -> Value {
        let ran = self.run(&["runs", "show", "last", "--format", "json"]);
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["stages"][stage]["figures"].clone()
    }
}

/// A line with `N s` for times, and `RUN` for names of runs.
fn without_chance(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    for at in 0..words.len() {
        let is_number = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        let unit = words.get(at + 1).map(|word| word.trim_end_matches([',', ';', ')', '.']).to_owned());
        let number = words[at].trim_start_matches('(').to_owned();
        if is_number(&number) && unit.is_some_and(|unit| ["s", "ms", "µs", "min"].contains(&unit.as_str())) {
            words[at] = words[at].replace(&number, "N");
            // A quick machine is no other result.
            words[at + 1] = words[at + 1].replace("µs", "ms");
        }
        if words[at] == "run" && words.get(at + 1).is_some_and(|word| word.len() == 24 && word.starts_with("20")) {
            words[at + 1] = "RUN".to_owned();
        }
    }
    words.join(" ")
}
