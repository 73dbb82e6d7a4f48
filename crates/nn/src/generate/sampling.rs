//! How the next token is chosen from logits.
//!
//! # Source
//! Names, order and meaning as in Transformers' `GenerationConfig` and its logits processors: repetition penalty,
//! temperature, top_k, top_p, min_p. The random numbers are our own, so that a seed means the same everywhere: one of
//! SplitMix64 (Steele, Lea, Flood, 2014) a token, of which the upper 53 bits are a number in `[0, 1)`; the token is the
//! first at which the sum of the probabilities, from the most likely on, is above it.

use std::cmp::Ordering;

use tch::{Kind, Tensor};

use crate::{Error, error::Result};

/// How the next token is chosen. The default is greedy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it, 0 or more. At 0 the most likely token is taken: `do_sample: false` of Transformers.
    pub temperature: f64,
    /// Only so many of the most likely tokens count, and those that are as likely as the last of them. 0 counts all.
    pub top_k: usize,
    /// Only the most likely tokens count that together have this probability, above 0 and up to 1.
    pub top_p: f64,
    /// Only tokens count that have this part of the probability of the most likely one, from 0 to 1.
    pub min_p: f64,
    /// Logits of tokens that occur already are divided by it if they are positive, else multiplied; above 0.
    pub repetition_penalty: f64,
    /// Begins the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// # Errors
    /// If a setting is out of its range.
    pub fn check(&self) -> std::result::Result<(), Error> {
        let wrong = |field, range, value: f64| Err(Error::Sampling { field, range, value });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong("temperature", "0 or more", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return wrong("top_p", "above 0 and at most 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return wrong("min_p", "from 0 to 1", self.min_p);
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong("repetition_penalty", "above 0", self.repetition_penalty);
        }
        Ok(())
    }
}

/// Chooses one token after the other.
#[derive(Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    random: u64,
}

impl Sampler {
    pub(super) fn new(sampling: &Sampling) -> Self {
        Self { sampling: *sampling, random: sampling.seed }
    }

    /// The next token: `logits [1, V]`, `seen` all tokens so far.
    pub(super) fn choose(&mut self, logits: &Tensor, seen: &[u32]) -> Result<u32> {
        let sampling = self.sampling;
        if sampling.temperature == 0.0 && sampling.repetition_penalty == 1.0 {
            let token = logits.f_argmax(1, false)?.f_int64_value(&[0])?;
            return Ok(u32::try_from(token).unwrap_or(u32::MAX));
        }
        let mut values = vec![0.0_f64; logits.numel()];
        let count = values.len();
        logits.f_to_kind(Kind::Double)?.f_contiguous()?.f_copy_data(&mut values, count)?;
        penalise(&mut values, seen, sampling.repetition_penalty);
        if values.iter().any(|value| value.is_nan()) {
            return Err(Error::Logits);
        }
        if sampling.temperature == 0.0 {
            let best = (0..values.len()).reduce(|best, next| if values[next] > values[best] { next } else { best });
            return best.map(|best| best as u32).ok_or(Error::Logits);
        }
        let random = self.random();
        distribution(&values, &sampling).map(|tokens| draw(&tokens, random)).ok_or(Error::Logits)
    }

