//! What a person sees when something from elsewhere cannot be had.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    COMMIT, Hub, Site,
    hub::{Asked, Fault, git_blob, sha256},
    model,
};

const MODEL: &str = "stages:\n  model: { kind: download, with: { source: 'hf://org/name' } }\n";

fn refusing(status: u16, code: &'static str, said: &'static str) -> Hub {
    let refuse = move |_: &Asked| Some(Fault::Status(status, "x-error-code", code, said));
    Hub::misbehaving(&model(1), refuse)
}

/// Runs, and gives what is seen; fails with another exit code.
fn refused(site: &Site, code: i32, variables: &[(&str, &str)]) -> String {
    let ran = site.run_with(variables, &["run", "p.yaml"]);
    assert_eq!(ran.code, code, "{}", ran.stderr);
    site.seen(&ran.stderr)
}

#[test]
fn every_refusal_says_what_to_do() {
    let token = [("HF_TOKEN", "hf_of_somebody")];
    let mut seen = String::new();
    let mut see = |what: &str, text: String| seen += &format!("## {what}\n{text}\n\n");

    let gated = || refusing(403, "GatedRepo", "Access to model org/name is restricted");
    see("gated, without a token", refused(&Site::new(MODEL, gated()), 3, &[]));
    see("gated, with a token", refused(&Site::new(MODEL, gated()), 3, &token));
    let missing = || refusing(401, "RepoNotFound", "Repository not found");
    see("no such repository, or private", refused(&Site::new(MODEL, missing()), 3, &[]));
    let missing = refusing(404, "RepoNotFound", "Repository not found");
    see("the same, with a token", refused(&Site::new(MODEL, missing), 3, &token));
    let revision = refusing(404, "RevisionNotFound", "Invalid rev id: v9");
    let pipeline = MODEL.replace("org/name", "org/name@v9");
    see("no such revision", refused(&Site::new(&pipeline, revision), 1, &[]));
    let site = Site::new(MODEL, Hub::new(&model(1)));
    see("offline, nothing there", refused(&site, 3, &[("HF_HUB_OFFLINE", "1")]));
    assert_eq!(site.requests(), 0);

    let site = Site::new("", Hub::new(&[("rows.jsonl", b"{}\n".to_vec())]));
    let (address, wrong) = (format!("{}/web/rows.jsonl?key=secret", site.hub.address), sha256(b"other"));
    let pipeline = format!("stages:\n  rows: {{ kind: download, with: {{ source: '{address}', sha256: {wrong} }} }}\n");
    fs::write(site.project.path("p.yaml"), pipeline).unwrap();
    see("another sha256", refused(&site, 1, &[]));

    for name in ["../outside.safetensors", "/etc/model.safetensors"] {
        let files = model(1).into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into())).collect();
        let hub = Hub::listing(files, 1000, vec![(name.to_owned(), "model.safetensors".to_owned())]);
        let site = Site::new(MODEL, hub);
        see("a name that leads out", refused(&site, 1, &[]));
        assert!(!site.project.path("home/outside.safetensors").exists());
    }
    insta::assert_snapshot!("refused", seen);
}

/// A cache of huggingface_hub that has `files` of the commit.
fn cache(site: &Site, files: &[(&str, Vec<u8>)]) -> PathBuf {
    let repository = site.project.path("user/.cache/huggingface/hub/models--org--name");
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &repository.join("blobs"), &repository.join("refs")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for (name, bytes) in files {
        let digest = if bytes.len() < 1000 { git_blob(bytes) } else { sha256(bytes) };
        fs::write(repository.join("blobs").join(&digest), bytes).unwrap();
        symlink(Path::new("../../blobs").join(&digest), snapshot.join(name)).unwrap();
    }
    repository
}

#[test]
fn offline_the_pipeline_says_which_files_are_meant() {
    let offline = [("HF_HUB_OFFLINE", "1")];
    let site = Site::new(MODEL, Hub::new(&[]));
    cache(&site, &model(1));
    let whole = refused(&site, 3, &offline);
    insta::assert_snapshot!("offline", whole);

    let named = |files: &str| MODEL.replace("name'", &format!("name', include: {files}"));
    fs::write(site.project.path("p.yaml"), named("[config.json, tokenizer.json]")).unwrap();
    let missing = refused(&site, 3, &offline);
    assert!(missing.contains("the cache has no `tokenizer.json` of hf://org/name"), "{missing}");
    fs::write(site.project.path("p.yaml"), named("['*.json']")).unwrap();
    assert!(refused(&site, 3, &offline).contains("include: [\"config.json\"]"));

    // The line that the refusal gives is all that is needed; and with a network the same key has the same bytes.
    let line = named(r#"["config.json", "model.safetensors"]"#);
    assert!(whole.contains(r#"include: ["config.json", "model.safetensors"]"#), "{whole}");
    fs::write(site.project.path("p.yaml"), &line).unwrap();
    let ran = site.run_with(&offline, &["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(site.figures("model")["cached_bytes"], 5002);
    assert_eq!(site.requests(), 0);
    let online = Site::new(&line, Hub::new(&model(1)));
    assert_eq!(online.run(&["run", "p.yaml"]).code, 0);
    let made = |site: &Site| {
        let shown = site.run(&["runs", "show", "last", "--format", "json"]).stdout;
        let stage = serde_json::from_str::<serde_json::Value>(&shown).unwrap()["stages"]["model"].clone();
        (stage["key"].clone(), stage["outputs"].clone())
    };
    assert_eq!(made(&site), made(&online));

    // One file needs no `include`.
    fs::write(site.project.path("p.yaml"), MODEL.replace("org/name", "org/name/config.json")).unwrap();
    assert_eq!(site.run_with(&offline, &["run", "p.yaml"]).code, 0);
}
