//! What hubs refuse, and what the user is told to do about it.

use crate::{
    harness::{Desk, TOKEN, chain},
    hub::{Asked, Fault, Hub, noise},
};

fn error(
    source: &str,
    token: bool,
    behaviour: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
) -> (String, String) {
    let hub = Hub::misbehaving(&[("config.json", b"{}".to_vec()), ("model.safetensors", noise(1, 5000))], behaviour);
    let mut desk = Desk::new(&hub.address);
    if !token {
        desk = desk.set("HF_TOKEN", "").set("MODELSCOPE_API_TOKEN", "");
    }
    let error = desk.fetch(source).unwrap_err();
    let told = (chain(&error), error.hint().unwrap_or_default());
    assert!(!format!("{told:?} {error:?}").contains(TOKEN));
    (told.0.replace(&hub.address, "HUB"), told.1.replace(&hub.address, "HUB"))
}

#[test]
fn who_may_not_read_is_told_what_to_do() {
    let gated = |asked: &Asked| {
        asked.path.contains("/api/").then_some(Fault::Status(
            401,
            "x-error-code",
            "GatedRepo",
            "Access to model is restricted",
        ))
    };
    let (message, hint) = error("hf://org/name", false, gated);
    assert_eq!(message, "org/name is gated: it is not given without a token");
    assert_eq!(hint, "accept the licence at HUB/org/name, then set HF_TOKEN to a token of your account");
    let gated =
        |asked: &Asked| asked.path.contains("/resolve/").then_some(Fault::Status(403, "x-error-code", "GatedRepo", ""));
    let (message, hint) = error("hf://org/name", true, gated);
    assert_eq!(message, "org/name is gated: this token may not read it");
    assert!(hint.contains("accept the licence at HUB/org/name"), "{hint}");

    // What the hub answers to nobody is 401 also for what does not exist.
    let (message, hint) =
        error("hf://org/name", false, |_| Some(Fault::Status(401, "x-error-code", "RepoNotFound", "")));
    assert_eq!(message, "org/name does not exist, or is private");
    assert!(hint.contains("check the name at HUB/org/name") && hint.contains("HF_TOKEN"), "{hint}");
    let (message, hint) =
        error("hf://org/name", true, |_| Some(Fault::Status(401, "", "", "{\"error\":\"Invalid credentials\"}")));
    assert_eq!(message, "HUB refuses the token");
    assert!(hint.contains("set HF_TOKEN to a valid token, or to none"), "{hint}");
    let (message, hint) = error("ms://org/name", false, |_| Some(Fault::Status(403, "", "", "")));
    assert_eq!(message, "org/name does not exist, or is private");
    assert!(hint.contains("MODELSCOPE_API_TOKEN"), "{hint}");
}

#[test]
fn what_does_not_exist_is_named() {
    let (message, _) = error("hf://org/name", false, |_| Some(Fault::Status(404, "x-error-code", "RepoNotFound", "")));
    assert_eq!(message, "org/name at HUB does not exist");
    let (message, hint) = error("hf://org/name@v9", false, |_| {
        Some(Fault::Status(404, "x-error-code", "RevisionNotFound", "Invalid rev id"))
    });
    assert_eq!(message, "the revision `v9` of org/name does not exist");
    assert!(hint.contains("`main`"), "{hint}");
    let (message, hint) = error("ms://org/name@v9", false, |_| None);
    assert_eq!(message, "the revision `v9` of org/name does not exist");
    assert!(hint.contains("`master`"), "{hint}");
    let gone = |asked: &Asked| (asked.file.as_deref() == Some("config.json")).then_some(Fault::Status(404, "", "", ""));
    let (message, _) = error("ms://org/name", false, gone);
    assert_eq!(message, "the file `config.json` of ms://org/name@master does not exist");
}
