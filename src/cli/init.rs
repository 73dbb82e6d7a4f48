//! `pipe init`: a first pipeline, which runs as it is.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;

use super::{CliError, Exit, Format, pipeline::print, pipeline::print_json, typed};

/// The pipeline, in which `NAME` stands for its name.
const PIPELINE: &str = include_str!("init/pipeline.yaml");

/// How the pipeline's file is called.
const FILE: &str = "pipeline.yaml";

/// The line that keeps a cache out of git.
const IGNORED: &str = ".pipe/";

/// Arguments of `pipe init`.
#[derive(Args)]
pub(super) struct Init {
    /// The folder to write pipeline.yaml into, and `.pipe/` into its .gitignore; it is made if need be
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Init {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let file = if self.dir == Path::new(".") { PathBuf::from(FILE) } else { self.dir.join(FILE) };
        let failed = |path: &Path| {
            let target = path.display().to_string();
            move |source| CliError::Write { target, source }
        };
        fs::create_dir_all(&self.dir).map_err(failed(&self.dir))?;
        let created = OpenOptions::new().write(true).create_new(true).open(&file);
        let mut created = created.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => CliError::usage(
                format!("{} is there already, and is left as it is", file.display()),
                "name another folder: `pipe init DIR`".to_owned(),
            ),
            _ => failed(&file)(error),
        })?;
        let text = PIPELINE.replacen("NAME", &quoted(&name(&self.dir)), 1);
        created.write_all(text.as_bytes()).map_err(failed(&file))?;
        let ignored = self.dir.join(".gitignore");
        ignore(&ignored).map_err(failed(&ignored))?;
        match self.format {
            Format::Text => {
                let file = typed::word(&file.to_string_lossy());
                print(&format!(
                    "{file} is written\n  pipe run {file}   runs it\n  pipe plan {file}  says what a run would do, and why\n"
                ))?;
            }
            Format::Json => print_json(&json!({ "file": file, "ignored": IGNORED }))?,
        }
        Ok(Exit::Done)
    }
}

/// The folder's own name, as far as it can be that of a pipeline.
fn name(folder: &Path) -> String {
    let absolute = folder.canonicalize().unwrap_or_default();
    let name = absolute.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    if name.trim().is_empty() { "pipeline".to_owned() } else { name }
}

/// A text as YAML: as it is where that cannot be misread, else as JSON, which YAML takes.
fn quoted(text: &str) -> String {
    let plain = text.starts_with(char::is_alphabetic)
        && text.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "true" | "false");
    // A text has no values that JSON cannot write.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string().replace("${", "$${") }
}

/// Adds the line to a `.gitignore`, unless it is there.
fn ignore(path: &Path) -> io::Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if text.lines().any(|line| [IGNORED, "/.pipe/", ".pipe", "/.pipe"].contains(&line.trim())) {
        return Ok(());
    }
    let break_before = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    OpenOptions::new().append(true).create(true).open(path)?.write_all(format!("{break_before}{IGNORED}\n").as_bytes())
}
