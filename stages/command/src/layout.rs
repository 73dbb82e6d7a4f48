//! The folder that a command runs in, before it runs: inputs under their names, scripts where they are in the project.
//!
//! What is laid out are copies, so that no command, whoever runs it, can damage the cache or the user's own files, and
//! so that programs which do not follow links see files. Only `link_inputs` makes links, and only to artifacts.

use std::{
    collections::HashSet,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use pipe_stage::{
    Artifact, Context, Digest, Failure,
    manifest::{Entry, Manifest, is_storable},
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use crate::{
    config::Config,
    error::{Error, failed},
};

/// Every file and link that was laid out.
pub(crate) type Placed = HashSet<PathBuf>;

/// Lays out what the command needs.
pub(crate) fn lay_out(config: &Config, context: &Context) -> Result<Placed, Failure> {
    let (job, work) = (context.job(), context.work());
    let mut placed = Placed::new();
    for (name, artifacts) in &job.inputs {
        // One each: the engine gives every entry of a list a name of its own.
        for artifact in artifacts {
            let place = make_place(work, name)?;
            if config.link_inputs {
                symlink(&artifact.path, &place).map_err(failed("create the link", &place))?;
                placed.insert(place);
            } else {
                copy(&artifact.path, &place, &mut Copying { context, placed: &mut placed, hashed: None })?;
            }
        }
    }
    for (field, file) in &job.user_files {
        let script = field.strip_prefix("scripts.").and_then(|index| config.scripts.get(index.parse::<usize>().ok()?));
        match (script, field.strip_prefix("inputs.")) {
            (Some(script), _) => {
                copy_and_compare(file, &make_place(work, script.place().path())?, context, &mut placed)?
            }
            (None, Some(name)) => copy_and_compare(file, &make_place(work, name)?, context, &mut placed)?,
            (None, None) => {}
        }
    }
    for (_, path) in config.outputs.iter() {
        make_place(work, path.path())?;
    }
    if config.link_inputs {
        // The superuser may write to read-only files, and through the links these would be the cache's.
        let _ = remove_capability_from_bounding_set(CapabilitySet::DAC_OVERRIDE);
    }
    Ok(placed)
}

/// The path of a thing below `folder`, its parents created.
fn make_place(folder: &Path, path: &str) -> Result<PathBuf, Error> {
    let place = folder.join(path);
    if let (true, Some(parent)) = (path.contains('/'), place.parent()) {
        fs::create_dir_all(parent).map_err(failed("create the folder", parent))?;
    }
    Ok(place)
}

/// Copies a file or folder of the user's, and makes sure that it is what stands in the key.
fn copy_and_compare(file: &Artifact, place: &Path, context: &Context, placed: &mut Placed) -> Result<(), Failure> {
    let mut hashed = Vec::new();
    let folder = copy(&file.path, place, &mut Copying { context, placed, hashed: Some(&mut hashed) })?;
    let digest = match hashed.as_slice() {
        [one] if !folder => one.digest,
        _ => Manifest::new(hashed).digest(),
    };
    if digest != file.digest {
        let error = Error::Changed { path: file.path.clone() };
        return Err(Failure::from(error).hint("run again when nothing writes to it"));
    }
    Ok(())
}

/// What is noted of copies.
struct Copying<'a> {
    context: &'a Context,
    placed: &'a mut Placed,
    /// The files with their digests, if those are wanted.
    hashed: Option<&'a mut Vec<Entry>>,
}

/// Copies a file or folder, read-only, links followed. Says whether it was a folder.
fn copy(from: &Path, to: &Path, copying: &mut Copying<'_>) -> Result<bool, Failure> {
    let metadata = fs::metadata(from).map_err(failed("read", from))?;
    if !metadata.is_dir() {
        copy_file(from, to, String::new(), copying)?;
        return Ok(false);
    }
    fs::create_dir(to).map_err(failed("create the folder", to))?;
    // The engine walked the same folder before, and found no loop.
    let mut folders = vec![(from.to_owned(), to.to_owned(), String::new())];
    while let Some((from, to, prefix)) = folders.pop() {
        for entry in fs::read_dir(&from).map_err(failed("read", &from))? {
            let entry = entry.map_err(failed("read", &from))?;
            let path = entry.path();
            let name = entry.file_name().to_str().map(|name| format!("{prefix}{name}"));
            let name = name
                .filter(|name| is_storable(name))
                .ok_or_else(|| Error::Unusable { path: path.clone(), why: "names must be UTF-8" })?;
            let place = to.join(entry.file_name());
            let mut kind = entry.file_type().map_err(failed("read", &path))?;
            if kind.is_symlink() {
                kind = fs::metadata(&path).map_err(failed("read", &path))?.file_type();
            }
            if kind.is_dir() {
                fs::create_dir(&place).map_err(failed("create the folder", &place))?;
                folders.push((path, place, name + "/"));
            } else if kind.is_file() {
                copy_file(&path, &place, name, copying)?;
            } else {
                return Err(Error::Unusable { path, why: "it is neither a file nor a folder" }.into());
            }
        }
    }
    Ok(true)
}

fn copy_file(from: &Path, to: &Path, name: String, copying: &mut Copying<'_>) -> Result<(), Failure> {
    if copying.context.cancelled() {
        return Err(Failure::cancelled());
    }
    // Shares blocks where the file system can.
    let size = fs::copy(from, to).map_err(failed("copy", from))?;
    let permissions = fs::metadata(to).map_err(failed("read", to))?.permissions();
    let executable = permissions.mode() & 0o100 != 0;
    if let Some(hashed) = &mut copying.hashed {
        // Of the copy: nobody else writes to it.
        let mut hasher = blake3::Hasher::new();
        let file = fs::File::open(to).map_err(failed("read", to))?;
        hasher.update_reader(file).map_err(failed("read", to))?;
        hashed.push(Entry { path: name, digest: Digest::from(hasher.finalize()), size, executable });
    }
    let mode = if executable { 0o555 } else { 0o444 };
    if permissions.mode() & 0o777 != mode {
        fs::set_permissions(to, Permissions::from_mode(mode)).map_err(failed("protect", to))?;
    }
    copying.placed.insert(to.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests;
