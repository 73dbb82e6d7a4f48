//! The messages of a conversation: checked, and made of questions and answers.

use pipe_records::describe;
use serde_json::{Value, json};

use super::{BadRow, Reason};

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// Text that somebody says.
pub(super) fn says(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// Puts a row's `system` before its messages, unless they have a system prompt themselves.
pub(super) fn with_system(system: Option<String>, messages: &mut Vec<Value>) -> Result<(), BadRow> {
    let Some(system) = system.filter(|system| !system.trim().is_empty()) else { return Ok(()) };
    match messages.first() {
        Some(first) if first["role"] == "system" => {
            if first["content"] == system.as_str() {
                return Ok(());
            }
            Err(Reason::WrongRole.because("message 1 is a system prompt, and the row has another one in `system`"))
        }
        _ => {
            messages.insert(0, says("system", &system));
            Ok(())
        }
    }
}

/// Checks messages with `role` and `content`; the first has the number 1.
pub(super) fn check_all(messages: &[Value]) -> Result<(), BadRow> {
    (1..).zip(messages).try_for_each(|(number, message)| check(number, message))
}

fn check(number: usize, message: &Value) -> Result<(), BadRow> {
    let Value::Object(fields) = message else {
        return Err(Reason::WrongType.because(format!("message {number} is {}, not an object", describe(message))));
    };
    let role = match fields.get("role") {
        Some(Value::String(role)) => role.as_str(),
        Some(role) => {
            return Err(Reason::WrongRole.because(format!("the role of message {number} is {}", describe(role))));
        }
        None => return Err(Reason::WrongRole.because(format!("message {number} has no `role`"))),
    };
    if !ROLES.contains(&role) {
        let roles = ROLES.map(|role| format!("`{role}`")).join(", ");
        return Err(Reason::WrongRole.because(format!("message {number} has the role `{role}`, not one of {roles}")));
    }
    let says = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.trim().is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    // A tool may return nothing, and a system prompt may be left empty; who asks or answers says something.
    let empty = match role {
        "user" => !says("content"),
        "assistant" => !says("content") && !says("tool_calls") && !says("reasoning_content"),
        _ => !fields.contains_key("content"),
    };
    if empty { Err(Reason::Empty.because(format!("message {number} (`{role}`) has no content"))) } else { Ok(()) }
}
