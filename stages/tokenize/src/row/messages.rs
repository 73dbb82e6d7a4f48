//! Messages with `role` and `content`.

use super::{BadRow, Fields, Row, message};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["messages", "conversations", "system", "tools"]
    }

    fn described(&self) -> &'static str {
        "`messages`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        row.has("messages") || row.has("conversations")
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        let mut messages = row.filled_list(list(row))?;
        message::check_all(&messages)?;
        message::with_system(row.optional_text("system")?, &mut messages)?;
        Ok(Row::messages(messages, row.optional_list("tools")?))
    }
}

/// The field in which a row has its messages.
pub(super) fn list(row: &Fields<'_>) -> &'static str {
    if row.has("messages") || !row.has("conversations") { "messages" } else { "conversations" }
}
