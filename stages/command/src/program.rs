//! From the field `run` to a program that can be started.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process,
};

use pipe_stage::Failure;

use crate::{
    config::{Config, Run, base_name},
    error::Error,
};

/// The shell of scripts that ask for no other one. In the same place everywhere.
const SHELL: &str = "/bin/sh";

/// Shells whose pipelines can be told to fail with any of their commands.
const PIPEFAIL: &[&str] = &["bash", "ksh", "mksh", "zsh"];

/// The program with its arguments, to be run in `work` with `environment`.
pub(crate) fn command(
    config: &Config,
    work: &Path,
    environment: &BTreeMap<OsString, OsString>,
) -> Result<process::Command, Failure> {
    let (program, arguments) = match &config.run {
        Run::Script(script) => {
            let shell = config.shell.as_deref().unwrap_or(SHELL);
            let options: &[&str] = match PIPEFAIL.contains(&base_name(shell)) {
                true => &["-e", "-o", "pipefail", "-c"],
                false => &["-e", "-c"],
            };
            (shell, options.iter().copied().chain([script.as_str()]).collect::<Vec<_>>())
        }
        Run::Program(words) => {
            let mut words = words.iter().map(String::as_str);
            (words.next().unwrap_or_default(), words.collect())
        }
    };
    let path = find(program, work, environment.get(OsStr::new("PATH")).map(OsString::as_os_str))?;
    let mut command = process::Command::new(path);
    command.arg0(program).args(arguments).current_dir(work).env_clear().envs(environment);
    Ok(command)
}

/// Where a program is: as it stands if it has a `/` in it, below `work` if it is relative; else in the first folder of
/// `path` that has it.
fn find(program: &str, work: &Path, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    if program.contains('/') {
        if work.join(program).is_file() {
            return Ok(program.into());
        }
        let (place, absolute) = match program.starts_with('/') {
            true => ("on this machine", true),
            false => ("in the folder that the command runs in", false),
        };
        let error = Error::NoProgram { program: program.to_owned(), place };
        return Err(match absolute {
            true => Failure::environment(error).hint("install it, or correct its path"),
            false => Failure::from(error).hint("name it under `scripts` or as an input: nothing else stands there"),
        });
    }
    let path = path.unwrap_or_default();
    let runs =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(runs)
        .ok_or_else(|| {
            let error = Error::NoProgram { program: program.to_owned(), place: "in PATH" };
            let path = path.to_string_lossy();
            Failure::environment(error).hint(format!("install it, or name it with its path; PATH is {path}"))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn words(config: serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config).unwrap();
        let environment = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
        let command = command(&config, Path::new("/"), &environment).unwrap();
        let program = command.get_program().to_str().unwrap().to_owned();
        std::iter::once(program).chain(command.get_args().map(|word| word.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn scripts_stop_at_the_first_failure_and_lists_run_without_a_shell() {
        let config = |run: &str, shell: Option<&str>| serde_json::json!({ "run": run, "shell": shell, "outputs": "a" });
        assert_eq!(words(config("a | b", None)), ["/bin/sh", "-e", "-c", "a | b"]);
        assert_eq!(words(config("a | b", Some("/bin/sh"))), ["/bin/sh", "-e", "-c", "a | b"]);
        let bash = words(config("a | b", Some("bash")));
        assert!(bash[0].ends_with("/bash"));
        assert_eq!(bash[1..], ["-e", "-o", "pipefail", "-c", "a | b"]);
        let list = serde_json::json!({ "run": ["/bin/echo", "a | b", "$HOME"], "outputs": "a" });
        assert_eq!(words(list), ["/bin/echo", "a | b", "$HOME"]);
    }

    #[test]
    fn what_is_not_there_is_named_with_where_it_was_looked_for() {
        let temp = tempfile::tempdir().unwrap();
        let missing = |program: &str| find(program, temp.path(), Some("/nowhere:/bin".as_ref())).unwrap_err();
        assert_eq!(missing("no-such-thing").chain(), ["there is no program `no-such-thing` in PATH"]);
        assert_eq!(missing("/no/such").chain(), ["there is no program `/no/such` on this machine"]);
        assert_eq!(missing("./a.sh").chain(), ["there is no program `./a.sh` in the folder that the command runs in"]);
        fs::write(temp.path().join("a.sh"), "").unwrap();
        assert_eq!(find("./a.sh", temp.path(), None).unwrap(), Path::new("./a.sh"));
        assert!(find("a.sh", temp.path(), Some(temp.path().as_os_str())).is_err(), "it is not executable");
    }
}
