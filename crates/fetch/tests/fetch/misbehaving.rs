//! Servers that do what they should not.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use pipe_fetch::{Digest, Error};

use crate::{
    harness::{Desk, TOKEN, chain},
    hub::{Asked, Fault, Hub, git_blob, noise, sha256},
};

const BYTES: usize = 450_000;

fn model() -> Vec<u8> {
    noise(9, BYTES)
}

fn hub(behaviour: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Hub {
    Hub::misbehaving(&[("model.safetensors", model())], behaviour)
}

/// The store of the hub does what `behaviour` says to the first requests for bytes.
fn at_first(count: usize, fault: Fault) -> Hub {
    hub(move |asked| (asked.from_store && asked.number < count).then(|| fault.clone()))
}

fn comes_all_the_same(hub: &Hub) -> Desk {
    let desk = Desk::new(&hub.address);
    desk.fetch("hf://org/name").unwrap();
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == model());
    desk
}

#[test]
fn stalls_cuts_and_errors_that_pass_are_waited_out() {
    comes_all_the_same(&at_first(2, Fault::StallAfter(70_000)));
    comes_all_the_same(&at_first(7, Fault::CutAfter(0)));
    for status in [408, 429, 500, 502, 503, 504] {
        comes_all_the_same(&at_first(3, Fault::Status(status, "", "", "later")));
    }
    // The signed address of the store has expired: the hub gives a new one.
    comes_all_the_same(&at_first(1, Fault::Status(403, "", "", "expired")));
    // Also where the list is asked for.
    let list = std::sync::atomic::AtomicUsize::new(0);
    comes_all_the_same(&hub(move |asked| {
        let is_first =
            asked.path.contains("/api/") && list.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(2);
        is_first.then_some(Fault::Status(503, "", "", ""))
    }));
}

#[test]
fn what_does_not_pass_is_given_up() {
    let hub = at_first(usize::MAX, Fault::Status(503, "", "", "<html>down</html>"));
    let desk = Desk::new(&hub.address);
    let error = desk.fetch("hf://org/name").unwrap_err();
    assert!(matches!(error, Error::Attempts { attempts: 4, .. }), "{error:?}");
    let message = chain(&error);
    assert!(
        message.starts_with("gave up on model.safetensors after 4 attempts without a new byte: http://127.0.0.1:"),
        "{message}"
    );
    assert!(message.ends_with("/store/model%2Esafetensors answers 503"), "{message}");
    assert!(!message.contains("SIGNATURE"), "{message}");
    assert!(error.hint().unwrap().contains("run again later"));

    let nobody = Desk::new("http://127.0.0.1:9");
    let error = nobody.fetch("hf://org/name").unwrap_err();
    assert!(
        chain(&error).contains("cannot reach http://127.0.0.1:9/api/models/org/name/revision/main: "),
        "{}",
        chain(&error)
    );
}

#[test]
fn retry_after_is_kept_to() {
    let hub = at_first(1, Fault::Status(429, "retry-after", "1", ""));
    let began = Instant::now();
    comes_all_the_same(&hub);
    assert!(began.elapsed() >= Duration::from_secs(1));
    // Nobody waits for a day.
    let hub = at_first(1, Fault::Status(429, "retry-after", "86400", ""));
    let error = Desk::new(&hub.address).fetch("hf://org/name").unwrap_err();
    assert!(error.hint().unwrap().contains("too many requests"), "{error:?}");
}

#[test]
fn a_server_without_ranges_is_read_in_one_go() {
    let hub = at_first(usize::MAX, Fault::IgnoreRange);
    comes_all_the_same(&hub);
    let began = hub.asked_for("model.safetensors").iter().filter(|asked| asked.from_store).count();
    assert_eq!(began, 2, "one to find out, one for all");

    comes_all_the_same(&hub_ignoring_and_cutting());
}

fn hub_ignoring_and_cutting() -> Hub {
    hub(|asked| match (asked.from_store, asked.number) {
        (true, 0..=2) => Some(Fault::IgnoreRangeAndCutAfter(200_000)),
        (true, _) => Some(Fault::IgnoreRange),
        _ => None,
    })
}

