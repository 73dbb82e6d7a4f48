//! What of the machine is free while stages run, and what each of them holds.

use std::collections::BTreeSet;

use pipe_stage::Resources;

use super::{
    capacity::{Capacity, VISIBLE_GPUS},
    gpus::{Asked, GpuLock, GpuLocks},
};

/// Variables by which programs are told how many threads to start.
const THREADS: &[&str] =
    &["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"];

/// What a stage needs to begin, the scarcest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Demand {
    pub(super) gpus: usize,
    pub(super) memory_bytes: u64,
    pub(super) cpus: usize,
}

/// What keeps a stage from beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scarce {
    Gpus,
    Memory,
    Cpus,
}

/// How much is free.
#[derive(Debug, Clone, Copy)]
pub(super) struct Free {
    pub(super) gpus: usize,
    pub(super) memory_bytes: u64,
    pub(super) cpus: usize,
    pub(super) jobs: usize,
}

/// What a stage holds while its worker runs.
#[derive(Debug)]
pub(super) struct Grant {
    demand: Demand,
    /// Names of CUDA devices.
    gpus: Vec<String>,
    /// Against other processes.
    locks: Vec<GpuLock>,
    /// `cpu`, or the models of the GPUs.
    device: String,
    threads: Option<usize>,
}

/// GPUs that were thought to be free are another process's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elsewhere {
    /// One of them.
    pub(super) gpu: String,
    /// Who has it, if that is known.
    pub(super) user: Option<String>,
}

/// The ledger of a run.
#[derive(Debug)]
pub(super) struct Slots {
    capacity: Capacity,
    memory_bytes: u64,
    cpus: usize,
    jobs: usize,
    /// By their place in the capacity's list.
    gpus: Vec<Gpu>,
    /// `None`: there are no other processes.
    locks: Option<GpuLocks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gpu {
    Free,
    /// A stage of this run has it.
    Given,
    /// Another process had it when it was last asked for.
    Elsewhere,
}

impl Demand {
    /// `unsaid`: how many CPUs a stage counts for that does not say how many it uses.
    pub(super) fn of(resources: &Resources, unsaid: usize) -> Self {
        Self {
            gpus: resources.gpus,
            memory_bytes: resources.memory_bytes.unwrap_or(0),
            cpus: resources.cpus.unwrap_or(unsaid),
        }
    }
}

impl Free {
    /// Takes no more than one reason, the one that is likely to last longest: a stage that waits for a GPU holds no CPU
    /// back from others.
    pub(super) fn shortage(&self, demand: &Demand) -> Option<Scarce> {
        if demand.gpus > self.gpus {
            Some(Scarce::Gpus)
        } else if demand.memory_bytes > self.memory_bytes {
            Some(Scarce::Memory)
        } else {
            (demand.cpus > self.cpus).then_some(Scarce::Cpus)
        }
    }

    /// Leaves nothing of what is scarce to others.
    pub(super) fn reserve(&mut self, scarce: Scarce) {
        match scarce {
            Scarce::Gpus => self.gpus = 0,
            Scarce::Memory => self.memory_bytes = 0,
            Scarce::Cpus => self.cpus = 0,
        }
    }
}

impl Slots {
    /// All of `capacity` is free, for at most `jobs` stages at a time; of GPUs, what `locks` says that no other process
    /// has.
    pub(super) fn new(capacity: Capacity, jobs: usize, locks: Option<GpuLocks>) -> Self {
        let gpus = vec![Gpu::Free; capacity.gpus.len()];
        Self { memory_bytes: capacity.memory_bytes, cpus: capacity.cpus, jobs, gpus, capacity, locks }
    }

    pub(super) fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    pub(super) fn free(&self) -> Free {
        let gpus = self.gpus.iter().filter(|gpu| **gpu == Gpu::Free).count();
        Free { gpus, memory_bytes: self.memory_bytes, cpus: self.cpus, jobs: self.jobs }
    }

    /// Gives a stage what it needs, which must be free. The GPUs are the first free ones.
    ///
    /// # Errors
    /// If other processes have so many of the GPUs that too few are left. Nothing is taken then, and theirs are free no
    /// more, until [`Slots::look_again`].
    pub(super) fn take(&mut self, demand: Demand, resources: &Resources) -> Result<Grant, Elsewhere> {
        let (mut taken, mut locks, mut elsewhere) = (Vec::with_capacity(demand.gpus), Vec::new(), None);
        for (place, name) in self.capacity.gpus.iter().enumerate() {
            if taken.len() == demand.gpus {
                break;
            }
            if self.gpus[place] != Gpu::Free {
                continue;
            }
            match self.locks.as_ref().map(|locks| locks.ask(name)) {
                None => {}
                Some(Ok(Asked::Ours(lock))) => locks.push(lock),
                Some(Ok(Asked::Theirs(user))) => {
                    self.gpus[place] = Gpu::Elsewhere;
                    elsewhere.get_or_insert(Elsewhere { gpu: name.clone(), user });
                    continue;
                }
                // Better a GPU that is shared than none.
                Some(Err(error)) => tracing::warn!(gpu = name, %error, "no lock for a GPU"),
            }
            taken.push(place);
        }
        if let (Some(elsewhere), true) = (elsewhere, taken.len() < demand.gpus) {
            return Err(elsewhere);
        }
        taken.iter().for_each(|place| self.gpus[*place] = Gpu::Given);
        self.jobs -= 1;
        self.cpus -= demand.cpus;
        self.memory_bytes -= demand.memory_bytes;
        let gpus: Vec<String> = taken.into_iter().map(|place| self.capacity.gpus[place].clone()).collect();
        Ok(Grant { demand, device: self.device(&gpus), gpus, locks, threads: resources.cpus })
    }

