//! `pipe explain`: one stage, what goes into it, and why it would run.

use clap::Args;
use owo_colors::{OwoColorize, Style};

use super::{
    CliError, Exit, Format, candidates,
    pipeline::{PipelineArguments, print, print_json, stage_named},
    runs::seconds,
    table::{Cell, Table},
};
use crate::{
    cache::{Home, UserFiles},
    graph::Graph,
    pins::{Pins, SettleError},
    plan::{Action, Brief, CacheLookup, Explanation, Externals, Field, Ingredients, Last, Source},
    report,
    runs::Story,
    scheduler::RunError,
};

/// Of the titles before lines, in characters.
const TITLE_WIDTH: usize = 11;

/// Arguments of `pipe explain`.
#[derive(Args)]
pub(super) struct Explain {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The stage
    #[arg(add = candidates::stages())]
    stage: String,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Explain {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        let graph = Graph::new(&pipeline)?;
        let stage = stage_named(&pipeline, &self.stage)?;
        let home = Home::locate(&pipeline.folder)?;
        let selected = graph.needed_for([&stage]);
        let pins = Pins::load(&pipeline.folder).map_err(SettleError::from).map_err(RunError::from)?;
        let variable = |name: &str| std::env::var_os(name);
        let externals = Externals::identify(&pipeline, &selected, &UserFiles::new(&home), &pins, variable)?;
        let lookup = CacheLookup::new(&home, &pipeline.name);
        // The stage is there: its name was looked up above.
        if let Some(explanation) = Explanation::new(&pipeline, &graph, &externals, &lookup, &stage) {
            match self.format {
                Format::Json => print_json(&explanation)?,
                Format::Text => print(&text(&explanation))?,
            }
        }
        Ok(Exit::Done)
    }
}

fn text(explanation: &Explanation) -> String {
    let Explanation { stage, key, action, causes, ingredients, last, .. } = explanation;
    let (verdict, reasons) = match action {
        Action::Hit { .. } => ("is up to date".green().to_string(), &[][..]),
        Action::Run { reasons } => ("would run".yellow().to_string(), &reasons[..]),
        Action::Maybe { reasons } => {
            ("would run if what it takes comes out different".cyan().to_string(), &reasons[..])
        }
    };
    let mut text = format!("{} ({}) {verdict}\n", stage.bold(), ingredients.kind);
    if !reasons.is_empty() {
        text += &heading("why");
        for reason in reasons {
            text += &format!("  {}\n", report::printable(&reason.to_string()));
        }
    }
    if !causes.is_empty() {
        text += &heading("where that comes from");
    }
    for cause in causes {
        let when = match &cause.run {
            Some(run) => format!(", made in run {run}"),
            None => ", still to run".to_owned(),
        };
        text += &format!("  `{}`{}\n", cause.stage, when.dimmed());
        for reason in &cause.reasons {
            text += &format!("    {}\n", report::printable(reason));
        }
    }
    text += &heading("key");
    text += &match key {
        Some(key) => format!("  {key}\n"),
        None => "  not known before the stages that it takes from have run\n".to_owned(),
    };
    text += &goes_in(ingredients);
    if let Some(last) = last {
        text += &made(last, key.as_ref() == Some(&last.key));
    }
    text
}

fn heading(text: &str) -> String {
    format!("\n{}\n", text.bold())
}

fn goes_in(ingredients: &Ingredients) -> String {
    let Ingredients { kind, version, config, execution_only, files, pins, environment, inputs } = ingredients;
    let mut text = heading("what is in the key");
    text += &section("kind", [vec![format!("{kind}, version {version}").into()]]);
    text += &section("config", config.iter().map(field));
    let file = |(field, file): (&String, &crate::cache::FileIdentity)| {
        let name = if file.folder { format!("{}/", file.name) } else { file.name.clone() };
        vec![field.clone().into(), report::printable(&name).into(), file.digest.short().into()]
    };
    text += &section("files", files.iter().map(file));
    text += &section("pins", pins.iter().map(|(field, pin)| vec![field.clone().into(), report::printable(pin).into()]));
    text += &section("inputs", inputs.iter().map(source));
    let variable = |(name, is_set): (&String, &bool)| {
        vec![name.clone().into(), if *is_set { "set (its value counts)" } else { "not set" }.into()]
    };
    text += &section("environment", environment.iter().map(variable));
    if !execution_only.is_empty() {
        let mut table = Table::default();
        execution_only.iter().for_each(|guide| table.row(field(guide)));
        text += &heading("what is not: it must not change the result");
        text += &table.to_text(2);
    }
    text
}

/// Lines under a common title, which stands before the first of them, in columns of their own.
fn section(title: &str, rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut table = Table::default();
    for (index, row) in rows.into_iter().enumerate() {
        let title = format!("{:TITLE_WIDTH$}", if index == 0 { title } else { "" });
        table.row(std::iter::once(title.into()).chain(row));
    }
    table.to_text(2)
}

fn field(field: &Field) -> Vec<Cell> {
    vec![field.field.clone().into(), report::printable(&Brief(&field.value).to_string()).into()]
}

fn source(source: &Source) -> Vec<Cell> {
    let Source { input, stage, output, artifact, made } = source;
    let from = if output == "out" { stage.to_string() } else { format!("{stage}.{output}") };
    let artifact = artifact.map_or_else(|| "still to be made".to_owned(), |artifact| artifact.short());
    let made = made.as_ref().map(|made| format!("of run {}", made.run)).unwrap_or_default();
    vec![input.clone().into(), from.into(), artifact.into(), Cell::from(made).style(Style::new().dimmed())]
}

fn made(last: &Last, is_current: bool) -> String {
    let mut text = heading(if is_current { "made" } else { "made last, with another key" });
    if let Some(Story { run, ended, duration_seconds, reasons }) = &last.made {
        text += &section("run", [vec![run.to_string().into()]]);
        let moment = format!("{}, in {}", report::moment(*ended), seconds(*duration_seconds));
        text += &section("at", [vec![moment.into()]]);
        text += &section("because", reasons.iter().map(|reason| vec![report::printable(reason).into()]));
    }
    if !is_current {
        text += &section("key", [vec![last.key.to_string().into()]]);
    }
    let output =
        |(output, digest): (&String, &pipe_stage::Digest)| vec![output.clone().into(), digest.to_string().into()];
    text += &section(if last.outputs.len() == 1 { "output" } else { "outputs" }, last.outputs.iter().map(output));
    text
}
