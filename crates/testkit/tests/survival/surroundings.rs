//! A file system that is full, read-only or closed to the user: what a person reads, and that nothing is lost.
//!
//! These tests mount file systems of their own, in a mount namespace that ends with the test. Where that is not allowed
//! they say so and do nothing.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus},
};

use pipe_testkit::{Project, Ran};

use crate::project;

/// What a stage writes here is far less than the disks below.
const THREE: &str = "
name: three
stages:
  a: { kind: write, with: { text: one two } }
  b: { kind: concat, inputs: { parts: [a, a] } }
  c: { kind: first_word, inputs: { text: b } }
";

/// Functions that the scripts use: `disk SIZE` puts a new file system under the home, `run NAME ARGUMENT...` runs the
/// pipeline and keeps what comes of it under the name, `nobody run ...` does so as a user without rights.
const FUNCTIONS: &str = r#"
set -eu
disk() { mount -t tmpfs -o "size=$1" none home; }
keep() { name=$1; shift; code=0; "$@" > "ran/$name.out" 2> "ran/$name.err" || code=$?; echo "$code" > "ran/$name.code"; }
run() { name=$1; shift; keep "$name" $as "$FAKE_PIPE" run pipeline.yaml "$@"; }
nobody() { as="setpriv --reuid=65534 --regid=65534 --clear-groups"; "$@"; as=; }
as=
"#;

/// Runs a script in the project's folder with mounts of its own. `None` if that is not allowed here.
fn script(project: &Project, text: &str) -> Option<()> {
    let folder = project.folder();
    fs::create_dir_all(folder.join("home")).unwrap();
    fs::create_dir_all(folder.join("ran")).unwrap();
    project.write("script", &format!("{FUNCTIONS}{text}")).unwrap();
    let unshare = |script: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "bash"]).args(script).current_dir(folder);
        command.env("FAKE_PIPE", env!("CARGO_BIN_EXE_fake-pipe")).env("PIPE_HOME", project.home()).output()
    };
    let allowed = unshare(&["-c", "mount -t tmpfs -o size=4k none home"]);
    if !allowed.is_ok_and(|output| output.status.success()) {
        #[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
        {
            eprintln!("skipped: only root may mount file systems here");
        }
        return None;
    }
    let output = unshare(&["script"]).unwrap();
    assert!(output.status.success(), "the script failed: {output:?}");
    Some(())
}

/// What came of a run in a script.
fn ran(project: &Project, name: &str) -> Ran {
    let read = |ending: &str| fs::read_to_string(project.folder().join(format!("ran/{name}.{ending}"))).unwrap();
    let code: i32 = read("code").trim().parse().unwrap();
    let events = read("out").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Ran { status: ExitStatus::from_raw(code << 8), events, errors: read("err") }
}

/// All that a person would read of what went wrong.
fn said(ran: &Ran) -> String {
    let mut said = ran.errors.clone();
    for event in ran.events_of("stage_failed") {
        let failure = &event["failure"];
        for line in failure["chain"].as_array().unwrap().iter().chain([&failure["hint"]]) {
            said += line.as_str().unwrap_or_default();
            said += "\n";
        }
    }
    said
}

