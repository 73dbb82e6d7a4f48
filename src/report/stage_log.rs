//! The log file of each stage: what its worker said, for `pipe log` and for whoever comes after a failure.
//!
//! What the worker writes to its standard error stands there beside its events. One hand writes both, so that a log has
//! a limit whatever a worker does.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    time::Instant,
};

use pipe_stage::Level;

use super::{Event, Sink, format, log_file::LogFile};

/// How much of a log's end is looked at for its last lines.
const TAIL_BYTES: u64 = 64 * 1024;

/// Writes the events of every stage into the stage's log file. Progress is not kept.
#[derive(Default)]
pub(crate) struct StageLogs {
    open: HashMap<String, (LogFile, Instant)>,
}

impl Sink for StageLogs {
    fn event(&mut self, event: &Event) {
        match event {
            Event::StageStarted { stage, kind, reasons, .. } => {
                self.line(stage, &format!("{stage} ({kind}): {}", reasons.join("; ")));
            }
            Event::StageMetric { stage, step, values } => {
                let mut line = format!("step {step}");
                for (name, value) in values {
                    let _ = write!(line, " {name}={value}");
                }
                self.line(stage, &line);
            }
            Event::StageFigure { stage, name, value } => self.line(stage, &format!("{name}: {value}")),
            Event::StageLog { stage, level: Level::Info, message } => self.line(stage, message),
            Event::StageLog { stage, level: Level::Warn, message } => self.line(stage, &format!("warning: {message}")),
            Event::StageFinished { stage, outputs, .. } => {
                for (output, digest) in outputs {
                    self.line(stage, &format!("output `{output}` is {digest}"));
                }
                self.open.remove(stage);
            }
            Event::StageFailed { stage, failure, .. } => {
                self.line(stage, &format!("failed: {}", failure.chain.join(": ")));
                self.open.remove(stage);
            }
            Event::StageRetrying { stage, failure, delay_seconds, .. } => {
                let reason = failure.chain.join(": ");
                self.line(stage, &format!("failed: {reason}; tried again in {delay_seconds} s"));
                self.open.remove(stage);
            }
            Event::CacheBusy { .. }
            | Event::Pinning { .. }
            | Event::Pinned { .. }
            | Event::RunStarted { .. }
            | Event::StageSkipped(_)
            | Event::StageHit { .. }
            | Event::StageWaiting { .. }
            | Event::StageWaitingForGpu { .. }
            | Event::StageProgress { .. }
            | Event::RunStopping { .. }
            | Event::RunFinished(_) => {}
        }
    }
}

// A full disk must not end the run here: the stage itself will say so.
impl StageLogs {
    /// Opens the log of an attempt at a stage, which is about to begin.
    pub(crate) fn begin(&mut self, stage: &str, log: &Path) -> io::Result<()> {
        self.open.insert(stage.to_owned(), (LogFile::create(log)?, Instant::now()));
        Ok(())
    }

    /// What a worker wrote to its standard error.
    pub(crate) fn raw(&mut self, stage: &str, bytes: &[u8]) {
        if let Some((file, _)) = self.open.get_mut(stage) {
            let _ = file.write(bytes);
        }
    }

    fn line(&mut self, stage: &str, text: &str) {
        if let Some((file, since)) = self.open.get_mut(stage) {
            let _ = file.line(&format!("[{:9.3}] {text}", since.elapsed().as_secs_f64()));
        }
    }
}

/// The last `lines` lines of a log, without escape sequences and without the first line, which says why the stage ran. A
/// log that cannot be read has none.
pub(crate) fn tail(log: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<(Vec<u8>, bool)> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok((bytes, start > 0))
    };
    let Ok((bytes, cut)) = read() else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let mut all: Vec<&str> = text.lines().collect();
    if !cut || all.len() > 1 {
        all.drain(..all.len().min(1)); // the first line, or the rest of a line
    }
    all.iter().skip(all.len().saturating_sub(lines)).map(|line| format::printable(line)).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_in_printable_text() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        let mut text: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
        text.push_str("\u{1b}[31m红色\u{1b}[0m\u{7}\r\nlast");
        std::fs::write(&log, text).unwrap();
        assert_eq!(tail(&log, 3), ["line 99999", "红色", "last"]);
        std::fs::write(&log, "[    0.000] a (command): never run\nlast\n").unwrap();
        assert_eq!(tail(&log, 3), ["last"]);
        std::fs::write(&log, "[    0.000] a (command): never run\n").unwrap();
        assert_eq!([tail(&log, 3), tail(&folder.path().join("none"), 3)], [Vec::<String>::new(), Vec::new()]);
    }

    #[test]
    fn metrics_and_messages_are_kept_and_progress_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        let stage = || "a".to_owned();
        let mut logs = StageLogs::default();
        logs.begin("a", &log).unwrap();
        logs.event(&Event::StageStarted {
            stage: stage(),
            kind: "train".to_owned(),
            reasons: vec!["never run".to_owned()],
            log: log.clone(),
        });
        logs.event(&Event::StageProgress { stage: stage(), unit: "steps".to_owned(), done: 1, total: None });
        logs.event(&Event::StageMetric { stage: stage(), step: 1, values: [("loss".to_owned(), 1.5)].into() });
        logs.raw("a", b"what it printed, unfinished");
        logs.event(&Event::StageLog { stage: stage(), level: Level::Warn, message: "odd".to_owned() });
        let written = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> =
            written.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text)).collect();
        let expected = ["a (train): never run", "step 1 loss=1.5", "what it printed, unfinished", "warning: odd"];
        assert_eq!(lines, expected);
    }
}
