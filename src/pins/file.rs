//! `pipe.lock`: read whole, changed under a lock, replaced whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use pipe_yaml::{Node, Problem, Span};

use crate::config::{ConfigError, Source};

/// Its name, in the folder of the pipeline.
pub const FILE_NAME: &str = "pipe.lock";

const HEAD: &str = "\
# Which version of what is elsewhere the pipelines in this folder take. Written by pipe; commit it, and others take the
# same. `pipe run PIPELINE --refresh STAGE` asks for the newest version.
";

/// The only field of the file.
const FIELD: &str = "pins";

/// Names, and what each stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins(BTreeMap<String, String>);

/// Why `pipe.lock` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// It cannot be read as what it should be.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Pins {
    /// The pins of the pipelines in `folder`; none if it has no such file.
    ///
    /// # Errors
    /// If there is a file that cannot be read, or says something else.
    pub fn load(folder: &Path) -> Result<Self, PinsError> {
        let path = folder.join(FILE_NAME);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(Source::new(path, text))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(PinsError::Read { path, source }),
        }
    }

    /// What `name` stands for, if that is known.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Lets `name` stand for `pin`.
    pub fn set(&mut self, name: &str, pin: &str) {
        self.0.insert(name.to_owned(), pin.to_owned());
    }

    /// Whether nothing is pinned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of the file: the names sorted, the same pins always the same bytes.
    pub fn to_text(&self) -> String {
        // A map of texts is always YAML.
        HEAD.to_owned() + &serde_yaml::to_string(&BTreeMap::from([(FIELD, &self.0)])).unwrap_or_default()
    }

    /// Adds these pins to the file in `folder`, and returns all that it then holds. Several processes may do so at once;
    /// what is there is never half a file.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn add_to(self, folder: &Path) -> Result<Self, PinsError> {
        let path = folder.join(FILE_NAME);
        let write = |source| PinsError::Write { path: path.clone(), source };
        // The folder itself is locked: a lock file would stay behind in the user's project.
        let locked = File::open(folder).map_err(write)?;
        locked.lock().map_err(write)?;
        let mut pins = Self::load(folder)?;
        pins.0.extend(self.0);
        let mut file = tempfile::Builder::new().prefix(".pipe.lock.").tempfile_in(folder).map_err(write)?;
        file.write_all(pins.to_text().as_bytes()).map_err(write)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode_of(&path));
        file.as_file().set_permissions(mode).map_err(write)?;
        file.as_file().sync_all().map_err(write)?;
        file.persist(&path).map_err(|error| write(error.error))?;
        locked.sync_all().map_err(write)?;
        Ok(pins)
    }

    fn parse(source: Source) -> Result<Self, ConfigError> {
        let says_something = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if !source.text().lines().any(says_something) {
            return Ok(Self::default());
        }
        let parsed = match conflict(source.text()) {
            Some(problem) => Err(vec![problem]),
            None => pipe_yaml::parse(source.text()).and_then(|root| read(&root)),
        };
        parsed.map_err(|problems| ConfigError::invalid(Arc::new(source), problems))
    }
}

/// The permissions that the file has, else those of a new file of most users.
fn mode_of(path: &Path) -> u32 {
    let mode = |metadata: fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777;
    fs::metadata(path).map_or(0o644, mode)
}

/// What version control leaves where two people pinned something at a time.
fn conflict(text: &str) -> Option<Problem> {
    const MARK: &str = "<<<<<<<";
    let start = text.find(MARK).filter(|start| *start == 0 || text.as_bytes()[start - 1] == b'\n')?;
    Some(Problem {
        span: Some(Span { start, end: start + MARK.len() }),
        message: "the file has a merge conflict".to_owned(),
        help: Some("keep one line for each name, and remove the marks; either side will do".to_owned()),
    })
}

fn read(root: &Node) -> Result<Pins, Vec<Problem>> {
    let problem = |node: &Node, message: String| {
        let help = format!("restore the file from version control, or remove it: a run then writes {FILE_NAME} anew");
        Problem { span: Some(node.span), message, help: Some(help) }
    };
    let (Some([(key, pins)]), mut problems) = (root.entries(), Vec::new()) else {
        return Err(vec![problem(root, format!("expected one field `{FIELD}`"))]);
    };
    if key.name != FIELD {
        return Err(vec![problem(root, format!("expected the field `{FIELD}`, found `{}`", key.name))]);
    }
    let Some(entries) = pins.entries() else {
        return Err(vec![problem(pins, format!("expected names and what they stand for, found {}", pins.describe()))]);
    };
    let mut read = Pins::default();
    for (name, node) in entries {
        match node.as_text() {
            Some(pin) if !pin.is_empty() => read.set(&name.name, pin),
            _ => problems.push(problem(node, format!("`{}` stands for {}", name.name, node.describe()))),
        }
    }
    if problems.is_empty() { Ok(read) } else { Err(problems) }
}
