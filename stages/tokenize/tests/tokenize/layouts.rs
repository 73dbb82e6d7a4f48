//! Rows of every shape give the ids and labels of their messages, in every format.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, ListArray, RecordBatch, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::Field,
};
use parquet::arrow::ArrowWriter;
use pipe_stage::Event;
use serde_json::{Value, json};

use crate::{Outcome, model, run_inputs};

type Pairs = Vec<(Vec<u32>, Vec<i32>)>;

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Real conversations; the last two have several turns.
fn chat() -> Vec<Value> {
    rows(include_str!("../data/chat.jsonl"))
}

fn alpaca() -> Vec<Value> {
    rows(include_str!("../data/alpaca.jsonl"))
}

fn jsonl(rows: &[Value]) -> Vec<u8> {
    rows.iter().map(|row| format!("{row}\n")).collect::<String>().into()
}

fn outcome(name: &str, bytes: &[u8], config: Value) -> Outcome {
    let mut with_length = json!({ "max_length": 4096 });
    with_length.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    run_inputs(&model(), &[&[(name, bytes)]], with_length, false)
}

fn pairs(outcome: &Outcome) -> Pairs {
    outcome.samples().iter().map(|sample| (sample.input_ids.to_vec(), sample.labels.to_vec())).collect()
}

fn samples(name: &str, bytes: &[u8], config: Value) -> Pairs {
    pairs(&outcome(name, bytes, config))
}

/// Rows whose values are text, lists as JSON text.
fn as_text(rows: &[Value]) -> (Vec<String>, Vec<Vec<String>>) {
    let names: Vec<String> = rows[0].as_object().unwrap().keys().cloned().collect();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cells = rows.iter().map(|row| names.iter().map(|name| text(&row[name])).collect()).collect();
    (names, cells)
}

fn csv(rows: &[Value]) -> Vec<u8> {
    let (names, cells) = as_text(rows);
    let quote = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
        format!("{}\n", cells.join(","))
    };
    format!("{}{}", quote(&names), cells.iter().map(|cells| quote(cells)).collect::<String>()).into()
}

fn write_parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Text columns, lists as JSON text.
fn text_parquet(rows: &[Value]) -> Vec<u8> {
    let (names, cells) = as_text(rows);
    let column = |index: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(cells.iter().map(|cells| cells[index].as_str())))
    };
    let columns = names.iter().enumerate().map(|(index, name)| (name.as_str(), column(index)));
    write_parquet(&RecordBatch::try_from_iter(columns).unwrap())
}

/// Lists and structs as such.
fn nested_parquet(rows: &[Value]) -> Vec<u8> {
    let names = rows[0].as_object().unwrap().keys();
    let columns = names.map(|name| (name, array(&rows.iter().map(|row| &row[name]).collect::<Vec<_>>())));
    write_parquet(&RecordBatch::try_from_iter(columns).unwrap())
}

fn array(values: &[&Value]) -> ArrayRef {
    if values.iter().any(|value| value.is_array()) {
        let lists: Vec<_> = values.iter().map(|value| value.as_array().unwrap()).collect();
        let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.len()));
        let items = array(&lists.into_iter().flatten().collect::<Vec<_>>());
        let field = Field::new("item", items.data_type().clone(), true);
        Arc::new(ListArray::new(Arc::new(field), offsets, items, None))
    } else if let Some(Value::Object(first)) = values.first() {
        let columns = first.keys().map(|name| {
            let column = array(&values.iter().map(|value| &value[name]).collect::<Vec<_>>());
            (Arc::new(Field::new(name, column.data_type().clone(), true)), column)
        });
        Arc::new(StructArray::from(columns.collect::<Vec<_>>()))
    } else {
        Arc::new(StringArray::from_iter(values.iter().map(|value| value.as_str())))
    }
}

/// Every format gives `expected`, and the shape is found and counted; fixed, it gives the same.
fn same(expected: &Pairs, rows: &[Value], shape: &str, config: &Value) {
    let files = [
        ("a.jsonl", jsonl(rows)),
        ("a.json", Value::from(rows.to_vec()).to_string().into_bytes()),
        ("a.csv", csv(rows)),
        ("text.parquet", text_parquet(rows)),
        ("nested.parquet", nested_parquet(rows)),
    ];
    let mut fixed = config.clone();
    fixed["shape"] = shape.into();
    for (name, bytes) in &files {
        // Two lists of messages are no text: whether a prompt is one is not guessed.
        if shape == "prompt_completion" && matches!(*name, "a.csv" | "text.parquet") {
            continue;
        }
        let found = outcome(name, bytes, config.clone());
        assert!(pairs(&found) == *expected, "{shape} in {name}");
        assert_eq!(found.figure(&format!("rows_{shape}")), Some(&json!(expected.len())), "{shape} in {name}");
        assert!(samples(name, bytes, fixed.clone()) == *expected, "{shape} fixed in {name}");
    }
}

fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap()
}

#[test]
fn every_shape_gives_what_its_messages_give() {
    let conversations: Vec<Vec<Value>> =
        chat().into_iter().map(|row| row["messages"].as_array().unwrap().clone()).collect();
    assert!(conversations.iter().any(|messages| messages.len() > 2));
    let each =
        |make: &dyn Fn(&[Value]) -> Value| conversations.iter().map(|messages| make(messages)).collect::<Vec<_>>();
    for config in [json!({ "loss_on": "all" }), json!({ "loss_on": "assistant" })] {
        let expected = samples("a.jsonl", &jsonl(&chat()), config.clone());
        assert_eq!(expected.len(), conversations.len());
        same(&expected, &each(&|messages| json!({ "messages": messages })), "messages", &config);
        same(&expected, &each(&|messages| json!({ "conversations": messages })), "messages", &config);
        for names in [("human", "gpt"), ("user", "assistant"), ("user", "model")] {
            let turn = |message: &Value| {
                let from = if message["role"] == "user" { names.0 } else { names.1 };
                json!({ "from": from, "value": message["content"] })
            };
            let rows = each(&|messages| json!({ "conversations": messages.iter().map(turn).collect::<Vec<_>>() }));
            same(&expected, &rows, "sharegpt", &config);
        }
        let rows = each(&|messages| {
            let pairs: Vec<_> = messages.chunks(2).map(|turn| json!([content(&turn[0]), content(&turn[1])])).collect();
            let (last, history) = pairs.split_last().unwrap();
            json!({ "instruction": last[0], "input": "", "output": last[1], "history": history })
        });
        same(&expected, &rows, "alpaca", &config);
    }
}

#[test]
fn systems_are_first_messages() {
    let turns = [json!({ "role": "user", "content": "Hi" }), json!({ "role": "assistant", "content": "Hello" })];
    let system = json!({ "role": "system", "content": "Be kind." });
    let messages: Vec<_> = [&[system], turns.as_slice()].concat();
    let expected = samples("a.jsonl", &jsonl(&[json!({ "messages": messages })]), json!({}));
    let sharegpt = json!([{ "from": "human", "value": "Hi" }, { "from": "gpt", "value": "Hello" }]);
    let mut with_system = sharegpt.as_array().unwrap().clone();
    with_system.insert(0, json!({ "from": "system", "value": "Be kind." }));
    for (row, shape) in [
        (json!({ "messages": turns, "system": "Be kind." }), "messages"),
        (json!({ "messages": messages, "system": "Be kind." }), "messages"),
        (json!({ "conversations": sharegpt, "system": "Be kind." }), "sharegpt"),
        (json!({ "conversations": with_system }), "sharegpt"),
        (json!({ "instruction": "Hi", "output": "Hello", "system": "Be kind." }), "alpaca"),
        (json!({ "question": "Hi", "answer": "Hello", "system": "Be kind." }), "question_answer"),
    ] {
        same(&expected, &[row], shape, &json!({}));
    }
    let two = outcome("a.jsonl", &jsonl(&[json!({ "messages": messages, "system": "Be cruel." })]), json!({}));
    assert!(two.error().contains("message 1 is a system prompt, and the row has another one"), "{}", two.error());
}

#[test]
fn real_instructions_are_conversations() {
    let rows = alpaca();
    let messages: Vec<_> = rows
        .iter()
        .map(|row| {
            let (instruction, input) = (row["instruction"].as_str().unwrap(), row["input"].as_str().unwrap());
            let question = if input.is_empty() { instruction.to_owned() } else { format!("{instruction}\n{input}") };
            json!({ "messages": [{ "role": "user", "content": question },
                { "role": "assistant", "content": row["output"] }] })
        })
        .collect();
    for config in [json!({}), json!({ "loss_on": "assistant" })] {
        let expected = samples("a.jsonl", &jsonl(&messages), config.clone());
        same(&expected, &rows, "alpaca", &config);
    }
}

