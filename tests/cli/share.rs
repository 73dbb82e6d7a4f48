//! `pipe share` and `pipe reproduce`: a run goes elsewhere in one file, and comes out the same; or what does not is named.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use pipe::bundle::{Contents, Entry, Limits, Reader, Writer};
use pipe_stage::Digest;
use serde_json::Value;

use super::{Project, Ran};

/// Two files of the user's, one of them from outside of the project, and a model of random weights.
const PIPELINE: &str = "
name: 实验
stages:
  near: { kind: download, with: { source: 'file://数据/a b.txt' } }
  far: { kind: download, with: { source: 'file://../elsewhere/far' } }
  tokenizer: { kind: download, with: { source: 'file://tokenizer' } }
  model:
    kind: init_model
    inputs: { tokenizer: tokenizer }
    with:
      seed: 1
      config: { vocab_size: 4096, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 1,
                num_key_value_heads: 1, head_dim: 32, tie_word_embeddings: true }
";

/// A project whose pipeline has run, in the folder `project` of a temporary one.
pub(super) fn made() -> (Project, PathBuf) {
    let project = Project::new();
    let folder = project.path("project");
    fs::create_dir_all(folder.join("数据")).unwrap();
    fs::create_dir_all(project.path("elsewhere/far/deep")).unwrap();
    fs::write(folder.join("数据/a b.txt"), "near\n").unwrap();
    fs::write(project.path("elsewhere/far/deep/run 🚀.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(project.path("elsewhere/far/deep/run 🚀.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/tokenizer");
    fs::create_dir(folder.join("tokenizer")).unwrap();
    for file in fs::read_dir(tokenizer).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), folder.join("tokenizer").join(file.file_name())).unwrap();
    }
    fs::write(folder.join("p.yaml"), PIPELINE).unwrap();
    let ran = project.run(&["run", "project/p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    (project, folder)
}

pub(super) fn share(project: &Project, arguments: &[&str]) -> Ran {
    project.run(&[&["share"], arguments].concat())
}

pub(super) fn reproduce(project: &Project, arguments: &[&str]) -> Ran {
    project.run(&[&["reproduce", "--format", "json"], arguments].concat())
}

pub(super) fn report(ran: &Ran) -> Value {
    serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))["report"]
        .clone()
}

/// `(stage, verdict)` of a report.
pub(super) fn verdicts(report: &Value) -> Vec<(&str, &str)> {
    let stages = report["stages"].as_array().unwrap();
    stages.iter().map(|stage| (stage["stage"].as_str().unwrap(), stage["verdict"].as_str().unwrap())).collect()
}

pub(super) fn read(bundle: &Path) -> Vec<(Entry, Vec<u8>)> {
    let bytes = fs::read(bundle).unwrap();
    let mut files = Vec::new();
    let take = |entry: &Entry, input: &mut dyn Read| {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes)?;
        files.push((entry.clone(), bytes));
        Ok(())
    };
    Reader::new(&bytes[..], &Limits::default()).unwrap().read(take).unwrap();
    files
}

/// Writes a sound bundle in which `change` has changed the text of one entry.
pub(super) fn forge(bundle: &Path, forged: &Path, path: &str, change: impl Fn(String) -> String) {
    let mut files = read(bundle);
    let (entry, bytes) = files.iter_mut().find(|(entry, _)| entry.path == path).unwrap();
    let before = String::from_utf8(bytes.clone()).unwrap();
    *bytes = change(before.clone()).into_bytes();
    assert_ne!(*bytes, before.into_bytes(), "nothing was changed");
    (entry.digest, entry.size) = (Digest::of(bytes), bytes.len() as u64);
    let contents = Contents::new(files.iter().map(|(entry, _)| entry.clone()).collect(), &Limits::default()).unwrap();
    let mut writer = Writer::new(Vec::new(), &contents).unwrap();
    for (_, bytes) in &files {
        writer.entry(&bytes[..]).unwrap();
    }
    fs::write(forged, writer.finish().unwrap()).unwrap();
}

