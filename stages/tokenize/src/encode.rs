//! Rows to ids and labels.

use std::ops::Range;

use pipe_samples::{IGNORED, Sample, TruncationSide};
use pipe_text::{ChatTemplate, Conversation, SpecialInText, Tokenizer};

use crate::{
    Config, Error, LossOn, OnTooLong, SpecialTokensInText,
    model::Model,
    row::{BadRow, Reason, Row},
};

/// Turns rows into samples. Shared by all threads.
pub(crate) struct Encoder<'a> {
    model: &'a Model,
    loss_on: LossOn,
    max_length: usize,
    on_too_long: OnTooLong,
    truncation_side: TruncationSide,
    eos: Option<u32>,
    special: SpecialInText,
}

/// A row that became a sample.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) sample: Sample,
    /// What became of it if it was longer than `max_length`.
    pub(crate) length: Length,
    /// Whether it ends a completion without an end token, which nobody can want.
    pub(crate) open_ended: bool,
    /// Special tokens that stand in its own text, whatever they are taken for.
    pub(crate) special_in_text: u64,
    /// What became of the tokens that close the assistant's turns.
    pub(crate) ends: Ends,
}

/// What becomes of a row by its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// It fits.
    Fits,
    /// It has lost tokens.
    Truncated {
        tokens: u64,
        /// Whether the loss counted some of its tokens, and now counts none.
        untrained: bool,
    },
    /// It must be left out.
    TooLong,
}

/// What becomes of the tokens that close the assistant's turns in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Nobody asked: the loss counts everything, or the row has no turns.
    Any,
    /// The loss counts one.
    Trained,
    /// `max_length` cuts all of them off.
    Cut,
    /// The template writes none.
    Missing,
}

/// Why a row did not become a sample.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It is the row's fault.
    Row(BadRow),
    /// The model lacks a tokenizer or a template.
    Missing(&'static str),
    /// It would be every row's.
    Fatal(Error),
}

impl From<BadRow> for Trouble {
    fn from(row: BadRow) -> Self {
        Self::Row(row)
    }
}

impl From<pipe_text::Error> for Trouble {
    fn from(error: pipe_text::Error) -> Self {
        match error {
            pipe_text::Error::Render { source } => Self::Row(
                Reason::RefusedByTemplate.because(format!("the chat template refuses the conversation: {source}")),
            ),
            error @ (pipe_text::Error::Span { .. } | pipe_text::Error::SpecialInText | pipe_text::Error::NotApart) => {
                Self::Row(Reason::RefusedByTemplate.because(error.to_string()))
            }
            error => Self::Fatal(error.into()),
        }
    }
}

/// Ids, and which of them the loss counts.
struct Tokens {
    ids: Vec<u32>,
    trained: Trained,
    special_in_text: usize,
    /// The tokens that close the assistant's turns; `None` if nobody asked.
    ends: Option<Vec<u32>>,
}

enum Trained {
    All,
    Some(Vec<bool>),
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(config: &Config, model: &'a Model) -> Result<Self, Error> {
        let eos = model.tokenizer.as_ref().and_then(Tokenizer::eos);
        Ok(Self {
            model,
            loss_on: config.loss_on,
            max_length: usize::try_from(config.max_length).unwrap_or(usize::MAX),
            on_too_long: config.on_too_long,
            truncation_side: config.truncation_side,
            eos: if config.add_eos { Some(eos.ok_or(Error::NoEos)?) } else { None },
            special: match config.special_tokens_in_text {
                SpecialTokensInText::Text => SpecialInText::Text,
                SpecialTokensInText::Parse => SpecialInText::Parse,
            },
        })
    }

    /// The sample of a row.
    pub(crate) fn encode(&self, row: Row) -> Result<Encoded, Trouble> {
        let open_ended = self.eos.is_none() && matches!(row, Row::Completion { .. });
        let tokens = match row {
            Row::Messages { messages, tools, prompt_messages } => {
                self.messages(&messages, tools.as_ref(), prompt_messages)?
            }
            Row::Completion { prompt, completion } => self.completion(&prompt, &completion)?,
            Row::Text(text) => self.text(&text)?,
            Row::Ids { input_ids, labels } => {
                let sample = self.ready(input_ids, labels)?;
                return Ok(self.cut(sample, None, open_ended, 0));
            }
        };
        let (special_in_text, ends) = (tokens.special_in_text as u64, tokens.ends.clone());
        Ok(self.cut(self.sample(tokens)?, ends.as_deref(), open_ended, special_in_text))
    }

    fn cut(&self, mut sample: Sample, ends: Option<&[u32]>, open_ended: bool, special_in_text: u64) -> Encoded {
        let length = self.shorten(&mut sample);
        let trained = |id: &u32| sample.labels.iter().any(|label| u32::try_from(*label) == Ok(*id));
        let ends = match ends {
            None => Ends::Any,
            Some([]) => Ends::Missing,
            Some(ends) if ends.iter().any(trained) => Ends::Trained,
            Some(_) => Ends::Cut,
        };
        Encoded { sample, length, open_ended, special_in_text, ends }
    }

    fn shorten(&self, sample: &mut Sample) -> Length {
        if sample.input_ids.len() <= self.max_length {
            return Length::Fits;
        }
        if self.on_too_long == OnTooLong::Drop {
            return Length::TooLong;
        }
        let trained = sample.view().trained() > 0;
        let tokens = sample.truncate(self.max_length, self.truncation_side) as u64;
        Length::Truncated { tokens, untrained: trained && sample.view().trained() == 0 }
    }

