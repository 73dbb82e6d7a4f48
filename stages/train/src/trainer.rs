//! The loop: one update after the other, evaluations and checkpoints between them.

use std::{collections::BTreeMap, time::Instant};

use pipe_nn::{
    LossScale, Model, PackedBatch, PendingLoss, Sample,
    checkpoint::{Checkpoint, Checkpoints, Progress},
    optimizer::{AdamW, PendingNorm},
    passes::passes,
    runtime::Runtime,
    schedule::Schedule,
};
use pipe_samples::{Sampler, Samples};
use pipe_stage::{Context, Failure};

use crate::{
    Config,
    error::Error,
    evaluation::{Evaluation, Outcome},
    record::{METRICS_FILE, ScaleRecord, UpdateRecord, from_lines, to_lines},
};

/// Everything that a run needs.
pub(crate) struct Trainer<'a> {
    pub(crate) config: &'a Config,
    pub(crate) context: &'a Context,
    pub(crate) runtime: Runtime,
    pub(crate) model: Model,
    pub(crate) optimizer: AdamW,
    pub(crate) schedule: Schedule,
    pub(crate) sampler: Sampler,
    pub(crate) samples: &'a Samples,
    pub(crate) evaluation: Evaluation<'a>,
    pub(crate) saving: Saving,
    /// Updates to do.
    pub(crate) total: u64,
    /// Of every update so far.
    pub(crate) history: Vec<UpdateRecord>,
    pub(crate) in_flight: Option<Update>,
    pub(crate) speed: Speed,
}

/// An update that the device may still be computing.
pub(crate) struct Update {
    /// Counted from 1.
    step: u64,
    rows: Vec<u32>,
    passes: Vec<PackedBatch>,
    labels: u64,
    tokens: u64,
    learning_rate: f64,
    losses: Vec<PendingLoss>,
    norm: PendingNorm,
    /// Of this update.
    scale: Option<LossScale>,
    started: Instant,
}

/// Where checkpoints go, and what they say of the machine.
pub(crate) struct Saving {
    pub(crate) checkpoints: Checkpoints,
    /// Threads that compute.
    pub(crate) threads: usize,
}

