//! Loading the datapath into the kernel.

use std::io;
use std::sync::{Arc, Mutex};

use aya::maps::MapError;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use conntrack_core::Timeouts;
use switchd_ebpf::layout::{
    Config, Constants, DROP_COUNTERS, Entry, HOOKS, MAX_BRIDGES, MAX_POLICIES, MAX_PORTS, NEAR_DEVICES,
    NEAR_NUMBERS, Op, REAP_BATCH, Record, RuleCounter, TupleBucket, TupleHash, WINDOW, ZONES, tuple_buckets,
};
use switchd_ebpf::pipeline::Machine;

use super::arrays::{Arrays, MAX_ARRAY, cpu_numbers};
use super::connections::Connections;
use super::counters::Counters;
use super::events::Events;
use super::kernel::KernelStore;
use super::policies::Policies;
use super::ports::{PortMaps, Ports};
use super::tables::FlowTables;
use super::zones::Zones;
use super::{HEADS, MAX_LISTED, MAX_SUBTABLES};

/// The BPF object, built with the daemon.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/switchd-datapath"));

/// How large the tables are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Flows, over all bridges.
    pub flows: u32,
    /// Connections, over all zones.
    pub connections: u32,
}

impl Sizes {
    /// What arrays of [`MAX_ARRAY`] bytes hold.
    pub const MAX: Self = Self {
        flows: ((MAX_ARRAY / size_of::<Entry>() as u64 - SPARE_LINES as u64) / LINES_PER_FLOW as u64) as u32,
        connections: (MAX_ARRAY / size_of::<Record>() as u64) as u32,
    };
}

/// Why the datapath could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not privileged.
    #[error(
        "not permitted to load BPF programs: run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
    )]
    Permission,
    /// More than a program can address.
    #[error(
        "no tables of {} flows and {} connections: at most {} (--max-flows) and {} (--max-connections)",
        .0.flows, .0.connections, Sizes::MAX.flows, Sizes::MAX.connections
    )]
    Sizes(Sizes),
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
    if sizes.flows > Sizes::MAX.flows || sizes.connections > Sizes::MAX.connections {
        return Err(LoadError::Sizes(sizes));
    }
    let cpus = cpu_numbers()?;
    if memory_available().is_some_and(|available| memory_needed(sizes, cpus) > available) {
        return Err(LoadError::Memory(sizes));
    }
    let (buckets, lines) = entry_space(sizes.flows);
    let constants = Constants {
        cpus,
        listed: MAX_LISTED,
        subtables: MAX_SUBTABLES,
        buckets,
        entries: lines,
        ops: sizes.flows.saturating_mul(4).saturating_add(65536),
        rules: sizes.flows,
        tuples: tuple_buckets(sizes.connections),
        records: sizes.connections,
        one_piece_only: u32::from(is_before(6, 3)),
    };
    let mut loader = EbpfLoader::new();
    loader
        .override_global("CONSTANTS", &constants, true)
        .map_max_entries("RULE_COUNTERS", constants.rules.saturating_mul(cpus))
        .map_max_entries("FREE_RECORDS", constants.records);
    let mut ebpf = loader.load(OBJECT).map_err(|error| explain(&error, sizes))?;
    let make = Arrays { ebpf: &ebpf, sizes, cpus };
    make.per_cpu::<Machine>("MACHINES", HOOKS)?;
    let config = Arc::new(make.array::<Config>("CONFIG", 1)?);
    let timeouts = make.array::<Timeouts>("TIMEOUTS", MAX_POLICIES)?;
    let store = KernelStore {
        heads: make.array("HEADS", HEADS)?,
        lists: make.array("LISTS", constants.listed + WINDOW)?,
        wide_masks: make.array("WIDE_MASKS", constants.subtables)?,
        buckets: make.array("BUCKETS", constants.buckets)?,
        entries: make.array("ENTRIES", constants.entries)?,
        ops: make.array("OPS", constants.ops)?,
        counters: make.rule_counters(constants.rules)?,
        table_counters: make.per_cpu("TABLE_COUNTERS", HEADS)?,
        config: Arc::clone(&config),
    };
    let drops = make.per_cpu("DROPS", DROP_COUNTERS)?;
    let near_by_device = make.array("NEAR_PORTS_BY_DEVICE", NEAR_DEVICES)?;
    let near_by_number = make.array("NEAR_PORTS_BY_NUMBER", MAX_BRIDGES * NEAR_NUMBERS)?;
    let port_counters = make.per_cpu("PORT_COUNTERS", MAX_PORTS)?;
    let tuples = make.array("TUPLES", constants.tuples)?;
    let records = make.array("RECORDS", constants.records)?;
    let zones = Zones::new(make.array("ZONES", ZONES)?, Arc::clone(&config));
    let reap = make.array("REAP", REAP_BATCH)?;
    if let (Some(config), Some(timeouts)) = (config.at(0), timeouts.at(0)) {
        // SAFETY: within the mappings; no program runs yet.
        unsafe {
            (*config.as_ptr()).records = sizes.connections;
            (*config.as_ptr()).max_connections = sizes.connections;
            (*config.as_ptr()).nat_salt = random_word();
            (*config.as_ptr()).tuple_hash = TupleHash::new(constants.tuples, random_word);
            timeouts.as_ptr().write(Timeouts::DEFAULT);
        }
    }
    // The programs come last: the verifier looks at the arrays' sizes.
    let verified = load_programs(&mut ebpf)?;
    let counters = Counters { drops, macs: map(&mut ebpf, "MACS")? };
    let events = Arc::new(Events::new(map(&mut ebpf, "EVENTS")?, Arc::clone(&config)));
    let mut ports = Ports::new(PortMaps {
        near_by_device,
        near_by_number,
        far: map(&mut ebpf, "FAR_PORTS")?,
        lists: map(&mut ebpf, "PORT_LISTS")?,
        counters: port_counters,
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

/// Lines of the flow tables' entries for each flow, of which most need one or two; and some more.
const LINES_PER_FLOW: u32 = 3;
const SPARE_LINES: u32 = 1024;

/// Buckets of the flow tables' entries, and lines that these have room for.
pub(super) fn entry_space(flows: u32) -> (u32, u32) {
    let lines = flows.saturating_mul(LINES_PER_FLOW).saturating_add(SPARE_LINES);
    (flows.clamp(16, 1 << 30).next_power_of_two(), lines)
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

/// Has the verifier go through the programs.
fn load_programs(ebpf: &mut Ebpf) -> Result<Verified, LoadError> {
    let mut verified = Vec::new();
    for name in ["switch_xdp", "reap"] {
        let program: &mut Xdp = program(ebpf, name)?;
        program.load().map_err(|error| refused(name, &error))?;
        verified.push((name, instructions(program.info())));
    }
    let name = "switch_tcx";
    let tcx: &mut SchedClassifier = program(ebpf, name)?;
    tcx.load().map_err(|error| refused(name, &error))?;
    verified.push((name, instructions(tcx.info())));
    Ok(verified)
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

pub(super) fn explain(error: &EbpfError, sizes: Sizes) -> LoadError {
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
