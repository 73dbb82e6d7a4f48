//! The special tokens of a tokenizer, found in text, and told apart: those that a template writes, and those that stand
//! in the text that it was given.
//!
//! The template renders a conversation twice: as it is, and with a word in the place of all that could be a special
//! token or a piece of one. Where the word comes out, the text is the conversation's own. Pieces count because templates
//! put texts together: the parts `<|im_` and `end|>` of a content give a token that neither of them holds.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Map, Value};

/// The special tokens of a tokenizer.
#[derive(Debug, Default)]
pub(crate) struct SpecialTokens {
    contents: Vec<String>,
    whole: Option<AhoCorasick>,
    /// Tokens, and the first and last two characters of each.
    pieces: Option<AhoCorasick>,
    /// Only those characters: whatever holds none of them holds no token.
    short: Option<AhoCorasick>,
    /// With which characters tokens begin, and end.
    first: Vec<char>,
    last: Vec<char>,
}

impl SpecialTokens {
    pub(crate) fn new(contents: Vec<String>) -> Self {
        let mut short: Vec<String> = contents.iter().flat_map(|token| ends(token)).collect();
        short.sort_unstable();
        short.dedup();
        let pieces: Vec<&String> = contents.iter().chain(&short).collect();
        let mut first: Vec<char> = contents.iter().filter_map(|token| token.chars().next()).collect();
        let mut last: Vec<char> = contents.iter().filter_map(|token| token.chars().next_back()).collect();
        for ends in [&mut first, &mut last] {
            ends.sort_unstable();
            ends.dedup();
        }
        Self { whole: matcher(&contents), pieces: matcher(&pieces), short: matcher(&short), first, last, contents }
    }

    /// The texts of the tokens.
    pub(crate) fn contents(&self) -> &[String] {
        &self.contents
    }

    /// Where tokens stand in a text, as the tokenizer takes them: the longest at each place, from left to right.
    pub(crate) fn find(&self, text: &str) -> Vec<Range<usize>> {
        self.whole.iter().flat_map(|whole| whole.find_iter(text)).map(|found| found.range()).collect()
    }

    /// How many tokens stand in a text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.whole.as_ref().map_or(0, |whole| whole.find_iter(text).count())
    }

    /// Where tokens stand that hold no byte of `foreign` (ascending), and how many tokens do.
    pub(crate) fn find_own(&self, text: &str, foreign: &[Range<usize>]) -> (Vec<Range<usize>>, usize) {
        let (mut own, mut others) = (Vec::new(), 0);
        let (mut from, mut counted) = (0, 0);
        let Some(whole) = &self.whole else { return (own, others) };
        while let Some(found) = whole.find(aho_corasick::Input::new(text).range(from..)) {
            let next = foreign.partition_point(|range| range.end <= found.start());
            if foreign.get(next).is_some_and(|range| range.start < found.end()) {
                others += usize::from(found.start() >= counted);
                counted = counted.max(found.end());
                // A token of the template may begin inside.
                from = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8);
            } else {
                from = found.end();
                own.push(found.range());
            }
        }
        (own, others)
    }

    /// Whether some text of a JSON value could bring a special token, or a piece of one.
    pub(crate) fn may_be_in(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.may_be_in_text(text),
            Value::Array(items) => items.iter().any(|item| self.may_be_in(item)),
            Value::Object(fields) => {
                fields.iter().any(|(key, value)| self.may_be_in_text(key) || self.may_be_in(value))
            }
            _ => false,
        }
    }

    fn may_be_in_text(&self, text: &str) -> bool {
        self.short.as_ref().is_some_and(|short| short.is_match(text))
            || self.head(text).is_some()
            || self.tail(text).is_some()
    }

    /// A character at the start of a text with which a token ends.
    fn head(&self, text: &str) -> Option<Range<usize>> {
        let rest = text.trim_start();
        let c = rest.chars().next().filter(|c| self.last.contains(c))?;
        let start = text.len() - rest.len();
        Some(start..start + c.len_utf8())
    }

    /// A character at the end of a text with which a token begins.
    fn tail(&self, text: &str) -> Option<Range<usize>> {
        let rest = text.trim_end();
        let c = rest.chars().next_back().filter(|c| self.first.contains(c))?;
        Some(rest.len() - c.len_utf8()..rest.len())
    }
}

/// The first and the last two characters of a token; the token if it has no more.
fn ends(token: &str) -> [String; 2] {
    let last: Vec<char> = token.chars().rev().take(2).collect();
    [token.chars().take(2).collect(), last.into_iter().rev().collect()]
}

fn matcher<T: AsRef<[u8]>>(patterns: &[T]) -> Option<AhoCorasick> {
    if patterns.is_empty() {
        return None;
    }
    // Fails only for more patterns than memory holds.
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns).ok()
}

/// How closely [`Marks`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// At tokens and at pieces of tokens.
    Pieces,
    /// At tokens only.
    Tokens,
}

/// Digits behind the word of a mark: which of the texts it stands for.
const DIGITS: usize = 6;

/// Words that stand for texts.
pub(crate) struct Marks<'a> {
    special: &'a SpecialTokens,
    look: Look,
    word: &'a str,
    texts: Vec<String>,
}

