//! What can be said in a conversation besides questions.

use super::Settings;

/// What a line means.
#[derive(Debug, PartialEq)]
pub(super) enum Said<'a> {
    Question(&'a str),
    Nothing,
    Help,
    Reset,
    /// `None` takes the text away.
    System(Option<&'a str>),
    Set(&'a str, &'a str),
    Show,
    Quit,
    Unknown(&'a str),
}

pub(super) const HELP: &str = "\
/system TEXT         tell the model how it is to answer, and begin anew; without TEXT, nothing is told
/reset               begin a new conversation
/set                 show the settings
/set NAME VALUE      temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens, stop;
                     `default` is what the model says
/help                show this
/quit                leave, as do Ctrl-D and a second Ctrl-C
A line that ends with \\ goes on in the next one. A question that begins with / is written with //.";

const COMMANDS: [&str; 6] = ["/help", "/quit", "/exit", "/reset", "/set", "/system"];

/// Reads a line.
pub(super) fn read(line: &str) -> Said<'_> {
    let line = line.trim();
    if line.is_empty() {
        return Said::Nothing;
    }
    match line.strip_prefix('/') {
        None => return Said::Question(line),
        Some(question) if question.starts_with('/') => return Said::Question(question),
        Some(_) => {}
    }
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match command {
        "/help" => Said::Help,
        "/quit" | "/exit" => Said::Quit,
        "/reset" => Said::Reset,
        "/system" => Said::System(Some(rest).filter(|text| !text.is_empty())),
        "/set" => match rest.split_once(char::is_whitespace) {
            Some((name, value)) => Said::Set(name, value.trim()),
            None if rest.is_empty() => Said::Show,
            None => Said::Set(rest, ""),
        },
        unknown => Said::Unknown(unknown),
    }
}

/// The command that was meant, perhaps.
pub(super) fn nearest(command: &str) -> Option<&'static str> {
    pipe_yaml::nearest(command, COMMANDS)
}

impl Settings {
    /// Changes one.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let sampling = &mut self.sampling;
        match name {
            "temperature" => sampling.temperature = parsed(name, value, "a number from 0", |value| value >= 0.0)?,
            "top_k" => sampling.top_k = parsed(name, value, "a whole number from 0", |_: usize| true)?,
            "top_p" => {
                sampling.top_p = parsed(name, value, "above 0 and at most 1", |value| value > 0.0 && value <= 1.0)?;
            }
            "min_p" => sampling.min_p = parsed(name, value, "from 0 to 1", |value| (0.0..=1.0).contains(&value))?,
            "repetition_penalty" => {
                sampling.repetition_penalty = parsed(name, value, "a number above 0", |value| value > 0.0)?;
            }
            "seed" => sampling.seed = parsed(name, value, "a whole number from 0", |_: u64| true)?,
            "max_new_tokens" => {
                let count = parsed(name, value, "a whole number from 1", |value: usize| value > 0)?;
                self.max_new_tokens = count.ok_or("max_new_tokens must be a whole number from 1")?;
            }
            "stop" => self.stop = if value == DEFAULT { Vec::new() } else { vec![value.to_owned()] },
            _ => {
                const NAMES: [&str; 8] =
                    ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "max_new_tokens", "stop"];
                return Err(match pipe_yaml::nearest(name, NAMES) {
                    Some(known) => format!("there is no setting `{name}`; did you mean `{known}`?"),
                    None => format!("there is no setting `{name}`; there are {}", NAMES.join(", ")),
                });
            }
        }
        Ok(())
    }

    /// All of them, a line each.
    pub(super) fn table(&self) -> String {
        let sampling = &self.sampling;
        let word = |value: Option<String>| value.unwrap_or_else(|| DEFAULT.to_owned());
        let number = |value: Option<f64>| word(value.map(|value| value.to_string()));
        let rows = [
            ("temperature", number(sampling.temperature)),
            ("top_k", word(sampling.top_k.map(|value| value.to_string()))),
            ("top_p", number(sampling.top_p)),
            ("min_p", number(sampling.min_p)),
            ("repetition_penalty", number(sampling.repetition_penalty)),
            ("seed", word(sampling.seed.map(|value| value.to_string()))),
            ("max_new_tokens", self.max_new_tokens.to_string()),
            ("stop", word((!self.stop.is_empty()).then(|| format!("{:?}", self.stop)))),
        ];
        rows.map(|(name, value)| format!("{name:<20} {value}")).join("\n")
    }
}

const DEFAULT: &str = "default";

fn parsed<T: std::str::FromStr + Copy>(
    name: &str,
    value: &str,
    range: &str,
    fits: impl Fn(T) -> bool,
) -> Result<Option<T>, String> {
    if value == DEFAULT {
        return Ok(None);
    }
    let read = value.parse().ok().filter(|value| fits(*value));
    read.map(Some).ok_or_else(|| format!("{name} must be {range}, or `{DEFAULT}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_questions_or_commands() {
        assert_eq!(read("  What is 2/3? "), Said::Question("What is 2/3?"));
        assert_eq!(read("//etc"), Said::Question("/etc"));
        assert_eq!(read(" "), Said::Nothing);
        assert_eq!(read("/set temperature  0.7"), Said::Set("temperature", "0.7"));
        assert_eq!(read("/set"), Said::Show);
        assert_eq!(read("/system 你是诗人。"), Said::System(Some("你是诗人。")));
        assert_eq!(read("/system"), Said::System(None));
        assert_eq!(read("/hlep"), Said::Unknown("/hlep"));
        assert_eq!(nearest("/hlep"), Some("/help"));
    }

    #[test]
    fn settings_are_checked() {
        let mut settings = Settings { sampling: pipe_chat::Sampling::default(), max_new_tokens: 5, stop: Vec::new() };
        assert_eq!(settings.set("temperature", "0.7"), Ok(()));
        assert_eq!(settings.sampling.temperature, Some(0.7));
        assert_eq!(settings.set("temperature", "default"), Ok(()));
        assert_eq!(settings.sampling.temperature, None);
        assert!(settings.set("top_p", "1.5").is_err_and(|error| error.contains("at most 1")));
        assert!(settings.set("temprature", "1").is_err_and(|error| error.contains("did you mean `temperature`?")));
        assert!(settings.set("max_new_tokens", "0").is_err() && settings.max_new_tokens == 5);
        assert!(settings.table().contains("temperature          default\n"), "{}", settings.table());
    }
}
