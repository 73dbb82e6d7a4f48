//! What is said on the way, on standard error. That nobody can hear it is no reason to stop.

use std::{fmt, io::Write};

/// Writes words as they are.
pub(super) fn write(words: fmt::Arguments<'_>) {
    let _ = anstream::stderr().lock().write_fmt(words);
}

/// Like `eprintln!`, which panics where it cannot write.
macro_rules! say {
    ($($words:tt)*) => { $crate::cli::said::write(format_args!("{}\n", format_args!($($words)*))) };
}

pub(super) use say;
