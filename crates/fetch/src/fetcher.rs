//! The way in: resolves, lists and fetches, for callers that wait.

use std::{
    fs,
    future::Future,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    Error, RemoteFile, Settings, Source, cache,
    client::Client,
    digest::Hasher,
    names,
    part::Part,
    remote,
    transfer::{Shared, Transfer},
};

/// Who waits: is told how far it is, and says when to stop.
pub trait Watch {
    /// Whether to stop. What is there is kept.
    fn cancelled(&self) -> bool;

    /// Bytes that are there, of how many.
    fn progress(&self, _done: u64, _total: Option<u64>) {}
}

/// Nobody: never stops.
pub struct Unwatched;

impl Watch for Unwatched {
    fn cancelled(&self) -> bool {
        false
    }
}

/// What to fetch.
pub struct Order<'a> {
    /// Where from.
    pub source: &'a Source,
    /// What it stands for: [`Fetcher::resolve`].
    pub pin: &'a str,
    /// Which of the files of [`Fetcher::list`].
    pub files: &'a [RemoteFile],
    /// Who says which digests they have, for errors: `the list of files`, `the pipeline`.
    pub promised_by: &'static str,
    /// A folder for what is not complete; the next attempt goes on with what is in it.
    pub partial: &'a Path,
    /// The folder for the files, in the same file system.
    pub output: &'a Path,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of all files.
    pub bytes: u64,
    /// Of these, taken from a cache of this machine.
    pub cached_bytes: u64,
    /// Of these, left by an earlier attempt.
    pub resumed_bytes: u64,
}

/// Fetches files of other machines.
pub struct Fetcher {
    runtime: Runtime,
    client: Arc<Client>,
    settings: Settings,
}

impl Fetcher {
    /// Makes ready; connects to nothing yet.
    ///
    /// # Errors
    /// If this machine cannot make connections: threads, certificates.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let setup = |error: std::io::Error| Error::Setup(error.to_string());
        let client = Arc::new(Client::new(&settings)?);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(setup)?;
        Ok(Self { runtime, client, settings })
    }

    /// What a source stands for now: a commit, or a digest of its list of files. Empty for [`Source::Web`].
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn resolve(&self, source: &Source, watch: &dyn Watch) -> Result<String, Error> {
        let remote = self.within(|| remote::of(source, &self.settings))?;
        self.wait(watch, || {}, remote.resolve(&self.client))
    }

    /// The files of what `pin` stands for, by name.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn list(&self, source: &Source, pin: &str, watch: &dyn Watch) -> Result<Vec<RemoteFile>, Error> {
        if let (Some(variable), Source::Web(_)) = (self.settings.offline, source) {
            let hint = "run once with a network: pipe keeps what it fetched".to_owned();
            return Err(Error::Offline { variable, missing: "the address is on a network".to_owned(), hint });
        }
        let remote = self.within(|| remote::of(source, &self.settings))?;
        let mut files = self.wait(watch, || {}, remote.list(&self.client, pin))?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    /// Fetches files into the folder `output`: all of them, verified, or none.
    ///
    /// # Errors
    /// If one cannot be fetched. What is there is kept in the folder `partial`.
    pub fn fetch(&self, order: &Order<'_>, watch: &dyn Watch) -> Result<Report, Error> {
        names::check_together(order.files.iter().map(|file| file.path.as_str()))?;
        fs::create_dir_all(order.partial).map_err(Error::write(order.partial))?;
        let identity = format!("{:?} {}", order.source, order.pin);
        let shared = Arc::new(Shared {
            client: Arc::clone(&self.client),
            remote: self.within(|| remote::of(order.source, &self.settings))?,
            source: order.source.clone(),
            pin: order.pin.to_owned(),
            identity,
            promised_by: order.promised_by,
            connections: Semaphore::new(self.settings.tuning.connections),
            folder: order.partial.to_owned(),
        });
        let cached: Vec<_> =
            order.files.iter().map(|file| cache::candidate(order.source, file, &self.settings)).collect();
        if let Some(error) = order.files.iter().zip(&cached).find_map(|(file, cached)| match cached {
            Some(_) => None,
            None => cache::missing_file(order.source, file, &self.settings),
        }) {
            return Err(error);
        }
        let done = Arc::new(Done::default());
        let total = order.files.iter().map(|file| file.bytes).sum::<Option<u64>>();
        let work =
            fetch_all(Arc::clone(&shared), order.files.to_vec(), cached, Arc::clone(&done), self.settings.clone());
        let told = || watch.progress(done.bytes(), total);
        let paths = self.wait(watch, told, work)?;
        for (file, path) in order.files.iter().zip(&paths) {
            Part::finish(path, &order.output.join(&file.path))?;
        }
        watch.progress(done.bytes(), total);
        Ok(Report {
            bytes: done.bytes(),
            cached_bytes: done.cached.load(Ordering::Relaxed),
            resumed_bytes: done.resumed.load(Ordering::Relaxed),
        })
    }

    fn within<T>(&self, make: impl FnOnce() -> T) -> T {
        let _entered = self.runtime.enter();
        make()
    }

    /// Runs `work`, and looks every now and then whether somebody wants it to stop.
    fn wait<T>(
        &self,
        watch: &dyn Watch,
        told: impl Fn(),
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.runtime.block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    ended = &mut work => return ended.map_err(|error| self.client.secrets().hide_in(error)),
                    () = tokio::time::sleep(self.settings.tuning.look_interval) => {
                        if watch.cancelled() {
                            return Err(Error::Cancelled);
                        }
                        told();
                    }
                }
            }
        })
    }
}

