//! What the machine has for stages to share, and what the user says of it.
//!
//! Looking at it takes microseconds: no driver is loaded and no device is touched.

use std::{ffi::OsStr, fs, path::Path, str::FromStr};

use pipe_stage::{Refused, Resources, parse_bytes};

use crate::{
    config::StageName,
    report::{bytes, plural},
};

/// The variable by which CUDA is told which devices there are.
pub(super) const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// What stages that run at once may use together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capacity {
    /// CPUs.
    pub(super) cpus: usize,
    /// Main memory, in bytes.
    pub(super) memory_bytes: u64,
    /// CUDA devices by the names that [`VISIBLE_GPUS`] takes: numbers, or ids of devices or of parts of them.
    pub(super) gpus: Vec<String>,
}

/// What the user says that there is to use: `cpus=8,memory=16GB,gpus=2`. What is not said is looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offer {
    /// CPUs.
    pub cpus: Option<usize>,
    /// Main memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// CUDA devices.
    pub gpus: Option<usize>,
}

/// An [`Offer`] that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// A part has no name that is known.
    #[error("`{0}` is no resource: write cpus=N, memory=SIZE or gpus=N, with commas between them")]
    Part(String),
    /// A value is not of its kind.
    #[error("`{value}` is no {what}")]
    Value {
        /// What was written.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// The memory is no amount of it.
    #[error("{message}: {help}")]
    Memory {
        /// What is wrong.
        message: String,
        /// What would be right.
        help: &'static str,
    },
}

/// A stage that asks for more than there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stage `{stage}` asks for {asked}, and there {there} to use")]
pub struct Excess {
    /// The stage.
    pub stage: StageName,
    /// How much of what, in words.
    pub asked: String,
    /// How much of it there is, in words: `is 1 GPU`.
    pub there: String,
    /// What would make it run, in words.
    pub help: String,
}

impl Capacity {
    /// What this process may use of the machine: as far as its CPU affinity, its control groups and an inherited
    /// `CUDA_VISIBLE_DEVICES` allow, unless `offer` says something else.
    pub(super) fn here(offer: &Offer) -> Self {
        let mut gpus = visible_gpus(std::env::var_os(VISIBLE_GPUS).as_deref(), Path::new("/dev"));
        if let Some(count) = offer.gpus {
            // Of more than could be seen, CUDA has the last word.
            gpus.extend((gpus.len()..count).map(|index| index.to_string()));
            gpus.truncate(count);
        }
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cpus: offer.cpus.unwrap_or_else(cpus),
            memory_bytes: offer.memory_bytes.unwrap_or_else(memory_bytes),
            gpus,
        }
    }

    /// What a stage asks for beyond that, if it does.
    pub(super) fn excess(&self, stage: &StageName, resources: &Resources) -> Option<Excess> {
        let is =
            |count: usize, what: &str| format!("{} {}", if count == 1 { "is" } else { "are" }, plural(count, what));
        let (field, asked, there, most) = if resources.gpus > self.gpus.len() {
            let there = is(self.gpus.len(), "GPU");
            ("gpus", plural(resources.gpus, "GPU"), there, resources.gpus.to_string())
        } else if let Some(cpus) = resources.cpus.filter(|cpus| *cpus > self.cpus) {
            ("cpus", plural(cpus, "CPU"), is(self.cpus, "CPU"), cpus.to_string())
        } else if let Some(memory) = resources.memory_bytes.filter(|memory| *memory > self.memory_bytes) {
            let there = format!("are {}", bytes(self.memory_bytes));
            ("memory", format!("{} of memory", bytes(memory)), there, memory.to_string())
        } else {
            return None;
        };
        let help = format!("lower `resources.{field}` of the stage, or say what there is: --resources {field}={most}");
        Some(Excess { stage: stage.clone(), asked, there, help })
    }
}

impl FromStr for Offer {
    type Err = OfferError;

    fn from_str(text: &str) -> Result<Self, OfferError> {
        let mut offer = Self::default();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| OfferError::Part(part.to_owned()))?;
            let wrong = |what| OfferError::Value { value: value.to_owned(), what };
            let count =
                |least: usize, what| value.parse().ok().filter(|count| *count >= least).ok_or_else(|| wrong(what));
            match name {
                "cpus" => offer.cpus = Some(count(1, "number of CPUs")?),
                "gpus" => offer.gpus = Some(count(0, "number of GPUs")?),
                "memory" => {
                    let refused = |Refused(message, help)| OfferError::Memory { message, help };
                    offer.memory_bytes = Some(parse_bytes(value).map_err(refused)?);
                }
                _ => return Err(OfferError::Part(part.to_owned())),
            }
        }
        Ok(offer)
    }
}

/// The CUDA devices that this process may see. `visible`: what `CUDA_VISIBLE_DEVICES` says, of which CUDA reads as much
/// as it understands; without it, all for which there are device files in `devices`.
fn visible_gpus(visible: Option<&OsStr>, devices: &Path) -> Vec<String> {
    if let Some(visible) = visible {
        let visible = visible.to_string_lossy();
        let is_device = |name: &&str| {
            let number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
            number || name.starts_with("GPU-") || name.starts_with("MIG-")
        };
        return visible.split(',').map(str::trim).take_while(is_device).map(str::to_owned).collect();
    }
    let is_gpu = |name: &str| name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok());
    let files = fs::read_dir(devices).into_iter().flatten().flatten();
    let count = files.filter(|file| file.file_name().to_str().is_some_and(is_gpu)).count();
    // Under Windows, Linux sees one device for all of them.
    let count = if count == 0 && devices.join("dxg").exists() { 1 } else { count };
    (0..count).map(|index| index.to_string()).collect()
}

