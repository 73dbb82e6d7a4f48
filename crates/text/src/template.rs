//! Conversations to text, through the model's own Jinja template.

use std::{collections::BTreeMap, path::Path, sync::OnceLock};

use minijinja::{
    Environment, ErrorKind, State, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, Value, ValueKind},
};

use crate::{
    Error,
    folder::{self, TokenizerConfig},
    python,
};

const NAME: &str = "chat_template";
/// The special tokens that Transformers hands to a template under these names.
const TOKEN_VARIABLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The variables that hold the conversation.
pub const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

/// The chat template of a model folder. Cheap to share between threads.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// What a template finds besides the conversation: the texts of tokens, and what [`ChatTemplate::with_kwargs`] gave.
    variables: BTreeMap<String, Value>,
    generation_prompt: OnceLock<String>,
}

/// What a template renders.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    /// Objects with `role`, `content` and whatever else the template knows.
    pub messages: &'a [serde_json::Value],
    /// The tools that the assistant may call.
    pub tools: Option<&'a serde_json::Value>,
    /// Whether to end with the opening of the assistant's next turn.
    pub add_generation_prompt: bool,
}

impl ChatTemplate {
    /// Loads `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`; `None` if there is neither.
    ///
    /// # Errors
    /// If a file is broken, or the template is no Jinja that this program knows.
    pub fn load(folder: &Path) -> Result<Option<Self>, Error> {
        let config = TokenizerConfig::load(folder)?;
        let source = match folder::text(folder, "chat_template.jinja")? {
            Some(source) => source,
            None => match config.chat_template()? {
                Some(source) => source.to_owned(),
                None => return Ok(None),
            },
        };
        let environment =
            environment(source).map_err(|source| Error::Template { folder: folder.to_owned(), source })?;
        let token = |name: &&str| Some(((*name).to_owned(), Value::from(config.token(name)?)));
        let variables = TOKEN_VARIABLES.iter().filter_map(token).collect();
        Ok(Some(Self { environment, variables, generation_prompt: OnceLock::new() }))
    }

    /// Gives the template more variables, as `apply_chat_template` of Transformers does with keyword arguments:
    /// `enable_thinking` for one. Those of the conversation itself ([`RESERVED`]) cannot be set.
    #[must_use]
    pub fn with_kwargs<'a>(mut self, kwargs: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>) -> Self {
        let given = kwargs.into_iter().map(|(name, value)| (name.clone(), Value::from(Serde(value))));
        self.variables.extend(given);
        self.generation_prompt = OnceLock::new();
        self
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// If the template refuses it: an unknown role, content of a type that it does not know, the wall-clock time.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, Error> {
        let render = || {
            let messages: Vec<Value> = conversation.messages.iter().map(|m| Value::from(Serde(m))).collect();
            // Transformers passes `None` where there are no tools.
            let tools = conversation.tools.map_or(Value::from(()), |tools| Value::from(Serde(tools)));
            let variables = [
                ("messages", Value::from(messages)),
                ("tools", tools),
                ("documents", Value::from(())),
                ("add_generation_prompt", Value::from(conversation.add_generation_prompt)),
            ];
            let others = self.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
            self.environment.get_template(NAME)?.render(Value::from_pairs(others.chain(variables)))
        };
        render().map_err(|source| Error::Render { source })
    }

    /// The text of a conversation that consists of one question, open for the assistant's answer.
    ///
    /// # Errors
    /// If the template refuses it.
    pub fn prompt(&self, question: &str) -> Result<String, Error> {
        let messages = [serde_json::json!({ "role": "user", "content": question })];
        self.render(&Conversation { messages: &messages, tools: None, add_generation_prompt: true })
    }

    /// What the template writes before the assistant's answer, such as `<|im_start|>assistant\n`; empty if it has no
    /// such thing.
    pub(crate) fn generation_prompt(&self) -> &str {
        self.generation_prompt.get_or_init(|| {
            let messages = [serde_json::json!({ "role": "user", "content": "?" })];
            let render = |add_generation_prompt| {
                self.render(&Conversation { messages: &messages, tools: None, add_generation_prompt })
            };
            match (render(false), render(true)) {
                (Ok(closed), Ok(open)) => open.strip_prefix(&closed).unwrap_or_default().to_owned(),
                _ => String::new(),
            }
        })
    }
}

/// Jinja as Transformers sets it up, with the template in it.
fn environment(template: String) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, _, value| {
        let written = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python::str(value)),
        };
        written.map_err(|_| refusal("cannot write the output"))
    });
    environment.add_filter("tojson", |value: &Value, kwargs: Kwargs| python::to_json(value, &kwargs));
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| match chars {
        None => python::str(value).trim_matches(python::is_whitespace).to_owned(),
        Some(chars) => python::str(value).trim_matches(|c| chars.contains(c)).to_owned(),
    });
    environment.add_filter("string", |value: &Value| python::str(value));
    // Python cannot iterate over None.
    environment.add_test("iterable", |value: &Value| {
        !matches!(value.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number)
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
        Err(refusal(message))
    });
    environment.add_function("strftime_now", |_format: &str| -> Result<Value, minijinja::Error> {
        Err(refusal(
            "the template asks for today's date, which would make every run's result another one; \
             take strftime_now out of the model's chat template, or give it a date as text",
        ))
    });
    // Jinja reads every line end as this one.
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    environment.add_template_owned(NAME, without_generation_tags(&template))?;
    Ok(environment)
}

/// Transformers marks the assistant's part with `{% generation %}` and `{% endgeneration %}`, which print nothing:
/// blocks that are always taken, with the same trimming around them.
fn without_generation_tags(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((text, tag)) = rest.split_once("{%") {
        let (inner, _) = tag.split_once("%}").unwrap_or((tag, ""));
        out.push_str(text);
        out.push_str("{%");
        match inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace()) {
            "generation" => out.push_str(&inner.replace("generation", "if true")),
            "endgeneration" => out.push_str(&inner.replace("endgeneration", "endif")),
            _ => out.push_str(inner),
        }
        rest = &tag[inner.len()..];
    }
    out.push_str(rest);
    out
}

/// The methods of Python's types.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, minijinja::Error> {
    match (value.as_str(), name, args) {
        (Some(text), "strip", []) => Ok(Value::from(text.trim_matches(python::is_whitespace))),
        (Some(text), "lstrip", []) => Ok(Value::from(text.trim_start_matches(python::is_whitespace))),
        (Some(text), "rstrip", []) => Ok(Value::from(text.trim_end_matches(python::is_whitespace))),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn refusal(message: impl Into<std::borrow::Cow<'static, str>>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}