    /// `cpu` for none; the different models of these, or `cuda` where the driver does not tell.
    fn device(&self, gpus: &[String]) -> String {
        if gpus.is_empty() {
            return "cpu".to_owned();
        }
        let model = |name: &String| self.locks.as_ref().and_then(|locks| locks.model(name));
        let models: BTreeSet<String> =
            gpus.iter().map(|name| model(name).unwrap_or_else(|| "cuda".to_owned())).collect();
        models.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// GPUs that another process had may be free by now.
    pub(super) fn look_again(&mut self) {
        self.gpus.iter_mut().filter(|gpu| **gpu == Gpu::Elsewhere).for_each(|gpu| *gpu = Gpu::Free);
    }

    /// Takes back what a stage held.
    pub(super) fn give_back(&mut self, grant: Grant) {
        self.jobs += 1;
        self.cpus += grant.demand.cpus;
        self.memory_bytes += grant.demand.memory_bytes;
        for (gpu, _) in self.gpus.iter_mut().zip(&self.capacity.gpus).filter(|(_, name)| grant.gpus.contains(name)) {
            *gpu = Gpu::Free;
        }
    }
}

impl Grant {
    /// `cpu`, or the models of its GPUs.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// What other processes see of it, for the worker to inherit.
    pub(super) fn locks(&self) -> &[GpuLock] {
        &self.locks
    }

    /// What the worker's environment says of it. A stage that asked for no GPU sees none. A stage that did not say how
    /// many threads it wants decides for itself.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&'static str, String)> {
        let threads = self.threads.map(|threads| THREADS.iter().map(move |name| (*name, threads.to_string())));
        std::iter::once((VISIBLE_GPUS, self.gpus.join(","))).chain(threads.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeMap;

    use super::*;

    fn slots() -> Slots {
        let gpus = ["GPU-a", "GPU-b", "3"].map(str::to_owned).to_vec();
        Slots::new(Capacity { cpus: 8, memory_bytes: 100, gpus }, 4, None)
    }

    fn take(slots: &mut Slots, resources: Resources) -> Grant {
        slots.take(Demand::of(&resources, 1), &resources).unwrap()
    }

    fn environment(grant: &Grant) -> BTreeMap<&'static str, String> {
        grant.variables().collect()
    }

    #[test]
    fn stages_that_run_at_once_see_different_gpus_and_those_that_ask_for_none_see_none() {
        let mut slots = slots();
        let asks = |gpus| Resources { gpus, ..Resources::default() };
        let (first, second) = (take(&mut slots, asks(2)), take(&mut slots, asks(1)));
        assert_eq!(environment(&first)[VISIBLE_GPUS], "GPU-a,GPU-b");
        assert_eq!(environment(&second)[VISIBLE_GPUS], "3");
        assert_eq!((first.device(), take(&mut slots, asks(0)).device()), ("cuda", "cpu"));
        assert_eq!(slots.free().shortage(&Demand::of(&asks(1), 1)), Some(Scarce::Gpus));
        slots.give_back(first);
        assert_eq!(environment(&take(&mut slots, asks(1)))[VISIBLE_GPUS], "GPU-a");
        slots.give_back(second);
        assert_eq!(environment(&take(&mut slots, asks(0))), BTreeMap::from([(VISIBLE_GPUS, String::new())]));
    }

    #[test]
    fn threads_follow_the_cpus_that_a_stage_asks_for() {
        let mut slots = slots();
        let grant = take(&mut slots, Resources { cpus: Some(4), ..Resources::default() });
        let variables = environment(&grant);
        assert!(THREADS.iter().all(|name| variables[name] == "4"), "{variables:?}");
        assert_eq!(variables.len(), THREADS.len() + 1);
    }

    #[test]
    fn all_that_was_taken_comes_back() {
        let mut slots = slots();
        let before = format!("{:?}", slots.free());
        let resources = Resources { cpus: Some(3), memory_bytes: Some(60), gpus: 1, time_seconds: None };
        let grants = [take(&mut slots, resources), take(&mut slots, Resources::default())];
        let free = slots.free();
        assert_eq!((free.cpus, free.memory_bytes, free.gpus, free.jobs), (4, 40, 2, 2));
        assert_eq!(free.shortage(&Demand::of(&resources, 1)), Some(Scarce::Memory));
        grants.into_iter().for_each(|grant| slots.give_back(grant));
        assert_eq!(format!("{:?}", slots.free()), before);
    }
}
