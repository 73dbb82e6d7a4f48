//! What a command reports about its work: the file that `PIPE_METRICS` names.
//!
//! The file holds JSON objects, one after the other: each is the measurements of one step if it has a whole number
//! `step`, and otherwise the figures of the finished work. What cannot be read is a warning: the work itself is done.

use std::{fs, io};

use pipe_stage::Context;
use serde_json::{Map, Value};

use crate::environment;

/// A file with more bytes than this is no report.
const MAX_BYTES: u64 = 64 << 20;

/// Longer texts are no figures, in characters.
const MAX_TEXT: usize = 200;

/// Reports what the command wrote, if it wrote anything.
pub(crate) fn report(context: &Context) {
    let path = environment::metrics_file(context);
    let text = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        // To read a pipe could take forever, and a device has no end.
        Ok(file) if !file.is_file() => return context.warn("$PIPE_METRICS is left out: it is no file"),
        Ok(file) if file.len() > MAX_BYTES => {
            return context
                .warn(format!("$PIPE_METRICS is left out: it has {} bytes, at most {MAX_BYTES}", file.len()));
        }
        file => file.and_then(|_| fs::read_to_string(&path)),
    };
    // Nothing else stands there, and the folder is to be used again.
    let _ = fs::remove_file(&path);
    match text {
        Ok(text) => read(&text, context),
        Err(error) => context.warn(format!("$PIPE_METRICS cannot be read: {error}")),
    }
}

fn read(text: &str, context: &Context) {
    for object in serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>() {
        match object {
            Ok(object) => one(object, context),
            Err(error) => {
                return context.warn(format!("$PIPE_METRICS is not JSON objects, and is left out from there: {error}"));
            }
        }
    }
}

fn one(mut object: Map<String, Value>, context: &Context) {
    let step = object.get("step").and_then(Value::as_u64);
    if let Some(step) = step {
        object.shift_remove("step");
        let values: Vec<(&str, f64)> =
            object.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?))).collect();
        if values.len() < object.len() {
            context.warn(format!("$PIPE_METRICS: the values of step {step} that are no numbers are left out"));
        }
        context.metric(step, values);
        return;
    }
    for (name, value) in object {
        match &value {
            Value::Number(_) => context.figure(&name, value),
            Value::String(text) if text.chars().count() <= MAX_TEXT => context.figure(&name, value),
            _ => context.warn(format!("$PIPE_METRICS: `{name}` is left out: it is neither a number nor a short text")),
        }
    }
}

#[cfg(test)]
mod tests;