#[test]
fn wrong_bytes_are_fetched_once_more_and_then_refused() {
    let mut wrong = model();
    wrong[300_000] ^= 1;
    let once = wrong.clone();
    let hub = at_first(5, Fault::Bytes(once));
    comes_all_the_same(&hub);

    let found = sha256(&wrong);
    let hub = at_first(usize::MAX, Fault::Bytes(wrong));
    let desk = Desk::new(&hub.address);
    let error = desk.fetch("hf://org/name").unwrap_err();
    let expected = sha256(&model());
    assert_eq!(
        error.to_string(),
        format!("model.safetensors has the SHA-256 {found}, the list of files says {expected}")
    );
    assert!(fs::read_dir(desk.out("")).unwrap().next().is_none(), "nothing unverified is shown");
    assert_eq!(
        hub.asked_for("model.safetensors").iter().filter(|asked| asked.from_store).count(),
        10,
        "twice 5 pieces"
    );
}

#[test]
fn small_files_are_verified_by_their_git_names() {
    let hub = Hub::misbehaving(&[("config.json", b"{\"a\":1}".to_vec())], |asked| {
        asked.file.is_some().then(|| Fault::Bytes(b"{\"a\":2}".to_vec()))
    });
    let error = Desk::new(&hub.address).fetch("hf://org/name").unwrap_err();
    let (found, expected) = (git_blob(b"{\"a\":2}"), git_blob(b"{\"a\":1}"));
    assert_eq!(
        error.to_string(),
        format!("config.json has the git blob SHA-1 {found}, the list of files says {expected}")
    );
}

#[test]
fn a_body_that_is_longer_or_shorter_than_said_is_refused() {
    let error = Desk::new(&at_first(usize::MAX, Fault::Longer).address).fetch("hf://org/name").unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error:?}");
    let error =
        Desk::new(&at_first(usize::MAX, Fault::Bytes(noise(9, 400_000))).address).fetch("hf://org/name").unwrap_err();
    assert!(chain(&error).contains("has 400000 bytes, the list of files says 450000"), "{}", chain(&error));
}

#[test]
fn a_file_that_changes_under_way_is_begun_anew() {
    // One request: of two, a busy machine may see the second only after it began anew.
    let hub = hub(|asked| (asked.number == 3).then_some(Fault::Etag("\"other\"")));
    let desk = Desk::new(&hub.address);
    let source = format!("{}/web/model.safetensors", hub.address);
    let digest = Digest::sha256(&sha256(&model()));
    desk.fetch_with(&source, |files| files[0].digest = digest).unwrap();
    assert!(fs::read(desk.out("model.safetensors")).unwrap() == model());

    let hub = hub_that_always_changes();
    let source = format!("{}/web/model.safetensors", hub.address);
    let error = Desk::new(&hub.address).fetch(&source).unwrap_err();
    assert_eq!(error.to_string(), "model.safetensors changes on the server while it is fetched");
}

fn hub_that_always_changes() -> Hub {
    hub(|asked| (asked.number % 2 == 1).then_some(Fault::Etag("\"other\"")))
}

#[test]
fn a_range_that_cannot_be_is_begun_anew() {
    comes_all_the_same(&at_first(1, Fault::Status(416, "", "", "")));
}

