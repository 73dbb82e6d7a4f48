//! Questions one after the other, at a terminal.

use owo_colors::OwoColorize;
use pipe_chat::{Done, Finish, Voice};
use rustyline::{Config, Editor, error::ReadlineError, history::MemHistory};
use serde_json::{Value, json};

use super::{
    Settings, columns,
    settings::{HELP, Said, nearest, read},
    talk::{Answered, Talk},
};
use crate::cli::{CliError, Exit, said::say};

const PROMPT: &str = "> ";
/// In front of the lines after one that ends with a backslash.
const MORE: &str = ". ";

/// A conversation with each voice.
struct Conversation<'a> {
    talk: &'a Talk,
    voices: &'a [Voice],
    system: Option<String>,
    settings: Settings,
    /// Of each voice.
    histories: Vec<Vec<Value>>,
}

/// Talks until the user leaves.
pub(super) fn run(talk: &Talk, voices: &[Voice], system: Option<String>, settings: Settings) -> Result<Exit, CliError> {
    let mut conversation = Conversation { talk, voices, system, settings, histories: vec![Vec::new(); voices.len()] };
    let mut editor =
        Editor::<(), MemHistory>::with_history(Config::default(), MemHistory::new()).map_err(no_terminal)?;
    let mut interrupted = false;
    loop {
        let line = match lines(&mut editor) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if !interrupted => {
                say!("once more to leave");
                interrupted = true;
                continue;
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(no_terminal(error)),
        };
        interrupted = false;
        // A history that is full forgets.
        let _ = editor.add_history_entry(&line);
        match read(&line) {
            Said::Nothing => {}
            Said::Quit => return Ok(Exit::Done),
            Said::Help => say!("{HELP}"),
            Said::Reset => conversation.reset(),
            Said::System(text) => {
                conversation.system = text.map(str::to_owned);
                conversation.reset();
            }
            Said::Show => say!("{}", conversation.settings.table()),
            Said::Set(name, value) => {
                if let Err(problem) = conversation.settings.set(name, value) {
                    say!("{} {problem}", "error:".red());
                }
            }
            Said::Unknown(command) => {
                let hint = nearest(command).map(|known| format!(" did you mean {known}?")).unwrap_or_default();
                say!("{} there is no {command}:{hint} /help lists what there is", "error:".red());
            }
            Said::Question(question) => {
                if !conversation.ask(question)? {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}

/// A line, with those that belong to it.
fn lines(editor: &mut Editor<(), MemHistory>) -> Result<String, ReadlineError> {
    let mut whole = editor.readline(PROMPT)?;
    while whole.ends_with('\\') {
        whole.pop();
        whole.push('\n');
        whole.push_str(&editor.readline(MORE)?);
    }
    Ok(whole)
}

fn no_terminal(error: ReadlineError) -> CliError {
    let help = "ask one question with --prompt TEXT, or through standard input".to_owned();
    CliError::Lacks { message: format!("cannot read from this terminal: {error}"), help }
}

impl Conversation<'_> {
    fn reset(&mut self) {
        self.histories.iter_mut().for_each(Vec::clear);
    }

    /// Says whether the conversation goes on.
    fn ask(&mut self, question: &str) -> Result<bool, CliError> {
        let streams = self.voices.len() == 1;
        let mut answers: Vec<(Voice, Answered)> = Vec::new();
        let before: Vec<usize> = self.histories.iter().map(Vec::len).collect();
        for (voice, history) in self.voices.iter().zip(&mut self.histories) {
            let asked = history.len();
            history.push(json!({ "role": "user", "content": question }));
            let system = self.system.as_ref().map(|text| json!({ "role": "system", "content": text }));
            let messages: Vec<Value> = system.into_iter().chain(history.iter().cloned()).collect();
            let answered = match self.talk.ask(*voice, &messages, &self.settings, streams) {
                Ok(answered) => answered,
                // The user can say it in another way.
                Err(error @ CliError::Usage { .. }) => {
                    error.report();
                    // Both voices forget it, or they would go on in different conversations.
                    self.histories.iter_mut().zip(before).for_each(|(history, length)| history.truncate(length));
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            if answered.left() {
                self.talk.write("\n");
                return Ok(false);
            }
            match answered.text.is_empty() && answered.cancelled() {
                true => history.truncate(asked),
                false => history.push(json!({ "role": "assistant", "content": answered.text })),
            }
            answers.push((*voice, answered));
        }
        self.talk.write(&if streams { "\n".to_owned() } else { columns::beside(&answers) });
        for (_, answered) in &answers {
            if let Some(done) = &answered.done {
                say!("{}", figures(done).dimmed());
            }
        }
        Ok(true)
    }
}

/// What is worth knowing of an answer.
fn figures(done: &Done) -> String {
    let finish = match done.finish {
        Finish::Stop => "",
        Finish::Length => ", cut off at max_new_tokens or at the model's context",
        Finish::Cancelled => ", stopped",
    };
    let rate = done.tokens_per_second().map(|rate| format!(", {rate:.1} tokens/s")).unwrap_or_default();
    format!("{} tokens read, {} written{rate}{finish}", done.prompt_tokens, done.completion_tokens)
}
