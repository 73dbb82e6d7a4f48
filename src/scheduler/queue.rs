//! The stages that have to run and wait for their turn.

use std::collections::{BTreeMap, BTreeSet};

use super::slots::{Demand, Slots};

/// A stage's place in the order in which stages should begin, and its index.
type Turn = (usize, usize);

/// Who waits, by what they need: to find the next one takes as long as there are different needs, however many wait.
#[derive(Debug, Default)]
pub(super) struct Queue(BTreeMap<Demand, BTreeSet<Turn>>);

impl Queue {
    pub(super) fn insert(&mut self, demand: Demand, turn: usize, index: usize) {
        self.0.entry(demand).or_default().insert((turn, index));
    }

    /// Takes out the stage that begins next: the first whose needs are free.
    ///
    /// A stage that waits for something is not overtaken by later ones that take the same from it, or a large stage
    /// would wait until all small ones are done.
    pub(super) fn next(&mut self, slots: &Slots) -> Option<(usize, Demand)> {
        let mut free = slots.free();
        if free.jobs == 0 {
            return None;
        }
        let mut heads: Vec<(Turn, Demand)> =
            self.0.iter().filter_map(|(demand, waiting)| Some((*waiting.first()?, *demand))).collect();
        heads.sort_unstable();
        for (turn, demand) in heads {
            match free.shortage(&demand) {
                Some(scarce) => free.reserve(scarce),
                None => {
                    if let Some(waiting) = self.0.get_mut(&demand) {
                        waiting.remove(&turn);
                        if waiting.is_empty() {
                            self.0.remove(&demand);
                        }
                    }
                    return Some((turn.1, demand));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use pipe_stage::Resources;

    use super::{super::capacity::Capacity, *};

    fn demand(cpus: usize, gpus: usize) -> Demand {
        Demand { gpus, memory_bytes: 0, cpus }
    }

    fn slots(cpus: usize, gpus: usize) -> Slots {
        let gpus = (0..gpus).map(|index| index.to_string()).collect();
        Slots::new(Capacity { cpus, memory_bytes: 0, gpus }, 100, None)
    }

    /// Begins all that can begin.
    fn begin(queue: &mut Queue, slots: &mut Slots) -> Vec<usize> {
        std::iter::from_fn(|| {
            let (index, demand) = queue.next(slots)?;
            slots.take(demand, &Resources::default()).unwrap();
            Some(index)
        })
        .collect()
    }

    #[test]
    fn stages_begin_by_their_turn_as_far_as_there_is_room() {
        let mut queue = Queue::default();
        for (turn, index) in [(2, 0), (0, 1), (3, 2), (1, 3)] {
            queue.insert(demand(1, 0), turn, index);
        }
        assert_eq!(begin(&mut queue, &mut slots(3, 0)), [1, 3, 0]);
        assert_eq!(begin(&mut queue, &mut slots(3, 0)), [2]);
    }

    #[test]
    fn a_large_stage_is_not_overtaken_for_ever() {
        let mut queue = Queue::default();
        let mut slots = slots(4, 0);
        let small = slots.take(demand(1, 0), &Resources::default()).unwrap();
        queue.insert(demand(4, 0), 0, 0);
        queue.insert(demand(1, 0), 1, 1);
        assert_eq!(begin(&mut queue, &mut slots), [0usize; 0], "three CPUs are kept for the large one");
        slots.give_back(small);
        assert_eq!(begin(&mut queue, &mut slots), [0]);
    }

    #[test]
    fn a_stage_that_waits_for_a_gpu_holds_up_only_those_that_want_one_too() {
        let mut queue = Queue::default();
        let mut slots = slots(4, 1);
        let _given = slots.take(demand(1, 1), &Resources::default()).unwrap();
        for (turn, (cpus, gpus)) in [(4, 1), (1, 1), (1, 0), (1, 0)].into_iter().enumerate() {
            queue.insert(demand(cpus, gpus), turn, turn);
        }
        assert_eq!(begin(&mut queue, &mut slots), [2, 3]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_given_twice_and_everybody_has_a_turn(
            demands in proptest::collection::vec((0..=4usize, 0..=3u64, 0..=2usize), 1..40),
            jobs in 1..5usize,
        ) {
            let gpus = vec!["0".to_owned(), "1".to_owned()];
            let mut slots = Slots::new(Capacity { cpus: 4, memory_bytes: 3, gpus }, jobs, None);
            let mut queue = Queue::default();
            for (index, &(cpus, memory_bytes, gpus)) in demands.iter().enumerate() {
                queue.insert(Demand { gpus, memory_bytes, cpus }, index, index);
            }
            let (mut running, mut done) = (Vec::new(), 0);
            while done < demands.len() {
                while let Some((index, demand)) = queue.next(&slots) {
                    running.push((index, slots.take(demand, &Resources::default()).unwrap()));
                }
                let sum = |what: fn(&(usize, u64, usize)) -> u64| running.iter().map(|(index, _)| what(&demands[*index])).sum::<u64>();
                proptest::prop_assert!(!running.is_empty(), "nobody runs and somebody waits");
                proptest::prop_assert!(running.len() <= jobs);
                proptest::prop_assert!(sum(|demand| demand.0 as u64) <= 4 && sum(|demand| demand.1) <= 3 && sum(|demand| demand.2 as u64) <= 2);
                let (_, grant) = running.swap_remove(done % running.len());
                slots.give_back(grant);
                done += 1;
            }
        }
    }
}