    fn messages(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        prompt_messages: usize,
    ) -> Result<Tokens, Trouble> {
        let (tokenizer, template) = (self.tokenizer()?, self.template()?);
        let conversation = Conversation { messages, tools, add_generation_prompt: false };
        let rendered = template.render_told(&conversation, tokenizer)?;
        let special_in_text = rendered.special_in_text();
        if self.loss_on == LossOn::All {
            let ids = tokenizer.encode_rendered(&rendered, self.special)?;
            return Ok(Tokens { ids, trained: Trained::All, special_in_text, ends: None });
        }
        // A span for each message of the assistant's, in order.
        let mut spans = template.assistant_spans(&conversation, &rendered, tokenizer)?;
        let of_prompt = messages[..prompt_messages].iter().filter(|message| message["role"] == "assistant").count();
        spans.drain(..of_prompt);
        if spans.is_empty() {
            return Err(Reason::NoAssistant
                .because("no message is the assistant's, and loss_on counts no other")
                .into());
        }
        let (ids, trained) = tokenizer.encode_rendered_spans(&rendered, self.special, &spans)?;
        if !trained.contains(&true) {
            return Err(Reason::NoAssistant
                .because("the chat template writes nothing of what the assistant says")
                .into());
        }
        let mut ends: Vec<u32> =
            spans.iter().filter_map(|span| rendered.token_that_ends_at(span.end, tokenizer)).collect();
        ends.dedup();
        Ok(Tokens { ids, trained: Trained::Some(trained), special_in_text, ends: Some(ends) })
    }

    fn completion(&self, prompt: &str, completion: &str) -> Result<Tokens, Trouble> {
        let text = format!("{prompt}{completion}");
        self.plain(&text, Some(prompt.len()..text.len()))
    }

    fn text(&self, text: &str) -> Result<Tokens, Trouble> {
        if self.loss_on == LossOn::Assistant {
            return Err(Reason::NoAssistant.because("plain `text` has no assistant for loss_on to look at").into());
        }
        self.plain(text, None)
    }

    /// Text without a template, and what of it the assistant says.
    fn plain(&self, text: &str, said: Option<Range<usize>>) -> Result<Tokens, Trouble> {
        let tokenizer = self.tokenizer()?;
        let special_in_text = tokenizer.count_special(text);
        let (ids, trained) = match said {
            Some(span) if self.loss_on == LossOn::Assistant => {
                let (ids, trained) = tokenizer.encode_spans(text, self.special, std::slice::from_ref(&span))?;
                (ids, Trained::Some(trained))
            }
            _ => (tokenizer.encode_text(text, self.special)?, Trained::All),
        };
        Ok(self.ended(Tokens { ids, trained, special_in_text, ends: None }))
    }

    fn ready(&self, input_ids: Vec<u32>, labels: Option<Vec<i32>>) -> Result<Sample, Trouble> {
        let bound = self.model.vocab_size.unwrap_or(i32::MAX as u64);
        if let Some(id) = input_ids.iter().find(|id| u64::from(**id) >= bound) {
            return Err(Reason::BadIds.because(format!("the id {id} is none of the model's {bound}")).into());
        }
        let Some(labels) = labels else {
            if self.loss_on == LossOn::Assistant {
                let detail = "`input_ids` without `labels` do not say what the assistant says";
                return Err(Reason::NoAssistant.because(detail).into());
            }
            return self.sample(Tokens { ids: input_ids, trained: Trained::All, special_in_text: 0, ends: None });
        };
        let known = |label: i32| label == IGNORED || u64::try_from(label).is_ok_and(|label| label < bound);
        if let Some(label) = labels.iter().find(|label| !known(**label)) {
            let detail = format!("the label {label} is neither {IGNORED} nor an id of the model's {bound}");
            return Err(Reason::BadIds.because(detail).into());
        }
        Ok(Sample { input_ids, labels })
    }

    fn ended(&self, mut tokens: Tokens) -> Tokens {
        if let Some(eos) = self.eos {
            tokens.ids.push(eos);
            if let Trained::Some(trained) = &mut tokens.trained {
                trained.push(true);
            }
        }
        tokens
    }

    fn sample(&self, tokens: Tokens) -> Result<Sample, Trouble> {
        let vocab_size = self.model.vocab_size.unwrap_or(u64::MAX);
        let label = |id: u32| match i32::try_from(id) {
            Ok(label) if u64::from(id) < vocab_size => Ok(label),
            _ => Err(Trouble::Fatal(Error::Vocabulary { id, vocab_size })),
        };
        let mut labels = tokens.ids.iter().map(|id| label(*id)).collect::<Result<Vec<i32>, _>>()?;
        if let Trained::Some(trained) = tokens.trained {
            for (label, _) in labels.iter_mut().zip(trained).filter(|(_, trained)| !trained) {
                *label = IGNORED;
            }
        }
        Ok(Sample { input_ids: tokens.ids, labels })
    }

    fn tokenizer(&self) -> Result<&Tokenizer, Trouble> {
        self.model.tokenizer.as_ref().ok_or(Trouble::Missing("a tokenizer (tokenizer.json)"))
    }

    fn template(&self) -> Result<&ChatTemplate, Trouble> {
        self.model.template.as_ref().ok_or(Trouble::Missing("a chat template (chat_template.jinja)"))
    }
}
