//! What happens when there is a bug in `pipe`: it is said, and the program ends with the code for it.

use std::{
    panic::{self, UnwindSafe},
    process::{self, ExitCode},
    thread,
};

use super::said::say;

/// The exit code of a bug of ours (`EX_SOFTWARE` of BSD's sysexits).
pub(super) const EXIT_CODE: u8 = 70;

/// Runs a program so that a panic anywhere in it is no mystery: it ends with code 70, and says what to do about it.
///
/// A panic in another thread ends the program at once. Whoever waits for that thread might wait for ever, and everything
/// that is on the disk can bear a sudden end.
pub fn guard(program: impl FnOnce() -> ExitCode + UnwindSafe) -> ExitCode {
    let (tell, main) = (panic::take_hook(), thread::current().id());
    panic::set_hook(Box::new(move |panic| {
        // The place and the message, and where asked for the way there.
        tell(panic);
        say!("this is a bug in pipe {}; please report it with the lines above", env!("CARGO_PKG_VERSION"));
        if thread::current().id() != main {
            process::exit(EXIT_CODE.into());
        }
    }));
    panic::catch_unwind(program).unwrap_or(ExitCode::from(EXIT_CODE))
}
