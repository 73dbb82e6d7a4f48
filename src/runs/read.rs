//! Journals read back: a whole one to a [`RunRecord`], or only its first and last line to a [`RunSummary`].

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    AttemptRun, Counts, Measure, Outcome, RunId, RunRecord, RunStatus, StageRun,
    journal::{Header, Line, RunEnded, StageBegan, StageEnded, is_live},
};

/// A first line that is longer belongs to no journal, in bytes.
const LONGEST_HEADER: u64 = 1 << 20;

/// The last line is looked for in so many bytes at the end.
const TAIL_BYTES: u64 = 4096;

/// A run as a list shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// Its name.
    pub id: RunId,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The pipeline's file, absolute.
    pub file: PathBuf,
    /// How it ended.
    pub status: RunStatus,
    /// When it began.
    pub started: jiff::Timestamp,
    /// When it ended.
    pub ended: Option<jiff::Timestamp>,
    /// How long it took; `None` until it ends.
    pub duration_seconds: Option<f64>,
    /// How many of its stages ended in which way.
    pub counts: Counts,
    /// Its main result, if a stage that ran reported one.
    pub measure: Option<Measure>,
}

/// Reads a whole journal. `None` if there is none, or not even its first line can be read.
pub(super) fn record(path: &Path) -> Option<RunRecord> {
    let mut record = RunRecord::from_journal(&fs::read(path).ok()?)?;
    if record.ended.is_none() {
        if is_live(path) {
            record.status = RunStatus::Running;
        } else {
            // Nobody writes to it any more, but perhaps it was written to in between.
            record = RunRecord::from_journal(&fs::read(path).ok()?)?;
        }
    }
    Some(record)
}

impl RunRecord {
    /// Makes a record of a journal's bytes. A run without a last line counts as killed. Whatever is no line of a journal,
    /// as the cut end of a killed run, is passed over; `None` if the first line is none.
    pub fn from_journal(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let Ok(Line::RunBegan(header)) = serde_json::from_slice(lines.next()?) else { return None };
        let mut record = begun(header);
        for line in lines {
            match serde_json::from_slice(line) {
                Ok(line) => tell(&mut record, line),
                Err(error) => tracing::debug!(id = %record.id, %error, "a line of a journal is passed over"),
            }
        }
        Some(record)
    }
}

fn begun(header: Header) -> RunRecord {
    let Header { id, pipeline, file, started, version, set, asked, resolved, machine } = header;
    RunRecord {
        id,
        pipeline,
        file,
        set,
        asked,
        resolved,
        status: RunStatus::Killed,
        started,
        ended: None,
        duration_seconds: 0.0,
        version,
        machine,
        stages: indexmap::IndexMap::new(),
    }
}

fn tell(record: &mut RunRecord, line: Line) {
    match line {
        Line::RunBegan(_) => {}
        Line::Selected { stages } => {
            record.stages = stages.into_iter().map(|(name, kind)| (name, StageRun::skipped(&kind))).collect();
        }
        Line::StageHit { stage, key, outputs } => {
            let stage = entry(record, stage);
            (stage.outcome, stage.key, stage.outputs) = (Outcome::Hit, Some(key), outputs);
        }
        Line::StageBegan(StageBegan { stage, at, key, reasons, because, log }) => {
            let stage = entry(record, stage);
            stage.attempts.push(AttemptRun {
                started: at,
                outcome: None,
                duration_seconds: 0.0,
                log: log.clone(),
                error: Vec::new(),
            });
            (stage.outcome, stage.key, stage.log) = (Outcome::Unfinished, Some(key), Some(log));
            (stage.reasons, stage.because) = (reasons, because);
        }
        Line::AttemptFailed { stage, duration_seconds, error } => {
            end_attempt(entry(record, stage), Outcome::Failed, duration_seconds, &error);
        }
        Line::StageEnded(StageEnded {
            stage,
            outcome,
            duration_seconds,
            outputs,
            figures,
            metrics,
            environment,
            error,
        }) => {
            let stage = entry(record, stage);
            end_attempt(stage, outcome, duration_seconds, &error);
            (stage.outcome, stage.outputs, stage.duration_seconds) = (outcome, outputs, duration_seconds);
            (stage.figures, stage.metrics, stage.error) = (figures, metrics, error);
            stage.environment = environment.unwrap_or_default();
        }
        Line::RunEnded(RunEnded { status, at, duration_seconds, .. }) => {
            (record.status, record.ended, record.duration_seconds) = (status, Some(at), duration_seconds);
        }
    }
}

fn entry(record: &mut RunRecord, stage: String) -> &mut StageRun {
    record.stages.entry(stage).or_insert_with(|| StageRun::skipped("unknown"))
}

fn end_attempt(stage: &mut StageRun, outcome: Outcome, duration_seconds: f64, error: &[String]) {
    if let Some(attempt) = stage.attempts.last_mut().filter(|attempt| attempt.outcome.is_none()) {
        (attempt.outcome, attempt.duration_seconds) = (Some(outcome), duration_seconds);
        attempt.error = error.to_vec();
    }
}

/// Reads the first and the last line of a journal, and all of it only if the run did not come to writing the last.
pub(super) fn summary(path: &Path) -> Option<RunSummary> {
    if let Some((header, end)) = File::open(path).and_then(|file| ends(&file)).ok().flatten() {
        return Some(RunSummary {
            id: header.id,
            pipeline: header.pipeline,
            file: header.file,
            status: end.status,
            started: header.started,
            ended: Some(end.at),
            duration_seconds: Some(end.duration_seconds),
            counts: end.counts,
            measure: end.measure,
        });
    }
    let record = record(path)?;
    Some(RunSummary {
        counts: record.counts(),
        measure: Measure::of(&record),
        duration_seconds: record.ended.map(|_| record.duration_seconds),
        id: record.id,
        pipeline: record.pipeline,
        file: record.file,
        status: record.status,
        started: record.started,
        ended: record.ended,
    })
}

/// The record of a run if it was one of the pipeline of this name; of others only the first line is read.
pub(super) fn record_of(pipeline: &str, path: &Path) -> Option<RunRecord> {
    if header(path)?.pipeline == pipeline { record(path) } else { None }
}

/// The first line of a journal.
pub(super) fn header(path: &Path) -> Option<Header> {
    header_of(&File::open(path).ok()?).ok()?
}

fn header_of(file: &File) -> io::Result<Option<Header>> {
    let mut line = Vec::new();
    BufReader::new(file.take(LONGEST_HEADER)).read_until(b'\n', &mut line)?;
    Ok(match serde_json::from_slice(&line) {
        Ok(Line::RunBegan(header)) => Some(header),
        _ => None,
    })
}

fn ends(file: &File) -> io::Result<Option<(Header, RunEnded)>> {
    let Some(header) = header_of(file)? else { return Ok(None) };
    let mut file = file;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let last = tail.strip_suffix(b"\n").and_then(|tail| tail.rsplit(|byte| *byte == b'\n').next());
    Ok(match last.map(serde_json::from_slice) {
        Some(Ok(Line::RunEnded(end))) => Some((header, end)),
        _ => None,
    })
}
