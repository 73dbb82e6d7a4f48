//! What training a model takes of a GPU's memory, computed from its shape before anything is loaded. Needs no libtorch.
//!
//! An update is gone through as `pipe-nn` does it, allocation by allocation, and each is written into a [`ledger`]:
//! what is alive at the moment of the highest sum is the plan. So a term is a line that stands where its tensor is made,
//! under the tensor's name, and goes where it is dropped: whoever changes the one changes the other.
//!
//! | file | goes with, in `pipe-nn` |
//! |---|---|
//! | `resident.rs` | `loader.rs`, `parameter.rs`, `optimizer.rs`: what stays for the whole run |
//! | `layer.rs` | `layer.rs`, `projection.rs`, `attention.rs` |
//! | `head.rs` | `head.rs` |
//! | `optimizer.rs` | `optimizer.rs`, `table_gradient.rs` |
//! | `update.rs` | `decoder.rs`, `model.rs` |

mod head;
mod layer;
mod ledger;
mod optimizer;
mod plan;
mod refusal;
mod residency;
mod resident;
mod update;
mod workload;

pub use ledger::{Component, Phase};
pub use plan::{Plan, allocator_budget, reserved_budget, with_reserve};
pub use refusal::{DoesNotFit, Help, Setting, gigabytes};
pub use residency::Residency;
pub use workload::{BaseFormat, Compute, Pass, Run, States, Trained, Workload};
