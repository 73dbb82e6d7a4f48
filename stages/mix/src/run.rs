//! Draws sources, and copies the next sample of each.

use std::{collections::BTreeMap, path::PathBuf};

use pipe_samples::{Writer, choice::seed_for};
use pipe_stage::{Context, Failure};

use crate::{
    Config, Error, StoppingStrategy,
    draw::{Draws, Rule, whole_weights},
    source::{Source, source_of},
};

/// Samples between two looks at progress and cancellation.
const ROWS_A_LOOK: u64 = 1024;

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let mut sources = Vec::new();
    for (name, folders) in inputs(context)? {
        let of_source = config.sources.get(&name).copied().unwrap_or_default();
        sources.push(Source::open(&name, folders, of_source, config.seed).map_err(explain)?);
    }
    let lengths = sources.iter().map(Source::length).collect();
    let mut draws = Draws::new(rule(config, &sources), seed_for(config.seed, "order"), lengths);
    let total = draws.total();
    let mut writer = Writer::create(&context.output())?;
    let mut rows = 0;
    for source in draws.by_ref() {
        writer.write(sources[source].next()?.view())?;
        if rows % ROWS_A_LOOK == 0 {
            if context.cancelled() {
                return Err(Failure::cancelled());
            }
            context.progress("rows", rows, total);
        }
        rows += 1;
    }
    context.progress("rows", rows, Some(rows));
    let mixed = writer.finish()?;
    context.figure("rows", mixed.rows);
    context.figure("tokens", mixed.tokens);
    context.figure("tokens_trained", mixed.trained_tokens);
    for source in &sources {
        report(source, mixed.tokens, context);
    }
    say_what_is_left(&sources, &draws, context);
    Ok(())
}

/// The samples folders by source, each with the name of its input.
fn inputs(context: &Context) -> Result<BTreeMap<String, Vec<(String, PathBuf)>>, Failure> {
    let not_a_stage = |input: &str, what, hint: &str| {
        Err(Failure::from(Error::NotAStage { input: input.to_owned(), what }).hint(hint))
    };
    let job = context.job();
    if let Some(input) = job.user_files.keys().find_map(|field| field.strip_prefix("inputs.")) {
        let hint = "bring rows of yours in by a `download` stage, and turn them into samples by a `tokenize` stage";
        return not_a_stage(input, "a file or folder of yours", hint);
    }
    let mut sources: BTreeMap<String, Vec<(String, PathBuf)>> = BTreeMap::new();
    for (input, artifacts) in &job.inputs {
        for artifact in artifacts {
            if !artifact.path.is_dir() {
                return not_a_stage(input, "a single file", "name a stage that makes samples, such as tokenize");
            }
            sources.entry(source_of(input).to_owned()).or_default().push((input.clone(), artifact.path.clone()));
        }
    }
    for folders in sources.values_mut() {
        // The entries of a list by their numbers: 10 stands behind 9.
        folders.sort_by_cached_key(|(input, _)| {
            let number = input.rsplit('/').next().and_then(|last| last.parse::<u64>().ok());
            (number.unwrap_or(u64::MAX), input.clone())
        });
    }
    Ok(sources)
}

fn explain(error: Error) -> Failure {
    let hint = match &error {
        Error::NotSamples { source: pipe_samples::Error::NotSamples { .. }, .. } => {
            "name a stage that makes samples: tokenize, filter, split or mix"
        }
        Error::Empty { .. } => "leave it out, or look at what became of its rows",
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

fn rule(config: &Config, sources: &[Source]) -> Rule {
    let weight = |source: &Source| config.sources.get(&source.name)?.weight;
    // All have one or none has: the configuration is checked.
    let weights: Option<Vec<f64>> = sources.iter().map(weight).collect();
    match (weights, config.stopping_strategy) {
        (Some(weights), strategy) => {
            Rule::Weighted(whole_weights(&weights), strategy.unwrap_or(StoppingStrategy::FirstExhausted))
        }
        (None, Some(strategy)) => Rule::Alternate(strategy),
        (None, None) => Rule::Spread,
    }
}

fn report(source: &Source, tokens: u64, context: &Context) {
    let figure = |what: &str, value: u64| context.figure(&format!("{}.{what}", source.name), value);
    figure("rows", source.rows);
    figure("rows_taken", source.taken_rows);
    figure("rows_repeated", source.repeated_rows());
    figure("tokens", source.tokens);
    figure("tokens_taken", source.taken_tokens);
    let share = if tokens == 0 { 0.0 } else { source.taken_tokens as f64 / tokens as f64 };
    context.figure(&format!("{}.token_share", source.name), (share * 1e4).round() / 1e4);
}

/// Rows that a rule left out without being asked for it in so many words.
fn say_what_is_left(sources: &[Source], draws: &Draws, context: &Context) {
    let cut = sources.iter().enumerate().filter(|(index, _)| !draws.has_ended(*index)).map(|(_, source)| source);
    let left: Vec<String> = cut.map(|s| format!("{} of {} rows of `{}`", s.left_rows(), s.rows, s.name)).collect();
    if !left.is_empty() {
        context.info(format!("first_exhausted: a source has ended, and {} were not taken", left.join(", ")));
    }
}
