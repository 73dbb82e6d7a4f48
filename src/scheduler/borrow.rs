//! A GPU for something that is no stage: a model that answers.

use super::{
    capacity::{Capacity, Offer},
    gpus::{Asked, GpuLock, GpuLocks},
};

/// A GPU that no other process of `pipe` hands out as long as this is there.
#[derive(Debug)]
pub struct BorrowedGpu {
    /// As `CUDA_VISIBLE_DEVICES` takes it.
    pub name: String,
    _lock: Option<GpuLock>,
}

/// What became of asking for any GPU.
#[derive(Debug)]
pub enum Borrowed {
    /// One was free.
    Gpu(BorrowedGpu),
    /// Other processes of `pipe` have them all: one of those, if it says so.
    Busy(Option<String>),
    /// None can be seen.
    None,
}

/// Takes the first GPU that is free, for `user`.
pub fn borrow_gpu(user: String) -> Borrowed {
    take(Capacity::here(&Offer::default()).gpus, &GpuLocks::here(user))
}

fn take(gpus: Vec<String>, locks: &GpuLocks) -> Borrowed {
    let mut result = Borrowed::None;
    for name in gpus {
        match locks.ask(&name) {
            Ok(Asked::Ours(lock)) => return Borrowed::Gpu(BorrowedGpu { name, _lock: Some(lock) }),
            Ok(Asked::Theirs(user)) => result = Borrowed::Busy(user),
            // Better a GPU that is shared than none.
            Err(_) => return Borrowed::Gpu(BorrowedGpu { name, _lock: None }),
        }
    }
    result
}
