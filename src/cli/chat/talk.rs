//! A question and its answer at a terminal, which Ctrl-C can stop.

use std::{
    cell::Cell,
    io::{self, ErrorKind, IsTerminal, Write},
    sync::mpsc::{self, Receiver, Sender},
};

use pipe_chat::{Done, Fault, Finish, Question, Reply, Voice};
use serde_json::Value;
use signal_hook::{consts::SIGINT, iterator::Signals};

use super::Settings;
use crate::{chat::Worker, cli::CliError, report};

/// One side of a conversation.
pub(super) struct Talk {
    worker: Worker,
    send: Sender<Heard>,
    heard: Receiver<Heard>,
    /// Whether somebody still reads what is written.
    read: Cell<bool>,
}

enum Heard {
    Reply(Reply),
    /// Ctrl-C.
    Interrupt,
}

/// What came of a question.
pub(super) struct Answered {
    pub(super) text: String,
    /// `None` if the answer was left before its end.
    pub(super) done: Option<Done>,
}

impl Answered {
    /// Whether the user stopped it.
    pub(super) fn cancelled(&self) -> bool {
        self.done.as_ref().is_none_or(|done| done.finish == Finish::Cancelled)
    }

    /// Whether the user wants no more answers at all.
    pub(super) fn left(&self) -> bool {
        self.done.is_none()
    }
}

impl Talk {
    pub(super) fn new(worker: Worker) -> Result<Self, CliError> {
        let (send, heard) = mpsc::channel();
        let interrupts = Signals::new([SIGINT]).and_then(|mut signals| {
            let send = send.clone();
            std::thread::Builder::new()
                .name("interrupts".to_owned())
                .spawn(move || signals.forever().all(|_| send.send(Heard::Interrupt).is_ok()))
        });
        interrupts.map_err(|error| CliError::Lacks {
            message: format!("cannot listen for Ctrl-C: {error}"),
            help: "see what limits there are on threads and open files".to_owned(),
        })?;
        Ok(Self { worker, send, heard, read: Cell::new(true) })
    }

    /// Asks, and writes the answer to standard output as it comes if it `streams`.
    ///
    /// # Errors
    /// If there is no answer.
    pub(super) fn ask(
        &self,
        voice: Voice,
        messages: &[Value],
        settings: &Settings,
        streams: bool,
    ) -> Result<Answered, CliError> {
        // What came too late for the last question is not for this one.
        while self.heard.try_recv().is_ok() {}
        let Settings { sampling, max_new_tokens, stop } = settings.clone();
        let messages = messages.to_vec();
        let question = Question { id: 0, voice, messages, sampling, max_new_tokens, stop, fresh: false };
        let send = self.send.clone();
        let id = self.worker.ask(
            question,
            Box::new(move |reply| {
                let _ = send.send(Heard::Reply(reply));
            }),
        );
        let mut text = String::new();
        let mut interrupts = 0;
        loop {
            match self.heard.recv() {
                Ok(Heard::Reply(Reply::Piece { text: piece, .. })) => {
                    if streams && !self.write(&piece) {
                        self.worker.cancel(id);
                    }
                    text.push_str(&piece);
                }
                Ok(Heard::Reply(Reply::Done(done))) => return Ok(Answered { text, done: Some(done) }),
                Ok(Heard::Reply(Reply::Failed { fault, message, .. })) => return Err(failed(fault, message)),
                Ok(Heard::Reply(_)) => {}
                Ok(Heard::Interrupt) => {
                    self.worker.cancel(id);
                    interrupts += 1;
                    if interrupts > 1 {
                        return Ok(Answered { text, done: None });
                    }
                }
                Err(_) => return Ok(Answered { text, done: None }),
            }
        }
    }

    /// Whether somebody still reads what is written.
    pub(super) fn is_read(&self) -> bool {
        self.read.get()
    }

    /// Writes to standard output, where a model's text stays as it is unless that is a terminal. Says whether somebody
    /// still reads.
    pub(super) fn write(&self, text: &str) -> bool {
        let mut output = io::stdout().lock();
        let written = match output.is_terminal() {
            true => output.write_all(harmless(text).as_bytes()),
            false => output.write_all(text.as_bytes()),
        };
        let gone = written.and_then(|()| output.flush()).is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        self.read.set(self.read.get() && !gone);
        self.read.get()
    }
}

/// A model's text, which must not steer a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

fn failed(fault: Fault, message: String) -> CliError {
    let message = report::printable(&message);
    match fault {
        Fault::Question => CliError::usage(message, None),
        Fault::Length => CliError::usage(message, "shorten it, or begin a new conversation".to_owned()),
        Fault::Machine => CliError::Lacks { message, help: "see what `pipe doctor` says of this machine".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_does_not_steer_the_terminal() {
        assert_eq!(harmless("八仙\t过海\n\u{1b}[2J\r\u{9b}"), "八仙\t过海\n\u{fffd}[2J\u{fffd}\u{fffd}");
    }
}
