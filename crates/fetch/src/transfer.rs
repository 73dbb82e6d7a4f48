//! One file: its pieces over several connections, hashed behind them as the gaps close.

use std::{
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinHandle, JoinSet},
};

use crate::{
    Digest, Error, RemoteFile, Source,
    client::{Client, next_chunk},
    digest::Hasher,
    part::Part,
    patience::Patience,
    remote::{Remote, Wanted},
};

/// What is hashed at a time, bytes.
const HASHED_BYTES: u64 = 4 << 20;

/// A file that changes on the server, or of which other bytes came, is begun anew so often.
const FRESH_STARTS: u32 = 1;

/// What all files of a source have in common.
pub(crate) struct Shared {
    pub(crate) client: Arc<Client>,
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) source: Source,
    pub(crate) pin: String,
    /// Source and pin, to tell partial files apart.
    pub(crate) identity: String,
    pub(crate) promised_by: &'static str,
    /// A permit for each connection.
    pub(crate) connections: Semaphore,
    /// Where partial files are.
    pub(crate) folder: PathBuf,
}

/// One file of a source.
pub(crate) struct Transfer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) file: RemoteFile,
    pub(crate) part: Arc<Part>,
    /// The tag that the parts have had so far.
    etag: Mutex<Option<String>>,
    /// Whether a part was answered as a part.
    has_ranges: AtomicBool,
    first_answer: Notify,
}

/// Why a piece is not fetched.
enum Stop {
    Failed(Error),
    /// The server sends everything, whatever is asked for.
    NoRanges,
    /// The file is another one now.
    Changed,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Status { status: 416, .. } => Self::Changed,
            error => Self::Failed(error),
        }
    }
}

impl Transfer {
    pub(crate) fn new(shared: Arc<Shared>, file: RemoteFile, part: Arc<Part>) -> Self {
        let etag = Mutex::new(file.etag.clone());
        Self { shared, file, part, etag, has_ranges: AtomicBool::new(false), first_answer: Notify::new() }
    }

