//! What a branch stands for: asked once, kept, moved when somebody says so; and shared with the run that took it.

use std::fs;

use super::{
    super::share::{read, report},
    COMMIT, Hub, LATER, PIPELINE, Ran, Site, model,
};

fn ok(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    ran
}

#[test]
fn a_branch_is_asked_for_once_and_moves_when_somebody_says_so() {
    let site = Site::new(PIPELINE, Hub::new(&model(1)));
    let mut seen = String::new();
    let mut see = |what: &str, ran: &Ran| {
        seen += &format!("$ pipe {what}\n{}\n{}\n", site.seen(&ran.stdout), site.seen(&ran.stderr));
    };
    let plan = ok(site.run(&["plan", "p.yaml"]));
    see("plan p.yaml", &plan);
    assert_eq!((site.requests(), site.lock().as_str()), (0, ""), "a plan asks nobody");

    see("run p.yaml", &ok(site.run(&["run", "p.yaml"])));
    assert!(site.lock().contains(&format!("hf://org/name@main: {COMMIT}")), "{}", site.lock());
    let asked = site.requests();

    site.hub.moves_to(LATER, &model(2));
    see("run p.yaml", &ok(site.run(&["run", "p.yaml"])));
    let plan = ok(site.run(&["plan", "p.yaml", "--format", "json"]));
    assert!(super::super::actions(&plan).iter().all(|(_, action)| action == "hit"), "{}", plan.stdout);
    assert_eq!(site.requests(), asked, "nobody was asked again");

    see("run p.yaml --refresh model", &ok(site.run(&["run", "p.yaml", "--refresh", "model"])));
    assert!(site.lock().contains(LATER) && !site.lock().contains(COMMIT), "{}", site.lock());
    ok(site.run(&["get", "model", "got"]));
    assert!(fs::read(site.project.path("got/model.safetensors")).unwrap() == model(2)[1].1);
    insta::assert_snapshot!("pins", seen);
}

#[test]
fn a_run_is_shared_and_made_again_with_the_commit_that_it_took() {
    let site = Site::new(PIPELINE, Hub::new(&model(1)));
    ok(site.run(&["run", "p.yaml"]));
    let runs = ok(site.run(&["runs", "--format", "json"])).stdout;
    let runs: serde_json::Value = serde_json::from_str(&runs).unwrap();
    let first = runs.pointer("/runs/0/id").or_else(|| runs.pointer("/0/id")).unwrap().as_str().unwrap().to_owned();
    site.hub.moves_to(LATER, &model(2));
    ok(site.run(&["run", "p.yaml", "--refresh", "model"]));
    assert!(site.lock().contains(LATER));

    ok(site.run(&["share", &first, "-o", "first.pipe"]));
    let files = read(&site.project.path("first.pipe"));
    let lock = &files.iter().find(|(entry, _)| entry.path == "project/pipe.lock").unwrap().1;
    let lock = String::from_utf8_lossy(lock);
    assert!(lock.contains(COMMIT) && !lock.contains(LATER), "{lock}");

    let before = site.requests();
    let made = ok(site.run(&["reproduce", "first.pipe", "--allow-commands", "--format", "json", "--into", "again"]));
    assert_eq!(report(&made)["verdict"], "equal", "{}", made.stdout);
    let asked: Vec<_> = site.hub.content.log.lock().unwrap()[before..].iter().map(|asked| asked.path.clone()).collect();
    assert!(asked.iter().any(|path| path == &format!("/org/name/resolve/{COMMIT}/model.safetensors")), "{asked:?}");
    assert!(!asked.iter().any(|path| path.contains("/revision/") || path.contains(LATER)), "{asked:?}");
}
