//! A file of the user's that is written while it is read. Kinds look themselves whether what they read is what stands
//! in the key: see the tests of `stages/download` and `stages/command`.

use std::{
    fs::File,
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::project;

#[test]
fn a_file_that_somebody_writes_to_is_named_and_nothing_runs_before_it_is_complete() {
    let project = project("name: taken\nstages:\n  taken: { kind: measure_file, with: { path: corpus } }\n");
    let path = project.folder().join("corpus");
    // Large, so that somebody writes to it whenever it is read.
    File::create(&path).unwrap().set_len(256 << 20).unwrap();
    let complete = AtomicBool::new(false);
    let refused = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&path).unwrap();
            while !complete.load(Ordering::Relaxed) {
                file.write_all(b"x").unwrap();
                thread::park_timeout(std::time::Duration::from_micros(200));
            }
        });
        let ran = project.run(&[]);
        complete.store(true, Ordering::Relaxed);
        ran.unwrap()
    });
    let said = format!("`{}` changes while it is being read: wait until it is complete", path.display());
    assert_eq!((refused.code(), refused.started().len()), (2, 0), "{refused:?}");
    assert!(refused.errors.contains(&said), "{}", refused.errors);
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(project.text(&ran, "taken", "out").unwrap(), size.to_string());
}
