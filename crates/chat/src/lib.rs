//! What `pipe chat` and `pipe serve` say to the process that holds the model, and what it says to them.
//!
//! `pipe-torch chat` reads an [`Order`] a line from its standard input and writes a [`Reply`] a line to its standard
//! output. The first order is [`Order::Load`], and [`Reply::Loaded`] or [`Reply::Refused`] answers it. Then questions are
//! answered in their order, one at a time; [`Order::Cancel`] is heard at once. The process ends with its input.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The subcommand of `pipe-torch`.
pub const SUBCOMMAND: &str = "chat";

/// What the process is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Load a model.
    Load(Load),
    /// Answer.
    Ask(Question),
    /// Stop the answer to the question of this number, or leave it out.
    Cancel {
        /// [`Question::id`].
        id: u64,
    },
}

/// A model to load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// A Hugging Face model folder with its tokenizer.
    pub base: PathBuf,
    /// A PEFT adapter to put on it.
    pub adapter: Option<PathBuf>,
    /// Where to compute; without it on CUDA where that is, else on the CPU.
    pub device: Option<Device>,
    /// Whether weights are unpacked once, rather than for every token; without it where there is memory for that.
    pub unpacked: Option<bool>,
    /// Whether [`Voice::Base`] will be asked, too.
    pub compare: bool,
    /// Threads of one operation on the CPU.
    pub threads: usize,
    /// More variables of the chat template.
    pub chat_template_kwargs: Map<String, Value>,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// The CPU.
    Cpu,
    /// The first CUDA device that the process sees.
    Cuda,
}

/// Who answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Voice {
    /// The base with its adapter.
    #[default]
    Tuned,
    /// The base alone.
    Base,
}

/// Something to answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// A number that no other question has.
    pub id: u64,
    /// Who answers.
    pub voice: Voice,
    /// Objects with `role`, `content` and whatever else the template knows.
    pub messages: Vec<Value>,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// The most tokens of the answer.
    pub max_new_tokens: usize,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Read the whole conversation, also what was read before: to the last bit the same answer every time.
    pub fresh: bool,
}

/// How each token is chosen, by the names of Transformers' `GenerationConfig`. What is not said is what the model's
/// `generation_config.json` says, else nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: Option<f64>,
    /// 0 is none.
    pub top_k: Option<usize>,
    /// Above 0 and up to 1.
    pub top_p: Option<f64>,
    /// From 0 to 1.
    pub min_p: Option<f64>,
    /// Above 0.
    pub repetition_penalty: Option<f64>,
    /// Another one each time, if it is not said.
    pub seed: Option<u64>,
}

/// What the process says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The model is there.
    Loaded(Loaded),
    /// It cannot be loaded; the process ends.
    Refused {
        /// Why not, with its causes.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whether the machine is at fault, not what was asked.
        environment: bool,
    },
    /// An answer begins.
    Begun {
        /// [`Question::id`].
        id: u64,
        /// Tokens of the conversation.
        prompt_tokens: usize,
        /// Of these, those that had been read before.
        kept_tokens: usize,
    },
    /// An answer goes on. A character is never divided.
    Piece {
        /// [`Question::id`].
        id: u64,
        /// The next part of the answer.
        text: String,
    },
    /// An answer is complete.
    Done(Done),
    /// There is no answer, or no more of it.
    Failed {
        /// [`Question::id`].
        id: u64,
        /// Whose fault it is.
        fault: Fault,
        /// What is wrong, with its causes.
        message: String,
    },
}

impl Reply {
    /// Which question it is about.
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::Loaded(_) | Self::Refused { .. } => None,
            Self::Begun { id, .. } | Self::Piece { id, .. } | Self::Failed { id, .. } => Some(*id),
            Self::Done(done) => Some(done.id),
        }
    }

    /// Whether it is the last word about a question.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed { .. })
    }
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Where it computes.
    pub device: Device,
    /// `float32` or `bfloat16`.
    pub computes_in: String,
    /// Whether weights were unpacked once.
    pub unpacked: bool,
    /// Whether there is a chat template; without one a text is continued.
    pub chat_template: bool,
    /// The most tokens of a conversation with its answer.
    pub context_tokens: usize,
    /// What a user may want to know: why there is no CUDA where there is a GPU.
    pub note: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// An answer that is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// [`Question::id`].
    pub id: u64,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the conversation.
    pub prompt_tokens: usize,
    /// Tokens of the answer, with the one that ended it.
    pub completion_tokens: usize,
    /// Until the first token.
    pub prompt_seconds: f64,
    /// From the first token to the last.
    pub completion_seconds: f64,
}

impl Done {
    /// Tokens a second behind the first; `None` for a single one.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let tokens = self.completion_tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
        (self.completion_seconds > 0.0).then(|| tokens as f64 / self.completion_seconds)
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended it, or a stop string came.
    Stop,
    /// It has as many tokens as it may have.
    Length,
    /// It was cancelled.
    Cancelled,
}

/// Whose fault it is that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The question's.
    Question,
    /// The conversation is longer than the model reads.
    Length,
    /// The machine's, or the model's.
    Machine,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let orders = [
            Order::Load(Load { base: "/m".into(), device: Some(Device::Cpu), ..Load::default() }),
            Order::Ask(Question { id: 7, stop: vec!["\n".to_owned()], ..Question::default() }),
            Order::Cancel { id: 7 },
        ];
        for order in orders {
            let line = serde_json::to_string(&order).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
        let failed = Reply::Failed { id: 3, fault: Fault::Length, message: "too long".to_owned() };
        assert_eq!(
            serde_json::to_string(&failed).unwrap(),
            r#"{"reply":"failed","id":3,"fault":"length","message":"too long"}"#
        );
        assert!(failed.is_last() && failed.id() == Some(3));
    }
}
