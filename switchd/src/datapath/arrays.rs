//! The arrays that the programs know as global variables, and the daemon as memory.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Ebpf;
use aya::maps::MapData;
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type};
use switchd_ebpf::layout::RuleCounter;

use super::load::{LoadError, Sizes, explain};
use super::shared::{PerCpu, Shared};

/// How large an array may be, in bytes: the verifier lets no program go further from the start of a variable
/// (BPF_MAX_VAR_OFF).
pub(super) const MAX_ARRAY: u64 = 1 << 29;

/// Makes arrays, each in the place of the global variable that stands for it in the object.
pub(super) struct Arrays<'a> {
    pub ebpf: &'a Ebpf,
    pub sizes: Sizes,
    /// One more than the highest number that a CPU may have.
    pub cpus: u32,
}

impl Arrays<'_> {
    /// One of `len` elements, all zero.
    pub fn array<T>(&self, name: &'static str, len: u32) -> Result<Shared<T>, LoadError> {
        let stand_in = array_map(self.ebpf, &format!(".bss.{name}"))?.fd().as_fd();
        let size = u64::from(len) * size_of::<T>() as u64;
        if size > MAX_ARRAY {
            return Err(LoadError::Memory(self.sizes));
        }
        let size = size.next_multiple_of(8) as u32;
        let kind = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        let map = aya_obj::Map::new_from_params(kind, size_of::<u32>() as u32, size, 1, BPF_F_MMAPABLE);
        let map = MapData::create(map, name, None).map_err(|error| explain(&error.into(), self.sizes))?;
        // The programs that are still to be loaded name the map by the number of its file descriptor.
        // SAFETY: both are open, and the one that is replaced stays its owner's.
        let moved =
            unsafe { libc::dup3(map.fd().as_fd().as_raw_fd(), stand_in.as_raw_fd(), libc::O_CLOEXEC) };
        if moved < 0 {
            return Err(failed(name, &io::Error::last_os_error()));
        }
        Shared::map(stand_in, len).map_err(|error| failed(name, &error))
    }

    /// The same for one with a stretch for each CPU.
    pub fn per_cpu<T>(&self, name: &'static str, stretch: u32) -> Result<PerCpu<T>, LoadError> {
        let len = stretch.checked_mul(self.cpus).ok_or(LoadError::Memory(self.sizes))?;
        Ok(PerCpu::new(self.array(name, len)?, stretch))
    }

    /// The counters of rules lie in a map of their own: see there.
    pub fn rule_counters(&self, rules: u32) -> Result<PerCpu<RuleCounter>, LoadError> {
        let name = "RULE_COUNTERS";
        let map = array_map(self.ebpf, name)?;
        let all = Shared::map(map.fd(), rules.saturating_mul(self.cpus));
        Ok(PerCpu::new(all.map_err(|error| failed(name, &error))?, rules))
    }
}

fn array_map<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a MapData, LoadError> {
    match ebpf.map(name) {
        Some(aya::maps::Map::Array(data)) => Ok(data),
        _ => Err(LoadError::Kernel(format!("the object has no map {name}"))),
    }
}

fn failed(name: &str, error: &io::Error) -> LoadError {
    LoadError::Kernel(format!("map {name}: {error}"))
}

const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// One more than the highest number that a CPU may have; the kernel writes ranges of such, as `0-3,8-11`.
pub(super) fn cpu_numbers() -> Result<u32, LoadError> {
    let unknown = |what: &str| LoadError::Kernel(format!("{POSSIBLE_CPUS}: {what}"));
    let text = std::fs::read_to_string(POSSIBLE_CPUS).map_err(|error| unknown(&error.to_string()))?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    last.and_then(|last| last.checked_add(1)).ok_or_else(|| unknown(&text))
}
