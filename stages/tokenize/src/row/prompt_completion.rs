//! `prompt` and `completion`: two texts, or (as TRL has it too) two lists of messages.

use serde_json::Value;

use super::{BadRow, Fields, Reason, Row, message};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["prompt", "completion", "tools"]
    }

    fn described(&self) -> &'static str {
        "`prompt` and `completion`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        row.has("prompt") && row.has("completion")
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        if row.is_list("prompt") && row.is_list("completion") {
            let mut messages = row.filled_list("prompt")?;
            let prompt_messages = messages.len();
            messages.extend(row.filled_list("completion")?);
            message::check_all(&messages)?;
            let tools = row.optional_list("tools")?.map(Value::Array);
            return Ok(Row::Messages { messages, tools, prompt_messages });
        }
        if row.is_list("prompt") != row.is_list("completion") && row.has("prompt") && row.has("completion") {
            let detail = "one of `prompt` and `completion` is a list; both should be text, or lists of messages";
            return Err(Reason::WrongType.because(detail));
        }
        Ok(Row::Completion { prompt: row.text("prompt")?, completion: row.filled_text("completion")? })
    }
}