/// How much is there, of all files.
#[derive(Default)]
struct Done {
    /// Of files that are complete.
    complete: AtomicU64,
    cached: AtomicU64,
    resumed: AtomicU64,
    open: std::sync::Mutex<Vec<Arc<Part>>>,
}

impl Done {
    fn open(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Part>>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn bytes(&self) -> u64 {
        let open = self.open();
        self.complete.load(Ordering::Relaxed) + open.iter().map(|part| part.total_done()).sum::<u64>()
    }

    fn close(&self, part: &Arc<Part>) {
        let mut open = self.open();
        open.retain(|other| !Arc::ptr_eq(other, part));
        self.complete.fetch_add(part.total_done(), Ordering::Relaxed);
    }
}

/// Fetches all files, some at a time. Returns where they are.
async fn fetch_all(
    shared: Arc<Shared>,
    files: Vec<RemoteFile>,
    cached: Vec<Option<PathBuf>>,
    done: Arc<Done>,
    settings: Settings,
) -> Result<Vec<PathBuf>, Error> {
    check_space(&shared, &files)?;
    let mut paths = vec![PathBuf::new(); files.len()];
    let mut tasks: JoinSet<Result<(usize, PathBuf), Error>> = JoinSet::new();
    for (index, (file, cached)) in files.into_iter().zip(cached).enumerate() {
        // Files are opened when their turn comes: there may be thousands.
        while tasks.len() >= settings.tuning.connections {
            let ended = tasks.join_next().await;
            take(ended, &mut paths)?;
        }
        let (shared, done, settings) = (Arc::clone(&shared), Arc::clone(&done), settings.clone());
        tasks.spawn(async move {
            let path = Part::path_of(&shared.folder, &file);
            if let Some(cached) = cached.filter(|_| !Part::is_begun(&path)) {
                let (folder, wanted) = (shared.folder.clone(), file.clone());
                let taken = tokio::task::spawn_blocking(move || take_cached(&folder, &wanted, &cached)).await;
                if taken.map_err(|error| Error::Setup(error.to_string()))?? {
                    let bytes = file.bytes.unwrap_or(0);
                    done.cached.fetch_add(bytes, Ordering::Relaxed);
                    done.complete.fetch_add(bytes, Ordering::Relaxed);
                    return Ok((index, path));
                }
                if let Some(error) = cache::missing_file(&shared.source, &file, &settings) {
                    return Err(error);
                }
            }
            let part = Arc::new(Part::open(&shared.folder, &shared.identity, &file, settings.tuning.piece_bytes)?);
            done.resumed.fetch_add(part.total_done(), Ordering::Relaxed);
            done.open().push(Arc::clone(&part));
            let ended = Arc::new(Transfer::new(shared, file, Arc::clone(&part))).run().await;
            done.close(&part);
            ended.map(|()| (index, path))
        });
    }
    while let Some(ended) = tasks.join_next().await {
        take(Some(ended), &mut paths)?;
    }
    Ok(paths)
}

type Ended = Option<Result<Result<(usize, PathBuf), Error>, tokio::task::JoinError>>;

fn take(ended: Ended, paths: &mut [PathBuf]) -> Result<(), Error> {
    if let Some(ended) = ended {
        let (index, path) = ended.map_err(|error| Error::Setup(error.to_string()))??;
        paths[index] = path;
    }
    Ok(())
}

/// Takes a file of a cache, if it is what it should be: shares its blocks where the file system can, else copies it. The
/// file in the cache stays as it is, and what the user does to it later does not matter.
fn take_cached(folder: &Path, file: &RemoteFile, cached: &Path) -> Result<bool, Error> {
    let path = Part::path_of(folder, file);
    let copy = path.with_extension("cached");
    let _ = fs::remove_file(&copy);
    reflink_copy::reflink_or_copy(cached, &copy).map_err(Error::read(cached))?;
    let is_it = hash_file(&copy, file)?;
    if is_it {
        fs::rename(&copy, &path).map_err(Error::write(&path))?;
    } else {
        fs::remove_file(&copy).map_err(Error::write(&copy))?;
    }
    Ok(is_it)
}

/// Whether a file has the length and the digest that it should have.
fn hash_file(path: &Path, file: &RemoteFile) -> Result<bool, Error> {
    let mut opened = fs::File::open(path).map_err(Error::read(path))?;
    let bytes = opened.metadata().map_err(Error::read(path))?.len();
    let (Some(expected), true) = (&file.digest, file.bytes == Some(bytes)) else { return Ok(false) };
    let (mut hasher, mut buffer) = (Hasher::new(Some(expected), bytes), vec![0; 1 << 20]);
    loop {
        match opened.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish() == expected.hex()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::read(path)(error)),
        }
    }
}

/// Whether what is missing yet has room.
fn check_space(shared: &Shared, files: &[RemoteFile]) -> Result<(), Error> {
    let there = |file: &RemoteFile| {
        let path = Part::path_of(&shared.folder, file);
        // Blocks of 512 bytes: holes take no room.
        fs::metadata(path).map_or(0, |found| std::os::unix::fs::MetadataExt::blocks(&found) * 512)
    };
    let needed_bytes = files.iter().map(|file| file.bytes.unwrap_or(0).saturating_sub(there(file))).sum();
    let found = rustix::fs::statvfs(&shared.folder).map_err(|error| Error::read(&shared.folder)(error.into()))?;
    let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
    if needed_bytes > free_bytes {
        return Err(Error::Space { folder: shared.folder.clone(), needed_bytes, free_bytes });
    }
    Ok(())
}
