//! `pipe man`: the manual pages, made of the same texts as `--help`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command, CommandFactory};
use clap_mangen::{
    Man as Page,
    roff::{Roff, bold, roman},
};

use super::{Arguments, CliError, EXIT_CODES, Exit, VARIABLES, pipeline::print};

/// Arguments of `pipe man`.
#[derive(Args)]
#[command(after_help = "Read a page with `man -l DIR/pipe-run.1`, or `pipe man | man -l -`.")]
pub(super) struct Man {
    /// Where to write pipe.1 and a page for every command; without it, pipe.1 goes to standard output
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pages = pages();
        match self.dir {
            None => {
                let first = pages.into_iter().next().unwrap_or_default();
                print(&first.text)?;
            }
            Some(dir) => {
                let wrong = |path: &Path| {
                    let target = path.display().to_string();
                    move |source| CliError::Write { target, source }
                };
                fs::create_dir_all(&dir).map_err(wrong(&dir))?;
                for page in &pages {
                    let path = dir.join(&page.file);
                    fs::write(&path, &page.text).map_err(wrong(&path))?;
                }
                print(&format!("{} manual pages are in {}\n", pages.len(), dir.display()))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// One page.
#[derive(Default)]
struct Written {
    /// `pipe-run.1`.
    file: String,
    text: String,
}

/// `pipe.1`, and behind it a page for every command and its commands.
fn pages() -> Vec<Written> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, None, &mut pages);
    pages
}

fn add(command: &Command, parent: Option<&str>, pages: &mut Vec<Written>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let page = Page::new(command.clone());
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = write(&page, &name, command, parent, &mut text);
    // Every part comes with the definition of an apostrophe; one is enough.
    let text = String::from_utf8_lossy(&text).replace(APOSTROPHE, "");
    pages.push(Written { file: page.get_filename(), text: format!("{APOSTROPHE}{text}") });
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        add(child, Some(&name), pages);
    }
}

/// What `roff` puts before everything that it renders.
const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

fn write(page: &Page, name: &str, command: &Command, parent: Option<&str>, text: &mut Vec<u8>) -> io::Result<()> {
    // By hand: an empty date would be left out, and what follows would move up.
    let version = env!("CARGO_PKG_VERSION");
    text.extend(format!(".TH \"{name}\" \"1\" \"\" \"pipe {version}\" \"pipe manual\"\n").bytes());
    page.render_name_section(text)?;
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    synopsis.text([roman(command.clone().render_usage().to_string().trim_start_matches("Usage: "))]);
    synopsis.to_writer(text)?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    if command.get_subcommands().any(|child| !child.is_hide_set()) {
        page.render_subcommands_section(text)?;
    }
    let mut rest = Roff::new();
    match parent {
        None => {
            table(&mut rest, "EXIT STATUS", EXIT_CODES);
            table(&mut rest, "ENVIRONMENT", VARIABLES);
        }
        Some(parent) => {
            if let Some(help) = command.get_after_help() {
                rest.control("SH", ["NOTES"]);
                rest.control("nf", []);
                rest.text([roman(help.to_string())]);
                rest.control("fi", []);
            }
            rest.control("SH", ["SEE ALSO"]);
            rest.text([bold(parent), roman("(1)")]);
        }
    }
    rest.to_writer(text)
}

fn table(roff: &mut Roff, title: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(*name)]);
        roff.text([roman(*meaning)]);
    }
}
