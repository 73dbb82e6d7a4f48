//! The Modelfile of the format `ollama`: where the weights are, the template, what ends an answer, and sampling.

use std::{fmt::Write as _, path::Path};

use pipe_hf::{ModelConfig, read_object};
use pipe_stage::Context;
use serde_json::{Map, Value};

use crate::{Error, dialogue::Dialogue, files, generation, gguf, turns::Turns};

const FILE: &str = "Modelfile";

/// Settings of `generation_config.json`, and their names in a Modelfile.
const SAMPLING: [(&str, &str); 5] = [
    ("temperature", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("repetition_penalty", "repeat_penalty"),
];

/// Writes the Modelfile for the file beside it.
pub(crate) fn write(
    model: &Path,
    config: &ModelConfig,
    dialogue: &Dialogue,
    folder: &Path,
    context: &Context,
) -> Result<(), Error> {
    let no_template = || Error::NoTemplate { path: model.to_owned() };
    let (Some(tokenizer), Some(template)) = (&dialogue.tokenizer, &dialogue.template) else {
        return Err(no_template());
    };
    let turns = Turns::derive(template)?;
    if turns.trims {
        context.warn(
            "the chat template takes white space off the ends of messages, which Ollama cannot: a message with spaces \
             around it has other tokens there",
        );
    }
    let template = turns.go_template();
    let mut stops = Vec::new();
    for id in generation::end_ids(config, dialogue) {
        let stop = tokenizer.decode(&[id], false)?;
        if !stop.is_empty() && !stops.contains(&stop) {
            stops.push(stop);
        }
    }
    if template.contains("\"\"\"") || stops.iter().any(|stop| stop.contains(['"', '\n'])) {
        return Err(Error::Template { problem: "a Modelfile cannot quote its text".to_owned() });
    }
    let path = model.join("generation_config.json");
    let settings = if path.exists() { read_object(&path)? } else { Map::new() };
    let mut text = format!("FROM ./{}\n\nTEMPLATE \"\"\"{template}\"\"\"\n\n", gguf::FILE);
    for stop in stops {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "PARAMETER stop \"{stop}\"");
    }
    for (name, ours) in SAMPLING {
        if let Some(value) = settings.get(name).filter(|value| value.is_number()) {
            let _ = writeln!(text, "PARAMETER {ours} {value}");
        }
    }
    if settings.get("do_sample") == Some(&Value::Bool(false)) && !settings.contains_key("temperature") {
        text += "PARAMETER temperature 0\n";
    }
    files::write(&folder.join(FILE), text.as_bytes())
}
