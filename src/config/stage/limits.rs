//! What a stage may use and how long it may take: `resources`, `retries` and `timeout`. None of it is in a key.

use std::time::Duration;

use pipe_stage::{MEMORY_PATTERN, Refused, Resources, parse_bytes};
use pipe_yaml::Node;
use serde::Deserialize;

use super::super::report::Report;

/// The most that `retries` may say.
pub(in super::super) const MAX_RETRIES: u32 = 100;

/// The most CPUs that `resources` may ask for.
pub(crate) const MAX_CPUS: usize = 1024;

/// The longest duration: ten years, in seconds.
const MAX_SECONDS: u64 = 3650 * 86400;

/// How a duration is written, as a regular expression.
pub(in super::super) const DURATION_PATTERN: &str = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$";

/// The fields of `resources:`.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in super::super) struct ResourceFields {
    /// Threads, 1 to 1024. Default: the stage decides.
    #[schemars(range(min = 1, max = 1024))]
    cpus: Option<usize>,
    /// Main memory that the stage needs: `8GB`, `512MiB`, or a number of bytes. Default: nothing is said.
    #[schemars(extend("type" = ["string", "integer", "null"], "pattern" = MEMORY_PATTERN))]
    memory: Option<String>,
    /// CUDA devices, 0 to 64; 0 runs on the CPU. Default 0.
    #[schemars(range(min = 0, max = 64))]
    gpus: usize,
    /// How long it takes at most, as a cluster is asked for it: `90m`, `2h30m`, `1d`. Default: nothing is said. See also
    /// `timeout`, which ends a stage.
    #[schemars(extend("pattern" = DURATION_PATTERN))]
    time: Option<String>,
}

pub(super) fn read_resources(node: &Node, report: &mut Report) -> Resources {
    let fields: ResourceFields = match pipe_yaml::deserialize(node) {
        Ok(fields) => fields,
        Err(problems) => {
            report.extend(problems);
            return Resources::default();
        }
    };
    if fields.cpus.is_some_and(|cpus| !(1..=MAX_CPUS).contains(&cpus)) {
        report.add(node.span_at("cpus"), format!("cpus: must be 1 to {MAX_CPUS}"), None);
    }
    if fields.gpus > 64 {
        report.add(node.span_at("gpus"), "gpus: must be 0 to 64", None);
    }
    let mut quantity = |field: &str, text: Option<String>, parse: fn(&str) -> Result<u64, Refused>| {
        parse(&text?).map_err(|refused| add(report, node, field, refused)).ok()
    };
    Resources {
        cpus: fields.cpus,
        memory_bytes: quantity("memory", fields.memory, parse_bytes),
        gpus: fields.gpus,
        time_seconds: quantity("time", fields.time, parse_seconds),
    }
}

pub(super) fn read_retries(node: &Node, report: &mut Report) -> u32 {
    match pipe_yaml::deserialize::<i64>(node).map(u32::try_from) {
        Ok(Ok(retries)) if retries <= MAX_RETRIES => return retries,
        Ok(_) => report.add(node.span, format!("retries: must be 0 to {MAX_RETRIES}"), None),
        Err(problems) => report.extend(problems),
    }
    0
}

pub(super) fn read_timeout(node: &Node, report: &mut Report) -> Option<Duration> {
    match pipe_yaml::deserialize::<String>(node) {
        Ok(text) => match parse_seconds(&text) {
            Ok(seconds) => return Some(Duration::from_secs(seconds)),
            Err(Refused(message, help)) => report.add_with_help(node.span, format!("timeout: {message}"), help),
        },
        Err(problems) => report.extend(problems),
    }
    None
}

fn add(report: &mut Report, node: &Node, field: &str, Refused(message, help): Refused) {
    report.add_with_help(node.span_at(field), format!("{field}: {message}"), help);
}

/// Days, hours, minutes and seconds in this order, each with its unit, to seconds.
fn parse_seconds(text: &str) -> Result<u64, Refused> {
    const HELP: &str = "such as 90s, 30m, 2h30m or 1d";
    let wrong = || Refused(format!("expected a duration, found `{text}`"), HELP);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refused(format!("`{text}` has no unit"), "write 90s for seconds, 90m for minutes, 90h for hours"));
    }
    let mut rest = text;
    let mut seconds = 0_u64;
    for (unit, length) in [('d', 86400), ('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, behind)) = rest.split_once(unit) else { continue };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        seconds = seconds.saturating_add(number.saturating_mul(length));
        rest = behind;
    }
    match seconds {
        _ if !rest.is_empty() || text.is_empty() => Err(wrong()),
        0 => Err(Refused("must be longer than nothing".to_owned(), HELP)),
        1..=MAX_SECONDS => Ok(seconds),
        _ => Err(Refused(format!("`{text}` is longer than ten years"), HELP)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_days_to_seconds() {
        for (text, seconds) in [("90s", 90), ("90m", 5400), ("2h30m", 9000), ("1d", 86400), ("1d2h3m4s", 93784)] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["", "soon", "1w", "30m2h", "1h1h", "h", "1.5h", "2h 30m", "2h30", "-1h"] {
            let Err(Refused(message, _)) = parse_seconds(text) else { panic!("`{text}` passed") };
            assert_eq!(message, format!("expected a duration, found `{text}`"));
        }
        assert!(parse_seconds("30").is_err_and(|Refused(message, _)| message == "`30` has no unit"));
        assert!(parse_seconds("0h0m").is_err_and(|Refused(message, _)| message == "must be longer than nothing"));
        assert!(parse_seconds("99999999999999d").is_err_and(|Refused(message, _)| message.contains("ten years")));
    }
}