#[test]
fn a_run_is_made_again_elsewhere_and_comes_out_the_same() {
    let (project, folder) = made();
    let shared = share(&project, &["last", "-o", "x.pipe"]);
    assert_eq!(shared.code, 0, "{}", shared.stderr);
    assert_eq!(share(&project, &["last", "-o", "again.pipe"]).code, 0);
    assert!(fs::read(project.path("x.pipe")).unwrap() == fs::read(project.path("again.pipe")).unwrap());
    let name = shared.stdout.lines().last().unwrap().strip_prefix("experiment ").unwrap().to_owned();

    let paths: Vec<String> = read(&project.path("x.pipe")).into_iter().map(|(entry, _)| entry.path).collect();
    assert!(paths.iter().any(|path| path == "project/数据/a b.txt"), "{paths:?}");
    assert!(
        paths.iter().any(|path| path.starts_with("project/from-elsewhere/") && path.ends_with("/far/deep/run 🚀.sh"))
    );
    for (entry, bytes) in read(&project.path("x.pipe")) {
        let here = folder.parent().unwrap().to_str().unwrap().as_bytes();
        let told = bytes.windows(here.len()).any(|window| window == here);
        assert!(!told || entry.path.starts_with("logs/"), "{} knows where it was made", entry.path);
    }

    // Another machine, as far as a test can have one: nothing of the first is there.
    let other = Project::new();
    fs::copy(project.path("x.pipe"), other.path("y.pipe")).unwrap();
    drop(project);
    let made = reproduce(&other, &["y.pipe", "--into", "deep/er"]);
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
    let report = report(&made);
    assert_eq!(report["verdict"], "equal");
    let same = ["near", "far", "tokenizer", "model"].map(|stage| (stage, "same"));
    let mut told = verdicts(&report);
    told.sort();
    let mut expected = same.to_vec();
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(serde_json::from_str::<Value>(&made.stdout).unwrap()["experiment"], name);
    assert!(!other.path("home").exists(), "the user's own cache was touched");

    // The folder is a project like any other, and its run can be shared under the same digests.
    let again = other.command(&["run", "deep/er/project/pipeline.yaml"]).env_remove("PIPE_HOME").output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("up to date: 4 stages"), "{again:?}");
    assert_eq!(reproduce(&other, &["y.pipe", "--into", "deep/er"]).code, 2, "the folder is taken");
    let text = other.run(&["reproduce", "y.pipe"]);
    assert!(text.stdout.ends_with("equal: 4 stages, every digest as recorded\n"), "{}", text.stdout);
}

