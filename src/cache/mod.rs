//! The cache: what was made, under the key of what it was made from.
//!
//! It stores and finds; it decides nothing (that is `plan`) and runs nothing (that is `scheduler`).
//!
//! # Layout of a home
//! ```text
//! version                   the version of this layout
//! objects/ab/cdef...        read-only files, named by the BLAKE3 of their bytes: files of artifacts, and manifests
//! verified/ab/cdef...       by large artifact: when its objects were last hashed, and how they looked then
//! actions/KEY.json          action records: key -> digests of the outputs, and the story of the run that made them
//! stages/PIPELINE/STAGE     the key that a stage last had, so that a plan can say what changed
//! files/HASH                by file or folder of the user's: digests that need no second reading
//! manifests/DIGEST          the files of the user's folders, so that a plan can say which of them changed
//! locks/KEY                 held by the process that works on a key, gone otherwise
//! scratch/KEY.ATTEMPT/      the running attempt; swept when nobody holds the lock
//! spare/N/                  empty folders, put aside for attempts to come
//! resume/KEY/               what a killed attempt leaves to the next one
//! runs/ID.jsonl, logs/ID/   journals of runs, and the logs of their stages
//! pipelines/DIGEST.yaml     resolved pipelines, which the journals name
//! checkouts/HASH            by place outside of the home: what was put there, so that nothing else is overwritten
//! quarantine/DIGEST.N       objects that were found damaged, where nothing can use them
//! tmp/                      files about to be renamed into place
//! gc.lock                   held together by those who use the home, alone by the one who removes things from it
//! ```
//! # Rules
//! - Nothing is modified in place: files are written beside, made durable, and renamed.
//! - Nothing is trusted: an object is hashed before it is used, unless its inode has not changed since it last was. One
//!   whose bytes are not what its name says is moved out of the store in the moment in which that is found.
//! - An action record is written after its objects, so that a record never promises what was not yet there.

mod atomic;
mod attempt;
mod checkout;
pub(crate) mod crash;
mod error;
mod folders;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gc;
mod guard;
mod hash;
mod hint;
mod home;
mod inventory;
mod keep;
mod key;
mod lock;
mod orphans;
mod quarantine;
mod record;
mod removal;
mod stamp;
mod state;
mod store;
mod tree;
mod usage;
mod user_files;
mod verify;

pub use attempt::{Attempt, sweep};
pub use checkout::{CheckedOut, Checkout};
pub use error::{CacheError, OutputError};
pub use gc::{Amount, Category, Division, Needed, Unneeded};
pub use guard::{Exclusive, Shared};
pub use home::Home;
pub use inventory::{BadRecord, Link};
pub use keep::{Unkept, keep};
pub use key::{Identity, KEY_SCHEMA, Key};
pub use lock::{Acquired, Holder, KeyLock};
pub use pipe_stage::manifest::{Entry, Manifest};
pub use record::{ActionRecord, Environment, Records};
pub use state::State;
pub use store::{Flaw, Prepared, Store};
pub use usage::{Share, Usage};
pub use user_files::{FileIdentity, UserFileError, UserFiles};
pub use verify::{Flawed, Harm, Health};
