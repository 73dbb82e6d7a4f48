//! What a command left, after it ran: its outputs, and what it should not have left.

use std::{
    fs::{self, FileType, Permissions},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pipe_stage::{Context, Failure};

use crate::{
    config::{Config, Place, Undeclared, base_name},
    error::{Error, failed, list},
    layout::Placed,
};

/// An output that is there and is what was declared.
pub(crate) struct Made<'a> {
    name: &'a str,
    path: &'a Place,
}

/// Looks whether every output in `work` is as declared, and whether anything else is there.
pub(crate) fn check<'a>(config: &'a Config, work: &Path, placed: &Placed) -> Result<Vec<Made<'a>>, Failure> {
    let mut made = Vec::new();
    let mut missing = None;
    for (name, path) in config.outputs.iter() {
        match look(path, work)? {
            true => made.push(Made { name, path }),
            false => missing = missing.or(Some(path)),
        }
    }
    if missing.is_none() && config.undeclared == Undeclared::Ignore {
        return Ok(made);
    }
    let outputs: Vec<PathBuf> = made.iter().map(|made| work.join(made.path.path())).collect();
    let others = others(work, placed, &outputs)?;
    if let Some(path) = missing {
        let failure = Failure::from(Error::Missing { output: path.as_str().to_owned() });
        return Err(match others.as_slice() {
            [] => failure.hint("it left nothing: a command runs in a folder of its own, and writes its outputs there"),
            others => failure.hint(format!("it left {}", list(others))),
        });
    }
    if others.is_empty() {
        return Ok(made);
    }
    let hint = "declare them under `outputs`, write them to $TMPDIR, or say `undeclared: ignore`";
    Err(Failure::from(Error::Undeclared { files: others }).hint(hint))
}

/// Moves the outputs to where the engine takes them from.
pub(crate) fn take(outputs: Vec<Made<'_>>, context: &Context) -> Result<(), Failure> {
    for Made { name, path } in outputs {
        let from = context.work().join(path.path());
        let mut to = context.output_named(name);
        if !path.is_folder() {
            to.push(base_name(path.path()));
        }
        if path.is_folder() {
            // A folder that may not be changed cannot be moved to another one either.
            let mode = fs::metadata(&from).map_err(failed("read", &from))?.permissions().mode();
            fs::set_permissions(&from, Permissions::from_mode(mode | 0o700)).map_err(failed("change", &from))?;
        }
        fs::rename(&from, &to).map_err(failed("move", from))?;
    }
    Ok(())
}

/// Whether an output is there. If it is, it is as declared.
fn look(path: &Place, work: &Path) -> Result<bool, Failure> {
    let place = work.join(path.path());
    if let Some(link) = link_above(path, work) {
        // What lies behind it may be anybody's, and would be moved away.
        let output = link.to_owned();
        return Err(Failure::from(Error::Form { output, found: "a link", expected: "a folder" })
            .hint("let the command write a copy there"));
    }
    let found = match fs::symlink_metadata(&place) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        found => found.map_err(failed("read", &place))?.file_type(),
    };
    let output = path.as_str().to_owned();
    match path.is_folder() {
        true if found.is_dir() => match holds_file(&place)? {
            true => Ok(true),
            false => Err(Failure::from(Error::Empty { output }).hint("an artifact keeps files, not empty folders")),
        },
        false if found.is_file() => Ok(true),
        folder => {
            let expected = if folder { "a folder" } else { "a file" };
            let hint = match folder {
                false if found.is_dir() => format!("a folder is declared with a `/` behind it: `{output}/`"),
                true if found.is_file() => format!("a file is declared without the `/`: `{}`", path.path()),
                _ => "let the command write a copy there".to_owned(),
            };
            Err(Failure::from(Error::Form { output, found: what(found), expected }).hint(hint))
        }
    }
}

/// The first folder on the way to an output that is a link.
fn link_above<'a>(path: &'a Place, work: &Path) -> Option<&'a str> {
    let path = path.path();
    path.match_indices('/').map(|(end, _)| &path[..end]).find(|folder| work.join(folder).is_symlink())
}

fn what(file: FileType) -> &'static str {
    match file {
        file if file.is_dir() => "a folder",
        file if file.is_file() => "a file",
        file if file.is_symlink() => "a link",
        file if file.is_fifo() => "a pipe",
        file if file.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Whether anything but folders is below a folder. What it is, is for the engine to judge.
fn holds_file(folder: &Path) -> Result<bool, Error> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let entry = entry.map_err(failed("read", &folder))?;
            if !entry.file_type().map_err(failed("read", entry.path()))?.is_dir() {
                return Ok(true);
            }
            folders.push(entry.path());
        }
    }
    Ok(false)
}

/// The files in `work` that were not laid out and are no outputs, sorted.
fn others(work: &Path, placed: &Placed, outputs: &[PathBuf]) -> Result<Vec<String>, Error> {
    let mut others = Vec::new();
    let mut folders = vec![work.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
            let entry = entry.map_err(failed("read", &folder))?;
            let path = entry.path();
            if placed.contains(&path) || outputs.contains(&path) {
                continue;
            }
            if entry.file_type().map_err(failed("read", &path))?.is_dir() {
                folders.push(path);
            } else {
                others.push(path.strip_prefix(work).unwrap_or(&path).to_string_lossy().into_owned());
            }
        }
    }
    others.sort();
    Ok(others)
}

#[cfg(test)]
mod tests;
