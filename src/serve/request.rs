//! A request for a chat completion, read and checked. What would change the answer and cannot be done is refused; other
//! fields that are not known are left alone, as OpenAI's clients send some.

use pipe_chat::Sampling;
use serde_json::{Map, Value, json};

use super::{Options, error::ApiError};

/// Stop strings of a request at most.
const MOST_STOPS: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) model: String,
    /// `role` and `content` of each.
    pub(super) messages: Vec<Value>,
    pub(super) sampling: Sampling,
    pub(super) max_new_tokens: usize,
    pub(super) stop: Vec<String>,
    /// The same answer to the last bit every time: a seed asks for it.
    pub(super) fresh: bool,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

/// Reads a body.
pub(super) fn read(body: &[u8], options: &Options) -> Result<Asked, ApiError> {
    let body: Value = serde_json::from_slice(body).map_err(|error| ApiError::unreadable(&error.to_string()))?;
    let Value::Object(body) = body else { return Err(ApiError::unreadable("it must be a JSON object")) };
    let fields = Fields(&body);
    fields.refuse_what_is_not_done()?;
    let model = fields.get("model").ok_or_else(|| ApiError::field("model", "is missing"))?;
    let model = model.as_str().ok_or_else(|| ApiError::field("model", "must be a string"))?.to_owned();
    let seed = fields.integer("seed", i64::MIN, "a whole number")?.map(|seed| seed as u64);
    let sampling = Sampling {
        temperature: fields.number("temperature", "from 0 to 2", |value| (0.0..=2.0).contains(&value))?,
        top_p: fields.number("top_p", "above 0 and at most 1", |value| value > 0.0 && value <= 1.0)?,
        top_k: fields.integer("top_k", 0, "a whole number from 0")?.map(|count| count as usize),
        min_p: fields.number("min_p", "from 0 to 1", |value| (0.0..=1.0).contains(&value))?,
        repetition_penalty: fields.number("repetition_penalty", "above 0", |value| value > 0.0)?,
        seed,
    };
    let most = |name| fields.integer(name, 1, "a whole number from 1");
    let asked_tokens = most("max_completion_tokens")?.or(most("max_tokens")?);
    let asked_tokens = asked_tokens.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let include_usage = match fields.get("stream_options") {
        None => false,
        Some(options) => options.get("include_usage").and_then(Value::as_bool).unwrap_or(false),
    };
    Ok(Asked {
        model,
        messages: messages(fields.get("messages"))?,
        sampling: or(sampling, &options.sampling),
        max_new_tokens: asked_tokens.min(options.max_new_tokens),
        stop: stops(fields.get("stop"))?,
        fresh: seed.is_some(),
        stream: fields.flag("stream")?,
        include_usage,
    })
}

/// What a request says, else what the server says.
fn or(asked: Sampling, server: &Sampling) -> Sampling {
    Sampling {
        temperature: asked.temperature.or(server.temperature),
        top_k: asked.top_k.or(server.top_k),
        top_p: asked.top_p.or(server.top_p),
        min_p: asked.min_p.or(server.min_p),
        repetition_penalty: asked.repetition_penalty.or(server.repetition_penalty),
        seed: asked.seed.or(server.seed),
    }
}

/// The fields of a body; `null` is as good as none.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn number(&self, name: &str, range: &str, fits: impl Fn(f64) -> bool) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_f64().filter(|value| fits(*value));
        number.map(Some).ok_or_else(|| ApiError::field(name, format!("must be {range}, it is {value}")))
    }

    fn integer(&self, name: &str, least: i64, range: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_i64().filter(|value| *value >= least);
        number.map(Some).ok_or_else(|| ApiError::field(name, format!("must be {range}, it is {value}")))
    }

    fn flag(&self, name: &str) -> Result<bool, ApiError> {
        let Some(value) = self.get(name) else { return Ok(false) };
        value.as_bool().ok_or_else(|| ApiError::field(name, format!("must be true or false, it is {value}")))
    }

    fn refuse_what_is_not_done(&self) -> Result<(), ApiError> {
        if self.get("n").is_some_and(|n| n.as_u64() != Some(1)) {
            return Err(ApiError::unsupported("n", "several answers to one request: `n` must be 1"));
        }
        let empty = |value: &Value| match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(flag) => !flag,
            value => value.as_f64() == Some(0.0),
        };
        for (name, what) in [
            ("tools", "tools"),
            ("functions", "functions"),
            ("logprobs", "log probabilities"),
            ("top_logprobs", "log probabilities"),
            ("logit_bias", "biases"),
            ("frequency_penalty", "a frequency penalty (it has `repetition_penalty`)"),
            ("presence_penalty", "a presence penalty (it has `repetition_penalty`)"),
            ("audio", "audio"),
        ] {
            if self.get(name).is_some_and(|value| !empty(value)) {
                return Err(ApiError::unsupported(name, what));
            }
        }
        let format = self.get("response_format").and_then(|format| format.get("type"));
        if format.is_some_and(|kind| kind != "text") {
            return Err(ApiError::unsupported("response_format", "answers of a given form"));
        }
        Ok(())
    }
}

