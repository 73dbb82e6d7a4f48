//! Plain `text`.

use super::{BadRow, Fields, Reason, Row};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["text"]
    }

    fn described(&self) -> &'static str {
        "`text`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        row.has("text")
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        let text = row.text("text")?;
        // Blank text may be meant (code, verse); no text at all is not.
        if text.is_empty() { Err(Reason::Empty.because("`text` is empty")) } else { Ok(Row::Text(text)) }
    }
}
