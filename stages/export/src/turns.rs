//! The turns of a conversation, derived from a Jinja chat template, as a template of Ollama's.
//!
//! Ollama renders conversations with Go's `text/template`, which can hold the text around a message and little else. So the
//! pieces of text are read off renderings of marked messages, and the result is held against the Jinja template on
//! conversations of many forms: what this form cannot say is an error; white space that the template takes off is
//! warned about.

use pipe_text::{ChatTemplate, Conversation};
use serde_json::{Value, json};

use crate::Error;

/// What stands around the messages of each role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turns {
    /// Before all, where the first message is no system message: a beginning-of-text token, a default system message.
    opening: String,
    /// Before a system message that comes first.
    first_system: String,
    system: Around,
    user: Around,
    assistant: Around,
    /// What opens the answer.
    generation: String,
    /// Whether the thoughts of earlier answers are left out.
    drops_thoughts: bool,
    /// Whether the template cuts white space around messages, which Ollama cannot.
    pub(crate) trims: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Around {
    before: String,
    after: String,
}

/// A message: its role and its text.
type Message<'a> = (&'a str, &'a str);

const SYSTEM: Message<'_> = ("system", "firstsystemtext");
const USER: Message<'_> = ("user", "firstusertext");
const ASSISTANT: Message<'_> = ("assistant", "firstassistanttext");
const USER_AGAIN: Message<'_> = ("user", "seconduser");

impl Turns {
    /// Reads the pieces off a template, and proves that they are all of it.
    ///
    /// # Errors
    /// What the template does that such pieces cannot.
    pub(crate) fn derive(template: &ChatTemplate) -> Result<Self, Error> {
        let [opening_user, end] = pieces(template, &[USER], true)?;
        let [_, after_user] = pieces(template, &[USER], false)?;
        let [_, user_assistant, assistant_user, _] = pieces(template, &[USER, ASSISTANT, USER_AGAIN], true)?;
        let [_, _, after_assistant] = pieces(template, &[USER, ASSISTANT], false)?;
        let [first_system, system_user, _] = pieces(template, &[SYSTEM, USER], true)?;
        let generation = behind(&end, &after_user)?;
        let before_user = behind(&assistant_user, &after_assistant)?;
        let ahead = |whole: &str, tail: &str| {
            whole.strip_suffix(tail).map(str::to_owned).ok_or_else(|| failed("a user's turn begins in several ways"))
        };
        let after_system = ahead(&system_user, &before_user)?;
        // A template may refuse a system message that comes later.
        let later = pieces(template, &[USER, ASSISTANT, SYSTEM, USER_AGAIN], true);
        let before_system = match later {
            Ok([_, _, assistant_system, _, _]) => behind(&assistant_system, &after_assistant)?,
            Err(_) => first_system.clone(),
        };
        let mut turns = Self {
            opening: ahead(&opening_user, &before_user)?,
            first_system,
            system: Around { before: before_system, after: after_system },
            assistant: Around { before: behind(&user_assistant, &after_user)?, after: after_assistant },
            user: Around { before: before_user, after: after_user },
            generation,
            drops_thoughts: false,
            trims: false,
        };
        turns.prove(template)?;
        Ok(turns)
    }