#[test]
fn what_differs_is_named_to_the_tensor_and_what_follows_is_told_apart() {
    let (project, _) = made();
    fs::create_dir(project.path("twice")).unwrap();
    let pipeline = "stages:\n  a: { kind: download, with: { source: 'file://a' } }\n";
    fs::write(project.path("twice/p.yaml"), pipeline).unwrap();
    assert_eq!(share(&project, &["last", "-o", "x.pipe", "--with-artifacts", "model"]).code, 0);
    assert_eq!(share(&project, &["last", "-o", "thin.pipe"]).code, 0);
    let other_seed = |text: String| text.replace("seed: 1", "seed: 2");
    forge(&project.path("x.pipe"), &project.path("seed.pipe"), "project/pipeline.yaml", other_seed);
    forge(&project.path("thin.pipe"), &project.path("thin-seed.pipe"), "project/pipeline.yaml", other_seed);

    let ran = reproduce(&project, &["seed.pipe"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let told = report(&ran);
    assert_eq!((&told["verdict"], &told["first_difference"]), (&"differs".into(), &"model".into()));
    let model = told["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "model").unwrap();
    let files = model["outputs"]["out"]["files"].as_array().unwrap();
    let weights = files.iter().find(|file| file["path"] == "model.safetensors").unwrap();
    assert_eq!(weights["detail"]["as"], "tensors");
    let tensors = weights["detail"]["differ"].as_array().unwrap();
    let embedding = tensors.iter().find(|tensor| tensor["name"] == "model.embed_tokens.weight").unwrap();
    assert_eq!(embedding["shape"][0], serde_json::json!([4096, 32]));
    assert!(embedding["differ"].as_u64().unwrap() > 100_000 && embedding["max_abs"].as_f64().unwrap() > 0.0);

    let text = project.run(&["reproduce", "seed.pipe"]);
    assert!(text.stdout.contains("the first stage that differs is `model` (init_model)"), "{}", text.stdout);
    assert!(
        text.stdout.contains("model.embed_tokens.weight") && text.stdout.contains("relative L2"),
        "{}",
        text.stdout
    );

    // Without the artifact, the list of its files still tells which file it is.
    let text = project.run(&["reproduce", "thin-seed.pipe"]);
    let line = text.stdout.lines().find(|line| line.contains("model.safetensors")).unwrap_or_default();
    assert!(line.contains(" -> "), "{}", text.stdout);
    assert_eq!(text.code, 1);

    // The same configuration, and a user's file that is another: what takes from it only follows.
    let mut paths = read(&project.path("x.pipe")).into_iter().map(|(entry, _)| entry.path);
    let template = paths.find(|path| path.ends_with("chat_template.jinja")).unwrap();
    forge(&project.path("thin.pipe"), &project.path("file.pipe"), &template, |text| text + "{# more #}");
    let ran = reproduce(&project, &["file.pipe"]);
    let told = report(&ran);
    assert_eq!((ran.code, &told["first_difference"]), (1, &"tokenizer".into()));
    assert!(verdicts(&told).contains(&("model", "follows")), "{told}");
}

#[test]
fn a_run_that_is_not_as_it_was_is_not_shared() {
    let (project, folder) = made();
    fs::write(project.path("taken.pipe"), "").unwrap();
    let taken = share(&project, &["last", "-o", "taken.pipe"]);
    assert!(taken.code == 2 && taken.stderr.contains("exists already"), "{}", taken.stderr);
    let unknown = share(&project, &["last", "-o", "x.pipe", "--with-artifacts", "modle"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("has no stage `modle`"), "{}", unknown.stderr);

    fs::write(folder.join("数据/a b.txt"), "other\n").unwrap();
    let changed = share(&project, &["last", "-o", "x.pipe"]);
    assert_eq!(changed.code, 2);
    assert!(changed.stderr.contains("a b.txt` is not what the run used any more"), "{}", changed.stderr);
    assert!(changed.stderr.contains("bring the file back as it was"), "{}", changed.stderr);
    fs::remove_file(folder.join("数据/a b.txt")).unwrap();
    let gone = share(&project, &["last", "-o", "x.pipe"]);
    assert!(gone.code == 2 && gone.stderr.contains("there is no `a b.txt`"), "{}", gone.stderr);
    fs::write(folder.join("数据/a b.txt"), "near\n").unwrap();
    assert_eq!(share(&project, &["last", "-o", "x.pipe"]).code, 0);

    // A run that failed at the end.
    let run = ["run", "project/p.yaml", "--set", "stages.model.with.config.vocab_size=7"];
    assert_eq!(project.run(&run).code, 1);
    let unfinished = share(&project, &["last", "-o", "y.pipe"]);
    assert!(unfinished.code == 2 && unfinished.stderr.contains(" failed"), "{}", unfinished.stderr);
    assert!(unfinished.stderr.contains("--partial"), "{}", unfinished.stderr);
    let partial = share(&project, &["last", "-o", "y.pipe", "--partial"]);
    assert_eq!(partial.code, 0, "{}", partial.stderr);
    let made = reproduce(&project, &["y.pipe"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(verdicts(&report(&made)).contains(&("model", "not_recorded")), "{}", made.stdout);
}

#[test]
fn a_damaged_artifact_is_not_shared_and_cannot_be_used_again() {
    let (project, _) = made();
    let object = project.path("home/objects").join(object_of(&project, "near"));
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, "neaR\n").unwrap();
    let damaged = share(&project, &["last", "-o", "x.pipe", "--with-artifacts"]);
    assert_eq!(damaged.code, 3, "{}", damaged.stderr);
    assert!(damaged.stderr.contains("the artifact `near.out`"), "{}", damaged.stderr);
    assert!(damaged.stderr.contains("`a b.txt` is damaged in the cache"), "{}", damaged.stderr);
    assert!(!object.exists() && !project.path("x.pipe").exists());
    assert_eq!(project.run(&["run", "project/p.yaml"]).code, 0, "it is made again");
    assert_eq!(share(&project, &["last", "-o", "x.pipe", "--with-artifacts"]).code, 0);
}

/// The object of the only file of a stage's artifact, relative to the folder of objects.
fn object_of(project: &Project, stage: &str) -> PathBuf {
    assert_eq!(share(project, &["last", "-o", "look.pipe"]).code, 0);
    let files = read(&project.path("look.pipe"));
    let of =
        |path: &str| String::from_utf8(files.iter().find(|(entry, _)| entry.path == path).unwrap().1.clone()).unwrap();
    let experiment: Value = serde_json::from_str(&of("experiment.json")).unwrap();
    let artifact = experiment["stages"][stage]["outputs"]["out"].as_str().unwrap();
    let list = of(&format!("objects/{artifact}"));
    let digest = list.lines().nth(1).unwrap().split(' ').next().unwrap();
    [&digest[..2], &digest[2..]].iter().collect()
}

#[test]
fn programs_of_a_bundle_run_only_if_that_is_allowed_and_what_is_not_the_same_twice_is_named() {
    let project = Project::new();
    let pipeline = "
stages:
  draw:
    kind: command
    with:
      run: |
        printf '{ \"loss\": 0.1%s }' \"$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')\" | tee \"$PIPE_METRICS\" > report.json
      outputs: report.json
  copy: { kind: command, inputs: { report.json: draw }, with: { run: [cp, report.json, 'a b.json'], outputs: a b.json } }
";
    fs::write(project.path("p.yaml"), pipeline).unwrap();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    assert_eq!(share(&project, &["last", "-o", "x.pipe", "--with-artifacts", "draw"]).code, 0);
    let refused = project.run(&["reproduce", "x.pipe", "--into", "out"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("draw: printf '{ \"loss\"")
            && refused.stderr.contains("copy: cp report.json 'a b.json'")
    );
    assert!(refused.stderr.contains("say --allow-commands") && !project.path("out").exists(), "{}", refused.stderr);

    let ran = reproduce(&project, &["x.pipe", "--allow-commands"]);
    let told = report(&ran);
    assert_eq!((ran.code, &told["first_difference"]), (1, &"draw".into()), "{}", ran.stderr);
    assert_eq!(verdicts(&told), [("draw", "differs"), ("copy", "follows")]);
    let draw = &told["stages"][0];
    assert!(draw["notes"][0].as_str().unwrap().starts_with("its key is the same"), "{draw}");
    assert_eq!(draw["figures"][0]["name"], "loss");
    let detail = &draw["outputs"]["out"]["files"][0]["detail"];
    assert_eq!((&detail["as"], &detail["differ"]), (&"values".into(), &1.into()));
    assert_eq!(detail["shown"][0]["difference"], draw["figures"][0]["difference"]);

    let text = project.run(&["reproduce", "x.pipe", "--allow-commands"]).stdout;
    assert!(text.contains("report.json: values that differ: 1 of 1"), "{text}");
    assert!(text.ends_with("not equal: 0 stages as recorded, 2 not\n"), "{text}");
}

#[test]
fn another_device_is_held_to_the_figures_alone() {
    let (project, _) = made();
    assert_eq!(share(&project, &["last", "-o", "x.pipe"]).code, 0);
    let experiment: Value = serde_json::from_slice(
        &read(&project.path("x.pipe")).into_iter().find(|(entry, _)| entry.path == "experiment.json").unwrap().1,
    )
    .unwrap();
    let model = &experiment["stages"]["model"];
    let (digest, parameters) =
        (model["outputs"]["out"].as_str().unwrap(), model["figures"]["parameters"].as_u64().unwrap());
    let other = Digest::of(b"other bytes").to_string();
    forge(&project.path("x.pipe"), &project.path("gpu.pipe"), "experiment.json", |text| {
        let text =
            text.replace(digest, &other).replace("\"device\": \"cpu\"", "\"device\": \"NVIDIA GeForce RTX 4090\"");
        text.replace(&format!("\"parameters\": {parameters}"), &format!("\"parameters\": {}", parameters + 100))
    });

    let ran = reproduce(&project, &["gpu.pipe"]);
    let told = report(&ran);
    assert_eq!((ran.code, &told["verdict"]), (1, &"within_tolerance".into()), "{}", ran.stderr);
    let note =
        told["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "model").unwrap()["notes"][0].clone();
    assert!(note.as_str().unwrap().contains("computed on NVIDIA GeForce RTX 4090 and now on cpu"), "{note}");
    let text = project.run(&["reproduce", "gpu.pipe"]).stdout;
    assert!(text.contains("parameters") && text.contains("to accept that, say --tolerance 0.01"), "{text}");

    assert_eq!(reproduce(&project, &["gpu.pipe", "--tolerance", "0.01"]).code, 0);
    let strict = reproduce(&project, &["gpu.pipe", "--tolerance", "0.0000001"]);
    assert_eq!((strict.code, &report(&strict)["verdict"]), (1, &"differs".into()));
}

#[test]
fn what_stands_in_a_base_is_found_beside_the_base() {
    let project = Project::new();
    let base = "
stages:
  corpus: { kind: download, with: { source: 'file://data.txt' }, outputs: results/corpus }
  said:
    kind: command
    inputs: { data: corpus, extra: 'file://extra.txt' }
    with: { run: sh lib/say.sh > out.txt, scripts: [lib/say.sh], outputs: out.txt }
";
    fs::create_dir_all(project.path("base/lib")).unwrap();
    fs::create_dir_all(project.path("exp/lib")).unwrap();
    fs::write(project.path("base/base.yaml"), base).unwrap();
    fs::write(project.path("base/lib/say.sh"), "cat data/data.txt extra\n").unwrap();
    fs::write(project.path("exp/p.yaml"), "name: p\nextends: ../base/base.yaml\n").unwrap();
    // Of the same names beside the pipeline are others.
    for (folder, word) in [("base", "right"), ("exp", "wrong")] {
        fs::write(project.path(folder).join("data.txt"), word).unwrap();
        fs::write(project.path(folder).join("extra.txt"), word).unwrap();
    }
    fs::write(project.path("exp/lib/say.sh"), "echo wrong\n").unwrap();
    let ran = project.run(&["run", "exp/p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(project.path("base/results/corpus/data.txt").is_file());

    let resolved = project.run(&["runs", "show", "--resolved"]).stdout;
    for part in ["../base/data.txt", "../base/extra.txt", "- ../base/./lib/say.sh", "../base/results/corpus"] {
        assert!(resolved.contains(part), "no {part} in\n{resolved}");
    }
    // The pipeline as the run meant it is the same pipeline.
    fs::write(project.path("exp/resolved.yaml"), &resolved).unwrap();
    let again = project.run(&["run", "exp/resolved.yaml"]);
    assert!(again.stderr.starts_with("up to date: 2 stages"), "{}", again.stderr);

    let shared = share(&project, &["last", "-o", "p.pipe"]);
    assert_eq!(shared.code, 0, "{}", shared.stderr);
    for folder in ["base", "exp", "home"] {
        fs::remove_dir_all(project.path(folder)).unwrap();
    }
    let ran = reproduce(&project, &["p.pipe", "--allow-commands"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(verdicts(&report(&ran)), [("corpus", "same"), ("said", "same")]);
}
