//! Where the user's files stand in a bundle, and the pipeline that names them there.
//!
//! A file that the pipeline names by a relative path below its own folder keeps that path, so that programs of the
//! user's that know it find it. Everything else goes to `from-elsewhere/`, under its content, and the pipeline names it there.

use std::path::{Component, Path, PathBuf};

use crate::{cache::FileIdentity, pins::FILE_NAME};

/// The folder of the pipeline and of the user's files.
pub(super) const PROJECT: &str = "project";

/// The pipeline in that folder.
pub(super) const PIPELINE: &str = "pipeline.yaml";

/// For files from elsewhere, in that folder.
const ELSEWHERE: &str = "from-elsewhere";

/// Where a file that a pipeline names `written` is put, relative to [`PROJECT`]. The last part stays what it is: it
/// stands in keys; of a path of which more does, all of that: `kept`.
pub(super) fn place(written: &Path, kept: Option<&str>, identity: &FileIdentity) -> PathBuf {
    let elsewhere = |identity: &FileIdentity| -> PathBuf {
        [ELSEWHERE, &identity.digest.short(), kept.unwrap_or(&identity.name)].iter().collect()
    };
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
        None | Some(ELSEWHERE | PIPELINE | FILE_NAME) => elsewhere(identity),
        Some(_) => place,
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
            assert_eq!(place(Path::new(written), None, &identity), Path::new(placed), "{written}");
        }
        let script = place(Path::new("../base/./lib/数据"), Some("lib/数据"), &identity);
        assert_eq!(script, Path::new("from-elsewhere").join(Digest::of(b"x").short()).join("lib/数据"));
    }
}
