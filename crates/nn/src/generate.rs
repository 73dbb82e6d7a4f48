//! Greedy continuation of a prompt, with keys and values kept.

use crate::{Error, Model, decoder::Decoder, error::Result, layer::KeyValues, norm::Stream};

impl Model {
    /// Continues `prompt` with the most likely tokens, until one of `end_tokens`, which is part of the result, or for
    /// `max_new_tokens`. The prompt is not part of the result.
    ///
    /// # Errors
    /// If the prompt is empty or has a token outside of the vocabulary, or the device has too little memory.
    pub fn generate(
        &self,
        prompt: &[u32],
        max_new_tokens: usize,
        end_tokens: &[u32],
    ) -> std::result::Result<Vec<u32>, Error> {
        let _guard = tch::no_grad_guard();
        self.check_prompt(prompt)?;
        let mut caches: Vec<KeyValues> = self.decoder.layers.iter().map(|_| KeyValues::default()).collect();
        let mut new_tokens: Vec<i64> = prompt.iter().map(|id| i64::from(*id)).collect();
        let mut position = 0;
        let mut result = Vec::new();
        while result.len() < max_new_tokens {
            let token = self.next_token(&new_tokens, position, &mut caches)?;
            result.push(token);
            if end_tokens.contains(&token) {
                break;
            }
            position += new_tokens.len();
            new_tokens = vec![i64::from(token)];
        }
        Ok(result)
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::Prompt { problem: "it has no tokens".to_owned() });
        }
        let vocab_size = self.config.vocab_size;
        match prompt.iter().find(|id| **id as usize >= vocab_size) {
            Some(id) => {
                Err(Error::Prompt { problem: format!("token {id} is outside of the vocabulary of {vocab_size}") })
            }
            None => Ok(()),
        }
    }

    /// The most likely token behind `tokens`, the first of which stands at `position`.
    fn next_token(&self, tokens: &[i64], position: usize, caches: &mut [KeyValues]) -> Result<u32> {
        let Decoder { layers, head, .. } = &self.decoder;
        let positions: Vec<i64> = (position..position + tokens.len()).map(|position| position as i64).collect();
        let pass = self.decoder.pass_of_tokens((tokens, &positions), &[tokens.len()], None)?;
        let mut stream = Stream::new(self.decoder.embed(&pass, self.parameters.list())?);
        for (layer, cache) in layers.iter().zip(caches) {
            stream = layer.extend(stream, &pass, cache, self.parameters.list())?;
        }
        let last = Stream::new(stream.sum()?.f_narrow(0, tokens.len() as i64 - 1, 1)?);
        let token = head.logits(&last, self.parameters.list())?.f_argmax(1, false)?.f_int64_value(&[0])?;
        Ok(u32::try_from(token).unwrap_or(u32::MAX))
    }
}
