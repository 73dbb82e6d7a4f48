//! Any artifact: its files, what its tensors are, how it begins.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use owo_colors::OwoColorize;
use pipe_hf::{AdapterConfig, Checkpoint};
use serde_json::{Value, json};

use super::{Shown, View, WIDTH};
use crate::{
    cli::{
        CliError,
        table::{Cell, Table},
    },
    report,
};

/// So many files are listed.
const FILES: usize = 30;

/// So many lines of a file of text are shown, and of each so many bytes are read.
const LINES: usize = 3;
const LINE_BYTES: u64 = 4096;

/// Files that hold a row a line.
const TEXTS: [&str; 7] = ["jsonl", "ndjson", "csv", "tsv", "txt", "md", "json"];

pub(super) fn view(folder: &Path, shown: &Shown<'_>) -> Result<View, CliError> {
    let mut files = Vec::new();
    list(folder, &mut files).map_err(|error| {
        CliError::usage(format!("{}: {error}", folder.display()), "run `pipe cache verify`".to_owned())
    })?;
    files.sort();
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let name = shown.name();
    let mut text = format!("{} {}\n", name.bold(), format!("run {}", shown.run.id).dimmed());
    text += &format!("{}, {}\n\n", report::plural(files.len(), "file"), report::bytes(total));
    let mut table = Table::default();
    for (path, bytes) in files.iter().take(FILES) {
        let path = path.to_string_lossy();
        table.row([Cell::from(report::bytes(*bytes)).right(), report::printable(&path).into()]);
    }
    text += &table.to_text(2);
    if files.len() > FILES {
        text += &format!("  and {} more\n", files.len() - FILES);
    }
    let tensors = tensors(folder, &files);
    if let Some(tensors) = &tensors {
        text += &format!("\n{}\n", tensors.told());
    }
    let adapter = AdapterConfig::open(folder).ok();
    if let Some(adapter) = &adapter {
        let targets = adapter.target_modules.join(", ");
        let (r, alpha, dropout) = (adapter.r, adapter.lora_alpha, adapter.lora_dropout);
        text += &format!("adapter: r {r} · lora_alpha {alpha} · lora_dropout {dropout} · target_modules {targets}\n");
        if !adapter.modules_to_save.is_empty() {
            text += &format!("modules_to_save {}\n", adapter.modules_to_save.join(", "));
        }
    }
    // The settings of a model are no rows.
    let begins = beginning(folder, &files, tensors.is_none() && adapter.is_none());
    if let Some((path, lines)) = &begins {
        text += &format!("\n{}\n", path.display().dimmed());
        let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0));
        lines.iter().for_each(|line| text += &format!("  {}\n", fitted(line, width.saturating_sub(2))));
    }
    let listed = files.iter().map(|(path, bytes)| json!({ "path": path, "bytes": bytes }));
    let json = json!({
        "stage": shown.stage, "output": shown.output, "run": shown.run.id, "holds": "files", "bytes": total,
        "files": listed.collect::<Vec<_>>(), "tensors": tensors.map(|tensors| tensors.to_json()),
        "adapter": adapter.map(|adapter| json!({ "r": adapter.r, "lora_alpha": adapter.lora_alpha,
            "lora_dropout": adapter.lora_dropout, "use_rslora": adapter.use_rslora,
            "target_modules": adapter.target_modules, "modules_to_save": adapter.modules_to_save })),
        "begins": begins.map(|(path, lines)| json!({ "path": path, "lines": lines })),
    });
    Ok(View { text, json })
}

/// Paths relative to the folder, with sizes.
fn list(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> std::io::Result<()> {
    let mut folders = vec![PathBuf::new()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(folder.join(&inner))? {
            let path = inner.join(entry?.file_name());
            let metadata = fs::metadata(folder.join(&path))?;
            if metadata.is_dir() {
                folders.push(path);
            } else {
                files.push((path, metadata.len()));
            }
        }
    }
    Ok(())
}

/// The tensors of all safetensors files.
#[derive(Default)]
struct Tensors {
    count: usize,
    elements: usize,
    /// Count and bytes by data type.
    types: BTreeMap<String, (usize, u64)>,
}

fn tensors(folder: &Path, files: &[(PathBuf, u64)]) -> Option<Tensors> {
    let mut tensors = Tensors::default();
    let of_tensors = files.iter().filter(|(path, _)| has_extension(path, &["safetensors"]));
    for checkpoint in of_tensors.filter_map(|(path, _)| Checkpoint::open_file(&folder.join(path)).ok()) {
        for info in checkpoint.names().filter_map(|name| checkpoint.info(name).ok()) {
            let of_type = tensors.types.entry(format!("{:?}", info.dtype)).or_default();
            of_type.0 += 1;
            of_type.1 += info.length_bytes;
            tensors.count += 1;
            tensors.elements += info.elements();
        }
    }
    (tensors.count > 0).then_some(tensors)
}

impl Tensors {
    fn told(&self) -> String {
        let types =
            self.types.iter().map(|(name, (count, bytes))| format!("{count} {name} ({})", report::bytes(*bytes)));
        let elements = report::count(self.elements as u64);
        let count = report::plural(self.count, "tensor");
        format!("{count}, {elements} elements: {}", types.collect::<Vec<_>>().join(", "))
    }

    fn to_json(&self) -> Value {
        let types =
            self.types.iter().map(|(name, (count, bytes))| json!({ "dtype": name, "count": count, "bytes": bytes }));
        json!({ "count": self.count, "elements": self.elements, "dtypes": types.collect::<Vec<_>>() })
    }
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|extension| known.iter().any(|known| extension == *known))
}

/// The first lines of the first file of rows, which may be JSON.
fn beginning(folder: &Path, files: &[(PathBuf, u64)], json: bool) -> Option<(PathBuf, Vec<String>)> {
    let texts = if json { &TEXTS[..] } else { &TEXTS[..TEXTS.len() - 1] };
    let rank = |path: &Path| texts.iter().position(|known| has_extension(path, &[known]));
    let (path, _) = files.iter().filter(|(path, _)| rank(path).is_some()).min_by_key(|(path, _)| rank(path))?;
    let mut reader = BufReader::new(File::open(folder.join(path)).ok()?);
    let mut lines = Vec::new();
    while lines.len() < LINES {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line).ok()?;
        if read == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            // The rest of a long line.
            let _ = reader.skip_until(b'\n');
        }
        lines.push(report::printable(String::from_utf8_lossy(&line).trim_end()));
    }
    Some((path.clone(), lines))
}

/// As much of a line as fits.
fn fitted(line: &str, width: usize) -> String {
    use unicode_width::UnicodeWidthChar;
    let mut columns = 0;
    let fits = |letter: &char| {
        columns += letter.width().unwrap_or(0);
        columns < width
    };
    let shown: String = line.chars().take_while(fits).collect();
    if shown.len() < line.len() { shown + "…" } else { shown }
}
