//! Sources on other machines.

use pipe_fetch::{Digest, Error, Fetcher, Order, RemoteFile, Repository, Settings, Source, Watch};
use pipe_stage::{
    Context, Failure, Reference,
    manifest::{self, Manifest},
};

use crate::{Config, digests::FileHasher, selection};

/// The field that holds the source.
pub(crate) const FIELD: &str = "source";

/// Below the folder that a killed attempt leaves: what is not complete.
const PARTIAL: &str = "fetch";

/// Why what was fetched is not taken.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("{source_text} is {files} files; `sha256` is for a single file")]
    Sha256OfMany { source_text: String, files: usize },
    #[error("{source_text} has the BLAKE3 {found}, the pipeline asks for {expected}")]
    Blake3 { source_text: String, expected: String, found: String },
    #[error("offline, nobody can tell whether the cache has all files of {source_text}")]
    Unproven { source_text: String },
    #[error("offline, and the cache has no `{missing}` of {source_text}")]
    Incomplete { source_text: String, missing: String },
}

/// The reference of a source that may come to stand for other bytes. A commit and a file with a digest may not.
pub(crate) fn reference(source: &Source, text: &str) -> Option<Reference> {
    let name = match source {
        Source::Repository(repository) if repository.commit().is_some() => return None,
        Source::Repository(repository) => repository.name(),
        Source::Web(_) => return None,
        Source::Bucket { .. } => text.to_owned(),
    };
    Some(Reference { field: FIELD.to_owned(), name })
}

/// What a source stands for now.
pub(crate) fn resolve(source: &Source) -> Result<String, Failure> {
    let fetcher = Settings::from_environment().and_then(Fetcher::new).map_err(failure)?;
    fetcher.resolve(source, &pipe_fetch::Unwatched).map_err(failure)
}

/// Brings the files in.
pub(crate) fn run(config: &Config, source: &Source, context: &Context) -> Result<(), Failure> {
    let settings = Settings::from_environment().map_err(failure)?;
    run_with(config, source, context, settings)
}

fn run_with(config: &Config, source: &Source, context: &Context, settings: Settings) -> Result<(), Failure> {
    let watch = Watching { context };
    let is_offline = settings.offline.is_some();
    let pin = match source {
        Source::Repository(repository) if repository.commit().is_some() => repository.commit().unwrap_or_default(),
        Source::Web(_) => "",
        _ => context.pin(FIELD)?,
    };
    let fetcher = Fetcher::new(settings).map_err(failure)?;
    let listed = fetcher.list(source, pin, &watch).map_err(failure)?;
    if let (Source::Repository(repository), true) = (source, listed.is_empty()) {
        let what = repository.path.as_ref().map_or_else(|| repository.name(), |_| repository.to_string());
        return Err(failure(Error::Missing { what, hint: "check the path: the repository has no file there" }));
    }
    if let (Source::Repository(repository), true) = (source, is_offline) {
        check_named(config, repository, &listed)?;
    }
    let mut files = selection::select(config, source, listed).map_err(|error| {
        let hint = error.hint();
        Failure::from(error).hint(hint)
    })?;
    let mut promised_by = "the list of files";
    if let Some(sha256) = &config.sha256 {
        let [file] = files.as_mut_slice() else {
            let error = Unfit::Sha256OfMany { source_text: config.source.clone(), files: files.len() };
            return Err(Failure::from(error).hint("use `blake3`, or name one file of them"));
        };
        file.digest = Digest::sha256(sha256);
        promised_by = "the pipeline";
    }
    let partial = context.resume().join(PARTIAL);
    let output = context.output();
    let order = Order { source, pin, files: &files, promised_by, partial: &partial, output: &output };
    let report = fetcher.fetch(&order, &watch).map_err(failure)?;
    check_blake3(config, &files, context)?;
    context.figure("files", files.len());
    context.figure("bytes", report.bytes);
    context.figure("cached_bytes", report.cached_bytes);
    context.figure("resumed_bytes", report.resumed_bytes);
    Ok(())
}

/// The cache of a hub may hold some files of a commit only, and nobody can tell offline. What stands under the key of a
/// commit must not depend on that: the pipeline itself must say which files are meant.
fn check_named(config: &Config, repository: &Repository, listed: &[RemoteFile]) -> Result<(), Failure> {
    let source_text = config.source.clone();
    let have: Vec<_> = listed.iter().map(|file| file.path.clone()).collect();
    let is_one_file = repository.path.as_deref().is_some_and(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        matches!(listed, [file] if file.path == name)
    });
    if is_one_file {
        return Ok(());
    }
    let is_exact = |pattern: &String| !pattern.ends_with('/') && !pattern.contains(['*', '?', '[', '{', '\\']);
    let Some(include) = config.include.as_ref().filter(|include| include.iter().all(is_exact)) else {
        // Quoted as JSON, which is YAML whatever the names are.
        let names = selection::select(config, &Source::Repository(repository.clone()), listed.to_vec())
            .map_or(have, |files| files.into_iter().map(|file| file.path).collect());
        let names: Vec<_> = names.iter().map(|name| serde_json::Value::from(name.as_str()).to_string()).collect();
        let hint = match names.len() {
            0 => "run it where there is a network".to_owned(),
            _ => format!(
                "run it where there is a network, or name the files in the pipeline; the cache has \
                 `include: [{}]`",
                names.join(", ")
            ),
        };
        return Err(Failure::environment(Unfit::Unproven { source_text }).hint(hint));
    };
    match include.iter().find(|name| !have.contains(name)) {
        Some(missing) => {
            let error = Unfit::Incomplete { source_text, missing: missing.clone() };
            Err(Failure::environment(error).hint("fetch it where there is a network, or unset HF_HUB_OFFLINE"))
        }
        None => Ok(()),
    }
}

fn check_blake3(config: &Config, files: &[RemoteFile], context: &Context) -> Result<(), Failure> {
    let Some(expected) = &config.blake3 else { return Ok(()) };
    let mut entries = Vec::new();
    for file in files {
        let mut hasher = FileHasher::new(false);
        let bytes = hasher.read(&context.output().join(&file.path))?;
        let (digest, _) = hasher.finish();
        entries.push(manifest::Entry { path: file.path.clone(), digest, size: bytes, executable: false });
    }
    let manifest = Manifest::new(entries);
    let found = match manifest.entries() {
        [file] => file.digest,
        _ => manifest.digest(),
    };
    if expected.eq_ignore_ascii_case(&found.to_string()) {
        return Ok(());
    }
    let (source_text, expected, found) = (config.source.clone(), expected.clone(), found.to_string());
    Err(Failure::from(Unfit::Blake3 { source_text, expected, found }).hint("correct the digest in the pipeline"))
}

/// The network, the disk and missing tokens are the machine's matter.
fn failure(error: Error) -> Failure {
    if matches!(error, Error::Cancelled) {
        return Failure::cancelled();
    }
    let hint = error.hint();
    let failure = if error.is_environment() { Failure::environment(error) } else { Failure::from(error) };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

struct Watching<'a> {
    context: &'a Context,
}

impl Watch for Watching<'_> {
    fn cancelled(&self) -> bool {
        self.context.cancelled()
    }

    fn progress(&self, done: u64, total: Option<u64>) {
        self.context.progress("bytes", done, total);
    }
}
