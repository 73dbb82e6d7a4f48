//! The part of the terminal that is redrawn: one line for each running stage, below what was printed for good.

use std::{collections::HashMap, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar has this many steps, whatever the stage counts.
const BAR_STEPS: u64 = 1000;

/// Keeps the spinner and the clock moving while a stage is silent.
const TICK: Duration = Duration::from_millis(120);

/// What is cut off at the right edge, and where wide (Chinese, Japanese, Korean) characters end, is indicatif's work.
const WITHOUT_BAR: &str = "{spinner:.cyan} {prefix} {elapsed:>4}  {wide_msg}";
const WITH_BAR: &str = "{spinner:.cyan} {prefix} {elapsed:>4}  {bar:12.cyan/dim} {wide_msg}";

/// The live lines on standard error.
pub(super) struct Live {
    screen: MultiProgress,
    lines: HashMap<String, Line>,
}

struct Line {
    bar: ProgressBar,
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
        let bar = self.screen.add(ProgressBar::new(BAR_STEPS).with_style(style(WITHOUT_BAR)).with_prefix(label));
        bar.enable_steady_tick(TICK);
        self.lines.insert(stage.to_owned(), Line { bar, has_bar: false });
    }

    pub(super) fn update(&mut self, stage: &str, message: String, fraction: Option<f64>) {
        let Some(line) = self.lines.get_mut(stage) else { return };
        if fraction.is_some() != line.has_bar {
            line.has_bar = fraction.is_some();
            line.bar.set_style(style(if line.has_bar { WITH_BAR } else { WITHOUT_BAR }));
        }
        if let Some(fraction) = fraction {
            line.bar.set_position((fraction * BAR_STEPS as f64) as u64);
        }
        line.bar.set_message(message);
    }

    pub(super) fn finish(&mut self, stage: &str) {
        if let Some(line) = self.lines.remove(stage) {
            line.bar.finish_and_clear();
            self.screen.remove(&line.bar);
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
