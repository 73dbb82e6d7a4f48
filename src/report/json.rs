//! Events for machines: one JSON object a line, in the order in which they happen.

use std::io::Write;

use super::{Event, Sink};

/// Writes each [`Event`] as a line of JSON, at once.
pub struct JsonLines<W> {
    output: W,
}

impl<W: Write> JsonLines<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output }
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn event(&mut self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        // Nobody reads any more: the run goes on all the same, its record tells the rest.
        let _ = self.output.write_all(&line).and_then(|()| self.output.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_one_line_that_names_itself() {
        let mut written = Vec::new();
        let mut sink = JsonLines::new(&mut written);
        sink.event(&Event::StageHit { stage: "语料".to_owned() });
        sink.event(&Event::StageLog {
            stage: "a".to_owned(),
            level: pipe_stage::Level::Warn,
            message: "two\nlines".to_owned(),
        });
        assert_eq!(
            String::from_utf8_lossy(&written),
            "{\"event\":\"stage_hit\",\"stage\":\"语料\"}\n\
             {\"event\":\"stage_log\",\"stage\":\"a\",\"level\":\"warn\",\"message\":\"two\\nlines\"}\n"
        );
    }
}