    /// Brings the file to be complete and verified.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), Error> {
        let (mut mismatches, mut changes) = (0, 0);
        loop {
            // Pieces that are still fetched, and the hashing, end with this.
            let mut tasks = JoinSet::new();
            let hashing = self.file.bytes.is_some().then(|| Hashing(tokio::spawn(Arc::clone(&self).hash())));
            let found = match (self.pieces(&mut tasks).await, hashing) {
                (Ok(()), Some(hashing)) => hashing.end().await?,
                (Ok(()), None) => Arc::clone(&self).hash().await?,
                (Err(Stop::Failed(error)), _) => return Err(error),
                (Err(stop), hashing) => {
                    drop(hashing);
                    tasks.shutdown().await;
                    self.forget()?;
                    if matches!(stop, Stop::Changed) {
                        if changes == FRESH_STARTS {
                            return Err(Error::Changing { path: self.file.path.clone() });
                        }
                        changes += 1;
                        continue;
                    }
                    self.whole().await?;
                    Arc::clone(&self).hash().await?
                }
            };
            match self.verified(found) {
                None => return Ok(()),
                Some(error) if mismatches == FRESH_STARTS => return Err(error),
                Some(_) => {
                    mismatches += 1;
                    self.forget()?;
                }
            }
        }
    }

    fn verified(&self, found: String) -> Option<Error> {
        let expected = self.file.digest.as_ref().filter(|expected| expected.hex() != found)?;
        Some(Error::Mismatch {
            path: self.file.path.clone(),
            expected: Digest::clone(expected),
            found,
            promised_by: self.shared.promised_by,
        })
    }

    fn forget(&self) -> Result<(), Error> {
        *self.etag.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.part.reset()
    }

    /// Fetches what is missing. One piece shows whether the server knows ranges; then come the others.
    async fn pieces(self: &Arc<Self>, tasks: &mut JoinSet<Result<(), Stop>>) -> Result<(), Stop> {
        let mut missing = (0..self.part.pieces()).filter(|index| {
            let (start, end) = self.part.range(*index);
            self.part.done(*index) < end - start
        });
        let Some(first) = missing.next() else { return Ok(()) };
        let rest: Vec<_> = missing.collect();
        let spawn = |tasks: &mut JoinSet<_>, index| {
            let transfer = Arc::clone(self);
            tasks.spawn(async move { transfer.piece(index).await });
        };
        spawn(tasks, first);
        let mut rest = Some(rest);
        loop {
            tokio::select! {
                () = self.first_answer.notified(), if rest.is_some() => {
                    rest.take().into_iter().flatten().for_each(|index| spawn(tasks, index));
                }
                ended = tasks.join_next() => match ended {
                    Some(Ok(ended)) => {
                        ended?;
                        rest.take().into_iter().flatten().for_each(|index| spawn(tasks, index));
                    }
                    Some(Err(error)) => return Err(Error::Setup(error.to_string()).into()),
                    None => return Ok(()),
                },
            }
        }
    }

    async fn piece(&self, index: usize) -> Result<(), Stop> {
        let mut patience = Patience::new(self.shared.client.tuning());
        loop {
            let before = self.part.done(index);
            let permit = self.shared.connections.acquire().await;
            let stop = match self.attempt(index).await {
                Ok(()) => return Ok(()),
                Err(stop) => stop,
            };
            drop(permit);
            if self.part.done(index) > before {
                patience.renew();
            }
            match stop {
                Stop::Failed(error) => patience.after(error, &self.file.path).await?,
                stop => return Err(stop),
            }
        }
    }

    /// Goes on with a piece until it is there, or something happens.
    async fn attempt(&self, index: usize) -> Result<(), Stop> {
        let (start, end) = self.part.range(index);
        let from = start + self.part.done(index);
        if from == end && end > start {
            return Ok(());
        }
        let is_all = from == 0 && Some(end) == self.file.bytes;
        let range = (!is_all && (from > 0 || self.file.bytes.is_some())).then_some(from..end);
        let tag = self.etag.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shared = &self.shared;
        let asked_range = range.is_some();
        let wanted = Wanted { pin: &shared.pin, file: &self.file, range, etag: tag.as_deref() };
        let mut body = shared.remote.open(&shared.client, wanted).await?;
        {
            let mut tag = self.etag.lock().unwrap_or_else(PoisonError::into_inner);
            match (&*tag, &body.etag) {
                (Some(before), Some(now)) if before != now => return Err(Stop::Changed),
                (None, Some(now)) => *tag = Some(now.clone()),
                _ => {}
            }
        }
        if asked_range && !body.is_part {
            return Err(Stop::NoRanges);
        }
        if body.start != from {
            let reason = format!("bytes from {}, asked for from {from}", body.start);
            return Err(Error::Answer { address: body.address, reason }.into());
        }
        if let (Some(expected), Some(found)) = (self.file.bytes, body.total)
            && expected != found
        {
            return Err(self.size(&body.address, found).into());
        }
        if asked_range && !self.has_ranges.swap(true, Ordering::Relaxed) {
            self.first_answer.notify_one();
        }
        let stall = shared.client.tuning().stall_timeout;
        let (address, total) = (body.address.clone(), body.total);
        loop {
            let left = end - start - self.part.done(index);
            let cut = || Error::Cut {
                address: address.clone(),
                received: self.part.done(index).saturating_sub(from - start),
                expected: if end == u64::MAX { total.unwrap_or(0) } else { end - from },
            };
            match next_chunk(&mut body, stall).await? {
                Some(Ok(chunk)) if chunk.len() as u64 > left => {
                    return Err(self.size(&address, self.part.range(index).1 + 1).into());
                }
                Some(Ok(chunk)) => self.part.write(index, &chunk)?,
                None if left == 0 || (end == u64::MAX && total.is_none_or(|total| total == self.part.done(0))) => {
                    return Ok(());
                }
                None => return Err(cut().into()),
                // All is there; that the connection did not end well does not matter.
                Some(Err(_)) if left == 0 => return Ok(()),
                Some(Err(_)) => return Err(cut().into()),
            }
        }
    }

    fn size(&self, address: &str, found: u64) -> Error {
        let expected = self.file.bytes.unwrap_or_default();
        Error::Size { path: self.file.path.clone(), address: address.to_owned(), expected, found }
    }

    /// Fetches the file in one go, from its beginning, as often as it needs.
    async fn whole(&self) -> Result<(), Error> {
        let mut patience = Patience::new(self.shared.client.tuning());
        let mut furthest = 0;
        loop {
            let permit = self.shared.connections.acquire().await;
            let ended = self.attempt_whole().await;
            drop(permit);
            let Err(error) = ended else { return Ok(()) };
            let there = self.part.total_done();
            if there > furthest {
                furthest = there;
                patience.renew();
            }
            patience.after(error, &self.file.path).await?;
            self.part.reset()?;
        }
    }

    async fn attempt_whole(&self) -> Result<(), Error> {
        let shared = &self.shared;
        let wanted = Wanted { pin: &shared.pin, file: &self.file, range: None, etag: None };
        let mut body = shared.remote.open(&shared.client, wanted).await?;
        let bytes = self.file.bytes.unwrap_or(u64::MAX);
        if body.total.is_some_and(|total| total != bytes) {
            return Err(self.size(&body.address, body.total.unwrap_or_default()));
        }
        let (mut index, mut there) = (0, 0);
        while let Some(chunk) = next_chunk(&mut body, shared.client.tuning().stall_timeout).await? {
            let Ok(chunk) = chunk else { break };
            let mut chunk = &chunk[..];
            there += chunk.len() as u64;
            if there > bytes {
                return Err(self.size(&body.address, there));
            }
            while !chunk.is_empty() {
                let (start, end) = self.part.range(index);
                let left = usize::try_from(end - start - self.part.done(index)).unwrap_or(usize::MAX);
                let (now, later) = chunk.split_at(left.min(chunk.len()));
                self.part.write(index, now)?;
                chunk = later;
                index += usize::from(now.len() == left);
            }
        }
        if there == bytes {
            return Ok(());
        }
        Err(Error::Cut { address: body.address, received: there, expected: bytes })
    }

    /// Hashes the file from its beginning, waiting at gaps until they are closed. Without a digest to compare with, it
    /// only waits.
    async fn hash(self: Arc<Self>) -> Result<String, Error> {
        let (bytes, is_there) = match self.file.bytes {
            Some(bytes) => (bytes, false),
            // Of unknown length: this is asked for when it is complete.
            None => (self.part.data().metadata().map_err(Error::read(self.part.path()))?.len(), true),
        };
        let mut hasher = Hasher::new(self.file.digest.as_ref(), bytes);
        let mut at = 0;
        while at < bytes {
            let upto = if is_there { bytes } else { self.part.prefix() };
            if upto < bytes && upto - at < HASHED_BYTES {
                self.part.advanced.notified().await;
                continue;
            }
            let part = Arc::clone(&self.part);
            let hashed = tokio::task::spawn_blocking(move || hash_range(hasher, &part, at, upto)).await;
            hasher = hashed.map_err(|error| Error::Setup(error.to_string()))??;
            at = upto;
        }
        Ok(hasher.finish())
    }
}

/// Hashes bytes that are there.
fn hash_range(mut hasher: Hasher, part: &Part, from: u64, upto: u64) -> Result<Hasher, Error> {
    if matches!(hasher, Hasher::Nothing) {
        return Ok(hasher);
    }
    let mut buffer = vec![0; usize::try_from((upto - from).min(1 << 20)).unwrap_or(1 << 20)];
    let mut at = from;
    while at < upto {
        let count = usize::try_from(upto - at).unwrap_or(usize::MAX).min(buffer.len());
        part.data().read_exact_at(&mut buffer[..count], at).map_err(Error::read(part.path()))?;
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
    Ok(hasher)
}

/// The hashing of a file, which ends when nobody waits for it any more.
struct Hashing(JoinHandle<Result<String, Error>>);

impl Hashing {
    async fn end(mut self) -> Result<String, Error> {
        (&mut self.0).await.map_err(|error| Error::Setup(error.to_string()))?
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.0.abort();
    }
}
