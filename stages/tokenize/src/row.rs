//! What a row may look like, and what is wrong with one that does not.

use pipe_records::Fault;
use serde_json::{Map, Value};

const SHAPES: &str = "`messages`, `instruction` and `output`, `prompt` and `completion`, `text`, or `input_ids`";
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// A usable row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    /// A conversation, and the tools that the assistant may call.
    Messages { messages: Vec<Value>, tools: Option<Value> },
    /// A text to go on from and how it goes on.
    Completion { prompt: String, completion: String },
    /// Plain text.
    Text(String),
    /// Ready ids, and labels where the row has them.
    Ids { input_ids: Vec<u32>, labels: Option<Vec<i32>> },
}

/// Why a row cannot be used: a reason to count it under, and the details of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRow {
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// The kinds of bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It gives no record.
    Unreadable(pipe_records::Reason),
    UnknownShape,
    WrongType,
    WrongRole,
    Empty,
    BadIds,
    NoAssistant,
    RefusedByTemplate,
}

impl From<Fault> for BadRow {
    fn from(fault: Fault) -> Self {
        Self { reason: Reason::Unreadable(fault.reason), detail: fault.detail }
    }
}

impl Reason {
    /// The name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unreadable(reason) => reason.name(),
            Self::UnknownShape => "unknown_shape",
            Self::WrongType => "wrong_type",
            Self::WrongRole => "wrong_role",
            Self::Empty => "empty",
            Self::BadIds => "bad_ids",
            Self::NoAssistant => "no_assistant",
            Self::RefusedByTemplate => "refused_by_template",
        }
    }

    pub(crate) fn because(self, detail: impl Into<String>) -> BadRow {
        BadRow { reason: self, detail: detail.into() }
    }
}

impl Row {
    /// Finds out what a record is.
    pub(crate) fn of(mut row: Map<String, Value>) -> Result<Self, BadRow> {
        // Tables that were written as JSON have every column in every row.
        row.retain(|_, value| !value.is_null());
        if let Some(messages) = row.remove("messages") {
            Self::messages(messages, row.remove("tools"))
        } else if let Some(ids) = row.remove("input_ids") {
            Self::ids(&ids, row.get("labels"))
        } else if row.contains_key("instruction") {
            Self::instruction(&row)
        } else if row.contains_key("prompt") && row.contains_key("completion") {
            let (prompt, completion) = (string(&row, "prompt")?, string(&row, "completion")?);
            not_empty(completion, "completion")?;
            Ok(Self::Completion { prompt: prompt.to_owned(), completion: completion.to_owned() })
        } else if row.contains_key("text") {
            let text = string(&row, "text")?;
            // Blank text may be meant (code, verse); no text at all is not.
            if text.is_empty() {
                return Err(Reason::Empty.because("`text` is empty"));
            }
            Ok(Self::Text(text.to_owned()))
        } else {
            let keys: Vec<_> = row.keys().map(|key| format!("`{key}`")).collect();
            let has = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            Err(Reason::UnknownShape.because(format!("the row has {has}; it should have {SHAPES}")))
        }
    }

    fn messages(messages: Value, tools: Option<Value>) -> Result<Self, BadRow> {
        let Value::Array(messages) = messages else {
            return Err(Reason::WrongType.because(format!("`messages` is {}, not a list", describe(&messages))));
        };
        if messages.is_empty() {
            return Err(Reason::Empty.because("`messages` is empty"));
        }
        for (number, message) in (1..).zip(&messages) {
            check_message(number, message)?;
        }
        match tools {
            Some(tools) if !tools.is_array() => {
                Err(Reason::WrongType.because(format!("`tools` is {}, not a list", describe(&tools))))
            }
            tools => Ok(Self::Messages { messages, tools }),
        }
    }

    /// Alpaca's shape, as a conversation: the input stands on a line of its own below the instruction.
    fn instruction(row: &Map<String, Value>) -> Result<Self, BadRow> {
        let (instruction, output) = (string(row, "instruction")?, string(row, "output")?);
        let input = if row.contains_key("input") { string(row, "input")? } else { "" };
        not_empty(instruction, "instruction")?;
        not_empty(output, "output")?;
        let question = if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n{input}") };
        let messages = vec![
            serde_json::json!({ "role": "user", "content": question }),
            serde_json::json!({ "role": "assistant", "content": output }),
        ];
        Ok(Self::Messages { messages, tools: None })
    }

    fn ids(ids: &Value, labels: Option<&Value>) -> Result<Self, BadRow> {
        let input_ids: Vec<u32> = integers(ids, "input_ids")?;
        if input_ids.is_empty() {
            return Err(Reason::Empty.because("`input_ids` is empty"));
        }
        let labels: Option<Vec<i32>> = labels.map(|labels| integers(labels, "labels")).transpose()?;
        if let Some(labels) = &labels
            && labels.len() != input_ids.len()
        {
            let (labels, ids) = (labels.len(), input_ids.len());
            return Err(Reason::BadIds.because(format!("the row has {ids} `input_ids` and {labels} `labels`")));
        }
        Ok(Self::Ids { input_ids, labels })
    }
}

