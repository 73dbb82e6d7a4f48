//! Files that the hubs' own tools have fetched before. Nothing of them is believed: what is taken is hashed first.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Digest, Error, Hub, RemoteFile, Repository, Settings, Source, names};

/// Where a file of `source` would be, if a cache has it.
pub(crate) fn candidate(source: &Source, file: &RemoteFile, settings: &Settings) -> Option<PathBuf> {
    let Source::Repository(repository) = source else { return None };
    let digest = file.digest.as_ref()?;
    let is_it =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.is_file() && Some(found.len()) == file.bytes);
    match repository.hub {
        Hub::HuggingFace => Some(hf_folder(repository, settings)?.join("blobs").join(digest.hex())).filter(is_it),
        Hub::ModelScope => {
            // A folder of theirs has no dots in its name.
            let id = repository.id.replace('.', "___");
            let below = |folder: &PathBuf| match repository.is_dataset {
                true => folder.parent().map(|folder| folder.join("datasets")).unwrap_or_default(),
                false => folder.clone(),
            };
            settings.ms_caches.iter().map(|folder| below(folder).join(&id).join(&file.key)).find(is_it)
        }
    }
}

fn hf_folder(repository: &Repository, settings: &Settings) -> Option<PathBuf> {
    let name = format!("{}--{}", repository.plural(), repository.id.replace('/', "--"));
    Some(settings.hf_cache.as_ref()?.join(name))
}

/// The commit that the cache knows for a revision.
pub(crate) fn offline_commit(repository: &Repository, settings: &Settings) -> Result<String, Error> {
    let folder = hf_folder(repository, settings);
    let noted =
        folder.as_ref().and_then(|folder| fs::read_to_string(folder.join("refs").join(&repository.revision)).ok());
    let noted = noted.map(|text| text.trim().to_owned()).filter(|text| Digest::git_blob(text).is_some());
    noted.ok_or_else(|| {
        missing(settings, folder, &format!("no revision `{}` of {}", repository.revision, repository.id))
    })
}

/// The files of a commit that the cache has. A link there says which digest its file has.
pub(crate) fn offline_files(
    repository: &Repository,
    commit: &str,
    settings: &Settings,
) -> Result<Vec<RemoteFile>, Error> {
    let folder = hf_folder(repository, settings);
    let root = folder.as_ref().map(|folder| folder.join("snapshots").join(commit)).filter(|root| root.is_dir());
    let Some(root) = root else {
        return Err(missing(settings, folder, &format!("no snapshot {commit} of {}", repository.id)));
    };
    let mut files = Vec::new();
    walk(&root, "", &mut files)?;
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<RemoteFile>) -> Result<(), Error> {
    for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
        let entry = entry.map_err(Error::read(folder))?;
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().map_err(Error::read(&path))?.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
            continue;
        }
        names::check(&name)?;
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            // A plain file: there is nothing to verify it with.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => continue,
            Err(error) => return Err(Error::read(&path)(error)),
        };
        let digest = target.file_name().and_then(|name| name.to_str()).and_then(Digest::of_either);
        // What the link points to may be gone; then it is missed when it is wanted.
        let bytes = fs::metadata(&path).ok().map(|metadata| metadata.len());
        files.push(RemoteFile { path: name.clone(), key: name, bytes, digest, etag: None });
    }
    Ok(())
}

/// Says what the cache does not have.
pub(crate) fn missing(settings: &Settings, folder: Option<PathBuf>, what: &str) -> Error {
    let place = folder.map_or_else(|| "the cache".to_owned(), |folder| folder.display().to_string());
    let hint =
        "fetch it where there is a network (`huggingface-cli download ORG/NAME`, or `pipe run`), or unset the variable";
    let variable = settings.offline.unwrap_or("HF_HUB_OFFLINE");
    Error::Offline { variable, missing: format!("{place} has {what}"), hint: hint.to_owned() }
}

/// Why a file cannot be fetched offline.
pub(crate) fn missing_file(source: &Source, file: &RemoteFile, settings: &Settings) -> Option<Error> {
    settings.offline?;
    Some(match source {
        Source::Repository(repository) if repository.hub == Hub::HuggingFace => {
            let what = format!("no whole file `{}` of {}", file.path, repository.id);
            missing(settings, hf_folder(repository, settings), &what)
        }
        _ => missing(settings, None, &format!("no file `{}`", file.path)),
    })
}
