//! Conversations drawn at random, against Transformers' own `apply_chat_template`.
#![expect(clippy::print_stdout, reason = "the counts are for whoever runs it on more cases")]

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use pipe_text::{ChatTemplate, Conversation, Error, SpecialInText, Tokenizer};
use serde_json::Value;

use crate::{fixture, qwen3, template};

/// The cases: those of the repository, or of the file that CONVERSATIONS names (see `fixtures/conversations.py`).
fn cases() -> Vec<Value> {
    match env::var_os("CONVERSATIONS") {
        Some(path) => serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(),
        None => fixture("conversations.json"),
    }
}

struct Templates {
    sources: BTreeMap<String, String>,
}

impl Templates {
    fn load() -> Self {
        let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates");
        let folder = env::var_os("TEMPLATES").map_or(own, PathBuf::from);
        let mut sources = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "jinja") {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                sources.insert(name, fs::read_to_string(path).unwrap());
            }
        }
        let config: Value =
            serde_json::from_str(&fs::read_to_string(qwen3().join("tokenizer_config.json")).unwrap()).unwrap();
        sources.insert("qwen3 own".to_owned(), config["chat_template"].as_str().unwrap().to_owned());
        Self { sources }
    }

    /// The template of a case, with its variables.
    fn of(&self, case: &Value) -> ChatTemplate {
        let source = match case.get("source").and_then(Value::as_str) {
            Some(source) => source,
            None => &self.sources[case["template"].as_str().unwrap()],
        };
        template(source).with_kwargs(case["kwargs"].as_object().unwrap())
    }
}

fn conversation(case: &Value) -> Conversation<'_> {
    Conversation {
        messages: case["messages"].as_array().unwrap(),
        tools: case.get("tools").filter(|tools| !tools.is_null()),
        add_generation_prompt: case["add_generation_prompt"] == true,
    }
}

/// The runs of tokens that hold text of the assistant's.
fn runs(inside: &[bool]) -> Vec<(usize, usize)> {
    let at = |index: usize| index < inside.len() && inside[index];
    let edges: Vec<usize> = (0..=inside.len()).filter(|i| at(*i) != (*i > 0 && at(i - 1))).collect();
    edges.chunks(2).map(|edge| (edge[0], edge[1])).collect()
}

#[test]
fn the_assistants_tokens_are_those_of_transformers() {
    let tokenizer = Tokenizer::load(&qwen3()).unwrap();
    let templates = Templates::load();
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut wrong = Vec::new();
    let cases = cases();
    // Where thinking is off, the template's generation prompt holds a block that is then none of the assistant's.
    let thinking_off = |case: &Value| case["kwargs"].get("enable_thinking") == Some(&Value::Bool(false));
    for case in cases.iter().filter(|case| case.get("assistant").is_some() && !thinking_off(case)) {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let expected: Vec<(usize, usize)> = serde_json::from_value(case["assistant"].clone()).unwrap();
        let (template, conversation) = (templates.of(case), conversation(case));
        let rendered = template.render_told(&conversation, &tokenizer).unwrap();
        let count = counts.entry(case["template"].as_str().unwrap()).or_default();
        let Ok(spans) = template.assistant_spans(&conversation, &rendered, &tokenizer) else {
            count[2] += 1;
            wrong.push(format!("{}: no spans", case["seed"]));
            continue;
        };
        let (own, inside) = tokenizer.encode_rendered_spans(&rendered, SpecialInText::Parse, &spans).unwrap();
        assert_eq!(own, ids, "{}", case["seed"]);
        let found = runs(&inside);
        // TRL's templates also mark a line end before the turn's text, or behind the token that ends it.
        let line_end = |index: usize| case["template"] != "qwen3 marked" && ids[index] == 198;
        let marked = |index: usize| expected.iter().any(|run| (run.0..run.1).contains(&index));
        let same = (0..ids.len()).all(|index| inside[index] == marked(index) || (!inside[index] && line_end(index)));
        count[usize::from(!same)] += 1;
        if !same {
            let text = |runs: &[(usize, usize)]| -> Vec<String> {
                runs.iter().map(|run| tokenizer.decode(&ids[run.0..run.1], false).unwrap()).collect()
            };
            wrong.push(format!("{}:\n  {:?}\n  {:?}", case["seed"], text(&expected), text(&found)));
        }
    }
    println!("equal, other, no spans: {counts:?}");
    let all = wrong.len();
    wrong.truncate(12);
    assert!(wrong.is_empty(), "{all} differ\n{}", wrong.join("\n"));
}

#[test]
fn renders_are_those_of_transformers() {
    let templates = Templates::load();
    let cases = cases();
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for case in &cases {
        let name = case["template"].as_str().unwrap();
        let rendered = templates.of(case).render(&conversation(case));
        let count = counts.entry(name).or_default();
        match (case.get("text").and_then(Value::as_str), rendered) {
            (Some(expected), Ok(text)) if text == expected => count[0] += 1,
            (None, Err(Error::Render { .. })) => count[1] += 1,
            (expected, rendered) => {
                count[2] += 1;
                let expected = expected.unwrap_or_else(|| case["error"].as_str().unwrap());
                wrong.push(format!("{} ({name}):\n  {expected:?}\n  {rendered:?}", case["seed"]));
            }
        }
    }
    for (name, [equal, refused, differ]) in &counts {
        println!("{name}: {equal} equal, {refused} refused by both, {differ} differ");
    }
    wrong.truncate(20);
    assert!(wrong.is_empty(), "differ:\n{}", wrong.join("\n"));
    assert!(cases.len() > 90);
}
