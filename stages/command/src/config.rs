//! The fields of `with:` of a `command` stage.

mod env;
mod outputs;
mod place;
mod run;
mod script;

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::run::Run;
pub(crate) use self::{env::Env, outputs::Outputs, place::Place, script::Script};
use crate::places::Places;

/// The shells that take `-e` and `-c SCRIPT`.
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "ksh", "mksh", "zsh"];

/// The command, what it makes and what it sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is run. A text is a script for the shell, which stops at the first command that fails; a list is a program
    /// and its arguments, without a shell. It runs in a folder of its own, in which the inputs stand under their names.
    /// A shell's `${NAME}` is written `$${NAME}` or `$NAME`, because `${...}` stands for parameters.
    pub run: Run,
    /// The shell of a script: `sh`, `bash`, `dash`, `ksh` or `zsh`, by its name or path. Default `sh`. In bash, ksh and
    /// zsh, a pipeline fails if any command in it does (`pipefail`).
    #[serde(default)]
    pub shell: Option<String>,
    /// The files and folders that the command leaves, as paths below the folder it runs in; the path of a folder ends in
    /// `/`. One path, whose output is called `out`; a list, whose outputs are called like their files without
    /// extension; or a mapping of names to paths.
    pub(crate) outputs: Outputs,
    /// Environment variables, beside the few that every command sees. A name in a list, or without a value, is passed on
    /// from the environment of `pipe`; `NAME: VALUE` sets one. The values count like any other part of the configuration.
    /// Default: none.
    #[serde(default)]
    pub(crate) env: Env,
    /// Files or folders of the project that the command needs, relative to the pipeline file. They stand at the same
    /// relative paths, and a change of their content runs the stage again. Of `FOLDER/./PATH`, which may lie outside the
    /// project, only PATH stays. Default: none.
    #[serde(default)]
    pub(crate) scripts: Vec<Script>,
    /// Lay out inputs as symbolic links to the read-only files of the cache instead of copies: for inputs that are too
    /// large to copy and commands that follow links (`find -type f`, `grep -r` and `cp -r` do not). Default false.
    #[serde(default)]
    pub link_inputs: bool,
    /// Whether it is an `error` that the command leaves files that are no output, or one to `ignore`. Default `error`.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    pub undeclared: Undeclared,
}

/// What to do about files that a command leaves and that are no declared output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Undeclared {
    /// The stage fails, and names them.
    #[default]
    Error,
    /// They are removed.
    Ignore,
}

impl Validate for Config {
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Some(message) = self.run.problem() {
            problems.at("run", message);
        }
        match (&self.shell, &self.run) {
            (Some(_), Run::Program(_)) => {
                problems.at_with_help("shell", "a list runs without a shell", "make `run` a text, or remove `shell`");
            }
            (Some(shell), Run::Script(_)) if !SHELLS.contains(&base_name(shell)) => {
                let help = format!("one of {}; run others as a list: `run: [{shell}, -c, ...]`", SHELLS.join(", "));
                problems.at_with_help("shell", format!("`{shell}` is no shell that is known here"), help);
            }
            _ => {}
        }
        if self.outputs.is_empty() {
            problems.at("outputs", "a command must make at least one output");
        }
        let mut places = Places::default();
        for input in inputs {
            places.add(input, "the input", None);
        }
        let scripts = self.scripts.iter().enumerate();
        let scripts = scripts.map(|(index, script)| ("the script", script.place(), format!("scripts.{index}")));
        let outputs = self.outputs.iter().map(|(name, path)| ("the output", path, format!("outputs.{name}")));
        for (what, path, at) in scripts.chain(outputs) {
            if path.path().is_empty() {
                problems.at(&at, "the path is empty");
            } else {
                places.add(path.path(), what, Some(at));
            }
        }
        for (at, message) in places.clashes() {
            problems.at_with_help(&at, message, "give each a place of its own");
        }
    }
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