#[test]
fn of_a_prompt_of_messages_nothing_is_trained() {
    let row = |row: &Value| {
        let (completion, prompt) = row["messages"].as_array().unwrap().split_last().unwrap();
        json!({ "prompt": prompt, "completion": [completion] })
    };
    let rows: Vec<_> = chat().iter().map(row).collect();
    let expected = samples("a.jsonl", &jsonl(&chat()), json!({}));
    same(&expected, &rows, "prompt_completion", &json!({}));

    let assistant = json!({ "loss_on": "assistant" });
    let whole = samples("a.jsonl", &jsonl(&chat()), assistant.clone());
    let last = samples("a.jsonl", &jsonl(&rows), assistant);
    let turns = |labels: &[i32]| labels.windows(2).filter(|pair| pair[0] == -100 && pair[1] != -100).count();
    for (((row, whole), last), index) in chat().iter().zip(&whole).zip(&last).zip(0..) {
        assert_eq!(turns(&whole.1), row["messages"].as_array().unwrap().len() / 2, "row {index}");
        assert_eq!(turns(&last.1), 1, "row {index}");
        let trained = last.1.iter().position(|label| *label != -100).unwrap();
        assert_eq!(last.1[trained..], whole.1[trained..]);
    }
}

#[test]
fn calls_of_tools_are_the_assistants() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model().join(file), folder.path().join(file)).unwrap();
    }
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/text/tests/fixtures/templates/qwen3.jinja");
    std::fs::copy(template, folder.path().join("chat_template.jinja")).unwrap();
    let tools = json!([{ "type": "function", "function": { "name": "rain", "description": "Whether it rains.",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } } }]);
    let call = |city: &str| json!({ "name": "rain", "arguments": { "city": city } });
    let function = |city: &str| json!({ "type": "function", "function": call(city) });
    let messages = json!([
        { "role": "user", "content": "Does it rain in Bonn and Ulm?" },
        { "role": "assistant", "content": "", "tool_calls": [function("Bonn")] },
        { "role": "tool", "content": "yes" },
        { "role": "assistant", "content": "", "tool_calls": [function("Ulm"), function("Köln")] },
        { "role": "tool", "content": "" },
        { "role": "assistant", "content": "I looked it up" },
        { "role": "assistant", "content": "Only in Bonn." },
    ]);
    let conversations = json!([
        { "from": "human", "value": "Does it rain in Bonn and Ulm?" },
        { "from": "function_call", "value": call("Bonn").to_string() },
        { "from": "observation", "value": "yes" },
        { "from": "function_call", "value": json!([call("Ulm"), call("Köln")]).to_string() },
        { "from": "tool", "value": "" },
        { "from": "function_call", "value": "I looked it up" },
        { "from": "gpt", "value": "Only in Bonn." },
    ]);
    let on = |name: &str, bytes: &[u8], loss_on: &str| {
        let config = json!({ "loss_on": loss_on, "max_length": 4096 });
        pairs(&run_inputs(folder.path(), &[&[(name, bytes)]], config, false))
    };
    let row = [json!({ "conversations": conversations, "tools": tools })];
    let text_tools = [json!({ "conversations": conversations, "tools": tools.to_string() })];
    let own = [json!({ "messages": messages, "tools": tools })];
    for loss_on in ["all", "assistant"] {
        let expected = on("a.jsonl", &jsonl(&own), loss_on);
        let without = on("a.jsonl", &jsonl(&[json!({ "messages": messages })]), loss_on);
        assert!(expected[0].0.len() > without[0].0.len() + 20);
        assert!(on("a.jsonl", &jsonl(&row), loss_on) == expected, "{loss_on}");
        assert!(on("a.jsonl", &jsonl(&text_tools), loss_on) == expected, "{loss_on}");
        for rows in [&own, &row] {
            assert!(on("a.csv", &csv(rows), loss_on) == expected, "{loss_on}");
            assert!(on("a.parquet", &text_parquet(rows), loss_on) == expected, "{loss_on}");
        }
    }
}

#[test]
fn mixed_shapes_are_said() {
    let mixed = b"{\"text\": \"a\"}\n{\"question\": \"a\", \"answer\": \"b\"}\n{\"text\": \"c\"}\n{\"text\": 3}";
    let files: &[(&str, &[u8])] = &[("a.jsonl", mixed), ("b.jsonl", b"{\"text\": \"a\"}")];
    let config = json!({ "on_bad_row": "skip", "batch_size": 1, "num_proc": 3 });
    let outcome = run_inputs(&model(), &[files], config, false);
    assert_eq!(outcome.figure("rows_text"), Some(&json!(3)));
    assert_eq!(outcome.figure("rows_question_answer"), Some(&json!(1)));
    assert_eq!(outcome.figure("rows_messages"), None);
    let said: Vec<_> = outcome
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Log { message, .. } => Some(message.as_str()),
            _ => None,
        })
        .collect();
    assert!(said.contains(&"took rows: 1 as question_answer, 3 as text"), "{said:?}");
    assert!(said.contains(&"a.jsonl mixes shapes: 1 as question_answer, 2 as text (`shape` fixes one)"), "{said:?}");
    assert!(!said.iter().any(|message| message.starts_with("b.jsonl mixes")), "{said:?}");
}
