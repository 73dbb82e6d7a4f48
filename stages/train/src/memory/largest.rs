//! The largest pass of a run: the order of samples is known, so all updates can be gone through.

use pipe_memory::{Pass, Run};
use pipe_samples::{SampleCountError, SampleRef, Sampler, Samples, passes};

use crate::Config;

/// The largest of everything over all updates and evaluations of a run, cut into passes as the trainer does.
///
/// # Errors
/// If there are too many samples, or none.
pub(crate) fn largest(
    config: &Config,
    samples: &Samples,
    held_out: Option<&Samples>,
    vocab_size: usize,
) -> Result<Run, SampleCountError> {
    let mut sampler = Sampler::new(samples.len(), config.samples_per_update(), config.order())?;
    let mut run = Run::default();
    let mut tokens = Distinct::new(vocab_size);
    for update in 0..config.updates(&sampler) {
        let rows = sampler.rows(update).iter().filter_map(|row| samples.get(*row as usize));
        let update: Vec<SampleRef<'_>> = rows.filter(|sample| sample.trained() > 0).collect();
        run.distinct_tokens = run.distinct_tokens.max(tokens.count(&update));
        run.update_labels = run.update_labels.max(update.iter().map(|sample| sample.trained() as u64).sum());
        largest_of(&mut run.pass, config, update);
    }
    run.evaluation = held_out.map(|held_out| {
        let mut pass = Pass::default();
        largest_of(&mut pass, config, held_out.iter().filter(|sample| sample.trained() > 0));
        pass
    });
    Ok(run)
}

fn largest_of<'a>(largest: &mut Pass, config: &Config, samples: impl IntoIterator<Item = SampleRef<'a>>) {
    for pass in passes(samples, |sample| sample.len() as u64, config.max_tokens_per_pass) {
        let total = |count: fn(SampleRef<'_>) -> usize| pass.iter().map(|sample| count(*sample) as u64).sum();
        largest.tokens = largest.tokens.max(total(|sample| sample.len()));
        largest.labels = largest.labels.max(total(|sample| sample.trained()));
        let longest = pass.iter().map(|sample| sample.len() as u64).max().unwrap_or(0);
        largest.longest = largest.longest.max(longest);
        largest.samples = largest.samples.max(pass.len() as u64);
    }
}

/// Counts different tokens.
struct Distinct {
    /// The update in which each token was last seen, counted from 1.
    seen: Vec<u32>,
    update: u32,
}

impl Distinct {
    fn new(vocab_size: usize) -> Self {
        Self { seen: vec![0; vocab_size], update: 0 }
    }

    fn count(&mut self, samples: &[SampleRef<'_>]) -> u64 {
        self.update = self.update.wrapping_add(1);
        let mut count = 0;
        for token in samples.iter().flat_map(|sample| sample.input_ids) {
            if let Some(seen) = self.seen.get_mut(*token as usize)
                && *seen != self.update
            {
                *seen = self.update;
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn samples(lengths: &[usize]) -> Samples {
        let mut samples = Samples::default();
        for (row, length) in lengths.iter().enumerate() {
            let ids: Vec<u32> = (0..*length as u32).map(|at| at % 7 + row as u32).collect();
            let mut labels: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
            // A row of 31 has nothing to predict.
            labels.fill(if *length == 31 { pipe_samples::IGNORED } else { 1 });
            samples.push(SampleRef { input_ids: &ids, labels: &labels });
        }
        samples
    }

    #[test]
    fn the_largest_of_each_is_found_in_the_trainers_order() {
        let config = Config {
            per_device_train_batch_size: 2,
            max_tokens_per_pass: 25,
            shuffle: false,
            num_train_epochs: Some(1.0),
            ..Config::default()
        };
        let run = largest(&config, &samples(&[10, 12, 20, 9, 31, 5]), Some(&samples(&[7, 8, 9, 30])), 100).unwrap();
        // 10 and 12 go together, 20 and 9 do not; of 31 and 5 only the latter counts.
        assert_eq!(run.pass, Pass { tokens: 22, labels: 20, longest: 20, samples: 2 });
        assert_eq!(run.update_labels, 19 + 8);
        // 20 and 9: tokens 2 to 8 and 3 to 9.
        assert_eq!(run.distinct_tokens, 8);
        assert_eq!(run.evaluation, Some(Pass { tokens: 30, labels: 29, longest: 30, samples: 3 }));

        // Another order puts other rows together.
        let shuffled = Config { shuffle: true, num_train_epochs: Some(20.0), ..config };
        let run = largest(&shuffled, &samples(&[10, 12, 20, 9, 31, 5]), None, 100).unwrap();
        assert_eq!((run.pass.tokens, run.evaluation), (25, None));
        assert_eq!(run.update_labels, 19 + 11);
    }
}
