//! Questions to answers.

use std::{
    collections::HashMap,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use pipe_chat::{Done, Fault, Finish, Question, Reply, Voice};
use pipe_nn::{GenerationOptions, Sampling, Session};
use pipe_text::{Passed, StopStrings, TextStream};

use super::{Say, model::Model};

/// A model and what it has read.
pub(super) struct Answering {
    model: Model,
    sessions: HashMap<Voice, Session>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody listens any more.
    #[error("nobody listens")]
    Gone,
    /// The conversation cannot be made to tokens.
    #[error(transparent)]
    Text(#[from] pipe_text::Error),
    /// The model refuses.
    #[error(transparent)]
    Model(#[from] pipe_nn::Error),
    /// The conversation is too long.
    #[error("the conversation has {tokens} tokens, and the model reads {most} with its answer")]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// `max_position_embeddings`
        most: usize,
    },
}

impl Error {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::TooLong { .. } => Fault::Length,
            Self::Text(_) => Fault::Question,
            Self::Model(pipe_nn::Error::Prompt { .. } | pipe_nn::Error::Sampling { .. }) => Fault::Question,
            Self::Model(_) | Self::Gone => Fault::Machine,
        }
    }
}

impl Answering {
    pub(super) fn new(model: Model) -> Self {
        Self { model, sessions: HashMap::new() }
    }

    /// Answers a question piece by piece, as long as `go_on` says so.
    pub(super) fn answer(
        &mut self,
        question: &Question,
        go_on: &dyn Fn() -> bool,
        say: &mut Say<'_>,
    ) -> Result<Done, Error> {
        let Model { inference, prompter, sampling } = &self.model;
        let id = question.id;
        let prompt = prompter.encode_conversation(&question.messages)?;
        let most = inference.model().config().max_position_embeddings;
        if prompt.len() >= most {
            return Err(Error::TooLong { tokens: prompt.len(), most });
        }
        let options = GenerationOptions {
            max_new_tokens: question.max_new_tokens.min(most - prompt.len()),
            end_tokens: prompter.end_ids().to_vec(),
            sampling: settled(&question.sampling, sampling),
        };
        let voice = match question.voice {
            Voice::Tuned => pipe_nn::Voice::Tuned,
            Voice::Base => pipe_nn::Voice::Base,
        };
        let session = self.sessions.entry(question.voice).or_default();
        if question.fresh {
            session.truncate(0);
        }
        let begin = Instant::now();
        let mut generation = inference.generate(voice, session, &prompt, &options)?;
        let mut speaking = |reply: Reply| say(&reply).map_err(|_| Error::Gone);
        speaking(Reply::Begun { id, prompt_tokens: prompt.len(), kept_tokens: generation.kept_tokens() })?;

        let mut stream = TextStream::new(prompter.tokenizer());
        let mut stops = StopStrings::new(question.stop.iter().cloned());
        let (mut tokens, mut first, mut last) = (0, begin, begin);
        let mut finish = None;
        while go_on() {
            let Some(token) = generation.next() else {
                finish = generation.finish().map(|finish| match finish {
                    pipe_nn::Finish::EndToken => Finish::Stop,
                    pipe_nn::Finish::MaxNewTokens => Finish::Length,
                });
                break;
            };
            let text = stream.push(token?)?;
            tokens += 1;
            last = Instant::now();
            if tokens == 1 {
                first = last;
            }
            let Passed { text, stopped } = stops.push(&text);
            if !text.is_empty() {
                speaking(Reply::Piece { id, text })?;
            }
            if stopped {
                finish = Some(Finish::Stop);
                break;
            }
        }
        let stopped = finish == Some(Finish::Stop) && generation.finish().is_none();
        if !stopped {
            let Passed { mut text, stopped } = stops.push(&stream.finish()?);
            if stopped {
                finish = Some(Finish::Stop);
            } else {
                text.push_str(&stops.finish());
            }
            if !text.is_empty() {
                speaking(Reply::Piece { id, text })?;
            }
        }
        Ok(Done {
            id,
            finish: finish.unwrap_or(Finish::Cancelled),
            prompt_tokens: prompt.len(),
            completion_tokens: tokens,
            prompt_seconds: (first - begin).as_secs_f64(),
            completion_seconds: (last - first).as_secs_f64(),
        })
    }
}

/// What a question says, else what the model says.
fn settled(asked: &pipe_chat::Sampling, model: &pipe_chat::Sampling) -> Sampling {
    let nothing = Sampling::default();
    Sampling {
        temperature: asked.temperature.or(model.temperature).unwrap_or(nothing.temperature),
        top_k: asked.top_k.or(model.top_k).unwrap_or(nothing.top_k),
        top_p: asked.top_p.or(model.top_p).unwrap_or(nothing.top_p),
        min_p: asked.min_p.or(model.min_p).unwrap_or(nothing.min_p),
        repetition_penalty: asked.repetition_penalty.or(model.repetition_penalty).unwrap_or(nothing.repetition_penalty),
        seed: asked.seed.unwrap_or_else(any_seed),
    }
}

/// Another one each time.
fn any_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