fn check_message(number: usize, message: &Value) -> Result<(), BadRow> {
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

fn string<'a>(row: &'a Map<String, Value>, field: &str) -> Result<&'a str, BadRow> {
    match row.get(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Reason::WrongType.because(format!("`{field}` is {}, not text", describe(other)))),
        None => Err(Reason::UnknownShape.because(format!("the row has no `{field}`"))),
    }
}

fn not_empty(text: &str, field: &str) -> Result<(), BadRow> {
    if text.trim().is_empty() { Err(Reason::Empty.because(format!("`{field}` is empty"))) } else { Ok(()) }
}

fn integers<T: TryFrom<i64>>(value: &Value, field: &str) -> Result<Vec<T>, BadRow> {
    let Value::Array(values) = value else {
        return Err(Reason::WrongType.because(format!("`{field}` is {}, not a list", describe(value))));
    };
    let integer = |(index, value): (usize, &Value)| {
        value.as_i64().and_then(|id| T::try_from(id).ok()).ok_or_else(|| {
            Reason::BadIds.because(format!("item {} of `{field}` is {value}, which is no token id", index + 1))
        })
    };
    values.iter().enumerate().map(integer).collect()
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(line: &str) -> Reason {
        Row::of(pipe_records::parse_json(line.as_bytes()).unwrap()).unwrap_err().reason
    }

    fn row(line: &str) -> Row {
        Row::of(pipe_records::parse_json(line.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn every_shape_is_known() {
        let chat =
            r#"{"id": 7, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
        let Row::Messages { messages, tools: None } = row(chat) else { panic!() };
        assert_eq!(messages[1], json!({ "role": "assistant", "content": "b" }));
        assert_eq!(row(r#"{"text": "a", "messages": null}"#), Row::Text("a".to_owned()));
        let completion = Row::Completion { prompt: String::new(), completion: "b".to_owned() };
        assert_eq!(row(r#"{"prompt": "", "completion": "b"}"#), completion);
        assert_eq!(row(r#"{"input_ids": [1, 2]}"#), Row::Ids { input_ids: vec![1, 2], labels: None });
        let labelled = Row::Ids { input_ids: vec![1, 2], labels: Some(vec![-100, 2]) };
        assert_eq!(row("{\"input_ids\": [1, 2], \"labels\": [-100, 2]}\r"), labelled);
    }

    #[test]
    fn an_input_stands_below_its_instruction() {
        let question = |line: &str| match row(line) {
            Row::Messages { messages, .. } => messages[0]["content"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(question(r#"{"instruction": "a", "input": "b", "output": "c"}"#), "a\nb");
        assert_eq!(question(r#"{"instruction": "a", "input": "", "output": "c"}"#), "a");
        assert_eq!(question(r#"{"instruction": "a", "output": "c"}"#), "a");
    }

    #[test]
    fn bad_rows_have_a_reason() {
        assert_eq!(reason("{}"), Reason::UnknownShape);
        assert_eq!(reason(r#"{"prompt": "a"}"#), Reason::UnknownShape);
        assert_eq!(reason(r#"{"instruction": "a"}"#), Reason::UnknownShape);
        assert_eq!(reason(r#"{"text": 3}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"messages": {}}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"messages": ["a"]}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"messages": [{"role": "user", "content": "a"}], "tools": "x"}"#), Reason::WrongType);
        assert_eq!(reason(r#"{"messages": [{"role": "robot", "content": "a"}]}"#), Reason::WrongRole);
        assert_eq!(reason(r#"{"messages": [{"content": "a"}]}"#), Reason::WrongRole);
        assert_eq!(reason(r#"{"messages": []}"#), Reason::Empty);
        assert_eq!(reason(r#"{"messages": [{"role": "user", "content": " \n"}]}"#), Reason::Empty);
        assert_eq!(reason(r#"{"messages": [{"role": "user"}]}"#), Reason::Empty);
        assert_eq!(reason(r#"{"text": ""}"#), Reason::Empty);
        assert_eq!(reason(r#"{"instruction": "a", "output": ""}"#), Reason::Empty);
        assert_eq!(reason(r#"{"input_ids": []}"#), Reason::Empty);
        assert_eq!(reason(r#"{"input_ids": [-1]}"#), Reason::BadIds);
        assert_eq!(reason(r#"{"input_ids": [1.5]}"#), Reason::BadIds);
        assert_eq!(reason(r#"{"input_ids": [1], "labels": []}"#), Reason::BadIds);
    }

    #[test]
    fn an_assistant_may_only_call_tools() {
        row(r#"{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"name": "f"}]}]}"#);
        row(r#"{"messages": [{"role": "system", "content": ""}, {"role": "tool", "content": ""}]}"#);
    }
}
