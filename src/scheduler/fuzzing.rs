//! The way of a worker's output to the reports, without a worker. For the fuzz targets and their tests only.

use super::{
    engine::hearing::{noise, told},
    heard::{Heard, Passed},
    lines::Lines,
    process::{PIECE_BYTES, Said, understand},
};
use crate::report::{Event, Sink};

/// Tells `sinks` what a run would of a worker of the stage `stage` that writes `output`.
pub(crate) fn listen(output: &[u8], sinks: &mut [&mut dyn Sink]) {
    let stage = || "stage".to_owned();
    let mut tell = |event: &Event| sinks.iter_mut().for_each(|sink| sink.event(event));
    tell(&Event::StageStarted { stage: stage(), kind: "kind".to_owned(), reasons: Vec::new(), log: "log".into() });
    let mut lines = Lines::default();
    let mut kept = Heard::default();
    let mut heard = |line: &[u8]| match understand(line) {
        Said::Event(word) => {
            if let (Passed::To(word) | Passed::ToLog(word), _) = kept.note(word) {
                told(stage(), word).iter().for_each(&mut tell);
            }
        }
        Said::Noise(line) => tell(&noise(stage(), line)),
        Said::Raw(_) => {}
    };
    output.chunks(PIECE_BYTES).for_each(|piece| lines.take(piece, &mut heard));
    lines.end(heard);
    tell(&Event::StageFinished { stage: stage(), seconds: 0.0, outputs: Default::default() });
}
