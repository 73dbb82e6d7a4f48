//! Rules by regular expression on the text of a sample.

use pipe_samples::{IGNORED, SampleRef};
use pipe_text::Tokenizer;
use regex::Regex;

use crate::config::{Config, Part, Pattern};

/// The rules of a stage, ready to be asked from any thread.
pub(crate) struct Patterns {
    tokenizer: Tokenizer,
    rules: Vec<Rule>,
}

struct Rule {
    regex: Regex,
    part: Part,
    share: Option<(f64, f64)>,
    /// Whether a text that fits goes, or one that does not.
    drops: bool,
}

impl Patterns {
    /// The rules of a configuration, with the tokenizer that made the samples.
    pub(crate) fn new(config: &Config, tokenizer: Tokenizer) -> Result<Self, regex::Error> {
        let mut rules = Vec::new();
        for (field, patterns) in config.patterns() {
            for pattern in patterns {
                rules.push(Rule::new(pattern, field == "drop_patterns")?);
            }
        }
        Ok(Self { tokenizer, rules })
    }

    /// The first rule by which a sample goes, if one does.
    pub(crate) fn reason_to_drop(&self, sample: SampleRef<'_>) -> Result<Option<usize>, pipe_text::Error> {
        let (mut all, mut trained) = (None, None);
        for (index, rule) in self.rules.iter().enumerate() {
            let text = match rule.part {
                Part::All => &mut all,
                Part::Trained => &mut trained,
            };
            let (text, characters) = match text {
                Some(text) => text,
                None => text.insert(self.text(sample, rule.part)?),
            };
            if rule.fits(text, *characters) == rule.drops {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// The text of a part, and how many characters it has. Parts that the loss counts apart from each other stand on lines
    /// of their own.
    fn text(&self, sample: SampleRef<'_>, part: Part) -> Result<(String, usize), pipe_text::Error> {
        let text = match part {
            Part::All => self.tokenizer.decode(sample.input_ids, true)?,
            Part::Trained => {
                // Nothing predicts the first token.
                let counts = |at: &usize| *at > 0 && sample.labels[*at] != IGNORED;
                let places: Vec<usize> = (0..sample.len()).filter(counts).collect();
                let turns = places
                    .chunk_by(|a, b| a + 1 == *b)
                    .map(|turn| self.tokenizer.decode(&sample.input_ids[turn[0]..turn[0] + turn.len()], true));
                turns.collect::<Result<Vec<String>, _>>()?.join("\n")
            }
        };
        let characters = text.chars().count();
        Ok((text, characters))
    }
}

/// Each rule by its place and its pattern: `drop_patterns.0 https?://`.
pub(crate) fn names(config: &Config) -> Vec<String> {
    /// Longer patterns are cut, in characters.
    const SHOWN: usize = 40;
    let mut names = Vec::new();
    for (field, patterns) in config.patterns() {
        for (index, Pattern { pattern, .. }) in patterns.iter().enumerate() {
            let cut = if pattern.chars().nth(SHOWN).is_some() { "..." } else { "" };
            let shown: String = pattern.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
            names.push(format!("{field}.{index} {shown}{cut}"));
        }
    }
    names
}

impl Rule {
    fn new(pattern: &Pattern, drops: bool) -> Result<Self, regex::Error> {
        let share = match (pattern.min_share, pattern.max_share) {
            (None, None) => None,
            (least, most) => Some((least.unwrap_or(0.0), most.unwrap_or(1.0))),
        };
        Ok(Self { regex: Regex::new(&pattern.pattern)?, part: pattern.part, share, drops })
    }

    fn fits(&self, text: &str, characters: usize) -> bool {
        let Some((least, most)) = self.share else { return self.regex.is_match(text) };
        let matched: usize = self.regex.find_iter(text).map(|found| found.as_str().chars().count()).sum();
        let share = if characters == 0 { 0.0 } else { matched as f64 / characters as f64 };
        (least..=most).contains(&share)
    }
}
