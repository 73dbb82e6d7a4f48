//! ShareGPT: turns with `from` and `value`.

use pipe_records::describe;
use serde_json::{Value, json};

use super::{BadRow, Fields, Reason, Row, message, messages::list};

pub(super) struct Layout;

impl super::Layout for Layout {
    fn fields(&self) -> &'static [&'static str] {
        &["conversations", "messages", "system", "tools"]
    }

    fn described(&self) -> &'static str {
        "`conversations` of `from` and `value`"
    }

    fn fits(&self, row: &mut Fields<'_>) -> bool {
        let turns = row.peek_list(list(row)).unwrap_or_default();
        turns.first().is_some_and(|turn| turn.get("from").is_some() && turn.get("role").is_none())
    }

    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow> {
        let field = if row.has("conversations") || !row.has("messages") { "conversations" } else { "messages" };
        let turns = row.filled_list(field)?;
        let mut messages = (1..).zip(turns).map(|(number, turn)| message(number, turn)).collect::<Result<Vec<_>, _>>()?;
        message::check_all(&messages)?;
        message::with_system(row.optional_text("system")?, &mut messages)?;
        Ok(Row::messages(messages, row.optional_list("tools")?))
    }
}

fn message(number: usize, turn: Value) -> Result<Value, BadRow> {
    let Value::Object(mut turn) = turn else {
        return Err(Reason::WrongType.because(format!("message {number} is {}, not an object", describe(&turn))));
    };
    let from = match turn.get("from") {
        Some(Value::String(from)) => from.as_str(),
        Some(from) => {
            return Err(Reason::WrongRole.because(format!("the `from` of message {number} is {}", describe(from))));
        }
        None => return Err(Reason::WrongRole.because(format!("message {number} has no `from`"))),
    };
    let role = match from {
        "human" | "user" => "user",
        "gpt" | "assistant" | "model" | "function_call" => "assistant",
        "system" => "system",
        "observation" | "tool" => "tool",
        other => {
            return Err(Reason::WrongRole.because(format!(
                "message {number} is from `{other}`, not from `human`, `user`, `gpt`, `assistant`, `model`, `system`, \
                 `function_call`, `observation` or `tool`"
            )));
        }
    };
    let calls = from == "function_call";
    match turn.remove("value").unwrap_or_default() {
        Value::String(text) => Ok(match Some(text.as_str()).filter(|_| calls).and_then(tool_calls) {
            Some(calls) => json!({ "role": role, "content": "", "tool_calls": calls }),
            None => message::says(role, &text),
        }),
        Value::Null => Err(Reason::Empty.because(format!("message {number} (`{role}`) has no `value`"))),
        other => Err(Reason::WrongType
            .because(format!("the `value` of message {number} is {}, not text", describe(&other)))),
    }
}

/// The calls that JSON text stands for: one with `name` and `arguments`, or a list of such.
fn tool_calls(text: &str) -> Option<Vec<Value>> {
    let calls = match pipe_records::parse_json_text(text, "value").ok()? {
        Value::Array(calls) if !calls.is_empty() => calls,
        call @ Value::Object(_) => vec![call],
        _ => return None,
    };
    let call = |call: Value| {
        let (name, arguments) = (call.get("name")?.as_str()?, call.get("arguments")?);
        Some(json!({ "type": "function", "function": { "name": name, "arguments": arguments } }))
    };
    calls.into_iter().map(call).collect()
}
