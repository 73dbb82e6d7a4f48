//! What a row may look like: the table of shapes. Adding one is a file in `row/` and a line in the table.

mod bad;
mod columns;
mod fields;
mod message;

use std::collections::BTreeMap;

pub(crate) use bad::{BadRow, Reason};
pub(crate) use columns::Columns;
use fields::Fields;
use pipe_records::Record;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Lists shapes as `module: Name`; each module has a unit struct `Layout`. Where several fit a row, the first counts.
macro_rules! shapes {
    ($($(#[$doc:meta])* $module:ident: $name:ident,)*) => {
        $(mod $module;)*

        /// What fields a row has.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Shape {
            $($(#[$doc])* $name,)*
        }

        impl Shape {
            /// Every shape.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name in pipelines and figures.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($module),)*
                }
            }

            fn layout(self) -> &'static dyn Layout {
                match self {
                    $(Self::$name => &$module::Layout,)*
                }
            }
        }
    };
}

shapes! {
    /// `conversations` of `from` and `value`, and `system`, `tools`.
    sharegpt: Sharegpt,
    /// `messages` (or `conversations`) of `role` and `content`, and `system`, `tools`.
    messages: Messages,
    /// Ready `input_ids`, and `labels`.
    input_ids: InputIds,
    /// `instruction` and `output`, and `input`, `history`, `system`.
    alpaca: Alpaca,
    /// `prompt` and `completion`, both text or both lists of messages, and `tools` with the latter.
    prompt_completion: PromptCompletion,
    /// `question` and `answer`, and `system`.
    question_answer: QuestionAnswer,
    /// `text`.
    text: Text,
}

/// A shape.
trait Layout: Sync {
    /// The fields that it looks at.
    fn fields(&self) -> &'static [&'static str];

    /// What a row of it has at least, for a sentence.
    fn described(&self) -> &'static str;

    /// Whether a row is meant to be of it.
    fn fits(&self, row: &mut Fields<'_>) -> bool;

    /// What a row of it becomes.
    fn read(&self, row: &mut Fields<'_>) -> Result<Row, BadRow>;
}

impl Shape {
    /// The fields that it looks at.
    pub fn fields(self) -> &'static [&'static str] {
        self.layout().fields()
    }

    /// The shapes that rows may have: this one, else those that know all fields of `columns`.
    pub(crate) fn possible(fixed: Option<Self>, columns: &BTreeMap<String, String>) -> Vec<Self> {
        let knows = |shape: &Self| columns.keys().all(|field| shape.fields().contains(&field.as_str()));
        let candidates = fixed.map_or_else(|| Self::ALL.to_vec(), |shape| vec![shape]);
        candidates.into_iter().filter(knows).collect()
    }
}

/// A usable row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    /// A conversation, and the tools that the assistant may call.
    Messages {
        messages: Vec<Value>,
        tools: Option<Value>,
        /// How many of the messages are the prompt: what the assistant says in them is no part of the loss on it.
        prompt_messages: usize,
    },
    /// A text to go on from and how it goes on.
    Completion { prompt: String, completion: String },
    /// Plain text.
    Text(String),
    /// Ready ids, and labels where the row has them.
    Ids { input_ids: Vec<u32>, labels: Option<Vec<i32>> },
}

impl Row {
    fn messages(messages: Vec<Value>, tools: Option<Vec<Value>>) -> Self {
        Self::Messages { messages, tools: tools.map(Value::Array), prompt_messages: 0 }
    }
}

/// Finds out what records are. Shared by all threads.
pub(crate) struct RowReader {
    fixed: Option<Shape>,
    possible: Vec<Shape>,
    pub(crate) columns: Columns,
}

impl RowReader {
    pub(crate) fn new(fixed: Option<Shape>, columns: &BTreeMap<String, String>) -> Self {
        Self { fixed, possible: Shape::possible(fixed, columns), columns: Columns::new(columns) }
    }

    /// What a record is, and in which shape it was.
    pub(crate) fn read(&self, record: Record) -> Result<(Shape, Row), BadRow> {
        let mut fields = Fields::new(record, &self.columns);
        let shape = self.fixed.or_else(|| self.possible.iter().copied().find(|shape| shape.layout().fits(&mut fields)));
        let row = match shape {
            Some(shape) => shape.layout().read(&mut fields).map(|row| (shape, row)),
            None => Err(self.no_shape(&fields)),
        };
        row.map_err(|bad| self.explain(bad, &fields))
    }

    fn no_shape(&self, fields: &Fields<'_>) -> BadRow {
        let shapes: Vec<_> = self.possible.iter().map(|shape| shape.layout().described()).collect();
        let shapes = match shapes.as_slice() {
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{}, or {last}", first.join(", ")),
            [] => String::new(),
        };
        Reason::UnknownShape
            .because(format!("the row has {}; it should have {shapes} (or set `columns`)", fields.names()))
    }

    /// Says what `columns` has to do with it.
    fn explain(&self, mut bad: BadRow, fields: &Fields<'_>) -> BadRow {
        for (field, column) in self.columns.pairs() {
            if bad.reason == Reason::UnknownShape && fields.without_column().contains(&field) {
                bad.detail.push_str(&format!("; it has no column `{column}`, which `columns` names for `{field}`"));
            } else if bad.reason != Reason::UnknownShape && bad.detail.contains(&format!("`{field}`")) {
                bad.detail.push_str(&format!(" (`{field}` is the column `{column}`)"));
            }
        }
        bad
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(line: &str) -> Result<(Shape, Row), BadRow> {
        RowReader::new(None, &BTreeMap::new()).read(pipe_records::parse_json(line.as_bytes()).unwrap())
    }

    fn reason(line: &str) -> Reason {
        read(line).unwrap_err().reason
    }

    fn row(line: &str) -> Row {
        read(line).unwrap().1
    }

    #[test]
    fn every_shape_is_known() {
        let chat =
            r#"{"id": 7, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
        let Row::Messages { messages, tools: None, prompt_messages: 0 } = row(chat) else { panic!() };
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