    /// The next number in `[0, 1)`.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        (word >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn penalise(logits: &mut [f64], seen: &[u32], penalty: f64) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = seen.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for token in seen {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// The tokens that count and their probabilities, the most likely first; `None` if no logit is finite.
fn distribution(logits: &[f64], sampling: &Sampling) -> Option<Vec<(u32, f64)>> {
    let best = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !best.is_finite() {
        return None;
    }
    // In units of the most likely token's probability.
    let weight = |logit: f64| ((logit - best) / sampling.temperature).exp();
    let mut tokens: Vec<(u32, f64)> = logits.iter().zip(0..).map(|(logit, token)| (token, weight(*logit))).collect();
    if (1..tokens.len()).contains(&sampling.top_k) {
        let (_, last, _) = tokens.select_nth_unstable_by(sampling.top_k - 1, likelier);
        let least = last.1;
        tokens.retain(|(_, weight)| *weight >= least);
    }
    // What has no probability at all is in nobody's sum.
    tokens.retain(|(_, weight)| *weight > 0.0);
    tokens.sort_unstable_by(likelier);
    if sampling.top_p < 1.0 {
        let all: f64 = tokens.iter().map(|(_, weight)| weight).sum();
        let mut before = 0.0;
        let counts = tokens.iter().take_while(|(_, weight)| {
            let counts = before < sampling.top_p * all;
            before += weight;
            counts
        });
        let count = counts.count().max(1);
        tokens.truncate(count);
    }
    tokens.retain(|(_, weight)| *weight >= sampling.min_p);
    let all: f64 = tokens.iter().map(|(_, weight)| weight).sum();
    tokens.iter_mut().for_each(|(_, weight)| *weight /= all);
    Some(tokens)
}

/// The more likely first; of two equal ones the lower token.
fn likelier(one: &(u32, f64), other: &(u32, f64)) -> Ordering {
    other.1.total_cmp(&one.1).then(one.0.cmp(&other.0))
}

/// The first token at which the sum is above `random`.
fn draw(tokens: &[(u32, f64)], random: f64) -> u32 {
    let mut sum = 0.0;
    let found = tokens.iter().find(|(_, probability)| {
        sum += probability;
        sum > random
    });
    // Rounding may leave the sum below 1.
    found.or(tokens.last()).map_or(0, |(token, _)| *token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Logits of tokens with these probabilities.
    fn logits(probabilities: &[f64]) -> Vec<f64> {
        probabilities.iter().map(|probability| probability.ln() + 3.0).collect()
    }

    fn found(probabilities: &[f64], sampling: Sampling) -> Vec<(u32, f64)> {
        let found = distribution(&logits(probabilities), &sampling).unwrap();
        found.into_iter().map(|(token, probability)| (token, (probability * 1e6).round() / 1e6)).collect()
    }

    const PROBABILITIES: [f64; 5] = [0.1, 0.4, 0.05, 0.25, 0.2];

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    #[test]
    fn what_counts_is_what_transformers_counts() {
        assert_eq!(found(&PROBABILITIES, warm()), [(1, 0.4), (3, 0.25), (4, 0.2), (0, 0.1), (2, 0.05)]);
        // 0.4² : 0.25² : ... over their sum, 0.275.
        let cold = found(&PROBABILITIES, Sampling { temperature: 0.5, ..warm() });
        assert_eq!(cold[..2], [(1, 0.581_818), (3, 0.227_273)]);
        let two = [(1, 0.615_385), (3, 0.384_615)];
        assert_eq!(found(&PROBABILITIES, Sampling { top_k: 2, ..warm() }), two);
        assert_eq!(found(&PROBABILITIES, Sampling { top_k: 9, ..warm() }).len(), 5);
        // The token that reaches the sum counts; at least one does.
        assert_eq!(found(&PROBABILITIES, Sampling { top_p: 0.64, ..warm() }), two);
        assert_eq!(found(&PROBABILITIES, Sampling { top_p: 0.66, ..warm() }).len(), 3);
        assert_eq!(found(&PROBABILITIES, Sampling { top_p: 1e-9, ..warm() }), [(1, 1.0)]);
        // 0.25 / 0.4 = 0.625
        assert_eq!(found(&PROBABILITIES, Sampling { min_p: 0.62, ..warm() }), two);
        assert_eq!(found(&PROBABILITIES, Sampling { min_p: 0.63, ..warm() }), [(1, 1.0)]);
        // top_p counts in what top_k leaves: 0.4 of 0.85 is 0.47.
        assert_eq!(found(&PROBABILITIES, Sampling { top_k: 3, top_p: 0.46, ..warm() }), [(1, 1.0)]);
        assert_eq!(found(&PROBABILITIES, Sampling { top_k: 3, top_p: 0.48, ..warm() }), two);
        // The last of top_k is one of two.
        assert_eq!(found(&[0.2, 0.5, 0.2, 0.1], Sampling { top_k: 2, ..warm() }).len(), 3);
    }

    #[test]
    fn tokens_come_as_often_as_they_are_likely_and_a_seed_says_which() {
        let tensor = Tensor::from_slice(&logits(&PROBABILITIES)).view([1, 5]);
        let drawn = |seed| {
            let mut sampler = Sampler::new(&Sampling { seed, top_k: 4, ..warm() });
            (0..20_000).map(|_| sampler.choose(&tensor, &[]).unwrap()).collect::<Vec<_>>()
        };
        let first = drawn(7);
        assert_eq!(first, drawn(7));
        assert_ne!(first, drawn(8));
        for (token, probability) in PROBABILITIES.iter().enumerate() {
            let share = first.iter().filter(|drawn| **drawn as usize == token).count() as f64 / first.len() as f64;
            let expected = if token == 2 { 0.0 } else { probability / 0.95 };
            // Five standard deviations.
            assert!((share - expected).abs() < 5.0 * (0.25_f64 / 20_000.0).sqrt(), "{token}: {share}");
        }
        // What a seed means does not change: computed apart from this program.
        assert_eq!(first[..12], [1, 1, 0, 3, 3, 1, 3, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn repeated_tokens_lose() {
        let mut values = vec![2.0, -2.0, 1.5, 0.0];
        penalise(&mut values, &[0, 1, 1, 3, 9], 2.0);
        assert_eq!(values, [1.0, -4.0, 1.5, 0.0]);
        let tensor = Tensor::from_slice(&[2.0_f32, -2.0, 1.5, 0.0]).view([1, 4]);
        let greedy = |repetition_penalty| Sampler::new(&Sampling { repetition_penalty, ..Sampling::default() });
        assert_eq!(greedy(1.0).choose(&tensor, &[0]).unwrap(), 0);
        assert_eq!(greedy(2.0).choose(&tensor, &[0]).unwrap(), 2);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let tensor = Tensor::from_slice(&[f32::NAN, 1.0]).view([1, 2]);
        assert!(Sampler::new(&warm()).choose(&tensor, &[]).is_err());
        let message = |sampling: Sampling| sampling.check().unwrap_err().to_string();
        assert_eq!(message(Sampling { top_p: 0.0, ..warm() }), "top_p must be above 0 and at most 1, it is 0");
        assert!(message(Sampling { temperature: f64::NAN, ..warm() }).starts_with("temperature"));
        assert!(message(Sampling { min_p: 1.5, ..warm() }).starts_with("min_p"));
        assert!(message(Sampling { repetition_penalty: 0.0, ..warm() }).starts_with("repetition_penalty"));
    }
}
