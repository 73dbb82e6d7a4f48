//! Values of declared environment variables: none is in a bundle.

use std::fs;

use pipe_stage::Digest;
use serde_json::Value;

use super::{
    Project, Ran,
    share::{read, reproduce, share},
};

/// A command that tells its secret wherever it can but for its artifact.
const TELLS: &str = "
stages:
  tells:
    kind: command
    with:
      run: |
        echo \"the token is $TOKEN\"
        printf '{ \"token\": \"%s\", \"score\": 0.5 }' \"$TOKEN\" > \"$PIPE_METRICS\"
        echo done > out.txt
      outputs: out.txt
      env: [TOKEN]
";

const SECRET: &str = "hf_s3cret-値";

#[test]
fn no_declared_secret_is_in_a_bundle() {
    let project = Project::new();
    fs::write(project.path("p.yaml"), TELLS).unwrap();
    let with_secret =
        |arguments: &[&str]| -> Ran { project.command(arguments).env("TOKEN", SECRET).output().unwrap().into() };
    assert_eq!(with_secret(&["run", "p.yaml"]).code, 0);
    assert!(project.run(&["log", "tells"]).stdout.contains(SECRET), "the test has no secret to find");
    assert_eq!(with_secret(&["share", "last", "-o", "known.pipe", "--with-artifacts"]).code, 0);
    let unknown = share(&project, &["last", "-o", "unknown.pipe"]);
    assert!(unknown.stderr.contains("the log of `tells` is left out: it may hold `TOKEN`"), "{}", unknown.stderr);
    let other: Ran =
        project.command(&["share", "last", "-o", "other.pipe"]).env("TOKEN", "something else").output().unwrap().into();
    assert!(other.code == 0 && other.stderr.contains("is left out"), "{}", other.stderr);

    // Neither the value, nor anything by which a guess of it could be checked.
    let digest = Digest::of(SECRET.as_bytes());
    let show = project.run(&["runs", "show", "last", "--format", "json"]).stdout;
    let key = serde_json::from_str::<Value>(&show).unwrap()["stages"]["tells"]["key"].as_str().unwrap().to_owned();
    for name in ["known.pipe", "unknown.pipe", "other.pipe"] {
        let files = read(&project.path(name));
        for (entry, bytes) in &files {
            for secret in
                [SECRET.as_bytes(), b"hf_s3cret", b"something else", digest.to_string().as_bytes(), key.as_bytes()]
            {
                let found = bytes.windows(secret.len()).any(|window| window == secret);
                assert!(!found, "{name}: {} holds {}", entry.path, String::from_utf8_lossy(secret));
            }
        }
        let has_log = files.iter().any(|(entry, _)| entry.path == "logs/tells.log");
        assert_eq!(has_log, name == "known.pipe");
        let experiment = &files.iter().find(|(entry, _)| entry.path == "experiment.json").unwrap().1;
        let experiment: Value = serde_json::from_slice(experiment).unwrap();
        assert_eq!(experiment["stages"]["tells"]["figures"]["score"], 0.5);
        assert_eq!(experiment["stages"]["tells"]["variables"]["TOKEN"], true);
    }
    let log =
        read(&project.path("known.pipe")).into_iter().find(|(entry, _)| entry.path == "logs/tells.log").unwrap().1;
    assert!(String::from_utf8(log).unwrap().contains("the token is [TOKEN]"));

    // Whoever wants the same must have the variable.
    let without = reproduce(&project, &["known.pipe", "--allow-commands"]);
    assert_eq!(without.code, 3, "{}", without.stderr);
    assert!(without.stderr.contains("was given TOKEN of the environment, which is not set here"), "{}", without.stderr);
    let with = with_secret(&["reproduce", "known.pipe", "--allow-commands", "--format", "json"]);
    assert_eq!(with.code, 0, "{}", with.stderr);
}

#[test]
fn an_artifact_with_a_secret_is_not_shared_unless_it_is_none() {
    let project = Project::new();
    fs::write(project.path("p.yaml"), TELLS.replace("echo done", "echo \"key: $TOKEN\"")).unwrap();
    let with_secret =
        |arguments: &[&str]| -> Ran { project.command(arguments).env("TOKEN", SECRET).output().unwrap().into() };
    assert_eq!(with_secret(&["run", "p.yaml"]).code, 0);
    let share_all = ["share", "last", "-o", "x.pipe", "--with-artifacts"];
    let found = with_secret(&share_all);
    assert!(
        found.code == 2 && found.stderr.contains("holds the value of the environment variable `TOKEN`"),
        "{}",
        found.stderr
    );
    let unknown = project.run(&share_all);
    assert!(unknown.code == 2 && unknown.stderr.contains("so that it cannot be looked for"), "{}", unknown.stderr);
    assert!(!project.path("x.pipe").exists());
    assert_eq!(with_secret(&["share", "last", "-o", "list.pipe"]).code, 0, "the list of the files tells nothing");
    let allowed = project.run(&[&share_all[..], &["--not-secret", "TOKEN"]].concat());
    assert_eq!(allowed.code, 0, "{}", allowed.stderr);
}
