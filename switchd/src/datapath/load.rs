//! Loading the datapath into the kernel.

use std::io;
use std::sync::{Arc, Mutex};

use aya::maps::{MapData, MapError};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use conntrack_core::Timeouts;
use switchd_ebpf::layout::{
    BUCKETS_PER_LINE, Config, Entry, MAX_POLICIES, Op, Record, RuleCounter, TupleBucket, TupleHash, ZONES,
    tuple_buckets,
};

use super::connections::Connections;
use super::counters::Counters;
use super::events::Events;
use super::kernel::KernelStore;
use super::policies::Policies;
use super::ports::{PortMaps, Ports};
use super::shared::Shared;
use super::tables::FlowTables;
use super::zones::Zones;

/// The BPF object, built with the daemon.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/switchd-datapath"));

/// Distinct masks, over all tables and bridges.
const MAX_NODES: u32 = 8192;

/// How large the tables are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Flows, over all bridges.
    pub flows: u32,
    /// Connections, over all zones.
    pub connections: u32,
}

/// Why the datapath could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not privileged.
    #[error("not permitted to load BPF programs: run as root, or with CAP_BPF and CAP_NET_ADMIN")]
    Permission,
    /// The tables do not fit.
    #[error(
        "no memory for tables of {} flows and {} connections: choose fewer (--max-flows, --max-connections)",
        .0.flows, .0.connections
    )]
    Memory(Sizes),
    /// The verifier refused a program: the kernel lacks something.
    #[error("the kernel refuses the program {name} (Linux 5.18 or later is needed): {reason}")]
    Program {
        /// Its name.
        name: &'static str,
        /// The kernel's error, and the end of the verifier's log.
        reason: String,
    },
    /// The kernel lacks something else.
    #[error("cannot load the datapath: {0}")]
    Kernel(String),
}

/// A loaded datapath.
pub struct Datapath {
    /// The flow tables.
    pub tables: FlowTables<KernelStore>,
    /// The ports.
    pub ports: Ports,
    /// The connection table.
    pub connections: Connections,
    /// The zones, and how many connections there may be.
    pub zones: Zones,
    /// How long connections live.
    pub policies: Policies,
    /// What happens to connections.
    pub events: Arc<Events>,
    /// Drops, and the MAC tables.
    pub counters: Counters,
}

/// The programs' names, and how many instructions the verifier went through for each.
pub type Verified = Vec<(&'static str, u32)>;

/// Loads the programs and makes the maps.
///
/// # Errors
/// See [`LoadError`]; nothing is left in the kernel then.
pub fn load(sizes: Sizes) -> Result<(Datapath, Verified), LoadError> {
    let cpus = aya::util::nr_cpus().map_err(|(call, error)| LoadError::Kernel(format!("{call}: {error}")))?;
    let cpus = cpus as u32;
    if memory_available().is_some_and(|available| memory_needed(sizes, cpus) > available) {
        return Err(LoadError::Memory(sizes));
    }
    let mut loader = EbpfLoader::new();
    let (buckets, lines) = entry_space(sizes.flows);
    let ops = sizes.flows.saturating_mul(4).saturating_add(65536);
    loader
        .map_max_entries("NODES", MAX_NODES)
        .map_max_entries("BUCKETS", buckets / BUCKETS_PER_LINE)
        .map_max_entries("ENTRIES", lines)
        .map_max_entries("OPS", ops)
        .map_max_entries("RULE_COUNTERS", sizes.flows.saturating_mul(cpus))
        .map_max_entries("TUPLES", tuple_buckets(sizes.connections))
        .map_max_entries("RECORDS", sizes.connections)
        .map_max_entries("FREE_RECORDS", sizes.connections);
    let mut ebpf = loader.load(OBJECT).map_err(|error| explain(&error, sizes))?;
    let mut verified = Vec::new();
    for name in ["switch_xdp", "reap"] {
        let program: &mut Xdp = program(&mut ebpf, name)?;
        program.load().map_err(|error| refused(name, &error))?;
        verified.push((name, instructions(program.info())));
    }
    let name = "switch_tcx";
    let tcx: &mut SchedClassifier = program(&mut ebpf, name)?;
    tcx.load().map_err(|error| refused(name, &error))?;
    verified.push((name, instructions(tcx.info())));

    let config = Arc::new(shared::<Config>(&mut ebpf, "CONFIG", 1)?);
    if let Some(config) = config.at(0) {
        // SAFETY: no program is attached yet: nobody else accesses the map.
        unsafe {
            (*config.as_ptr()).max_rules = sizes.flows;
            (*config.as_ptr()).records = sizes.connections;
            (*config.as_ptr()).bucket_mask = buckets - 1;
            (*config.as_ptr()).max_connections = sizes.connections;
            (*config.as_ptr()).one_piece_only = u32::from(is_before(6, 3));
            (*config.as_ptr()).nat_salt = random_word();
            (*config.as_ptr()).tuple_hash = TupleHash::new(tuple_buckets(sizes.connections), random_word);
        }
    }
    let timeouts = shared::<Timeouts>(&mut ebpf, "TIMEOUTS", MAX_POLICIES)?;
    if let Some(timeouts) = timeouts.at(0) {
        // SAFETY: as above.
        unsafe { timeouts.as_ptr().write(Timeouts::DEFAULT) };
    }
    let store = KernelStore {
        heads: shared(&mut ebpf, "HEADS", super::HEADS)?,
        nodes: shared(&mut ebpf, "NODES", MAX_NODES)?,
        ops: shared(&mut ebpf, "OPS", ops)?,
        counters: shared(&mut ebpf, "RULE_COUNTERS", sizes.flows * cpus)?,
        config: Arc::clone(&config),
        buckets: shared(&mut ebpf, "BUCKETS", buckets / BUCKETS_PER_LINE)?,
        entries: shared(&mut ebpf, "ENTRIES", lines)?,
        table_counters: map(&mut ebpf, "TABLE_COUNTERS")?,
        max_rules: sizes.flows,
        cpus,
    };
    let counters = Counters { drops: map(&mut ebpf, "DROPS")?, macs: map(&mut ebpf, "MACS")? };
    let records = shared(&mut ebpf, "RECORDS", sizes.connections)?;
    let tuples = shared(&mut ebpf, "TUPLES", tuple_buckets(sizes.connections))?;
    let reap = shared(&mut ebpf, "REAP", switchd_ebpf::layout::REAP_BATCH)?;
    let zones = Zones::new(shared(&mut ebpf, "ZONES", ZONES)?, Arc::clone(&config));
    let events = Arc::new(Events::new(map(&mut ebpf, "EVENTS")?, Arc::clone(&config)));
    let mut ports = Ports::new(PortMaps {
        near_by_device: map(&mut ebpf, "NEAR_PORTS_BY_DEVICE")?,
        near_by_number: map(&mut ebpf, "NEAR_PORTS_BY_NUMBER")?,
        far: map(&mut ebpf, "FAR_PORTS")?,
        lists: map(&mut ebpf, "PORT_LISTS")?,
        counters: map(&mut ebpf, "PORT_COUNTERS")?,
        devices: map(&mut ebpf, "DEVICES")?,
    });
    let ebpf = Arc::new(Mutex::new(ebpf));
    ports.programs = Some(Arc::clone(&ebpf));
    let connections = Connections::new(records, tuples, config, reap, ebpf);
    let tables = FlowTables::new(store);
    let policies = Policies::new(timeouts);
    Ok((Datapath { tables, ports, connections, zones, policies, events, counters }, verified))
}

/// Whether the running kernel is older than Linux `major.minor`.
pub(super) fn is_before(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(major, minor, 0))
}