/// The main memory, or as much of it as the control groups of this process allow, in bytes.
fn memory_bytes() -> u64 {
    let memory = rustix::system::sysinfo();
    let all = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    memory_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(all, |limit| limit.min(all))
}

/// The lowest limit of the control groups that `groups` lists (`/proc/self/cgroup`) and of those around them. In a
/// container the names are those of the host, and what counts is mounted at the root.
fn memory_limit(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            controllers if controllers.split(',').any(|controller| controller == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let group = root.join(group.trim_start_matches('/'));
        let around = group.ancestors().take_while(|folder| folder.starts_with(&root));
        around.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).collect()
    });
    limits.min()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_list_of_devices_is_respected_as_cuda_does() {
        let devices = tempfile::tempdir().unwrap();
        let found = |visible: Option<&str>| visible_gpus(visible.map(OsStr::new), devices.path());
        assert_eq!(found(None), [""; 0]);
        for name in ["nvidia0", "nvidia5", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(devices.path().join(name), "").unwrap();
        }
        assert_eq!(found(None), ["0", "1"]);
        assert_eq!(found(Some("3, 1")), ["3", "1"]);
        assert_eq!(found(Some("GPU-8f,MIG-2a")), ["GPU-8f", "MIG-2a"]);
        assert_eq!(found(Some("2,-1,3")), ["2"]);
        assert_eq!(found(Some("")), [""; 0]);
        assert_eq!(found(Some("NoDevFiles")), [""; 0]);
    }

    #[test]
    fn the_lowest_limit_of_the_groups_counts() {
        let mounted = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let file = mounted.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let limit = |groups| memory_limit(groups, mounted.path());
        assert_eq!(limit("0::/slurm/job\n"), None);
        write("slurm/memory.max", "4096\n");
        write("slurm/job/memory.max", "max\n");
        assert_eq!(limit("0::/slurm/job\n"), Some(4096));
        write("memory/memory.limit_in_bytes", "1024\n");
        assert_eq!(limit("5:cpu,cpuacct:/\n4:memory:/docker/12ab\n"), Some(1024));
    }

    #[test]
    fn an_offer_is_read_or_said_to_be_wrong() {
        let offer = |text: &str| text.parse::<Offer>();
        let all = Offer { cpus: Some(8), memory_bytes: Some(16_000_000_000), gpus: Some(0) };
        assert_eq!(offer("cpus=8,memory=16GB,gpus=0"), Ok(all));
        assert_eq!(offer("memory=1GiB").unwrap().memory_bytes, Some(1 << 30));
        for (text, message) in [
            ("cpus", "`cpus` is no resource: write cpus=N, memory=SIZE or gpus=N, with commas between them"),
            ("cpu=1", "`cpu=1` is no resource: write cpus=N, memory=SIZE or gpus=N, with commas between them"),
            ("cpus=0", "`0` is no number of CPUs"),
            ("gpus=-1", "`-1` is no number of GPUs"),
            ("memory=lots", "expected an amount of memory, found `lots`: such as 8GB, 512MiB, or a number of bytes"),
        ] {
            assert_eq!(offer(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_offer_replaces_what_is_there() {
        let capacity = Capacity::here(&"cpus=3,gpus=2,memory=1KiB".parse().unwrap());
        assert_eq!((capacity.cpus, capacity.memory_bytes, capacity.gpus.len()), (3, 1024, 2));
        let capacity = Capacity::here(&Offer::default());
        assert!(capacity.cpus >= 1 && capacity.memory_bytes > 1 << 20, "{capacity:?}");
    }

    #[test]
    fn an_excess_says_what_there_is_and_what_to_do() {
        let capacity = Capacity { cpus: 2, memory_bytes: 8 << 30, gpus: vec!["0".to_owned()] };
        let stage = StageName::new("adapter").unwrap();
        let excess = |resources| capacity.excess(&stage, &resources).map(|excess| (excess.to_string(), excess.help));
        let fits = Resources { cpus: Some(2), memory_bytes: Some(8 << 30), gpus: 1, time_seconds: Some(1 << 40) };
        assert_eq!(excess(fits), None);
        let (message, help) = excess(Resources { gpus: 2, ..fits }).unwrap();
        assert_eq!(message, "the stage `adapter` asks for 2 GPUs, and there is 1 GPU to use");
        assert_eq!(help, "lower `resources.gpus` of the stage, or say what there is: --resources gpus=2");
        let (message, _) = excess(Resources { cpus: Some(8), ..fits }).unwrap();
        assert_eq!(message, "the stage `adapter` asks for 8 CPUs, and there are 2 CPUs to use");
        let (message, _) = excess(Resources { memory_bytes: Some(32 << 30), ..fits }).unwrap();
        assert_eq!(message, "the stage `adapter` asks for 32.0 GiB of memory, and there are 8.00 GiB to use");
    }
}
