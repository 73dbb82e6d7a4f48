//! A conversation with a model: what it has read, and what it says next.

use tch::Tensor;

use super::{KeyValues, Sampling, sampling::Sampler};
use crate::{Error, Model, Parameter, decoder::Decoder, embedding::Table, error::Result, head::Head, norm::Stream};

/// Behind tokens that are kept, so many are read in one pass: their scores are whole in memory.
const LATE_TOKENS: usize = 256;

/// The parts of a model that an answer needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) parameters: &'a [Parameter],
    pub(super) embedding: &'a Table,
    pub(super) head: &'a Head,
    /// Whether the adapters add something.
    pub(super) adapters: bool,
}

impl<'a> Reader<'a> {
    /// The whole model, with its adapters.
    pub(super) fn of(model: &'a Model) -> Self {
        let Decoder { embedding, head, .. } = &model.decoder;
        Self { decoder: &model.decoder, parameters: model.parameters.list(), embedding, head, adapters: true }
    }

    fn vocab_size(&self) -> usize {
        self.head.vocab_size
    }

    /// The logits behind the last of `tokens`, the first of which stands at `position`, `[1, V]`.
    fn read(&self, tokens: &[u32], position: usize, caches: &mut [KeyValues]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
        let positions: Vec<i64> = (position..position + ids.len()).map(|position| position as i64).collect();
        let mut pass = self.decoder.pass_of_tokens((&ids, &positions), &[ids.len()])?;
        pass.adapters = self.adapters;
        let embedded = self.embedding.rows(&pass, self.decoder.shape.precision.master(), self.parameters)?;
        let mut stream = Stream::new(embedded);
        for (layer, cache) in self.decoder.layers.iter().zip(caches) {
            stream = layer.extend(stream, &pass, cache, self.parameters)?;
        }
        let last = Stream::new(stream.sum()?.f_narrow(0, ids.len() as i64 - 1, 1)?);
        self.head.logits(&last, self.parameters)
    }
}

/// What a model has read of a conversation. One session belongs to one voice of one model.
#[derive(Debug, Default)]
pub struct Session {
    /// One a layer.
    caches: Vec<KeyValues>,
    /// What all of them hold.
    tokens: Vec<u32>,
}

impl Session {
    /// The tokens that are kept.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Keeps no more than the first `tokens`.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        // Also what an error has left in some of the layers.
        self.caches.iter_mut().for_each(|cache| cache.truncate(self.tokens.len()));
    }

    /// Reads `tokens` behind those that are kept; the logits behind the last one, `[1, V]`.
    pub(super) fn extend(&mut self, reader: &Reader<'_>, tokens: &[u32]) -> Result<Tensor> {
        self.caches.resize_with(reader.decoder.layers.len(), KeyValues::default);
        self.truncate(self.tokens.len());
        let mut rest = tokens;
        loop {
            let most = if self.tokens.is_empty() { rest.len() } else { LATE_TOKENS.min(rest.len()) };
            let (now, later) = rest.split_at(most);
            let logits = reader.read(now, self.tokens.len(), &mut self.caches)?;
            self.tokens.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                return Ok(logits);
            }
        }
    }
}

/// How an answer is generated.
#[derive(Debug, Clone, Default)]
pub struct GenerationOptions {
    /// The most tokens of the answer.
    pub max_new_tokens: usize,
    /// Tokens that end it; they are part of it.
    pub end_tokens: Vec<u32>,
    /// How each token is chosen.
    pub sampling: Sampling,
}

/// Why an answer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With one of the end tokens.
    EndToken,
    /// It has as many tokens as it may have.
    MaxNewTokens,
}

/// An answer that is being made: an iterator of its tokens, which can be left at any time.
#[derive(Debug)]
pub struct Generation<'a> {
    reader: Reader<'a>,
    session: &'a mut Session,
    sampler: Sampler,
    end_tokens: Vec<u32>,
    /// What is to be read before the next token.
    unread: Vec<u32>,
    /// So many tokens may follow.
    left: usize,
    kept: usize,
    finish: Option<Finish>,
    failed: bool,
}

impl<'a> Generation<'a> {
    pub(super) fn begin(
        reader: Reader<'a>,
        session: &'a mut Session,
        prompt: &[u32],
        options: &GenerationOptions,
    ) -> Result<Self> {
        check_prompt(prompt, reader.vocab_size())?;
        options.sampling.check()?;
        let same = session.tokens.iter().zip(prompt).take_while(|(kept, new)| kept == new).count();
        // The last token is read anyway: its logits are not kept.
        let kept = same.min(prompt.len() - 1);
        session.truncate(kept);
        Ok(Self {
            reader,
            session,
            sampler: Sampler::new(&options.sampling),
            end_tokens: options.end_tokens.clone(),
            unread: prompt[kept..].to_vec(),
            left: options.max_new_tokens,
            kept,
            finish: None,
            failed: false,
        })
    }

    /// How many tokens of the prompt had been read before.
    pub fn kept_tokens(&self) -> usize {
        self.kept
    }

    /// Why it has ended; `None` as long as it has not.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    fn step(&mut self) -> Result<u32> {
        let logits = self.session.extend(&self.reader, &self.unread)?;
        self.sampler.choose(&logits, &self.session.tokens)
    }
}

impl Iterator for Generation<'_> {
    type Item = std::result::Result<u32, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() || self.failed {
            return None;
        }
        if self.left == 0 {
            self.finish = Some(Finish::MaxNewTokens);
            return None;
        }
        self.left -= 1;
        let token = self.step();
        match &token {
            Ok(token) => {
                self.unread = vec![*token];
                if self.end_tokens.contains(token) {
                    self.finish = Some(Finish::EndToken);
                }
            }
            Err(_) => self.failed = true,
        }
        Some(token)
    }
}

fn check_prompt(prompt: &[u32], vocab_size: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::Prompt { problem: "it has no tokens".to_owned() });
    }
    match prompt.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(Error::Prompt { problem: format!("token {id} is outside of the vocabulary of {vocab_size}") }),
        None => Ok(()),
    }
}