#[test]
fn a_full_disk_is_named_wherever_it_is_met_and_the_next_run_goes_on() {
    let project = project(THREE);
    let text = r#"
        disk 1m
        for free in 0 4 8 12 16 20 24 28 32 36 40 44 48 56 64 72 80 200; do
            rm -rf home/*
            run "$free.first" a
            left=$(df --output=avail -k home | tail -n 1)
            head -c $(((left - free) * 1024)) /dev/zero > home/filler
            run "$free.full"
            rm home/filler
            run "$free.after"
        done
        cp -a home kept
    "#;
    if script(&project, text).is_none() {
        return;
    }
    let mut full = 0;
    for free in [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 56, 64, 72, 80, 200] {
        let disk = ran(&project, &format!("{free}.full"));
        if disk.code() != 0 {
            full += 1;
            assert_eq!(disk.code(), 3, "{free}: {disk:?}");
            let said = said(&disk);
            assert!(said.contains("No space left on device (os error 28)"), "{free}: {disk:?}");
            assert!(said.contains("free some space there, or set PIPE_HOME"), "{free}: {disk:?}");
        }
        let after = ran(&project, &format!("{free}.after"));
        assert_eq!(after.code(), 0, "{free}: {after:?}");
        assert!(after.hits().contains(&"a".to_owned()), "{free}: what was done is kept: {after:?}");
        let done = disk.stages("stage_finished");
        assert!(done.iter().all(|stage| after.hits().contains(stage)), "{free}: {done:?} {after:?}");
    }
    assert!(full > 5, "the disk was full {full} times");
    assert_eq!(ran(&project, "200.full").code(), 0, "the disk is large enough in the end");
    assert_objects_whole(&project.folder().join("kept/objects"));
}

#[test]
fn a_disk_without_room_for_an_output_fails_the_stage_and_says_what_to_do() {
    let project = project("name: big\nstages:\n  big: { kind: wild, with: { text: big, trick: fill_disk } }\n");
    if script(&project, "disk 3m\nrun full\nmount -o remount,size=64m home\nrun after\n").is_none() {
        return;
    }
    let full = ran(&project, "full");
    assert_eq!(full.code(), 3, "{full:?}");
    assert_eq!(
        said(&full),
        "No space left on device (os error 28)\nfree some space there, or set PIPE_HOME to a folder on another disk; \
         what was done so far is kept\n"
    );
    assert_eq!(ran(&project, "after").code(), 0);
}

#[test]
fn a_read_only_cache_is_named() {
    let project = project(THREE);
    let text = "disk 4m\nrun first\nmount -o remount,ro home\nrun hits\nrun work --set stages.a.with.text=other\n\
                mount -o remount,rw home\nrun after\n";
    if script(&project, text).is_none() {
        return;
    }
    for name in ["hits", "work"] {
        let ran = ran(&project, name);
        assert_eq!((ran.code(), ran.started().len()), (3, 0), "{ran:?}");
        let home = project.home().display().to_string();
        for part in ["cannot ", &home, "Read-only file system (os error 30)", "set PIPE_HOME to a folder"] {
            assert!(ran.errors.contains(part), "no {part:?} in {}", ran.errors);
        }
    }
    assert_eq!(ran(&project, "after").hits().len(), 3);
}

#[test]
fn a_folder_that_may_not_be_written_is_named_and_nothing_is_lost() {
    const FOLDERS: [&str; 5] = ["objects", "actions", "locks", "scratch", "tmp"];
    let project = project(THREE);
    let text = format!(
        "disk 4m\nrun first\nchown -R 65534:65534 home\n\
         for of in {}; do chmod 555 home/$of; nobody run \"$of\" --set stages.a.with.text=other; chmod 755 home/$of; done\n\
         nobody run after\n",
        FOLDERS.join(" ")
    );
    if script(&project, &text).is_none() {
        return;
    }
    for of in FOLDERS {
        let ran = ran(&project, of);
        assert_eq!(ran.code(), 3, "{of}: {ran:?}");
        let said = said(&ran);
        let folder = project.home().join(of);
        assert!(said.contains(&folder.display().to_string()), "{of}: {said}");
        assert!(said.contains("Permission denied (os error 13)"), "{of}: {said}");
    }
    assert_eq!(ran(&project, "after").hits().len(), 3);
}

#[test]
fn files_that_may_not_be_read_are_named() {
    let project = project("name: copy\nstages:\n  copy: { kind: copy_file, with: { path: home/data } }\n");
    let text = "disk 4m\nexport PIPE_HOME=$PIPE_HOME/own\nmkdir -p home/own home/data/secret\nchown 65534 home/own\n\
                echo text > home/data/file\nchmod 700 home/data/secret\nnobody run folder\n\
                rm -r home/data\necho text > home/data\nchmod 600 home/data\nnobody run file\n\
                chmod 644 home/data\nnobody run after\n\
                chown -R root home/own/objects\nchmod -R go-rwx home/own/objects\nnobody run objects\n";
    if script(&project, text).is_none() {
        return;
    }
    for (name, path) in [("folder", "data/secret"), ("file", "data")] {
        let ran = ran(&project, name);
        let path = project.home().join(path);
        let expected = format!("cannot read `{}`: Permission denied (os error 13)", path.display());
        assert_eq!(ran.code(), 2, "{ran:?}");
        assert!(ran.errors.contains(&expected), "{}", ran.errors);
    }
    assert_eq!(ran(&project, "after").code(), 0);
    let objects = ran(&project, "objects");
    assert_eq!(objects.code(), 3, "{objects:?}");
    let folder = project.home().join("own/objects");
    let (said, folder) = (said(&objects), folder.display().to_string());
    assert!(said.contains(&folder) && said.contains("Permission denied (os error 13)"), "{said}");
    assert!(said.contains("give yourself the right to it, or set PIPE_HOME"), "{said}");
}

/// No file among the objects has other bytes than its name says.
fn assert_objects_whole(objects: &Path) {
    let mut count = 0;
    for shard in fs::read_dir(objects).unwrap().map(Result::unwrap) {
        for object in fs::read_dir(shard.path()).unwrap().map(Result::unwrap) {
            let name = format!("{}{}", shard.file_name().display(), object.file_name().display());
            let digest = pipe_stage::Digest::of(&fs::read(object.path()).unwrap());
            assert_eq!(digest.to_string(), name);
            count += 1;
        }
    }
    assert!(count > 0);
}
