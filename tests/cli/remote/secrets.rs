//! No token is in anything that a run prints or writes, and no stage that does not need one gets it.

use std::{fs, path::Path};

use super::{
    super::share::read,
    Hub, Ran, Site,
    hub::{Asked, Fault},
    model,
};

const SECRETS: [(&str, &str); 5] = [
    ("HF_TOKEN", "hf_RecognisableTokenOfTheHub"),
    ("MODELSCOPE_API_TOKEN", "ms-RecognisableTokenOfModelScope"),
    ("AWS_ACCESS_KEY_ID", "AKIARECOGNISABLE"),
    ("AWS_SECRET_ACCESS_KEY", "RecognisableSecretOfTheStore"),
    ("AWS_SESSION_TOKEN", "RecognisableSessionOfTheStore"),
];

/// What the hub puts behind the addresses of its store.
const SIGNATURE: &str = "X-Amz-Signature";

const PIPELINE: &str = "\
stages:
  model: { kind: download, with: { source: 'hf://org/name' } }
  other: { kind: download, with: { source: 'ms://org/name' } }
  bucket: { kind: download, with: { source: 's3://bucket/data/' } }
  environment:
    kind: command
    inputs: { model: model }
    with: { run: 'env | sort | tee out.txt', outputs: out.txt }
";

/// What must not be found, without the name of a key, which is none.
fn hidden() -> Vec<&'static str> {
    SECRETS.iter().map(|(_, value)| *value).filter(|value| !value.starts_with("AKIA")).chain([SIGNATURE]).collect()
}

fn search(what: &str, bytes: &[u8], secrets: &[&str]) {
    for secret in secrets {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{what} holds {secret}");
    }
}

/// Searches every file below `folder`. Returns how many there are.
fn search_files(folder: &Path) -> usize {
    search_files_for(folder, &hidden())
}

fn search_files_for(folder: &Path, secrets: &[&str]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        search("a name", entry.file_name().as_encoded_bytes(), secrets);
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            count += search_files_for(&entry.path(), secrets);
        } else if kind.is_file() {
            count += 1;
            search(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap(), secrets);
        }
    }
    count
}

fn searched(site: &Site, arguments: &[&str]) -> Ran {
    let store = [("AWS_ENDPOINT_URL", site.hub.address.as_str()), ("AWS_REGION", "eu-west-1"), ("RUST_LOG", "trace")];
    let ran = site.run_with(&[&SECRETS[..], &store].concat(), arguments);
    search(&format!("stdout of {arguments:?}"), ran.stdout.as_bytes(), &hidden());
    search(&format!("stderr of {arguments:?}"), ran.stderr.as_bytes(), &hidden());
    ran
}

#[test]
fn no_token_is_in_anything_that_a_run_leaves() {
    let site = Site::new(PIPELINE, Hub::new(&model(1)));
    for arguments in [
        &["run", "p.yaml", "environment", "other"][..],
        &["run", "p.yaml", "environment", "--force", "model", "--format", "json"],
        &["runs", "show", "last"],
        &["runs", "show", "last", "--format", "json"],
        &["log", "environment"],
        &["log", "model"],
        &["plan", "p.yaml", "--format", "json"],
        &["share", "last", "-o", "x.pipe", "--with-artifacts"],
        &["doctor"],
    ] {
        let ran = searched(&site, arguments);
        assert!(ran.code == 0 || arguments == ["doctor"], "{arguments:?}: {}", ran.stderr);
    }
    let log = site.hub.content.log.lock().unwrap().clone();
    let sent = |asked: &Asked| format!("{:?}{:?}", asked.headers.get("authorization"), asked.headers.get("cookie"));
    assert!(log.iter().any(|asked| sent(asked).contains(SECRETS[0].1)), "the hub never got the token");
    assert!(log.iter().any(|asked| asked.from_store), "no redirection was followed");
    assert!(log.iter().all(|asked| !asked.from_store || sent(asked) == "NoneNone"), "the store got a token");

    assert!(search_files(site.project.folder.path()) > 20);
    for (entry, bytes) in read(&site.project.path("x.pipe")) {
        search(&entry.path, &bytes, &hidden());
    }
    // The environment that the command saw was looked at.
    assert!(site.run(&["log", "environment"]).stdout.contains("PATH="));
}