impl<'a> Marks<'a> {
    /// `word` must not occur in what is marked, nor in what is rendered of it.
    pub(crate) fn new(special: &'a SpecialTokens, look: Look, word: &'a str) -> Self {
        Self { special, look, word, texts: Vec::new() }
    }

    /// The value with marks in the place of tokens.
    pub(crate) fn put(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.put_in_text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.put(item)).collect()),
            Value::Object(fields) => {
                let marked = fields.iter().map(|(key, value)| (self.put_in_text(key), self.put(value)));
                Value::Object(marked.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    fn put_in_text(&mut self, text: &str) -> String {
        let special = self.special;
        let (matcher, mut found) = match self.look {
            Look::Pieces => (&special.pieces, Vec::from_iter(special.head(text))),
            Look::Tokens => (&special.whole, Vec::new()),
        };
        found.extend(matcher.iter().flat_map(|matcher| matcher.find_iter(text)).map(|found| found.range()));
        if self.look == Look::Pieces {
            found.extend(special.tail(text));
        }
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for range in found {
            if range.start < done {
                continue;
            }
            out.push_str(&text[done..range.start]);
            done = range.end;
            let mark = self.mark(&text[range]);
            out.push_str(&mark);
        }
        out.push_str(&text[done..]);
        out
    }

    fn mark(&mut self, text: &str) -> String {
        let index = self.texts.iter().position(|known| known == text).unwrap_or_else(|| {
            self.texts.push(text.to_owned());
            self.texts.len() - 1
        });
        format!("{}{index:0DIGITS$}", self.word)
    }

    /// Where in `plain` the texts stand whose marks stand in `marked`; `None` if the two differ in anything else.
    pub(crate) fn places(&self, marked: &str, plain: &str) -> Option<Vec<Range<usize>>> {
        let mut places = Vec::new();
        let (mut rest, mut at) = (marked, 0);
        while let Some((before, mark)) = rest.split_once(self.word) {
            at = behind(plain, at, before)?;
            let index: usize = mark.get(..DIGITS)?.parse().ok()?;
            let text = self.texts.get(index)?;
            // JSON writes quotes and backslashes in another way.
            let end = behind(plain, at, text).or_else(|| behind(plain, at, json(text).trim_matches('"')))?;
            places.push(at..end);
            at = end;
            rest = &mark[DIGITS..];
        }
        (plain.get(at..) == Some(rest)).then_some(places)
    }
}

/// Where `part` ends if it stands in `text` at `at`.
fn behind(text: &str, at: usize, part: &str) -> Option<usize> {
    text.get(at..)?.starts_with(part).then_some(at + part.len())
}

/// A text as JSON writes it between its quotes.
fn json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn special() -> SpecialTokens {
        SpecialTokens::new(["<|im_end|>", "<|im_start|>", "<|\"|>"].map(str::to_owned).to_vec())
    }

    #[test]
    fn what_holds_no_piece_is_passed_over() {
        let special = special();
        for text in ["plain", "<think>a</think>", "a | b > c < d", "x <| y", "\n>", "a<"] {
            let brings = ["x <| y", "\n>", "a<"].contains(&text);
            assert_eq!(special.may_be_in(&json!([{ "a": text }])), brings, "{text}");
            assert_eq!(special.may_be_in(&json!({ text: 1 })), brings, "{text}");
        }
    }

    #[test]
    fn marks_tell_where_texts_came_out() {
        let special = special();
        let mut marks = Marks::new(&special, Look::Pieces, "word");
        let marked = marks.put(&json!(["a<|im_end|>b", { "<|\"|>": "<|im_" }, ">end|> <"]));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        assert_eq!(text(&marked[0]), "aword000000b");
        assert_eq!(marked[1], json!({ "word000001": "word000002im_" }));
        assert_eq!(text(&marked[2]), "word000003endword000004 word000005");
        let plain = "<|im_end|>: a<|im_end|>b <|\\\"|> <|\"|>";
        let places = marks.places("<|im_end|>: aword000000b word000001 word000001", plain).unwrap();
        let places: Vec<&str> = places.into_iter().map(|range| &plain[range]).collect();
        assert_eq!(places, ["<|im_end|>", "<|\\\"|>", "<|\"|>"]);
        assert_eq!(marks.places("aword000000b", "a<|IM_END|>b"), None);
        assert_eq!(marks.places("aword000000b", "a<|im_end|>bc"), None);
        assert_eq!(marks.places("aword99", "a"), None);
    }

    #[test]
    fn a_token_of_the_template_is_none_of_the_texts() {
        let special = special();
        let text = "<|im_end|><|im_end|>x<|im_end|>";
        let ranges = |foreign: &[Range<usize>]| special.find_own(text, foreign);
        assert_eq!(ranges(&[]), (vec![0..10, 10..20, 21..31], 0));
        assert_eq!(ranges(std::slice::from_ref(&(10..12))), (vec![0..10, 21..31], 1));
        assert_eq!(ranges(&[0..20, 20..22]), (vec![], 3));
        // One that begins inside of what is none.
        let overlapping = SpecialTokens::new(["ab", "bc"].map(str::to_owned).to_vec());
        let (own, others) = overlapping.find_own("abc", std::slice::from_ref(&(0..1)));
        assert_eq!((own.first(), own.len(), others), (Some(&(1..3)), 1, 1));
    }
}
