//! Events for people: lines that stay, and in a terminal a live line for each running stage.
//!
//! A run in which nothing was to do is one line. Without a terminal, progress is a plain line every now and then.

use std::{
    collections::HashMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use anstream::{AutoStream, ColorChoice};
use indexmap::IndexMap;
use owo_colors::{OwoColorize, Style};
use pipe_stage::{FailureClass, Level};

use super::{
    Event, Outcome, Sink, Skipped, StageFailure, Summary, format,
    live::{Live, REDRAW_INTERVAL},
    meter::Meter,
};
use crate::{pins::FILE_NAME, plan::short_pin};

/// Without a terminal, this long passes between two progress lines of a stage.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// As many measurements fit beside the progress.
const METRICS_SHOWN: usize = 3;

/// What the name of a size ends with.
const SIZE: &str = "_bytes";

/// Of the stages that were skipped for the same failure, as many are named.
const SKIPPED_SHOWN: usize = 8;

/// Writes a run as text.
pub struct Human {
    output: Output,
    color: bool,
    header: Option<String>,
    /// Hits that nobody needs to hear of unless something runs.
    silent_hits: Vec<String>,
    width: usize,
    running: HashMap<String, Running>,
}

enum Output {
    Plain(Box<dyn Write + Send>),
    Live(Live),
}

struct Running {
    kind: String,
    meter: Option<Meter>,
    /// The newest of each name.
    metrics: IndexMap<String, f64>,
    shown: Instant,
}

impl Human {
    /// Writes to standard error: with live lines and colour if that is a terminal (and `NO_COLOR` is not set).
    pub fn stderr() -> Self {
        let stderr = std::io::stderr();
        let color = AutoStream::choice(&stderr) != ColorChoice::Never;
        let live = stderr.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let output = if live { Output::Live(Live::stderr()) } else { Output::Plain(Box::new(stderr)) };
        Self::with(output, color)
    }

    /// Writes plain lines to `output`.
    pub fn plain(output: impl Write + Send + 'static) -> Self {
        Self::with(Output::Plain(Box::new(output)), false)
    }

    fn with(output: Output, color: bool) -> Self {
        Self { output, color, header: None, silent_hits: Vec::new(), width: 0, running: HashMap::new() }
    }

    fn print(&mut self, text: &str) {
        match &mut self.output {
            // Nobody reads any more: the run goes on all the same.
            Output::Plain(output) => drop(writeln!(output, "{text}").and_then(|()| output.flush())),
            Output::Live(live) => live.print(text),
        }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.color { text.style(style).to_string() } else { text.to_owned() }
    }

    fn stage_line(&mut self, mark: &str, style: Style, stage: &str, text: &str) {
        let mark = self.paint(mark, style);
        let line = format!("{mark} {}  {text}", format::padded(stage, self.width));
        self.print(&line);
    }

    /// What was held back in case that nothing would run.
    fn flush(&mut self) {
        if let Some(header) = self.header.take() {
            self.print(&header);
        }
        for stage in std::mem::take(&mut self.silent_hits) {
            self.hit(&stage);
        }
    }

    fn hit(&mut self, stage: &str) {
        let text = self.paint("up to date", Style::new().dimmed());
        self.stage_line("=", Style::new().dimmed(), stage, &text);
    }

    fn started(&mut self, stage: &str, kind: &str, reasons: &[String]) {
        self.flush();
        let reasons = self.paint(&format::printable(&reasons.join("; ")), Style::new().dimmed());
        self.stage_line(">", Style::new().cyan(), stage, &format!("{kind}: {reasons}"));
        let running = Running { kind: kind.to_owned(), meter: None, metrics: IndexMap::new(), shown: Instant::now() };
        self.running.insert(stage.to_owned(), running);
        let label = format::padded(stage, self.width);
        if let Output::Live(live) = &mut self.output {
            live.start(stage, label);
        }
    }

    fn progress(&mut self, stage: &str, unit: &str, done: u64, total: Option<u64>) {
        let (unit, now) = (format::printable(unit), Instant::now());
        let Some(running) = self.running.get_mut(stage) else { return };
        match &mut running.meter {
            Some(meter) => meter.advance(&unit, done, total, now),
            none => *none = Some(Meter::new(&unit, done, total, now)),
        }
        self.refresh(stage, now);
    }

    fn metric(&mut self, stage: &str, values: &IndexMap<String, f64>) {
        let Some(running) = self.running.get_mut(stage) else { return };
        running.metrics.extend(values.iter().map(|(name, value)| (format::printable(name), *value)));
        self.refresh(stage, Instant::now());
    }

    fn refresh(&mut self, stage: &str, now: Instant) {
        let Some(running) = self.running.get_mut(stage) else { return };
        let text = running.text();
        if let Output::Live(live) = &mut self.output {
            live.update(stage, text, running.meter.as_ref().and_then(Meter::fraction));
        } else if now.duration_since(running.shown) >= PLAIN_INTERVAL {
            running.shown = now;
            self.stage_line("-", Style::new(), stage, &text);
        }
    }

    fn ended(&mut self, stage: &str) -> Option<Running> {
        if let Output::Live(live) = &mut self.output {
            live.finish(stage);
        }
        self.running.remove(stage)
    }

    fn finished(&mut self, stage: &str, seconds: f64) {
        let running = self.ended(stage);
        let mut text = format!("done in {}", format_seconds(seconds));
        if let Some(meter) = running.as_ref().and_then(|running| running.meter.as_ref()) {
            text.push_str(&format!(" · {}", format::amount(meter.done, &meter.unit)));
        }
        let peaks = |running| Running::sizes(running, |name| name.ends_with("peak"));
        for metric in running.iter().flat_map(|running| running.metrics().chain(peaks(running))) {
            text.push_str(&format!(" · {metric}"));
        }
        self.stage_line("✓", Style::new().green(), stage, &text);
    }

    fn failed(&mut self, stage: &str, kind: &str, failure: &StageFailure, seconds: f64) {
        self.flush();
        self.ended(stage);
        if failure.class == FailureClass::Cancelled {
            self.stage_line("✗", Style::new().yellow(), stage, &format!("stopped after {}", format_seconds(seconds)));
            return;
        }
        let text = self.paint(&format!("failed after {}", format_seconds(seconds)), Style::new().red());
        self.stage_line("✗", Style::new().red(), stage, &text);
        if let (Some(log), false) = (&failure.log, failure.tail.is_empty()) {
            let title = self.paint(&format!("  last lines of {}:", log.display()), Style::new().dimmed());
            self.print(&title);
            for line in &failure.tail {
                let line = self.paint(&format!("  | {line}"), Style::new().dimmed());
                self.print(&line);
            }
        }
        let error = self.paint("error:", Style::new().red().bold());
        let mut chain = failure.chain.iter().map(|message| format::printable_lines(message));
        let first = chain.next().unwrap_or_else(|| "no reason given".to_owned());
        self.print(&format!("{error} stage `{stage}` ({kind}): {first}"));
        for cause in chain {
            self.print(&format!("  caused by: {cause}"));
        }
        if let Some(hint) = &failure.hint {
            let help = self.paint("help:", Style::new().cyan());
            self.print(&format!("  {help} {}", format::printable_lines(hint)));
        }
    }

    fn run_finished(&mut self, summary: &Summary) {
        let Summary { outcome, ran, hits, unfinished, seconds, .. } = *summary;
        let elapsed = format_seconds(seconds);
        if outcome == Outcome::Done && ran == 0 {
            (self.header, self.silent_hits) = (None, Vec::new());
            let word = self.paint("up to date:", Style::new().green());
            self.print(&format!("{word} {} ({elapsed})", format::plural(hits, "stage")));
            return;
        }
        self.flush();
        let (word, style) = match outcome {
            Outcome::Done => ("done:", Style::new().green().bold()),
            Outcome::Cancelled => ("stopped:", Style::new().yellow().bold()),
            Outcome::StageFailed | Outcome::EnvironmentLacks => ("failed:", Style::new().red().bold()),
        };
        let word = self.paint(word, style);
        let to_do = if unfinished == 0 { String::new() } else { format!(", {unfinished} to do") };
        self.print(&format!("{word} {} run, {hits} up to date{to_do} ({elapsed})", format::plural(ran, "stage")));
        // One failure has just been told.
        if summary.failed.len() > 1 {
            self.print(&format!("  failed: {}", summary.failed.join(", ")));
        }
        for line in skipped_lines(&summary.skipped) {
            self.print(&line);
        }
        if let Some(command) = &summary.go_on {
            let command = self.paint(command, Style::new().bold());
            self.print(&format!("to go on from here: {command}"));
        }
    }
}

impl Running {
    /// The losses first: they are what one watches.
    fn metrics(&self) -> impl Iterator<Item = String> {
        let others = self.metrics.iter().filter(|(name, _)| !name.ends_with(SIZE));
        let (losses, others): (Vec<_>, Vec<_>) = others.partition(|(name, _)| name.ends_with("loss"));
        let shown = losses.into_iter().chain(others).take(METRICS_SHOWN);
        shown.map(|(name, value)| format!("{name} {}", format::named(name, *value)))
    }

    /// Memory, of what `wanted` says of its name, which stands at the end: a narrow terminal cuts it off.
    fn sizes(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
        let sizes = self.metrics.iter().filter_map(|(name, value)| Some((name.strip_suffix(SIZE)?, *value)));
        sizes
            .filter(move |(name, _)| wanted(name))
            .map(|(name, value)| format!("{name} {}", format::named(SIZE, value)))
    }

    fn text(&self) -> String {
        let mut parts = vec![];
        if let Some(meter) = &self.meter {
            parts.push(match meter.total {
                Some(total) if meter.unit == "bytes" => {
                    format!("{} of {}", format::bytes(meter.done), format::bytes(total))
                }
                Some(total) => {
                    format!("{}/{} {}", format::count(meter.done), format::count(total), meter.unit)
                }
                None => format::amount(meter.done, &meter.unit),
            });
            parts.extend(meter.rate().map(|rate| format::rate(rate, &meter.unit)));
            parts.extend(meter.remaining().map(|left| format!("{} left", format::duration(left))));
        }
        parts.extend(self.metrics());
        parts.extend(self.sizes(|name| !name.ends_with("peak")));
        if parts.is_empty() { self.kind.clone() } else { parts.join(" · ") }
    }
}

impl Sink for Human {
    fn event(&mut self, event: &Event) {
        match event {
            Event::CacheBusy { holder } => {
                let holder = holder.as_deref().unwrap_or("another process");
                self.print(&format!("waiting for {holder}, which cleans the cache up (pipe cache gc)"));
            }
            Event::Pinning { stage, name } => {
                self.print(&format!("{}: asks what {} is", format::printable(stage), format::printable(name)));
            }
            Event::Pinned { stage, name, from, to } => {
                let (name, to) = (format::printable(name), format::printable(to));
                let told = match from.as_deref().map(format::printable) {
                    None => format!("{name} is {}", short_pin(&to)),
                    Some(from) if from == to => format!("{name} is still {}", short_pin(&to)),
                    Some(from) => format!("{name} moved from {} to {}", short_pin(&from), short_pin(&to)),
                };
                self.print(&format!("{}: {told}, noted in {FILE_NAME}", format::printable(stage)));
            }
            Event::RunStarted { run, pipeline, stages } => {
                self.width = stages.iter().map(|stage| format::width(stage)).max().unwrap_or(0);
                let name = self.paint(&format::printable(pipeline), Style::new().bold());
                self.header = Some(format!("{name}: {}, run {run}", format::plural(stages.len(), "stage")));
            }
            Event::StageHit { stage } if self.header.is_some() => self.silent_hits.push(stage.clone()),
            Event::StageHit { stage } => self.hit(stage),
            Event::StageWaiting { stage, holder } => {
                self.flush();
                let holder = holder.as_deref().unwrap_or("another run");
                self.stage_line(
                    "~",
                    Style::new().yellow(),
                    stage,
                    &format!("waits for {holder}, which makes the same"),
                );
            }
            Event::StageWaitingForGpu { stage, gpu, user } => {
                self.flush();
                let user = user.as_deref().unwrap_or("another `pipe` of this machine");
                self.stage_line("~", Style::new().yellow(), stage, &format!("waits for GPU {gpu}, held by {user}"));
            }
            Event::StageStarted { stage, kind, reasons, .. } => self.started(stage, kind, reasons),
            Event::StageProgress { stage, unit, done, total } => self.progress(stage, unit, *done, *total),
            Event::StageMetric { stage, values, .. } => self.metric(stage, values),
            Event::StageFigure { .. } => {} // `pipe log` and `pipe runs` show figures
            Event::StageLog { stage, level: Level::Info, message } => {
                self.stage_line("-", Style::new(), stage, &format::printable(message));
            }
            Event::StageLog { stage, level: Level::Warn, message } => {
                let warning = self.paint("warning:", Style::new().yellow());
                self.stage_line("-", Style::new(), stage, &format!("{warning} {}", format::printable(message)));
            }
            Event::StageFinished { stage, seconds, .. } => self.finished(stage, *seconds),
            Event::StageRetrying { stage, attempt, retries, failure, seconds, delay_seconds } => {
                self.ended(stage);
                let (reason, seconds) = (format::printable(&failure.chain.join(": ")), format_seconds(*seconds));
                let attempts = u64::from(*retries) + 1;
                let text = format!("attempt {attempt} of {attempts} failed after {seconds}: {reason}");
                self.stage_line("!", Style::new().yellow(), stage, &text);
                let text = format!("again in {}", format_seconds(*delay_seconds));
                self.stage_line("!", Style::new().yellow(), stage, &text);
            }
            Event::StageSkipped(_) => {} // the end of the run tells of them together
            Event::StageFailed { stage, kind, failure, seconds } => self.failed(stage, kind, failure, *seconds),
            Event::RunStopping { .. } => {
                self.flush();
                self.print("stopping: running stages save what they have; Ctrl-C again kills them");
            }
            Event::RunFinished(summary) => self.run_finished(summary),
        }
    }

    fn redraws_every(&self) -> Option<Duration> {
        matches!(self.output, Output::Live(_)).then_some(REDRAW_INTERVAL)
    }

    fn redraw(&mut self) {
        if let Output::Live(live) = &mut self.output {
            live.redraw();
        }
    }
}

/// A line for each failure, with the stages that were skipped for it.
fn skipped_lines(skipped: &[Skipped]) -> impl Iterator<Item = String> {
    let mut by_cause: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for skipped in skipped {
        by_cause.entry(&skipped.because).or_default().push(&skipped.stage);
    }
    by_cause.into_iter().map(|(cause, stages)| {
        let shown = stages[..stages.len().min(SKIPPED_SHOWN)].join(", ");
        let more = match stages.len().saturating_sub(SKIPPED_SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("  skipped because `{cause}` failed: {shown}{more}")
    })
}

fn format_seconds(seconds: f64) -> String {
    format::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests;
