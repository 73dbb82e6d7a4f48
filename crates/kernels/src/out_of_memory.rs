//! What is known where memory ran out: from the words of libtorch's allocators, or of the driver.

use std::fmt;

use crate::{cuda_memory, launch::device_memory};

/// A request that the memory of a device or of the machine had no room for. What nobody says is `None`. Sizes are in
/// bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutOfMemory {
    /// The number of the card; `None` for the memory of the machine.
    pub card: Option<usize>,
    /// What was asked for.
    pub asked_bytes: Option<u64>,
    /// In tensors at that moment.
    pub allocated_bytes: Option<u64>,
    /// Held by libtorch beside that, for tensors to come.
    pub cached_bytes: Option<u64>,
    /// All that the device has.
    pub total_bytes: Option<u64>,
    /// Of that, what nobody held.
    pub free_bytes: Option<u64>,
}

impl OutOfMemory {
    /// What an error's text says of it; `None` if it is about something else. Where the text has no figures, the device
    /// is asked, which by now may hold less.
    pub fn of(text: &str) -> Option<Self> {
        let mut found = Self::parse(text)?;
        if let Some(card) = found.card {
            if found.allocated_bytes.is_none()
                && let Ok(memory) = cuda_memory(card)
            {
                found.allocated_bytes = Some(memory.allocated_bytes);
                found.cached_bytes = Some(memory.reserved_bytes.saturating_sub(memory.allocated_bytes));
            }
            if found.total_bytes.is_none()
                && let Some((free, total)) = device_memory(card)
            {
                (found.free_bytes, found.total_bytes) = (Some(free), Some(total));
            }
        } else {
            let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            found.total_bytes = kibibytes(&machine, "MemTotal:");
            found.free_bytes = kibibytes(&machine, "MemAvailable:");
        }
        Some(found)
    }

    /// The text alone. `CUDACachingAllocator.cpp` and `alloc_cpu.cpp` of libtorch write the ones with figures; CUDA's,
    /// the driver's and cuBLAS's have none.
    fn parse(text: &str) -> Option<Self> {
        if text.contains("DefaultCPUAllocator: ") || text.contains("std::bad_alloc") {
            let asked_bytes = behind(text, "you tried to allocate ").and_then(first_number).map(|bytes| bytes as u64);
            return Some(Self { asked_bytes, ..Self::default() });
        }
        let about_cuda = ["CUDA out of memory", "out of memory", "OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];
        if !about_cuda.iter().any(|words| text.contains(words)) {
            return None;
        }
        let card = behind(text, "GPU ").and_then(first_number).map_or(0, |number| number as usize);
        Some(Self {
            card: Some(card),
            asked_bytes: behind(text, "Tried to allocate ").and_then(size),
            allocated_bytes: in_front_of(text, " is allocated by PyTorch"),
            cached_bytes: in_front_of(text, " is reserved by PyTorch but unallocated"),
            total_bytes: behind(text, "total capacity of ").and_then(size),
            free_bytes: in_front_of(text, " is free"),
        })
    }
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self.card {
            Some(card) => format!("GPU {card}"),
            None => "the machine".to_owned(),
        };
        write!(formatter, "{whose} is out of memory")?;
        let parts = [
            ("", self.asked_bytes, " was asked for"),
            ("tensors hold ", self.allocated_bytes, ""),
            ("", self.cached_bytes, " more is reserved for them"),
        ];
        let mut lead = ": ";
        for (before, bytes, behind) in parts {
            if let Some(bytes) = bytes {
                write!(formatter, "{lead}{before}{}{behind}", in_words(bytes))?;
                lead = ", ";
            }
        }
        if let (Some(free), Some(total)) = (self.free_bytes, self.total_bytes) {
            write!(formatter, "{lead}{} of {} is free", in_words(free), in_words(total))?;
        }
        Ok(())
    }
}

/// As libtorch writes sizes: `2.50 GiB`.
fn in_words(bytes: u64) -> String {
    let bytes_f = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{:.2} KiB", bytes_f / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.2} MiB", bytes_f / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes_f / 1_073_741_824.0),
    }
}

fn behind<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest)
}

fn first_number(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text, |end| &text[..end]);
    digits.trim_end_matches('.').parse().ok()
}

/// A size at the start of a text: `2.50 GiB`, `512 bytes`.
fn size(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: f64 = words.next()?.parse().ok()?;
    let unit = words.next()?.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
    let factor = match unit {
        "bytes" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return None,
    };
    (number >= 0.0).then_some((number * factor) as u64)
}

/// The size whose two words stand in front of others.
fn in_front_of(text: &str, words: &str) -> Option<u64> {
    let (front, _) = text.split_once(words)?;
    let unit = front.rfind(' ')?;
    size(&front[front[..unit].rfind(' ').map_or(0, |place| place + 1)..])
}

fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|count| count * 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::{Device, Kind, Tensor};

    use super::*;

    const GIB: f64 = 1_073_741_824.0;

    /// As libtorch 2.11 writes it; its own parts are put together from those in `libc10_cuda.so`.
    const CUDA: &str = "CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 79.19 GiB of which \
        512.06 MiB is free. Including non-PyTorch memory, this process has 78.68 GiB memory in use. Of the allocated \
        memory 70.25 GiB is allocated by PyTorch, and 7.50 GiB is reserved by PyTorch but unallocated. If reserved but \
        unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  \
        See documentation for Memory Management  \
        (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)\n\
        Exception raised from malloc at /pytorch/c10/cuda/CUDACachingAllocator.cpp:1552 (most recent call first):\nframe #0";

    #[test]
    fn the_words_of_the_cuda_allocator() {
        let found = OutOfMemory::of(CUDA).unwrap();
        let bytes = |count: f64, unit: f64| Some((count * unit) as u64);
        assert_eq!(
            found,
            OutOfMemory {
                card: Some(0),
                asked_bytes: bytes(1.16, GIB),
                allocated_bytes: bytes(70.25, GIB),
                cached_bytes: bytes(7.5, GIB),
                total_bytes: bytes(79.19, GIB),
                free_bytes: bytes(512.06, 1_048_576.0),
            }
        );
        assert_eq!(
            found.to_string(),
            "GPU 0 is out of memory: 1.16 GiB was asked for, tensors hold 70.25 GiB, 7.50 GiB more is reserved for them, \
             512.06 MiB of 79.19 GiB is free"
        );
    }

    /// Other processes, a limit, another card, small sizes, pools.
    #[test]
    fn words_that_are_not_always_there() {
        let text = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 3 has a total capacity of 8.00 GiB of which 900 \
            bytes is free. Process 4711 has 3.00 GiB memory in use. Including non-PyTorch memory, this process has 4.90 \
            GiB memory in use. 4.00 GiB allowed; Of the allocated memory 3.98 GiB is allocated by PyTorch, with 12.00 KiB \
            allocated in private pools (e.g., CUDA Graphs), and 1.50 MiB is reserved by PyTorch but unallocated.";
        let found = OutOfMemory::parse(text).unwrap();
        assert_eq!((found.card, found.free_bytes, found.cached_bytes), (Some(3), Some(900), Some(1_572_864)));
        assert_eq!((found.asked_bytes, found.allocated_bytes), (Some(20 << 20), Some((3.98 * GIB) as u64)));
        let short = OutOfMemory::parse("CUDA out of memory. Tried to allocate more than 1EB memory.").unwrap();
        assert_eq!((short.card, short.asked_bytes, short.total_bytes), (Some(0), None, None));
    }

    #[test]
    fn words_without_figures() {
        for text in [
            "CUDA error: out of memory\nCUDA kernel errors",
            "cuModuleLoadData: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
        ] {
            assert_eq!(
                OutOfMemory::parse(text),
                Some(OutOfMemory { card: Some(0), ..OutOfMemory::default() }),
                "{text}"
            );
        }
        assert_eq!(OutOfMemory::parse("mat1 and mat2 shapes cannot be multiplied"), None);
    }

    #[test]
    fn the_cpu_really_runs_out() {
        let error = Tensor::f_empty([1 << 46], (Kind::Float, Device::Cpu)).unwrap_err();
        let found = OutOfMemory::of(&error.to_string()).unwrap();
        assert_eq!((found.card, found.asked_bytes), (None, Some(4 << 46)), "{error}");
        assert!(found.free_bytes.unwrap() <= found.total_bytes.unwrap());
        let text = found.to_string();
        assert!(text.starts_with("the machine is out of memory: 262144.00 GiB was asked for, "), "{text}");
    }

    #[test]
    fn the_card_really_runs_out() {
        let Some(device) = crate::testing::cuda() else { return };
        let held = Tensor::zeros([1 << 20], (Kind::Float, device));
        let error = Tensor::f_empty([1 << 42], (Kind::Float, device)).unwrap_err();
        let found = OutOfMemory::of(&error.to_string()).unwrap();
        assert_eq!(found.asked_bytes, Some(4 << 42), "{error}");
        assert!(found.allocated_bytes.unwrap() >= 4 << 20 && found.cached_bytes.is_some(), "{error}");
        assert!(found.free_bytes.unwrap() <= found.total_bytes.unwrap(), "{error}");
        // libtorch writes two digits behind the point.
        let total = device_memory(0).unwrap().1;
        assert!(total.abs_diff(found.total_bytes.unwrap()) < 1 << 24, "{total}: {error}");
        drop(held);
    }
}
