//! Generated tokens to text, as they come.

use crate::{Error, Tokenizer};

/// What decoders write for bytes that are no UTF-8, or not yet.
const BROKEN: char = '\u{FFFD}';

/// An answer that is being generated. No character is given before it is whole, and special tokens give none.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Tokens from here to `given` are decoded once more with the next ones: some decoders look at what stands before.
    window: usize,
    /// The text of tokens up to here has been given.
    given: usize,
}

impl<'a> TextStream<'a> {
    /// Of an answer that has no tokens yet.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), window: 0, given: 0 }
    }

    /// Takes the next token; gives the text that is certain now, which may be none.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses the tokens.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.ids.push(id);
        self.advance(false)
    }

    /// The rest, once no more tokens come.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses the tokens.
    pub fn finish(&mut self) -> Result<String, Error> {
        self.advance(true)
    }

    fn advance(&mut self, last: bool) -> Result<String, Error> {
        let before = self.tokenizer.decode(&self.ids[self.window..self.given], true)?;
        let with = self.tokenizer.decode(&self.ids[self.window..], true)?;
        if !last && with.ends_with(BROKEN) {
            return Ok(String::new());
        }
        // What was given stays given, also where a decoder has changed its mind.
        let text = with.strip_prefix(&before).or_else(|| with.get(before.len()..)).unwrap_or_default().to_owned();
        if !text.is_empty() || last {
            self.window = self.given;
            self.given = self.ids.len();
        }
        Ok(text)
    }
}

/// Texts that end an answer.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The beginning of a stop, perhaps.
    held: String,
}

/// What [`StopStrings`] makes of a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What belongs to the answer for certain.
    pub text: String,
    /// Whether a stop has come: nothing behind it counts, and it is not part of the answer.
    pub stopped: bool,
}

impl StopStrings {
    /// Empty ones stop nothing.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next piece of the answer.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let begins = |(at, _): &(usize, char)| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let certain = self.held.char_indices().find(begins).map_or(self.held.len(), |(at, _)| at);
        let rest = self.held.split_off(certain);
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What is held back, once no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut strings = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()));
        let mut texts = Vec::new();
        for piece in pieces {
            let Passed { text, stopped } = strings.push(piece);
            texts.push(text);
            if stopped {
                return (texts, true);
            }
        }
        texts.push(strings.finish());
        (texts, false)
    }

    #[test]
    fn a_stop_is_found_across_pieces_and_nothing_of_it_is_given() {
        assert_eq!(passed(&[], &["a", "b"]), (["a", "b", ""].map(str::to_owned).to_vec(), false));
        let (texts, stopped) = passed(&["\nUser:"], &["yes\n", "no\nUs", "er", ": more"]);
        assert_eq!((texts.concat().as_str(), stopped), ("yes\nno", true));
        // What could begin one is held back no longer than it could.
        let (texts, stopped) = passed(&["END"], &["xE", "N", "e", "E"]);
        assert_eq!((texts, stopped), (["x", "", "ENe", "", "E"].map(str::to_owned).to_vec(), false));
        // The first in the text counts, not the first in the list.
        assert_eq!(passed(&["三", "二"], &["一二三"]), (vec!["一".to_owned()], true));
        assert_eq!(passed(&[""], &["a"]).0.concat(), "a");
    }
}
