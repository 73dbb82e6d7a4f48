//! Alpaca: `instruction`, `input` and `output`, as a conversation. The input stands on a line of its own below the
//! instruction. `history` is what was said before, as pairs of question and answer.

use pipe_records::describe;
use serde_json::Value;

use super::{BadRow, Fields, Reason, Row, message};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["instruction", "input", "output", "history", "system"]
    }

    fn described(&self) -> &'static str {
        "`instruction` and `output`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        row.has("instruction")
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        let mut messages = Vec::new();
        for (number, pair) in (1..).zip(row.optional_list("history")?.unwrap_or_default()) {
            let (question, answer) = turn(number, &pair)?;
            messages.extend([message::says("user", question), message::says("assistant", answer)]);
        }
        let (instruction, output) = (row.filled_text("instruction")?, row.filled_text("output")?);
        let question = match row.optional_text("input")? {
            Some(input) if !input.is_empty() => format!("{instruction}\n{input}"),
            _ => instruction,
        };
        messages.extend([message::says("user", &question), message::says("assistant", &output)]);
        message::with_system(row.optional_text("system")?, &mut messages)?;
        Ok(Row::messages(messages, None))
    }
}

fn turn(number: usize, pair: &Value) -> Result<(&str, &str), BadRow> {
    let Some([question, answer]) = pair.as_array().map(Vec::as_slice) else {
        let found = pair.as_array().map_or_else(|| describe(pair).to_owned(), |list| format!("a list of {}", list.len()));
        return Err(Reason::WrongType
            .because(format!("turn {number} of `history` is {found}, not a pair of question and answer")));
    };
    let text = |value: &Value, what: &str| match value {
        Value::String(text) if text.trim().is_empty() => {
            Err(Reason::Empty.because(format!("the {what} of turn {number} of `history` is empty")))
        }
        Value::String(_) => Ok(()),
        other => Err(Reason::WrongType
            .because(format!("the {what} of turn {number} of `history` is {}, not text", describe(other)))),
    };
    text(question, "question")?;
    text(answer, "answer")?;
    Ok((question.as_str().unwrap_or_default(), answer.as_str().unwrap_or_default()))
}
