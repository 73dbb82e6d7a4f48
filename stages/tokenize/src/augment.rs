//! Augmentation: which system prompt and which prompt template a row draws, and what they make of it.
//!
//! A draw follows from the seed, the row's place and the number of the repeat alone: neither threads nor batches nor what
//! other rows say can change it.

use pipe_samples::choice::{below, hash, seed_for};
use serde_json::Value;

use crate::{
    Config, Error,
    row::Row,
    tally::Place,
    template::{PromptTemplate, PromptTemplateError},
};

/// What rows draw from. Shared by all threads.
pub(crate) struct Augmenter {
    system_prompts: Vec<String>,
    prompt_templates: Vec<PromptTemplate>,
    seeds: Seeds,
}

/// One for each purpose, so that which template a row draws says nothing about its system prompt.
struct Seeds {
    system_prompts: u64,
    prompt_templates: u64,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// The index of the system prompt that it was given.
    pub(crate) system_prompt: Option<usize>,
    /// Whether it has a system message of its own, where it might have drawn one.
    pub(crate) own_system_prompt: bool,
    /// The index of the template that was applied to it.
    pub(crate) prompt_template: Option<usize>,
}

impl Augmenter {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let parse = |(index, text): (usize, &String)| {
            PromptTemplate::parse(text).map_err(|source: PromptTemplateError| Error::PromptTemplate { index, source })
        };
        Ok(Self {
            system_prompts: config.system_prompts.clone(),
            prompt_templates: config.prompt_templates.iter().enumerate().map(parse).collect::<Result<_, _>>()?,
            seeds: Seeds {
                system_prompts: seed_for(config.seed, "system_prompts"),
                prompt_templates: seed_for(config.seed, "prompt_templates"),
            },
        })
    }

    /// Gives a row what it draws.
    pub(crate) fn augment(&self, row: &mut Row, place: Place, repeat: u32) -> Drawn {
        let mut drawn = Drawn::default();
        match row {
            Row::Messages { messages, prompt_messages, .. } => {
                if let Some(user) = messages.iter_mut().find(|message| message["role"] == "user") {
                    drawn.prompt_template = self.apply_template(prompt_of(user), place, repeat);
                }
                if let Some(index) = draw(self.seeds.system_prompts, self.system_prompts.len(), place, repeat) {
                    if messages.iter().any(|message| message["role"] == "system") {
                        drawn.own_system_prompt = true;
                    } else {
                        let content = &self.system_prompts[index];
                        messages.insert(0, serde_json::json!({ "role": "system", "content": content }));
                        *prompt_messages += 1;
                        drawn.system_prompt = Some(index);
                    }
                }
            }
            Row::Completion { prompt, .. } => drawn.prompt_template = self.apply_template(Some(prompt), place, repeat),
            Row::Text(_) | Row::Ids { .. } => {}
        }
        drawn
    }

    fn apply_template(&self, prompt: Option<&mut String>, place: Place, repeat: u32) -> Option<usize> {
        let prompt = prompt?;
        let index = draw(self.seeds.prompt_templates, self.prompt_templates.len(), place, repeat)?;
        *prompt = self.prompt_templates[index].apply(prompt);
        Some(index)
    }
}

/// The text that a message says: its content, or the first text among the content's parts.
fn prompt_of(message: &mut Value) -> Option<&mut String> {
    match message.get_mut("content")? {
        Value::String(text) => Some(text),
        Value::Array(parts) => parts.iter_mut().find_map(|part| match part {
            Value::String(text) => Some(text),
            Value::Object(fields) => match fields.get_mut("text") {
                Some(Value::String(text)) => Some(text),
                _ => None,
            },
            _ => None,
        }),
        _ => None,
    }
}

/// Which of `count` things a row draws; `None` if there are none.
///
/// Each row deals the things out in an order of its own, and in another one when all of them came: so no row draws a
/// thing twice before it has drawn every one, and each is as likely as the others in every repeat.
fn draw(seed: u64, count: usize, place: Place, repeat: u32) -> Option<usize> {
    let seed = hash(hash(seed, place.file as u64), place.number);
    let (round, dealt) = (u64::from(repeat).checked_div(count as u64)?, repeat as usize % count);
    let mut left: Vec<usize> = (0..count).collect();
    let random = |turn: usize| hash(seed, round * count as u64 + turn as u64);
    for turn in 0..dealt {
        left.remove(below(random(turn), left.len() as u64) as usize);
    }
    left.get(below(random(dealt), left.len() as u64) as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        Place { file: 0, number }
    }

    #[test]
    fn every_thing_is_as_likely_in_every_repeat() {
        for repeat in 0..7 {
            let mut counts = [0; 3];
            (1..=9000).for_each(|row| counts[draw(5, 3, place(row), repeat).unwrap_or(9)] += 1);
            // 3000 each, with a standard deviation of 45.
            assert!(counts.iter().all(|count| (2800..3200).contains(count)), "{repeat}: {counts:?}");
        }
    }

    #[test]
    fn no_row_draws_a_thing_twice_before_all_came() {
        for row in 1..200 {
            for round in 0..3 {
                let mut dealt: Vec<_> = (0..5).filter_map(|turn| draw(1, 5, place(row), round * 5 + turn)).collect();
                dealt.sort_unstable();
                assert_eq!(dealt, [0, 1, 2, 3, 4]);
            }
        }
    }

    #[test]
    fn files_rows_and_seeds_draw_on_their_own() {
        let draws = |seed: u64, file: usize| -> Vec<_> {
            (1..=64).map(|number| draw(seed, 4, Place { file, number }, 0)).collect()
        };
        assert_ne!(draws(1, 0), draws(2, 0));
        assert_ne!(draws(1, 0), draws(1, 1));
        assert_eq!(draw(1, 0, place(1), 3), None);
        assert_eq!(draw(1, 1, place(1), 3), Some(0));
    }
}
