//! `question` and `answer`, as a conversation.

use super::{BadRow, Fields, Row, message};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["question", "answer", "system"]
    }

    fn described(&self) -> &'static str {
        "`question` and `answer`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        row.has("question") && row.has("answer")
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        let (question, answer) = (row.filled_text("question")?, row.filled_text("answer")?);
        let mut messages = vec![message::says("user", &question), message::says("assistant", &answer)];
        message::with_system(row.optional_text("system")?, &mut messages)?;
        Ok(Row::messages(messages, None))
    }
}
