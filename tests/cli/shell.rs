//! What the program says about itself: completions and manual pages.

use std::process::{Command, Stdio};

use super::{Project, Ran};

/// The commands that `pipe --help` lists.
fn commands(project: &Project) -> Vec<String> {
    let help = project.run(&["--help"]).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// What a shell would offer for the last of `words`.
pub(super) fn offered(project: &Project, words: &[&str]) -> Vec<String> {
    let mut command = project.command(&["--"]);
    command.args(words).env("PIPE_COMPLETE", "fish");
    let ran: Ran = command.output().unwrap().into();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    ran.stdout.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn every_shell_gets_a_script_that_asks_the_program() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = project.run(&["completions", shell]);
        assert_eq!(ran.code, 0, "{shell}: {}", ran.stderr);
        assert!(ran.stdout.contains("PIPE_COMPLETE"), "{shell}: {}", ran.stdout);
    }
    let wrong = project.run(&["completions", "tcsh"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("possible values"), "{}", wrong.stderr);
}

#[test]
fn bash_takes_its_script() {
    let project = Project::new();
    let script = project.run(&["completions", "bash"]).stdout;
    let mut shell = Command::new("bash").args(["-n"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn commands_files_stages_and_params_are_completed() {
    let project = Project::new();
    let commands = commands(&project);
    assert!(commands.len() > 8, "{commands:?}");
    let words = offered(&project, &["pipe", ""]);
    for command in &commands {
        assert!(words.contains(command), "{command} is not in {words:?}");
    }
    assert!(!words.iter().any(|word| word == "worker"), "{words:?}");

    let text = "params: { 数据: a }\nstages:\n  first: { kind: split }\n  second: { kind: filter }\n";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    std::fs::write(project.path("notes.txt"), "").unwrap();
    let files = offered(&project, &["pipe", "run", ""]);
    assert!(files.contains(&"p.yaml".to_owned()) && !files.contains(&"notes.txt".to_owned()), "{files:?}");
    // The file lacks inputs, and its stages are completed all the same.
    for command in ["run", "plan"] {
        assert_eq!(offered(&project, &["pipe", command, "p.yaml", "se"]), ["second"]);
    }
    assert_eq!(offered(&project, &["pipe", "run", "p.yaml", "--set", ""]), ["数据="]);
    assert_eq!(offered(&project, &["pipe", "run", "nowhere.yaml", "se"]), [""; 0]);
}

#[test]
fn every_command_has_a_manual_page() {
    let project = Project::new();
    let ran = project.run(&["man", "pages"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let read = |name: &str| std::fs::read_to_string(project.path("pages").join(name)).unwrap();
    let first = read("pipe.1");
    assert_eq!(project.run(&["man"]).stdout, first);
    for command in commands(&project) {
        assert!(first.contains(&format!("pipe\\-{command}(1)")), "pipe.1 does not name {command}");
        let page = read(&format!("pipe-{command}.1"));
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"SEE ALSO\""] {
            assert!(page.contains(&format!(".SH {section}\n")), "{command} has no {section}:\n{page}");
        }
        // Anything that the command calls an option stands in its page.
        let help = project.run(&[command.as_str(), "--help"]).stdout;
        for option in help.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
            let name: String = option.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect();
            assert!(page.contains(&name.replace('-', "\\-")), "{command}: --{name}\n{page}");
        }
    }
    assert!(!project.path("pages/pipe-worker.1").exists());
    for code in ["0", "1", "2", "3", "70"] {
        assert!(first.contains(&format!("\\fB{code}\\fR\n")), "pipe.1 lacks exit status {code}");
    }
    insta::assert_snapshot!(read("pipe-completions.1").replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn a_page_that_cannot_be_written_is_said() {
    let project = Project::new();
    std::fs::write(project.path("file"), "").unwrap();
    let ran = project.run(&["man", "file/pages"]);
    assert!(ran.code == 3 && ran.stderr.contains("cannot write to file/pages"), "{}", ran.stderr);
}
