//! A bug of ours, in whatever thread, is said and has an exit code of its own.

use std::process::Command;

#[test]
fn a_panic_is_said_and_ends_with_70() {
    for arguments in [&["bug"][..], &["bug", "--in-thread"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_fake-pipe")).args(arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(70), "{arguments:?}: {errors}");
        assert!(errors.contains("main.rs:") && errors.contains("told to"), "{errors}");
        assert_eq!(errors.matches("this is a bug in pipe").count(), 1, "{errors}");
        assert_eq!(output.stdout, b"");
    }
}
