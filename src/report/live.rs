//! The part of the terminal that is redrawn: one line for each running stage, below what was printed for good.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar has this many steps, whatever the stage counts.
const BAR_STEPS: u64 = 1000;

/// How often the lines are drawn anew, so that spinner and clock move while a stage is silent.
pub(super) const REDRAW_INTERVAL: Duration = Duration::from_millis(120);

/// What is cut off at the right edge, and where wide (Chinese, Japanese, Korean) characters end, is indicatif's work.
const WITHOUT_BAR: &str = "{spinner:.cyan} {prefix} {elapsed:>4}  {wide_msg}";
const WITH_BAR: &str = "{spinner:.cyan} {prefix} {elapsed:>4}  {bar:12.cyan/dim} {wide_msg}";

/// The live lines on standard error.
pub(super) struct Live {
    screen: MultiProgress,
    lines: HashMap<String, Line>,
}

/// The line of a stage. A stage that is done before the next redraw never has one on the screen.
struct Line {
    label: String,
    since: Instant,
    message: String,
    fraction: Option<f64>,
    bar: Option<ProgressBar>,
    has_bar: bool,
}

impl Live {
    pub(super) fn stderr() -> Self {
        Self { screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), lines: HashMap::new() }
    }

    /// Prints a line for good, above the live ones.
    pub(super) fn print(&self, text: &str) {
        // `println` of an empty text prints nothing at all.
        let _ = self.screen.println(if text.is_empty() { " " } else { text });
    }

    /// Begins the line of `stage`, which is shown under `label`.
    pub(super) fn start(&mut self, stage: &str, label: String) {
        let (since, message) = (Instant::now(), String::new());
        self.lines.insert(stage.to_owned(), Line { label, since, message, fraction: None, bar: None, has_bar: false });
    }

    /// Changes what the line says; it is drawn with the next redraw.
    pub(super) fn update(&mut self, stage: &str, message: String, fraction: Option<f64>) {
        if let Some(line) = self.lines.get_mut(stage) {
            (line.message, line.fraction) = (message, fraction);
        }
    }

    pub(super) fn redraw(&mut self) {
        let mut lines: Vec<&mut Line> =
            self.lines.values_mut().filter(|line| line.since.elapsed() >= REDRAW_INTERVAL).collect();
        lines.sort_by_key(|line| line.since);
        for line in lines {
            let bar = line.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(BAR_STEPS).with_style(style(WITHOUT_BAR)).with_prefix(line.label.clone());
                self.screen.add(bar.with_elapsed(line.since.elapsed()))
            });
            if line.fraction.is_some() != line.has_bar {
                line.has_bar = line.fraction.is_some();
                bar.set_style(style(if line.has_bar { WITH_BAR } else { WITHOUT_BAR }));
            }
            if let Some(fraction) = line.fraction {
                bar.set_position((fraction * BAR_STEPS as f64) as u64);
            }
            bar.set_message(line.message.clone());
            bar.tick();
        }
    }

    pub(super) fn finish(&mut self, stage: &str) {
        if let Some(bar) = self.lines.remove(stage).and_then(|line| line.bar) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file, and a test reads them.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        .progress_chars("━╸─")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        assert!(ProgressStyle::with_template(WITHOUT_BAR).is_ok());
        assert!(ProgressStyle::with_template(WITH_BAR).is_ok());
    }
}
