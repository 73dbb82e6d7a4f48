//! Machine code once in the process: compiled ahead of its use by threads of its own, or where it is first asked for.
//!
//! Training needs a dozen sources, each for one type. One after the other they take seconds to compile, on the thread
//! that launches; side by side they are ready when the weights of a model are read.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tch::{Device, Kind};

use crate::{
    Error,
    element::Element,
    launch::architecture,
    nvrtc::{Architecture, Source, machine_code},
    ops::sources_of_training,
};

/// Threads at most.
const MOST_THREADS: usize = 8;

/// The name of a source, and what it is compiled for.
type Wanted = (&'static str, Element, Architecture);

/// Held while the code is made. Empty after a failure: whoever asks next tries again, and has the error for himself.
type Slot = Arc<Mutex<Option<Arc<[u8]>>>>;

/// What was made so far.
#[derive(Default)]
struct Store(Mutex<HashMap<Wanted, Slot>>);

impl Store {
    /// The code for `wanted`, by `make` unless it is there. Waits for a thread that is making it.
    fn get(&self, wanted: Wanted, make: impl FnOnce() -> Result<Vec<u8>, Error>) -> Result<Arc<[u8]>, Error> {
        let slot = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(wanted).or_default());
        let mut code = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = &*code {
            return Ok(Arc::clone(code));
        }
        Ok(Arc::clone(code.insert(make()?.into())))
    }
}

/// The machine code of a source.
pub(crate) fn code(source: &Source, element: Element, architecture: Architecture) -> Result<Arc<[u8]>, Error> {
    static STORE: std::sync::LazyLock<Store> = std::sync::LazyLock::new(Store::default);
    STORE.get((source.name, element, architecture), || machine_code(source, element, architecture))
}

/// Kernels that are being compiled. Dropping it waits for those in work and gives up the rest: a process must not end
/// while its threads are in the compiler.
#[derive(Debug, Default)]
pub struct Preparation {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Begins to compile what training launches on `device`, computing in `kind` with heads of `head_width`, on threads of
/// its own. On the CPU there is nothing to do. What fails, fails again where it is first used.
pub fn prepare(kind: Kind, head_width: i64, device: Device) -> Preparation {
    let (Ok(element), Ok(architecture)) = (Element::of("prepare", kind), architecture(device)) else {
        return Preparation::default();
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    Preparation::start(sources_of_training(element, head_width), threads, move |(source, element)| {
        let _ = code(source, element, architecture);
    })
}

impl Preparation {
    /// Does `work` for each of `items`, in their order, on as many threads.
    fn start<T: Send + Sync + Copy + 'static>(
        items: Vec<T>,
        threads: usize,
        work: impl Fn(T) + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new((items, AtomicUsize::new(0), work));
        let begin = |_| {
            let (stop, shared) = (Arc::clone(&stop), Arc::clone(&shared));
            let compile = move || {
                let (items, next, work) = &*shared;
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
                    && !stop.load(Ordering::Relaxed)
                {
                    work(*item);
                }
            };
            // A machine that gives no thread compiles where the code is asked for.
            std::thread::Builder::new().name("compile".to_owned()).spawn(compile).ok()
        };
        let threads = (0..threads.min(shared.0.len())).filter_map(begin).collect();
        Self { stop, threads }
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::Barrier;

    use super::*;
    use crate::nvrtc::compile;

    const HOPPER: Architecture = Architecture(9, 0);

    #[test]
    fn many_threads_make_the_same_bytes_as_one() {
        let sources = sources_of_training(Element::Bfloat16, 128);
        let store = Arc::new(Store::default());
        let preparation = Preparation::start(sources.clone(), MOST_THREADS, {
            let store = Arc::clone(&store);
            move |(source, element): (&'static Source, Element)| {
                store.get((source.name, element, HOPPER), || compile(source, element, HOPPER)).unwrap();
            }
        });
        for (source, element) in &sources {
            let parallel = store.get((source.name, *element, HOPPER), || compile(source, *element, HOPPER)).unwrap();
            let alone = compile(source, *element, HOPPER).unwrap();
            assert!(parallel[..] == alone[..], "{}", source.name);
        }
        drop(preparation);
        assert_eq!(store.0.lock().unwrap().len(), sources.len());
    }

    #[test]
    fn a_source_is_made_once_for_all_who_ask() {
        let store = Store::default();
        let (made, barrier) = (AtomicUsize::new(0), Barrier::new(8));
        let wanted = |element| ("source", element, HOPPER);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let code = store.get(wanted(Element::Float32), || {
                        made.fetch_add(1, Ordering::Relaxed);
                        // Long enough for the others to arrive.
                        std::thread::yield_now();
                        Ok(vec![7])
                    });
                    assert_eq!(code.unwrap()[..], [7]);
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(store.get(wanted(Element::Float16), || Ok(vec![8])).unwrap()[..], [8], "of another type");
    }

    #[test]
    fn a_failure_is_that_of_whoever_asks() {
        let store = Store::default();
        let wanted = ("source", Element::Float32, HOPPER);
        let failed = || Err(Error::NoNvrtc { message: "gone".to_owned() });
        for _ in 0..2 {
            assert!(store.get(wanted, failed).unwrap_err().to_string().contains("gone"));
        }
        assert_eq!(store.get(wanted, || Ok(vec![1])).unwrap()[..], [1]);
    }

    #[test]
    fn what_is_given_up_is_not_begun() {
        let (begun, barrier) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let preparation = Preparation::start(vec![(); 100], 1, {
            let (begun, barrier) = (Arc::clone(&begun), Arc::clone(&barrier));
            move |()| {
                begun.fetch_add(1, Ordering::Relaxed);
                // Begun, and then let go.
                barrier.wait();
                barrier.wait();
            }
        });
        barrier.wait();
        preparation.stop.store(true, Ordering::Relaxed);
        barrier.wait();
        drop(preparation);
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        assert!(prepare(Kind::BFloat16, 128, Device::Cpu).threads.is_empty(), "nothing to do on the CPU");
    }
}
