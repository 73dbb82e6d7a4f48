//! From how a worker ended to what that means for its stage.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use pipe_stage::{FailureClass, Status, chain};

use crate::{cache::CacheError, report};

/// Why a worker's work is not to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) class: FailureClass,
    pub(super) chain: Vec<String>,
    pub(super) hint: Option<String>,
}

impl Ending {
    /// A failure of the machine or of the scheduler's own work for the stage.
    pub(super) fn environment(error: &(dyn std::error::Error + 'static), hint: Option<String>) -> Self {
        let advice = || error.downcast_ref::<CacheError>()?.hint().map(str::to_owned);
        Self { class: FailureClass::Environment, chain: chain(error), hint: hint.or_else(advice) }
    }

    /// A failure that the stage is to blame for.
    pub(super) fn stage(error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self { class: FailureClass::Stage, chain: chain(error), hint }
    }

    /// An error of the cache, which is the stage's fault only if it is about what the stage wrote.
    pub(super) fn of_cache(error: CacheError) -> Self {
        match error {
            CacheError::Output(error) => Self::stage(&error, None),
            error => Self::environment(&error, None),
        }
    }

    /// The same, of a stage that was stopped because its `timeout` was over: that is what it failed of.
    pub(super) fn overdue(self, timeout: Duration) -> Self {
        let message = format!("it was stopped after its timeout of {}", report::duration(timeout));
        // What it said of being stopped is no news.
        let cause = if self.class == FailureClass::Cancelled { Vec::new() } else { self.chain };
        let hint = "give it more time with `timeout`, or less to do; what it can resume from is kept".to_owned();
        Self { class: FailureClass::Stage, chain: std::iter::once(message).chain(cause).collect(), hint: Some(hint) }
    }
}

/// Judges a worker that is gone by its last word and by how it went. `stopped`: the scheduler had told it to stop.
///
/// Only a worker that said that it was done, and then ended well, has made an artifact.
pub(super) fn judge(last_word: Option<Status>, status: ExitStatus, stopped: bool) -> Result<(), Ending> {
    match last_word {
        Some(Status::Done) if status.success() => Ok(()),
        Some(Status::Failed { class, mut chain, hint }) => {
            if chain.is_empty() {
                chain.push("the worker gave no reason".to_owned());
            }
            Err(Ending { class, chain, hint })
        }
        // It did not come to saying so.
        _ if stopped => {
            Err(Ending { class: FailureClass::Cancelled, chain: vec!["stopped on request".to_owned()], hint: None })
        }
        Some(Status::Done) => {
            Err(crash(&format!("its worker said that it was done, and then {}", words(status)), status))
        }
        None if status.success() => Err(crash("its worker ended without a result", status)),
        None => Err(crash(&format!("its worker {}", words(status)), status)),
    }
}

fn crash(message: &str, status: ExitStatus) -> Ending {
    let hint = match status.signal() {
        Some(9) => {
            "if nobody killed it, the machine most likely ran out of memory: see `dmesg`, and give the stage less to do at a time"
        }
        Some(_) => "its log may say more: `pipe log`",
        None => "this is a bug in the stage: please report it with its log",
    };
    Ending { class: FailureClass::Stage, chain: vec![message.to_owned()], hint: Some(hint.to_owned()) }
}

fn words(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("ended with code {}", status.code().unwrap_or_default());
    };
    let meaning = match signal {
        4 => " (illegal instruction)",
        6 => " (abort)",
        7 => " (bus error)",
        8 => " (arithmetic error)",
        9 => " (out of memory?)",
        11 => " (invalid memory access)",
        15 => " (someone stopped it)",
        _ => "",
    };
    format!("was killed by signal {signal}{meaning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn killed(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    fn reason(last_word: Option<Status>, status: ExitStatus, stopped: bool) -> (FailureClass, String) {
        match judge(last_word, status, stopped) {
            Ok(()) => (FailureClass::Stage, "done".to_owned()),
            Err(ending) => (ending.class, ending.chain.join(": ")),
        }
    }

    #[test]
    fn only_done_and_a_good_end_is_done() {
        assert_eq!(judge(Some(Status::Done), exited(0), false), Ok(()));
        assert_eq!(judge(Some(Status::Done), exited(0), true), Ok(()), "it was faster than the request to stop");
        let expected = [
            (
                Some(Status::Done),
                killed(11),
                "its worker said that it was done, and then was killed by signal 11 (invalid memory access)",
            ),
            (None, exited(0), "its worker ended without a result"),
            (None, exited(101), "its worker ended with code 101"),
            (None, killed(9), "its worker was killed by signal 9 (out of memory?)"),
        ];
        for (last_word, status, message) in expected {
            assert_eq!(reason(last_word, status, false), (FailureClass::Stage, message.to_owned()));
        }
    }

    #[test]
    fn a_worker_killed_on_request_did_not_fail() {
        let expected = (FailureClass::Cancelled, "stopped on request".to_owned());
        assert_eq!(reason(None, killed(9), true), expected);
        assert_eq!(reason(None, killed(15), true), expected);
    }

    #[test]
    fn a_reason_is_passed_on_as_it_is() {
        let failed = |chain: &[&str]| Status::Failed {
            class: FailureClass::Environment,
            chain: chain.iter().map(|&text| text.to_owned()).collect(),
            hint: None,
        };
        let message = "no GPU: the driver is missing".to_owned();
        let last_word = failed(&["no GPU", "the driver is missing"]);
        assert_eq!(reason(Some(last_word), exited(3), false), (FailureClass::Environment, message));
        assert_eq!(reason(Some(failed(&[])), exited(3), false).1, "the worker gave no reason");
    }
}
