//! Keys and values of the tokens so far.

use tch::Tensor;

use crate::{attention::Operands, error::Result};

/// Memory grows by this many tokens.
const BLOCK_TOKENS: i64 = 256;

/// Keys and values of the tokens of one layer, in memory with room for more.
#[derive(Debug, Default)]
pub(crate) struct KeyValues {
    /// `[room, G, d]` each.
    memory: Option<[Tensor; 2]>,
    /// So many tokens are in it.
    tokens: i64,
}

impl KeyValues {
    /// Whether no token is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Forgets all but the first `tokens`. The memory stays.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens as i64);
    }

    /// Takes up new tokens; gives their queries beside the keys and values of all.
    ///
    /// # Shapes
    /// `q [t, H, d]`, `k` and `v [t, G, d]`; the result's `k` and `v` are `[tokens, G, d]`.
    pub(crate) fn extend(&mut self, new: Operands) -> Result<Operands> {
        let added = new.k.size()[0];
        let tokens = self.tokens + added;
        let memory = self.with_room(&new, tokens)?;
        for (kept, new) in memory.iter().zip([&new.k, &new.v]) {
            kept.f_narrow(0, tokens - added, added)?.f_copy_(new)?;
        }
        let operands = match tokens == added {
            // The first tokens need no look into the memory.
            true => new,
            false => Operands { q: new.q, k: memory[0].f_narrow(0, 0, tokens)?, v: memory[1].f_narrow(0, 0, tokens)? },
        };
        self.tokens = tokens;
        Ok(operands)
    }

    fn with_room(&mut self, new: &Operands, tokens: i64) -> Result<&[Tensor; 2]> {
        let room = self.memory.as_ref().map_or(0, |memory| memory[0].size()[0]);
        if room < tokens {
            let (_, groups, width) = new.k.size3()?;
            // By a quarter at least, so that all the copying takes no longer than the reading.
            let wanted = tokens.max(room + room / 4);
            let shape = [(wanted + BLOCK_TOKENS - 1) / BLOCK_TOKENS * BLOCK_TOKENS, groups, width];
            let larger = || Tensor::f_empty(shape, (new.k.f_kind()?, new.k.device()));
            let larger = [larger()?, larger()?];
            if let (Some(memory), true) = (&self.memory, self.tokens > 0) {
                for (from, to) in memory.iter().zip(&larger) {
                    to.f_narrow(0, 0, self.tokens)?.f_copy_(&from.f_narrow(0, 0, self.tokens)?)?;
                }
            }
            self.memory = Some(larger);
        }
        self.memory.as_ref().ok_or(crate::Error::EmptyBatch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::random;

    fn operands(tokens: i64, seed: u64) -> Operands {
        let (q, k, v) = (random(&[tokens, 2, 3], seed), random(&[tokens, 1, 3], seed), random(&[tokens, 1, 3], seed));
        Operands { q, k, v: v.neg() }
    }

    #[test]
    fn all_tokens_stay_where_they_are_as_the_memory_grows() {
        let mut cache = KeyValues::default();
        let mut expected: Vec<Tensor> = Vec::new();
        for (seed, tokens) in [250, 5, 1, 1, 300, 1].into_iter().enumerate() {
            let new = operands(tokens, seed as u64);
            expected.push(new.k.shallow_clone());
            let all = Tensor::cat(&expected, 0);
            let found = cache.extend(new).unwrap();
            assert!(found.k.equal(&all) && found.v.equal(&all.neg()) && found.q.size()[0] == tokens);
        }
        assert_eq!(cache.memory.as_ref().unwrap()[0].size()[0], 768);

        cache.truncate(251);
        let found = cache.extend(operands(1, 9)).unwrap();
        assert!(found.k.narrow(0, 0, 251).equal(&Tensor::cat(&expected, 0).narrow(0, 0, 251)));
        assert!(found.k.narrow(0, 251, 1).equal(&random(&[1, 1, 3], 9)));
        cache.truncate(0);
        assert!(cache.is_empty());
        assert!(cache.extend(operands(2, 10)).unwrap().k.equal(&random(&[2, 1, 3], 10)));
    }
}
