//! `pipe chat`: talk with a model that a pipeline made, or with any other.
//!
//! Answers go to standard output as they come, everything else to standard error.

mod columns;
mod interactive;
mod settings;
mod talk;

use std::{
    io::{self, IsTerminal, Read},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::Args;
use pipe_chat::{Device, Finish, Loaded, Voice};
use serde_json::{Value, json};

use self::talk::{Answered, Talk};
use super::{
    CliError, Exit, Format,
    answering::{Model, ModelArguments, SamplingArguments, Started},
    count::at_least_one,
    pipeline::print_json,
    said::say,
};
use crate::report;

/// Arguments of `pipe chat`.
#[derive(Args)]
#[command(after_help = "\
With --prompt, or where standard input is no terminal, one question is answered: the text of --prompt, else all of the
input. Else questions are asked one after the other; /help lists what can be done besides. Ctrl-C stops an answer, a
second one leaves.

  pipe chat adapter
  pipe chat adapter --compare --prompt 'What is the answer to 2 + 3?'
  pipe chat models/Qwen3-8B --adapter out/adapter --temperature 0.7 --top-p 0.8")]
pub(super) struct Chat {
    #[command(flatten)]
    model: ModelArguments,
    /// Answer this, and end
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Tell the model first how it is to answer
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Show the base's answers beside those of the base with its adapter
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// The most tokens of an answer
    #[arg(long, value_name = "N", default_value = "512", value_parser = at_least_one)]
    max_new_tokens: NonZeroUsize,
    /// End an answer before this text. May be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// How to write the answer to a single question
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How questions are asked.
#[derive(Clone)]
struct Settings {
    sampling: pipe_chat::Sampling,
    max_new_tokens: usize,
    stop: Vec<String>,
}

impl Chat {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let question = match &self.prompt {
            Some(prompt) => Some(prompt.clone()),
            None if io::stdin().is_terminal() => None,
            None => Some(read_question()?),
        };
        if question.as_ref().is_some_and(|question| question.trim().is_empty()) {
            return Err(CliError::usage("the question is empty", "write it behind --prompt".to_owned()));
        }
        if question.is_none() && self.format == Format::Json {
            let help = "ask one question, with --prompt or through standard input".to_owned();
            return Err(CliError::usage("a conversation has no JSON", help));
        }
        let Started { worker, loaded, model, _gpu } = self.model.start(self.compare)?;
        let voices: &[Voice] = if self.compare { &[Voice::Base, Voice::Tuned] } else { &[Voice::Tuned] };
        let settings =
            Settings { sampling: self.sampling.sampling(), max_new_tokens: self.max_new_tokens.get(), stop: self.stop };
        let talk = Talk::new(worker)?;
        match question {
            Some(question) => {
                let messages = messages(self.system.as_deref(), &question);
                single(&talk, voices, &messages, &settings, self.format)
            }
            None => {
                say!("{}", greeting(&model, &loaded));
                interactive::run(&talk, voices, self.system, settings)
            }
        }
    }
}

fn read_question() -> Result<String, CliError> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::usage(format!("cannot read the question from standard input: {error}"), None))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        CliError::usage("the question on standard input is no UTF-8", "give it as text in UTF-8".to_owned())
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn messages(system: Option<&str>, question: &str) -> Vec<Value> {
    let system = system.map(|text| json!({ "role": "system", "content": text }));
    system.into_iter().chain([json!({ "role": "user", "content": question })]).collect()
}

/// What answers, and where.
fn greeting(model: &Model, loaded: &Loaded) -> String {
    let device = match loaded.device {
        Device::Cpu => "the CPU",
        Device::Cuda => "the GPU",
    };
    let adapter = if model.adapter.is_some() { " on its base" } else { "" };
    let took = report::duration(std::time::Duration::from_secs_f64(loaded.seconds));
    let packed = if loaded.unpacked { "" } else { ", weights unpacked for every token" };
    let template = match loaded.chat_template {
        true => "",
        false => "\nIt has no chat template: texts are continued as they are",
    };
    format!(
        "{}{adapter} on {device} in {}{packed}, loaded in {took}. /help says what can be done{template}",
        model.name, loaded.computes_in
    )
}

/// Answers one question.
fn single(
    talk: &Talk,
    voices: &[Voice],
    messages: &[Value],
    settings: &Settings,
    format: Format,
) -> Result<Exit, CliError> {
    let compare = voices.len() > 1;
    let streams = format == Format::Text && !compare;
    let mut answers: Vec<(Voice, Answered)> = Vec::new();
    for voice in voices {
        let answered = talk.ask(*voice, messages, settings, streams)?;
        answers.push((*voice, answered));
        if answers.iter().any(|(_, answered)| answered.cancelled()) {
            break;
        }
    }
    let cancelled = answers.iter().any(|(_, answered)| answered.cancelled());
    match format {
        Format::Text => {
            talk.write(&if streams { "\n".to_owned() } else { columns::beside(&answers) });
        }
        Format::Json => {
            let of = |voice: Voice| answers.iter().find(|(of, _)| *of == voice).map(|(_, answered)| json_of(answered));
            match (compare, of(Voice::Base), of(Voice::Tuned)) {
                (true, base, tuned) => print_json(&json!({ "base": base, "tuned": tuned }))?,
                (false, _, tuned) => print_json(&tuned)?,
            }
        }
    }
    Ok(if cancelled && talk.is_read() { Exit::Code(ExitCode::from(1)) } else { Exit::Done })
}

fn json_of(answered: &Answered) -> Value {
    let done = answered.done.as_ref();
    json!({
        "answer": answered.text,
        "finish": done.map_or(Finish::Cancelled, |done| done.finish),
        "prompt_tokens": done.map(|done| done.prompt_tokens),
        "completion_tokens": done.map(|done| done.completion_tokens),
        "tokens_per_second": done.and_then(pipe_chat::Done::tokens_per_second),
    })
}