    /// The text of a conversation that is open for an answer, as Ollama renders [`Turns::go_template`].
    fn render(&self, messages: &[Message<'_>]) -> String {
        let mut text = String::new();
        for (index, (role, content)) in messages.iter().enumerate() {
            if index == 0 && *role != "system" {
                text += &self.opening;
            }
            let Around { before, after } = match *role {
                "system" => &self.system,
                "user" => &self.user,
                _ => &self.assistant,
            };
            text += if index == 0 && *role == "system" { &self.first_system } else { before };
            text += content;
            text += after;
        }
        text + &self.generation
    }

    /// Compares with the template, and finds out what it does to thoughts and white space.
    fn prove(&mut self, template: &ChatTemplate) -> Result<(), Error> {
        const TEXTS: [&str; 6] = [
            "Hello",
            "two\nlines\n\nand {{ braces }} {% tags %}",
            "<b> & 'quotes' \"too\"",
            "你好，世界",
            "\\n \t a",
            "?",
        ];
        const ROLES: [&[&str]; 6] = [
            &["user"],
            &["system", "user"],
            &["user", "assistant", "user"],
            &["system", "user", "assistant", "user"],
            &["user", "assistant", "user", "assistant", "user"],
            &["system", "user", "assistant", "user", "assistant", "user", "assistant", "user"],
        ];
        for roles in ROLES {
            for shift in 0..TEXTS.len() {
                let text = |index: usize| TEXTS[(index + shift) % TEXTS.len()];
                let messages: Vec<Message<'_>> =
                    roles.iter().enumerate().map(|(index, role)| (*role, text(index))).collect();
                if render(template, &messages, true)? != self.render(&messages) {
                    return Err(failed(format!("it writes a conversation of {} in another way", roles.join(", "))));
                }
            }
        }
        let with = |answer| [("user", "a"), ("assistant", answer), ("user", "b")];
        let thoughtful = render(template, &with("<think>\nthoughts\n</think>\n\nanswer"), true)?;
        if thoughtful == self.render(&with("answer")) {
            self.drops_thoughts = true;
        } else if thoughtful != self.render(&with("<think>\nthoughts\n</think>\n\nanswer")) {
            return Err(failed("it changes the thoughts of earlier answers"));
        }
        let spaced = [("user", "  a \n"), ("assistant", "b"), ("user", " c ")];
        self.trims = render(template, &spaced, true)? != self.render(&spaced);
        if self.trims
            && render(template, &spaced, true)? != self.render(&[("user", "a"), ("assistant", "b"), ("user", "c")])
        {
            return Err(failed("it changes the white space of messages"));
        }
        Ok(())
    }

    /// The template for Ollama. On one line, since a line end outside of an action would be written. A last message of the
    /// assistant's stays open: that is how Ollama has an answer continued.
    pub(crate) fn go_template(&self) -> String {
        let Self { opening, first_system, system, user, assistant, generation, .. } = self;
        let (opening, first_system, generation) = (literal(opening), literal(first_system), literal(generation));
        let [before_system, after_system] = [literal(&system.before), literal(&system.after)];
        let [before_user, after_user] = [literal(&user.before), literal(&user.after)];
        let [before_assistant, after_assistant] = [literal(&assistant.before), literal(&assistant.after)];
        let system = if first_system == before_system {
            first_system
        } else {
            format!("{{{{ if eq $index 0 }}}}{first_system}{{{{ else }}}}{before_system}{{{{ end }}}}")
        };
        let opening = match opening.as_str() {
            "" => opening,
            _ => format!("{{{{ if eq $index 0 }}}}{opening}{{{{ end }}}}"),
        };
        // Ollama keeps thoughts apart from the content where a template names them, and reads off this text how they are
        // marked; only those of an answer to be continued are written.
        let thoughts = match self.drops_thoughts {
            true => "{{ if and $last .Thinking }}<think>\n{{ .Thinking }}\n</think>\n\n{{ end }}",
            false => "",
        };
        [
            "{{ range $index, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $index)) 1 }}",
            &format!("{{{{ if eq .Role \"system\" }}}}{system}{{{{ .Content }}}}{after_system}{{{{ else }}}}{opening}"),
            &format!("{{{{ if eq .Role \"user\" }}}}{before_user}{{{{ .Content }}}}{after_user}"),
            &format!("{{{{ else if eq .Role \"assistant\" }}}}{before_assistant}{thoughts}{{{{ .Content }}}}"),
            &format!("{{{{ if not $last }}}}{after_assistant}{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"),
            &format!("{{{{ if and $last (ne .Role \"assistant\") }}}}{generation}{{{{ end }}}}{{{{ end }}}}"),
        ]
        .concat()
    }
}

/// Text that stands in a template for itself.
fn literal(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

fn failed(problem: impl Into<String>) -> Error {
    Error::Template { problem: problem.into() }
}

fn render(template: &ChatTemplate, messages: &[Message<'_>], add_generation_prompt: bool) -> Result<String, Error> {
    let messages: Vec<Value> =
        messages.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect();
    Ok(template.render(&Conversation { messages: &messages, tools: None, add_generation_prompt })?)
}

/// What stands before, between and behind the texts of messages.
fn pieces<const N: usize>(template: &ChatTemplate, messages: &[Message<'_>], open: bool) -> Result<[String; N], Error> {
    let text = render(template, messages, open)?;
    let mut pieces = Vec::with_capacity(N);
    let mut rest = text.as_str();
    for (role, content) in messages {
        let Some((before, after)) = rest.split_once(content).filter(|_| text.matches(content).count() == 1) else {
            return Err(failed(format!("it does not write a message of the {role} once, in its place")));
        };
        pieces.push(before.to_owned());
        rest = after;
    }
    pieces.push(rest.to_owned());
    pieces.try_into().map_err(|_| failed("it writes messages in another order"))
}

/// The part of `whole` behind `start`.
fn behind(whole: &str, start: &str) -> Result<String, Error> {
    let rest = whole.strip_prefix(start);
    rest.map(str::to_owned).ok_or_else(|| failed("a turn ends in several ways, by what follows"))
}
