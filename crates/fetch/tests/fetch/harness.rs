//! A fetcher that is quick to lose patience, and folders for it.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use pipe_fetch::{Error, Fetcher, Order, RemoteFile, Report, Settings, Source, Tuning, Watch};
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "hf_SECRETSECRET";

pub(crate) struct Desk {
    pub(crate) dir: TempDir,
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) tuning: Tuning,
    pub(crate) watch: Watcher,
}

/// Stops once so many bytes are there.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) stop_at: Option<u64>,
    pub(crate) stop: AtomicBool,
    pub(crate) done: AtomicU64,
}

impl Watch for Watcher {
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn progress(&self, done: u64, _total: Option<u64>) {
        self.done.store(done, Ordering::Relaxed);
        if self.stop_at.is_some_and(|at| done >= at) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Desk {
    pub(crate) fn new(endpoint: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home").display().to_string();
        let variables = vec![
            ("HF_ENDPOINT", endpoint.to_owned()),
            ("MODELSCOPE_ENDPOINT", endpoint.to_owned()),
            ("HF_TOKEN", TOKEN.to_owned()),
            ("MODELSCOPE_API_TOKEN", TOKEN.to_owned()),
            ("HOME", home),
        ];
        let tuning = Tuning {
            piece_bytes: 100_000,
            attempts: 4,
            first_wait: Duration::from_millis(5),
            longest_wait: Duration::from_millis(20),
            stall_timeout: Duration::from_millis(300),
            look_interval: Duration::from_millis(2),
            proxies: false,
            ..Tuning::default()
        };
        std::fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir, variables, tuning, watch: Watcher::default() }
    }

    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        let variable = |name: &str| self.variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone());
        let mut settings = Settings::from_variables(variable).unwrap();
        settings.tuning = self.tuning.clone();
        Fetcher::new(settings).unwrap()
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    pub(crate) fn partial(&self) -> PathBuf {
        self.dir.path().join("partial")
    }

    /// Resolves, lists and fetches everything.
    pub(crate) fn fetch(&self, source: &str) -> Result<(Vec<RemoteFile>, Report), Error> {
        self.fetch_with(source, |_| {})
    }

    /// The same, with a change of the list.
    pub(crate) fn fetch_with(
        &self,
        source: &str,
        change: impl FnOnce(&mut Vec<RemoteFile>),
    ) -> Result<(Vec<RemoteFile>, Report), Error> {
        let fetcher = self.fetcher();
        let source: Source = source.parse().unwrap();
        let pin = fetcher.resolve(&source, &self.watch)?;
        let mut files = fetcher.list(&source, &pin, &self.watch)?;
        change(&mut files);
        let (partial, output) = (self.partial(), self.dir.path().join("out"));
        let promised_by = "the list of files";
        let order =
            Order { source: &source, pin: &pin, files: &files, promised_by, partial: &partial, output: &output };
        let report = fetcher.fetch(&order, &self.watch)?;
        Ok((files, report))
    }
}

/// The error and its causes.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