impl Trainer<'_> {
    /// Goes on where a checkpoint was saved.
    pub(crate) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        checkpoint.restore(self.model.trained_mut(), &mut self.optimizer)?;
        let files = &checkpoint.progress.files;
        let metrics = files.get(METRICS_FILE).map_or(&[][..], Vec::as_slice);
        self.history = from_lines(METRICS_FILE, metrics)?;
        self.evaluation.restore(files)
    }

    /// Trains to the end, or until it is asked to stop; then what was done is saved.
    ///
    /// The device works on an update while the host prepares the next: what an update found is read one update later.
    pub(crate) fn train(&mut self) -> Result<(), Failure> {
        let mut saved = self.optimizer.updates();
        self.context.progress("steps", self.optimizer.updates(), Some(self.total));
        loop {
            let done = self.optimizer.updates();
            let stops = self.context.cancelled() && done < self.total;
            if done == self.total || stops || self.evaluation.is_due(done, self.total) {
                self.settle().map_err(Error::into_failure)?;
            }
            let outcome = self.evaluation.run_if_due(&self.model, done, self.total, self.context);
            if outcome.map_err(Error::into_failure)? == Outcome::Stopped || stops {
                if saved != done {
                    self.save().map_err(Error::into_failure)?;
                }
                return Err(Failure::cancelled());
            }
            if done == self.total {
                break;
            }
            let update = self.enqueue().map_err(Error::into_failure)?;
            if let Some(earlier) = self.in_flight.replace(update) {
                self.finish(earlier).map_err(Error::into_failure)?;
            }
            if !self.runtime.device().is_cuda() || self.config.fp16 {
                // The call has come back with the work done. In float16 the next update must know the scale.
                self.settle().map_err(Error::into_failure)?;
            }
            let done = self.optimizer.updates();
            if done.is_multiple_of(self.config.save_steps) && done < self.total {
                self.settle().map_err(Error::into_failure)?;
                self.save().map_err(Error::into_failure)?;
                saved = done;
            }
        }
        Ok(())
    }

    /// Gives the device one optimizer update over all samples of a window, in as many passes as the token budget asks for.
    fn enqueue(&mut self) -> Result<Update, Error> {
        let started = Instant::now();
        let update = self.optimizer.updates();
        let step = update + 1;
        let rows = self.sampler.rows(update).to_vec();
        let samples: Vec<Sample<'_>> = rows
            .iter()
            .zip(0..)
            .filter_map(|(row, place)| {
                let sample = self.samples.get(*row as usize)?;
                Some(Sample { ids: sample.input_ids, labels: sample.labels, place, row: u64::from(*row) })
            })
            .collect();
        let tokens = samples.iter().map(|sample| sample.ids.len() as u64).sum();
        let passes = passes(samples.iter().copied(), self.config.max_tokens_per_pass).collect::<Result<Vec<_>, _>>()?;
        let labels: u64 = passes.iter().map(PackedBatch::labels).sum();
        if labels == 0 {
            // No loss and no gradient. It is still an update: the schedule, the running means and decay go on.
            self.context.warn(format!("step {step}: none of its samples has a label; rows {}", list(&rows)));
        }
        // An update that was left out does not move the schedule on.
        let learning_rate = self.schedule.learning_rate(self.optimizer.applied());
        let scale = self.optimizer.loss_scale();
        let (losses, norm) = self.compute(&passes, labels, learning_rate).map_err(|source| {
            let tokens = passes.iter().map(PackedBatch::tokens).max().unwrap_or(0);
            if source.is_out_of_memory() { Error::OutOfMemory { step, tokens, source } } else { source.into() }
        })?;
        Ok(Update { step, rows, passes, labels, tokens, learning_rate, losses, norm, scale, started })
    }

    /// Forward, backward and the update of the weights.
    fn compute(
        &mut self,
        passes: &[PackedBatch],
        labels: u64,
        learning_rate: f64,
    ) -> Result<(Vec<PendingLoss>, PendingNorm), pipe_nn::Error> {
        let update = self.optimizer.updates();
        self.model.zero_grad()?;
        self.model.set_loss_scale(self.optimizer.loss_scale().map_or(1.0, |scale| scale.value()));
        let losses =
            passes.iter().map(|pass| self.model.enqueue(pass, labels, update)).collect::<Result<Vec<_>, _>>()?;
        Ok((losses, self.optimizer.update(self.model.trained_mut(), learning_rate)?))
    }

    /// Reads what the update in flight found, if there is one.
    fn settle(&mut self) -> Result<(), Error> {
        match self.in_flight.take() {
            Some(update) => self.finish(update),
            None => Ok(()),
        }
    }

    /// Waits for an update and writes down what it found. A gradient that is not finite has not reached the weights, and
    /// neither has that of the update behind it. In float16 that is an update left out, and no reason to stop until the
    /// scale is so small that it cannot be what made the numbers too large.
    fn finish(&mut self, update: Update) -> Result<(), Error> {
        let Update { step, rows, passes, labels, tokens, learning_rate, losses, norm, scale, started } = update;
        let mut sum_nll = 0.0;
        for loss in losses {
            sum_nll += loss.read()?.sum_nll;
        }
        let loss = sum_nll / labels.max(1) as f64;
        let grad_norm = norm.read()?;
        let loss_scale = scale.map(|scale| ScaleRecord {
            scale: scale.value(),
            good_updates: scale.good_updates(),
            skipped: !grad_norm.is_finite(),
        });
        let left_out = loss_scale.is_some_and(|record| record.skipped && record.scale >= 1.0);
        for (quantity, value) in [("loss", loss), ("norm of the gradient", grad_norm)] {
            if !value.is_finite() && !left_out {
                let findings: Vec<String> =
                    passes.iter().map(|pass| self.model.diagnose(pass, labels, step - 1)).collect();
                let (rows, diagnosis) = (list(&rows), findings.join("; "));
                return Err(Error::NotFinite { step, quantity, value, rows, diagnosis });
            }
        }
        if left_out {
            let scale = self.optimizer.loss_scale().unwrap_or_default().value();
            self.context.info(format!(
                "step {step}: gradients left the range of float16, the update is left out; the loss scale is {scale} now"
            ));
        }
        self.speed.add(tokens, started);
        self.history.push(UpdateRecord { step, loss, grad_norm, learning_rate, tokens, loss_scale });
        self.report(step);
        Ok(())
    }

    /// Progress at every update; the mean loss since the last report, speed and memory every `logging_steps`.
    fn report(&self, done: u64) {
        self.context.progress("steps", done, Some(self.total));
        let window = match done % self.config.logging_steps {
            0 => self.config.logging_steps,
            rest if done == self.total => rest,
            _ => return,
        };
        let window = usize::try_from(window).unwrap_or(usize::MAX).min(self.history.len());
        let recent = &self.history[self.history.len() - window..];
        let Some(last) = recent.last() else { return };
        // The loss of an update that was left out may be none.
        let losses: Vec<f64> = recent.iter().map(|record| record.loss).filter(|loss| loss.is_finite()).collect();
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        let values = [("loss", loss), ("grad_norm", last.grad_norm), ("learning_rate", last.learning_rate)];
        let scale = last.loss_scale.map(|record| ("loss_scale", record.scale));
        let memory = if self.config.monitor_gpu_memory { self.runtime.memory() } else { Vec::new() };
        self.context.metric(done, values.into_iter().chain(scale).chain(self.speed.figures()).chain(memory));
    }

    fn save(&self) -> Result<(), Error> {
        let mut files = BTreeMap::new();
        let lines = to_lines(&self.history).map_err(|source| Error::Record { file: METRICS_FILE, source })?;
        files.insert(METRICS_FILE.to_owned(), lines);
        files.extend(self.evaluation.files()?);
        let progress = Progress {
            updates: self.optimizer.updates(),
            threads: self.saving.threads,
            device: self.runtime.device_kind().to_owned(),
            files,
        };
        Ok(self.saving.checkpoints.save(&progress, self.model.trained(), &self.optimizer)?)
    }
}

/// How fast the updates are, without the first, which warms up.
#[derive(Default)]
pub(crate) struct Speed {
    /// When the last update was finished.
    finished: Option<Instant>,
    updates: u64,
    tokens: u64,
    seconds: f64,
}

impl Speed {
    /// Counts an update that is finished now: from when it was begun, or from when the one before was finished.
    fn add(&mut self, tokens: u64, started: Instant) {
        let now = Instant::now();
        let Some(earlier) = self.finished.replace(now) else { return };
        self.updates += 1;
        self.tokens += tokens;
        self.seconds += (now - earlier.max(started)).as_secs_f64();
    }

    pub(crate) fn figures(&self) -> Vec<(&'static str, f64)> {
        if self.updates == 0 || self.seconds <= 0.0 {
            return Vec::new();
        }
        let (updates, tokens) = (self.updates as f64, self.tokens as f64);
        vec![("seconds_per_update", self.seconds / updates), ("tokens_per_second", tokens / self.seconds)]
    }
}

fn list(rows: &[u32]) -> String {
    rows.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
