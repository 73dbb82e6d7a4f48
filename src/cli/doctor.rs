//! `pipe doctor`: what this machine has, and which kinds it can run.

mod storage;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use clap::Args;
use owo_colors::OwoColorize;
use pipe_stage::Program;
use serde::Serialize;
use serde_json::Value;

use super::{CliError, Exit, Format, pipeline::print, pipeline::print_json};
use crate::{registry, report, scheduler::Programs};

/// Arguments of `pipe doctor`.
#[derive(Args)]
pub(super) struct Doctor {
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    name: &'static str,
    /// `ok`; `absent`: fine, but some kinds or options need it; `bad`: should be mended.
    state: State,
    found: String,
    /// What it is needed for and how to get it, unless it is there.
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Absent,
    Bad,
}

impl Doctor {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let probe = probe_torch();
        let torch_works = probe.is_ok();
        let mut findings = vec![machine()];
        findings.extend(torch(probe));
        findings.extend(storage::findings());
        findings.push(token());
        match self.format {
            Format::Json => print_json(&serde_json::json!({ "findings": findings, "kinds": kinds(torch_works) }))?,
            Format::Text => print(&text(&findings, torch_works))?,
        }
        Ok(if findings.iter().any(|finding| finding.state == State::Bad) { Exit::Environment } else { Exit::Done })
    }
}

/// Kind name to whether this machine can run it on its CPU.
fn kinds(torch_works: bool) -> serde_json::Map<String, Value> {
    let runs = |program| program == Program::Pipe || torch_works;
    registry::KINDS.iter().map(|kind| (kind.kind.to_owned(), runs(kind.program).into())).collect()
}

fn text(findings: &[Finding], torch_works: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Ok => "ok".green().to_string(),
            State::Absent => "--".yellow().to_string(),
            State::Bad => "!!".red().to_string(),
        };
        text += &format!("{mark}  {:<12} {}\n", finding.name, finding.found);
        if let Some(advice) = &finding.advice {
            text += &format!("{:17}{advice}\n", "");
        }
    }
    let (can, cannot): (Vec<_>, Vec<_>) =
        kinds(torch_works).into_iter().partition(|(_, runs)| *runs == Value::Bool(true));
    let names = |kinds: Vec<(String, Value)>| kinds.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
    text += &format!("\nkinds that run here: {}\n", names(can));
    if !cannot.is_empty() {
        text += &format!("kinds that need libtorch: {}\n", names(cannot));
    }
    text
}

fn machine() -> Finding {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Some(format!("{} memory, {} free", report::bytes(field("MemTotal:")?), report::bytes(field("MemAvailable:")?)))
    });
    let memory = memory.unwrap_or_else(|| "memory unknown".to_owned());
    Finding {
        name: "machine",
        state: State::Ok,
        found: format!("{}, {memory}", report::plural(cpus, "CPU")),
        advice: None,
    }
}

/// What `pipe-torch probe` says, or why it says nothing.
fn probe_torch() -> Result<(PathBuf, Value), Finding> {
    let missing = |found: String, advice: &str| Finding {
        name: "pipe-torch",
        state: State::Absent,
        found,
        advice: Some(advice.to_owned()),
    };
    let program =
        Programs::locate().and_then(|programs| programs.path(Program::PipeTorch).cloned()).map_err(|error| {
            missing(error.to_string(), "needed by train and evaluate: `make build` builds it beside `pipe`")
        })?;
    let output =
        Command::new(&program).arg("probe").stdin(Stdio::null()).output().map_err(|error| {
            missing(format!("{}: {error}", program.display()), "it cannot be started; build it again")
        })?;
    let answer = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    match answer {
        Some(answer) => Ok((program, answer)),
        None => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let found = format!("{} does not start: {said}", program.display());
            Err(missing(found, "`scripts/libtorch` fetches libtorch; then `make build`"))
        }
    }
}

fn torch(probe: Result<(PathBuf, Value), Finding>) -> Vec<Finding> {
    let (program, answer) = match probe {
        Ok(found) => found,
        Err(finding) => return vec![finding],
    };
    let string = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let version = string(&answer["version"]);
    let same = version == env!("CARGO_PKG_VERSION");
    let mut findings = vec![
        Finding {
            name: "pipe-torch",
            state: if same { State::Ok } else { State::Bad },
            found: format!("{version} at {}", program.display()),
            advice: (!same).then(|| format!("this is pipe {}: build both together", env!("CARGO_PKG_VERSION"))),
        },
        Finding { name: "libtorch", state: State::Ok, found: string(&answer["libtorch"]), advice: None },
    ];
    let cuda = &answer["cuda"];
    match cuda["status"].as_str() {
        Some("ready") => {
            findings.push(Finding { name: "CUDA", state: State::Ok, found: string(&cuda["library"]), advice: None });
            for device in cuda["devices"].as_array().into_iter().flatten() {
                let gigabytes = |field: &str| report::bytes(device[field].as_u64().unwrap_or(0));
                let found = match device["name"].as_str() {
                    Some(name) => format!(
                        "{name}, {} memory, {} in use, driver {}",
                        gigabytes("total_bytes"),
                        gigabytes("used_bytes"),
                        string(&device["driver"])
                    ),
                    None => format!("no figures: {}", string(&device["message"])),
                };
                findings.push(Finding { name: "GPU", state: State::Ok, found, advice: None });
            }
        }
        Some("no_driver") => findings.push(Finding {
            name: "CUDA",
            state: State::Absent,
            found: "no NVIDIA driver".to_owned(),
            advice: Some("needed by stages with `resources: { gpus: 1 }`; the others run on the CPU".to_owned()),
        }),
        _ => findings.push(Finding {
            name: "CUDA",
            state: State::Absent,
            found: string(&cuda["message"]),
            advice: Some("there is a driver, but no CUDA for libtorch: `make gpu` fetches the libraries".to_owned()),
        }),
    }
    findings
}

/// Says where a hub token is, never what it is.
fn token() -> Finding {
    let hub_home = env::var_os("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/huggingface")));
    let found = if env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty()) {
        Some("in HF_TOKEN".to_owned())
    } else {
        hub_home.map(|home| home.join("token")).filter(|file| file.is_file()).map(|file| file.display().to_string())
    };
    match found {
        Some(found) => Finding { name: "hub token", state: State::Ok, found, advice: None },
        None => Finding {
            name: "hub token",
            state: State::Absent,
            found: "none".to_owned(),
            advice: Some("only needed for gated models: set HF_TOKEN".to_owned()),
        },
    }
}
