//! Which files of some folders hold data, and in which format.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Format, Options, source::Source};

/// A file of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its path in its folder, for messages.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How its rows are written.
    pub format: Format,
}

/// What some folders hold.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The data: folder by folder, sorted by path in each.
    pub files: Vec<DataFile>,
    /// Names of the other files.
    pub left_aside: Vec<String>,
}

/// What a file may be, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Data, if the folder has any.
    Rows,
    /// JSON beside other data is more often about it.
    Json,
    /// Text, which is data where there is nothing else.
    Text,
    /// A name that says nothing.
    Unknown,
    /// About the data: a README, a licence, what `datasets` writes beside it, a hidden file.
    About,
}

/// What stands beside data and is none.
const ABOUT: [&str; 9] =
    ["readme", "license", "licence", "notice", "changelog", "contributing", "citation", "authors", "dataset_card"];
const ABOUT_JSON: [&str; 5] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "croissant.json"];

/// Finds the data. With a fixed format these are the files with a name of that format, else those without a name of any;
/// without, all files with the name of a format of rows, `.json` only where there is nothing else, then text files, then
/// whatever looks like data.
///
/// # Errors
/// If a folder cannot be read, or there is no data.
pub fn find<'a>(folders: impl Iterator<Item = &'a Path>, options: &Options) -> Result<Found, Error> {
    let mut files = Vec::new();
    for folder in folders {
        let mut inside = Vec::new();
        walk(folder, "", &mut inside)?;
        inside.sort_by(|a, b| a.0.cmp(&b.0));
        files.extend(inside);
    }
    let mut roles = Vec::with_capacity(files.len());
    for (name, ..) in &files {
        roles.push(role(name));
    }
    let tiers: &[Role] = match options.format {
        None => &[Role::Rows, Role::Json, Role::Text, Role::Unknown],
        Some(_) => &[Role::Rows, Role::Json, Role::Text, Role::Unknown, Role::About],
    };
    for tier in tiers {
        let mut found = Found::default();
        for ((name, path, bytes), role) in files.iter().zip(&roles) {
            let format = if role == tier { format(name, path, options)? } else { None };
            match format {
                Some(format) => {
                    found.files.push(DataFile { path: path.clone(), name: name.clone(), bytes: *bytes, format })
                }
                None => found.left_aside.push(name.clone()),
            }
        }
        if !found.files.is_empty() {
            return Ok(found);
        }
    }
    let mut others: Vec<_> = files.into_iter().map(|(name, ..)| name).collect();
    others.sort();
    others.truncate(5);
    let found = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
    Err(Error::NoFiles { wanted: wanted(options), found })
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf, u64)>) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        if metadata.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
        } else {
            files.push((name, path, metadata.len()));
        }
    }
    Ok(())
}

/// The end of a name in lower case, without that of a compression.
fn extension(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    match name.rsplit_once('.') {
        Some((_, extension)) => extension.to_owned(),
        None => String::new(),
    }
}

fn has_extension(format: Format, extension: &str) -> bool {
    format.reader().extensions().contains(&extension)
}

fn is_text(extension: &str) -> bool {
    Format::ALL.iter().any(|format| format.name() == "text" && has_extension(*format, extension))
}

fn role(name: &str) -> Role {
    let base = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let stem = base.split('.').next().unwrap_or(&base);
    let extension = extension(name);
    let hidden = name.split('/').any(|part| part.starts_with('.'));
    if hidden || ABOUT_JSON.contains(&base.as_str()) {
        return Role::About;
    }
    if is_text(&extension)
        || extension.is_empty()
        || !Format::ALL.iter().any(|format| has_extension(*format, &extension))
    {
        return match () {
            () if ABOUT.contains(&stem) => Role::About,
            () if is_text(&extension) => Role::Text,
            () => Role::Unknown,
        };
    }
    if extension == "json" { Role::Json } else { Role::Rows }
}

/// The format of a file, if it is one that is wanted.
fn format(name: &str, path: &Path, options: &Options) -> Result<Option<Format>, Error> {
    let extension = extension(name);
    let known = Format::ALL.iter().any(|format| has_extension(*format, &extension));
    if let Some(fixed) = options.format {
        // JSON Lines are often called .json, and arrays .jsonl.
        let json = |extension: &str| matches!(extension, "json" | "jsonl" | "ndjson");
        let fits = !known
            || is_text(&extension)
            || has_extension(fixed, &extension)
            || (json(&extension) && json(fixed.name()));
        return Ok(fits.then_some(fixed));
    }
    let head = Source::head(path)?;
    Ok(Format::detect(if known { &extension } else { "" }, &head))
}

fn wanted(options: &Options) -> String {
    let formats = Format::ALL.iter().filter(|format| options.format.is_none_or(|fixed| fixed == **format));
    let names: BTreeSet<_> = formats.flat_map(|format| format.reader().extensions()).collect();
    names.iter().map(|name| format!(".{name}")).collect::<Vec<_>>().join(", ")
}