fn messages(messages: Option<&Value>) -> Result<Vec<Value>, ApiError> {
    let messages = messages.and_then(Value::as_array).filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| ApiError::field("messages", "must be a list of one message or more"))?;
    messages.iter().enumerate().map(|(index, message)| read_message(index, message)).collect()
}

fn read_message(index: usize, message: &Value) -> Result<Value, ApiError> {
    let place = |field: &str| format!("messages[{index}].{field}");
    let role = match message.get("role").and_then(Value::as_str) {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        _ => return Err(ApiError::field(&place("role"), "must be system, developer, user or assistant")),
    };
    let content = match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| {
                let is_text = part.get("type").and_then(Value::as_str) == Some("text");
                part.get("text").and_then(Value::as_str).filter(|_| is_text).map(str::to_owned)
            };
            let texts: Option<Vec<String>> = parts.iter().map(text).collect();
            texts
                .ok_or_else(|| ApiError::field(&place("content"), "must be text: this model reads nothing else"))?
                .concat()
        }
        _ => return Err(ApiError::field(&place("content"), "must be a string, or a list of parts of the type `text`")),
    };
    Ok(json!({ "role": role, "content": content }))
}

fn stops(stop: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let strings = match stop {
        None => Some(Vec::new()),
        Some(Value::String(text)) => Some(vec![text.clone()]),
        Some(Value::Array(texts)) => texts.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    };
    strings
        .filter(|strings| strings.len() <= MOST_STOPS)
        .ok_or_else(|| ApiError::field("stop", format!("must be a string, or a list of up to {MOST_STOPS} strings")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn options() -> Options {
        let sampling = Sampling { temperature: Some(0.5), top_k: Some(20), ..Sampling::default() };
        Options { model: "m".to_owned(), sampling, max_new_tokens: 100, queue: 1, host: String::new() }
    }

    /// A request with one field more.
    fn with(name: &str, value: Value) -> Result<Asked, ApiError> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }] });
        body[name] = value;
        read(body.to_string().as_bytes(), &options())
    }

    #[test]
    fn what_is_not_said_is_what_the_server_says() {
        let asked = with("user", json!("x")).unwrap();
        assert_eq!((asked.sampling.temperature, asked.sampling.top_k), (Some(0.5), Some(20)));
        assert_eq!((asked.max_new_tokens, asked.fresh, asked.stream), (100, false, false));
        assert_eq!(with("temperature", json!(0)).unwrap().sampling.temperature, Some(0.0));
        assert_eq!(with("max_tokens", json!(7)).unwrap().max_new_tokens, 7);
        assert_eq!(with("max_completion_tokens", json!(1_000_000)).unwrap().max_new_tokens, 100);
        let seeded = with("seed", json!(-1)).unwrap();
        assert_eq!((seeded.sampling.seed, seeded.fresh), (Some(u64::MAX), true));
        assert_eq!(with("stop", json!("\n")).unwrap().stop, ["\n"]);
        assert_eq!(with("stop", json!(["a", "b"])).unwrap().stop, ["a", "b"]);
        assert!(
            with("n", json!(1)).is_ok() && with("tools", json!([])).is_ok() && with("logprobs", json!(false)).is_ok()
        );
        assert!(with("response_format", json!({ "type": "text" })).is_ok());
    }

    #[test]
    fn messages_are_text() {
        let parts = json!([
            { "role": "developer", "content": "brief" },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
        ]);
        let expected = [json!({ "role": "system", "content": "brief" }), json!({ "role": "user", "content": "ab" })];
        assert_eq!(with("messages", parts).unwrap().messages, expected);
        let image = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }]);
        assert!(with("messages", image).unwrap_err().body().to_string().contains("messages[0].content"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (name, value, code) in [
            ("n", json!(2), "unsupported_parameter"),
            ("tools", json!([{}]), "unsupported_parameter"),
            ("logprobs", json!(true), "unsupported_parameter"),
            ("presence_penalty", json!(0.5), "unsupported_parameter"),
            ("response_format", json!({ "type": "json_object" }), "unsupported_parameter"),
            ("temperature", json!(3), "invalid_value"),
            ("temperature", json!("hot"), "invalid_value"),
            ("top_p", json!(0), "invalid_value"),
            ("max_tokens", json!(0), "invalid_value"),
            ("max_tokens", json!(1.5), "invalid_value"),
            ("stream", json!("yes"), "invalid_value"),
            ("stop", json!([1]), "invalid_value"),
            ("messages", json!([]), "invalid_value"),
            ("model", json!(null), "invalid_value"),
        ] {
            let body = with(name, value).unwrap_err().body();
            assert_eq!((&body["error"]["param"], &body["error"]["code"]), (&json!(name), &json!(code)), "{body}");
            assert_eq!(body["error"]["type"], "invalid_request_error");
        }
        assert_eq!(read(b"{", &options()).unwrap_err().body()["error"]["code"], "invalid_json");
        assert_eq!(read(b"[]", &options()).unwrap_err().body()["error"]["code"], "invalid_json");
    }
}
