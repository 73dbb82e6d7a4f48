//! Where the user's files stand in a bundle, and the pipeline that names them there.
//!
//! A file that the pipeline names by a relative path below its own folder keeps that path, so that programs of the
//! user's that know it find it. Everything else goes to `from-elsewhere/`, under its content, and the pipeline names it there.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::{cache::FileIdentity, config::StageSpec};

/// The folder of the pipeline and of the user's files.
pub(super) const PROJECT: &str = "project";

/// The pipeline in that folder.
pub(super) const PIPELINE: &str = "pipeline.yaml";

/// The lock file of a pipeline, beside it.
pub(super) const LOCK: &str = "pipe.lock";

/// For files from elsewhere, in that folder.
const ELSEWHERE: &str = "from-elsewhere";

/// Where a file that a pipeline names `written` is put, relative to [`PROJECT`]. The last part stays what it is: it
/// stands in keys.
pub(super) fn place(written: &Path, identity: &FileIdentity) -> PathBuf {
    let mut place = PathBuf::new();
    for part in written.components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return elsewhere(identity),
        }
    }
    let first = place.iter().next().map(|first| first.to_string_lossy().to_lowercase());
    match first.as_deref() {
        None | Some(ELSEWHERE | PIPELINE | LOCK) => elsewhere(identity),
        Some(_) => place,
    }
}

fn elsewhere(identity: &FileIdentity) -> PathBuf {
    [ELSEWHERE, &identity.digest.short(), &identity.name].iter().collect()
}

/// Lets a stage name its user file number `index` at `place`.
pub(super) fn point_to(spec: &mut StageSpec, index: usize, place: &Path) {
    let Some(file) = spec.user_files.get_mut(index) else { return };
    let before = std::mem::replace(&mut file.path, place.to_owned());
    let mut parts = file.field.split('.');
    // `source`, or `scripts.0`; for an input there is nothing in the configuration.
    let top = parts.next().and_then(|name| spec.config.get_mut(name));
    let value = parts.try_fold(top, |value, part| match part.parse::<usize>() {
        Ok(index) => Some(value.and_then(|value| value.get_mut(index))),
        Err(_) => None,
    });
    if let Some(Some(Value::String(text))) = value {
        let scheme = if Path::new(text.as_str()) == before { "" } else { "file://" };
        *text = format!("{scheme}{}", place.display());
    }
}

#[cfg(test)]
mod tests {
    use pipe_stage::Digest;

    use super::*;

    #[test]
    fn relative_paths_below_the_pipeline_stay_and_all_others_move() {
        let identity = FileIdentity { name: "数据".to_owned(), folder: true, digest: Digest::of(b"x") };
        let moved = format!("from-elsewhere/{}/数据", Digest::of(b"x").short());
        for (written, placed) in [
            ("data/数据", "data/数据"),
            ("./data/./数据", "data/数据"),
            ("a..b/..c", "a..b/..c"),
            ("/data/数据", &moved),
            ("../数据", &moved),
            ("data/../数据", &moved),
            (".", &moved),
            ("from-elsewhere/数据", &moved),
            ("Pipeline.yaml", &moved),
            ("pipe.lock", &moved),
        ] {
            assert_eq!(place(Path::new(written), &identity), Path::new(placed), "{written}");
        }
    }
}