#[test]
fn who_stops_does_not_wait_for_a_server() {
    let hub = at_first(usize::MAX, Fault::StallAfter(10_000));
    let mut desk = Desk::new(&hub.address);
    desk.tuning.stall_timeout = Duration::from_secs(60);
    desk.watch.stop_at = Some(10_000);
    let began = Instant::now();
    let error = desk.fetch("hf://org/name").unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn room_is_looked_for_before_the_first_byte() {
    let hub = hub(|_| None);
    let desk = Desk::new(&hub.address);
    let error = desk.fetch_with("hf://org/name", |files| files[0].bytes = Some(1 << 60)).unwrap_err();
    let Error::Space { needed_bytes, free_bytes, .. } = error else { panic!("{error:?}") };
    assert!(needed_bytes == 1 << 60 && free_bytes > 0 && free_bytes < needed_bytes);
    assert!(hub.asked_for("model.safetensors").is_empty());
}

#[test]
fn no_name_leads_out_of_the_folder() {
    for name in ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "a\0b", "a//b", "", "a\u{202e}b", "."] {
        for source in ["hf://org/name", "ms://org/name"] {
            let files = vec![("fine".to_owned(), b"x".to_vec().into())];
            let hub = Hub::listing(files, 1000, vec![(name.to_owned(), "fine".to_owned())]);
            let desk = Desk::new(&hub.address);
            let error = desk.fetch(source).unwrap_err();
            assert!(matches!(error, Error::Name { .. }), "{name:?}: {error:?}");
            assert!(hub.asked_for("fine").is_empty());
        }
    }
    for (one, other) in [("README.md", "readme.MD"), ("caf\u{e9}", "cafe\u{301}"), ("a", "a/b"), ("a", "a")] {
        let files = vec![(one.to_owned(), b"x".to_vec().into())];
        let hub = Hub::listing(files, 1000, vec![(other.to_owned(), one.to_owned())]);
        let error = Desk::new(&hub.address).fetch("ms://org/name").unwrap_err();
        assert!(matches!(error, Error::Names { .. }), "{other:?}: {error:?}");
    }
}

#[test]
fn thousands_of_files_over_many_pages() {
    let files = (0..3000).map(|number| (format!("data/{number:04}.json"), noise(number, 20).into())).collect();
    let hub = Hub::listing(files, 700, Vec::new());
    for source in ["hf://datasets/org/name", "ms://datasets/org/name"] {
        let desk = Desk::new(&hub.address);
        let (listed, report) = desk.fetch(source).unwrap();
        assert_eq!((listed.len(), report.bytes), (3000, 60_000), "{source}");
        assert!(fs::read(desk.out("data/2999.json")).unwrap() == noise(2999, 20));
    }
}

#[test]
fn a_list_without_end_ends() {
    let hub = hub(|asked| {
        let link = "</api/models/org/name/tree/x?cursor=1>; rel=\"next\"";
        asked.path.contains("/tree/").then_some(Fault::Status(200, "link", link, "[]"))
    });
    let error = Desk::new(&hub.address).fetch("hf://org/name").unwrap_err();
    assert!(chain(&error).contains("a list without end"), "{}", chain(&error));
    let hub = self::hub(|asked| asked.path.contains("/tree/").then_some(Fault::Status(200, "", "", "{\"secret")));
    let error = Desk::new(&hub.address).fetch("hf://org/name").unwrap_err();
    assert!(chain(&error).contains("no valid JSON at line 1"), "{}", chain(&error));
}

#[test]
fn another_commit_or_digest_than_asked_for_is_refused() {
    let link = |name, value| {
        hub(move |asked: &Asked| {
            (asked.path.contains("/resolve/") && !asked.from_store).then_some(Fault::Status(200, name, value, "x"))
        })
    };
    for (name, value, told) in [
        ("x-repo-commit", "0000", "the commit is \"0000\""),
        ("x-linked-size", "7", "the size is \"7\""),
        ("x-linked-etag", "\"0000000000000000000000000000000000000000000000000000000000000000\"", "the digest is"),
    ] {
        let error = Desk::new(&link(name, value).address).fetch("hf://org/name").unwrap_err();
        assert!(chain(&error).contains(told), "{}", chain(&error));
    }
}

#[test]
fn no_secret_is_left_in_any_file() {
    let hub = at_first(usize::MAX, Fault::CutAfter(5_000));
    let mut desk = Desk::new(&hub.address);
    desk.watch.stop_at = Some(100_000);
    let _ = desk.fetch("hf://org/name").unwrap_err();
    let mut seen = 0;
    search(desk.dir.path(), &mut seen);
    assert!(seen >= 2, "partial files are there");
}

fn search(folder: &Path, seen: &mut usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, seen);
            continue;
        }
        *seen += 1;
        let bytes = fs::read(&path).unwrap();
        for secret in [TOKEN, "SIGNATURE"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", path.display());
        }
    }
}
