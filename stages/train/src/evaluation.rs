//! Evaluations in the course of training: the loss on held-out samples, and greedy answers.

use std::collections::BTreeMap;

use pipe_nn::{Model, Sample, passes::held_out_loss};
use pipe_samples::Samples;
use pipe_stage::Context;

use crate::{
    Config,
    error::Error,
    record::{ANSWERS_FILE, AnswerRecord, EVAL_FILE, EvalRecord, from_lines, to_lines},
};

/// What is evaluated, and what came out so far.
pub(crate) struct Evaluation<'a> {
    config: &'a Config,
    samples: Option<&'a Samples>,
    prompts: Option<Prompts>,
    losses: Vec<EvalRecord>,
    answers: Vec<AnswerRecord>,
}

/// Whether an evaluation came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did, or none was due.
    Done,
    /// The stage was asked to stop.
    Stopped,
}

/// Encoded prompts, and what turns answers into text.
pub(crate) struct Prompts {
    pub(crate) prompter: pipe_text::Prompter,
    pub(crate) encoded: Vec<Vec<u32>>,
}

impl Prompts {
    /// Encodes the prompts of a configuration.
    pub(crate) fn encode(prompter: pipe_text::Prompter, config: &Config) -> Result<Self, Error> {
        let encoded = config.prompts.iter().map(|prompt| prompter.encode(prompt)).collect::<Result<_, _>>()?;
        Ok(Self { prompter, encoded })
    }
}

impl<'a> Evaluation<'a> {
    pub(crate) fn new(config: &'a Config, samples: Option<&'a Samples>, prompts: Option<Prompts>) -> Self {
        Self { config, samples, prompts, losses: Vec::new(), answers: Vec::new() }
    }

    /// Whether it is time for an evaluation after `done` of `total` updates.
    pub(crate) fn is_due(&self, done: u64, total: u64) -> bool {
        let due = done == 0 || done == total || self.config.eval_steps.is_some_and(|steps| done.is_multiple_of(steps));
        due && self.last_step() != Some(done)
    }

    /// Evaluates after `done` of `total` updates if it is time and it was not done yet.
    pub(crate) fn run_if_due(
        &mut self,
        model: &Model,
        done: u64,
        total: u64,
        context: &Context,
    ) -> Result<Outcome, Error> {
        if !self.is_due(done, total) {
            return Ok(Outcome::Done);
        }
        let loss = match self.samples {
            Some(samples) => match self.loss(model, samples, done, context)? {
                Some(record) => Some(record),
                None => return Ok(Outcome::Stopped),
            },
            None => None,
        };
        let Some(answers) = self.answer(model, done, context)? else { return Ok(Outcome::Stopped) };
        if let Some(record) = &loss {
            context.metric(done, [("eval_loss", record.loss)]);
        }
        self.losses.extend(loss);
        self.answers.extend(answers);
        Ok(Outcome::Done)
    }

    /// The evaluations so far.
    pub(crate) fn losses(&self) -> &[EvalRecord] {
        &self.losses
    }

    /// The records so far, as the files of artifact and checkpoint.
    pub(crate) fn files(&self) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        if self.samples.is_some() {
            let lines = to_lines(&self.losses).map_err(|source| Error::Record { file: EVAL_FILE, source })?;
            files.insert(EVAL_FILE.to_owned(), lines);
        }
        if self.prompts.is_some() {
            let lines = to_lines(&self.answers).map_err(|source| Error::Record { file: ANSWERS_FILE, source })?;
            files.insert(ANSWERS_FILE.to_owned(), lines);
        }
        Ok(files)
    }

    /// Takes the records of a checkpoint.
    pub(crate) fn restore(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
        let lines = |name| files.get(name).map_or(&[][..], Vec::as_slice);
        self.losses = from_lines(EVAL_FILE, lines(EVAL_FILE))?;
        self.answers = from_lines(ANSWERS_FILE, lines(ANSWERS_FILE))?;
        Ok(())
    }

    fn last_step(&self) -> Option<u64> {
        let losses = self.losses.last().map(|record| record.step);
        losses.max(self.answers.last().map(|record| record.step))
    }

    fn loss(
        &self,
        model: &Model,
        samples: &Samples,
        step: u64,
        context: &Context,
    ) -> Result<Option<EvalRecord>, Error> {
        let samples = samples.iter().zip(0..).map(|(sample, row)| Sample {
            ids: sample.input_ids,
            labels: sample.labels,
            place: 0,
            row,
        });
        let go_on = |_| !context.cancelled();
        let measured = held_out_loss(model, samples, self.config.max_tokens_per_pass, go_on)?;
        Ok(measured.map(|measured| EvalRecord {
            step,
            // Samples without a label are refused at the start.
            loss: measured.loss().unwrap_or_default(),
            perplexity: measured.perplexity().unwrap_or_default(),
            tokens: measured.labels,
        }))
    }

    fn answer(&self, model: &Model, step: u64, context: &Context) -> Result<Option<Vec<AnswerRecord>>, Error> {
        let Some(prompts) = &self.prompts else { return Ok(Some(Vec::new())) };
        let most = usize::try_from(self.config.max_new_tokens).unwrap_or(usize::MAX);
        let mut answers = Vec::new();
        for (prompt, ids) in self.config.prompts.iter().zip(&prompts.encoded) {
            if context.cancelled() {
                return Ok(None);
            }
            let answer = model.generate(ids, most, prompts.prompter.end_ids())?;
            answers.push(AnswerRecord {
                step,
                prompt: prompt.clone(),
                answer: prompts.prompter.decode(&answer)?,
                tokens: answer.len() as u64,
            });
        }
        Ok(Some(answers))
    }
}
