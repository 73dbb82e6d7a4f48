//! Continuations of a prompt, a token at a time, with keys and values kept.
//!
//! ```text
//! Inference::load(base, adapter, &InferenceOptions)    a model that only answers
//! inference.generate(Voice, &mut session, &prompt, &GenerationOptions)    an iterator of tokens
//! ```
//!
//! A [`Session`] keeps what it has read: a prompt that begins like the last one is read from where the two differ.

mod cache;
mod inference;
mod sampling;
mod session;

pub use inference::{Inference, InferenceError, InferenceOptions, Voice};
pub use sampling::Sampling;
pub use session::{Finish, Generation, GenerationOptions, Session};

pub(crate) use cache::KeyValues;
use session::Reader;

use crate::{Error, Model};

impl Model {
    /// Continues `prompt` with the most likely tokens, until one of `end_tokens`, which is part of the result, or for
    /// `max_new_tokens`. The prompt is not part of the result.
    ///
    /// # Errors
    /// If the prompt is empty or has a token outside of the vocabulary, or the device has too little memory.
    pub fn generate(&self, prompt: &[u32], max_new_tokens: usize, end_tokens: &[u32]) -> Result<Vec<u32>, Error> {
        let options =
            GenerationOptions { max_new_tokens, end_tokens: end_tokens.to_vec(), sampling: Sampling::default() };
        let mut session = Session::default();
        Generation::begin(Reader::of(self), &mut session, prompt, &options)?.collect()
    }
}