/// Bytes that the kernel allocates at once for the maps that grow with the tables.
fn memory_needed(sizes: Sizes, cpus: u32) -> u64 {
    let connection = (size_of::<Record>() + size_of::<u32>()) as u64;
    let tuples = u64::from(tuple_buckets(sizes.connections)) * size_of::<TupleBucket>() as u64;
    let (buckets, lines) = entry_space(sizes.flows);
    let entries = u64::from(buckets) * size_of::<u32>() as u64 + u64::from(lines) * size_of::<Entry>() as u64;
    let counters = u64::from(cpus) * size_of::<RuleCounter>() as u64;
    let flow = 4 * size_of::<Op>() as u64 + counters;
    u64::from(sizes.connections) * connection + tuples + u64::from(sizes.flows) * flow + entries
}

/// Buckets of the flow tables' entries, and lines that these have room for: three for each flow, of which most need
/// one or two.
pub(super) fn entry_space(flows: u32) -> (u32, u32) {
    (flows.clamp(BUCKETS_PER_LINE, 1 << 30).next_power_of_two(), flows.saturating_mul(3).saturating_add(1024))
}

/// A word that nobody can foresee: the standard library keys its hash maps with such.
pub(super) fn random_word() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// Bytes that can be had without swapping, if the kernel tells. It would give all of them to a map that is just
/// not too large, and take half a minute to find that out.
fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let missing = || LoadError::Kernel(format!("the object has no program {name}"));
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}

/// Takes a map out of the object.
fn map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let taken =
        ebpf.take_map(name).ok_or_else(|| LoadError::Kernel(format!("the object has no map {name}")))?;
    M::try_from(taken).map_err(|error| LoadError::Kernel(format!("map {name}: {error}")))
}

/// Maps an array into this process.
fn shared<T>(ebpf: &mut Ebpf, name: &'static str, len: u32) -> Result<Shared<T>, LoadError> {
    let missing = || LoadError::Kernel(format!("the object has no map {name}"));
    let Some(aya::maps::Map::Array(data)) = ebpf.map(name) else { return Err(missing()) };
    let data: &MapData = data;
    Shared::map(data.fd(), len).map_err(|error| LoadError::Kernel(format!("map {name}: {error}")))
}

fn instructions(info: Result<aya::programs::ProgramInfo, ProgramError>) -> u32 {
    info.ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0)
}

/// The kernel's error at the bottom of an error's chain.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}

fn explain(error: &EbpfError, sizes: Sizes) -> LoadError {
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) => LoadError::Permission,
        Some(libc::ENOMEM | libc::E2BIG) => LoadError::Memory(sizes),
        _ => LoadError::Kernel(chain(error)),
    }
}

fn refused(name: &'static str, error: &ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EPERM) => {
            LoadError::Permission
        }
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();

            let last = log.lines().rev().find(|line| !is_statistics(line)).unwrap_or_default();
            LoadError::Program { name, reason: format!("{io_error}; {last}") }
        }
        _ => LoadError::Program { name, reason: chain(error) },
    }
}

/// Whether a line of the verifier's log is one of those that end it, whatever came of the program.
fn is_statistics(line: &str) -> bool {
    ["verification time", "stack depth", "processed"].iter().any(|start| line.starts_with(start))
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    text
}
