//! Tokenizer and chat template of a model folder, and whether two folders have the same.

use std::path::Path;

use pipe_text::{ChatTemplate, Conversation, Tokenizer};
use serde_json::{Value, json};

use crate::{Error, Format};

/// Texts that a tokenizer may well cut wrongly: digits, spaces, ends of lines, contractions, other scripts, no letters.
const PROBES: [&str; 8] = [
    "The quick brown fox jumps over the lazy dog.",
    "In 1984, 1234567 people paid $3.14 - they'll say it's 50% OFF!!",
    "  def f(x):\n\treturn x  \r\n\n\n    # done   ",
    "北京是中国的首都，有2154万人。",
    "Ünïcödé é e\u{301} ﬁne Ⅷ ½ 🙂👩‍👩‍👧 \u{200b}",
    "I'LL we're DON'T ''quoted'' \"x\"",
    "https://example.org/a_b-c?d=e&f=%20#g",
    "مرحبا שלום नमस्ते สวัสดี 안녕하세요",
];

/// What is said with a model.
pub(crate) struct Dialogue {
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
}

impl Dialogue {
    /// Loads both, where they are.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let tokenizer = folder.join("tokenizer.json").exists().then(|| Tokenizer::load(folder)).transpose()?;
        Ok(Self { tokenizer, template: ChatTemplate::load(folder)? })
    }

    /// The token that closes the assistant's turn; `None` where there is none, or it cannot be told.
    pub(crate) fn turn_end(&self) -> Option<u32> {
        let (tokenizer, template) = (self.tokenizer.as_ref()?, self.template.as_ref()?);
        let messages =
            [json!({ "role": "user", "content": "Question" }), json!({ "role": "assistant", "content": "Answer" })];
        let conversation = Conversation { messages: &messages, tools: None, add_generation_prompt: false };
        let rendered = template.render_told(&conversation, tokenizer).ok()?;
        let spans = template.assistant_spans(&conversation, &rendered, tokenizer).ok()?;
        rendered.token_that_ends_at(spans.last()?.end, tokenizer)
    }

    /// Fails unless `other`, which was written, makes the same tokens of the same texts and conversations.
    pub(crate) fn compare(&self, other: &Self, format: Format) -> Result<(), Error> {
        let failed = |problem: String| Error::Check { format: format.name(), problem };
        let (Some(ours), Some(theirs)) = (&self.tokenizer, &other.tokenizer) else {
            let same = self.tokenizer.is_some() == other.tokenizer.is_some();
            return if same { Ok(()) } else { Err(failed("the tokenizer was lost".to_owned())) };
        };
        for text in PROBES {
            let (expected, found) = (ours.encode(text)?, theirs.encode(text)?);
            if expected != found {
                return Err(failed(format!("the tokens of {text:?} are {found:?}, they should be {expected:?}")));
            }
            if theirs.decode(&found, false)? != ours.decode(&expected, false)? {
                return Err(failed(format!("the tokens of {text:?} give another text")));
            }
        }
        let (Some(ours_template), Some(theirs_template)) = (&self.template, &other.template) else {
            let same = self.template.is_some() == other.template.is_some();
            return if same { Ok(()) } else { Err(failed("the chat template was lost".to_owned())) };
        };
        for messages in conversations() {
            for add_generation_prompt in [false, true] {
                let conversation = Conversation { messages: &messages, tools: None, add_generation_prompt };
                // What the template refuses, both refuse.
                let Ok(expected) = ours_template.render(&conversation) else { continue };
                let found = theirs_template.render(&conversation)?;
                if expected != found || ours.encode(&expected)? != theirs.encode(&found)? {
                    return Err(failed(format!("a conversation of {} messages has other tokens", messages.len())));
                }
            }
        }
        Ok(())
    }
}

fn conversations() -> Vec<Vec<Value>> {
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let (system, user, assistant) =
        (message("system", PROBES[3]), message("user", PROBES[1]), message("assistant", PROBES[4]));
    let more = message("user", PROBES[6]);
    vec![
        vec![user.clone()],
        vec![user.clone(), assistant.clone()],
        vec![system.clone(), user.clone()],
        vec![system, user, assistant, more],
    ]
}