#[test]
fn no_token_is_in_what_a_failed_download_leaves() {
    type Behaviour = fn(&Asked) -> Option<Fault>;
    let refusals: [(&str, Behaviour); 5] = [
        ("401", |_| Some(Fault::Status(401, "x-error-code", "RepoNotFound", "Repository not found"))),
        ("403 gated", |_| Some(Fault::Status(403, "x-error-code", "GatedRepo", "Access is restricted"))),
        ("echo", |_| Some(Fault::Echo(400))),
        ("echo of a file", |asked| asked.path.contains("/resolve/").then_some(Fault::Echo(400))),
        ("signed address", |asked| {
            asked.from_store.then_some(Fault::Status(400, "", "", "<Error><Code>ExpiredToken</Code></Error>"))
        }),
    ];
    for (name, behaviour) in refusals {
        let site = Site::new(PIPELINE, Hub::misbehaving(&model(1), behaviour));
        for arguments in [
            &["run", "p.yaml", "model"][..],
            &["run", "p.yaml", "model", "--format", "json"],
            &["run", "p.yaml", "other"],
            &["run", "p.yaml", "bucket"],
        ] {
            let ran = searched(&site, arguments);
            // ModelScope gives its files itself.
            let succeeds = name == "signed address" && arguments.contains(&"other");
            assert_eq!(ran.code == 0, succeeds, "{name}: {} {}{}", ran.code, ran.stdout, ran.stderr);
            let is_quoted = match arguments.get(2) {
                _ if arguments.contains(&"json") => false,
                Some(&"model") => name.starts_with("echo"),
                Some(&"bucket") => name == "echo",
                _ => false,
            };
            assert!(!is_quoted || ran.stderr.contains("[secret]"), "{name}: {}", ran.stderr);
        }
        for arguments in
            [&["log", "model"][..], &["runs", "show", "last"], &["share", "last", "--partial", "-o", "x.pipe"]]
        {
            searched(&site, arguments);
        }
        assert!(search_files(site.project.folder.path()) > 0);
    }
}

#[test]
fn a_proxy_is_used_and_its_password_is_told_to_nobody_else() {
    const PASSWORD: &str = "RecognisablePasswordOfTheProxy";
    let site = Site::new(PIPELINE, Hub::new(&model(1)));
    let proxy = site.hub.address.replace("http://", &format!("http://somebody:{PASSWORD}@"));
    let through = |arguments: &[&str]| {
        let hub = "http://hub.example";
        let variables = [
            ("HTTP_PROXY", proxy.as_str()),
            ("http_proxy", &proxy),
            ("HF_ENDPOINT", hub),
            ("MODELSCOPE_ENDPOINT", hub),
        ];
        let ran = site.run_with(&variables, arguments);
        assert!(!(ran.stdout.clone() + &ran.stderr).contains(PASSWORD), "{}{}", ran.stdout, ran.stderr);
        ran
    };
    let ran = through(&["run", "p.yaml", "environment", "other"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let log = site.hub.content.log.lock().unwrap().clone();
    for asked in &log {
        let is_told = asked.headers.contains_key("proxy-authorization");
        assert_eq!(is_told, !asked.from_store, "{asked:?}");
        assert!(asked.from_store || asked.headers["host"] == "hub.example", "{asked:?}");
    }
    assert_eq!(through(&["share", "last", "-o", "x.pipe", "--with-artifacts"]).code, 0);
    search_files_for(site.project.folder.path(), &[PASSWORD, "somebody:"]);

    let site = Site::new(PIPELINE, Hub::misbehaving(&model(1), |_| Some(Fault::Status(407, "", "", "who are you?"))));
    let proxy = site.hub.address.replace("http://", &format!("http://somebody:{PASSWORD}@"));
    let ran = site.run_with(
        &[("HTTP_PROXY", &proxy), ("HF_ENDPOINT", "http://hub.example")],
        &["run", "p.yaml", "environment", "other"],
    );
    assert!(ran.code == 3 && ran.stderr.contains("answers 407: who are you?"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(PASSWORD), "{}", ran.stderr);
    search_files_for(site.project.folder.path(), &[PASSWORD]);
}
