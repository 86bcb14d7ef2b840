//! The maps, and the pipeline's view of them.
//!
//! What lies in [`Memory`] is memory shared with the daemon, and begins at a page. Sizes given as 1 are set when the
//! maps are made.

use core::ffi::c_void;
use core::mem::transmute;
use core::ptr::NonNull;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_loop};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf};
use conntrack_core::Timeouts;
use switchd_ebpf::atomic;
use switchd_ebpf::conntrack::Connections;
use switchd_ebpf::layout::{
    self, Config, Constants, DEFERRED as DEFERRED_SLOTS, DROP_COUNTERS, Datagram, Deferred, EVENTS_SIZE,
    Entry, Event, Expectation, HOOKS, Help, Listed, MAX_BRIDGES, MAX_DATAGRAMS, MAX_HELPED, MAX_POLICIES,
    MAX_PORTS, MacKey, MacSeen, NEAR_DEVICES, NEAR_NUMBERS, Op, Port, PortCounter, PortList, REAP_BATCH,
    Reap, Record, RuleCounter, TABLES, TableCounter, Tuple, TupleBucket, WINDOW, WideMask, Zone, far_device,
    far_number, port_flags,
};
use switchd_ebpf::pipeline::{Body, Machine};
use switchd_ebpf::tables::Tables;

use super::memory::{Memory, PerCpu};

const NO_PREALLOC: u32 = BPF_F_NO_PREALLOC;

/// Written by the daemon before it loads the programs.
#[unsafe(no_mangle)]
static CONSTANTS: Constants = Constants::NONE;

/// One of [`CONSTANTS`].
macro_rules! constant {
    ($field:ident) => {
        // SAFETY: a field of a static; the compiler must not take it for what it is in the object.
        unsafe { (&raw const CONSTANTS.$field).read_volatile() }
    };
}

macro_rules! memory {
    ($($(#[$attribute:meta])* $name:ident: $type:ty;)+) => {
        $(
            $(#[$attribute])*
            #[unsafe(link_section = concat!(".bss.", stringify!($name)))]
            static $name: $type = <$type>::new();
        )+
    };
}

memory! {
    CONFIG: Memory<Config>;
    TIMEOUTS: Memory<Timeouts>;
    ZONES: Memory<Zone>;
    /// Two for each CPU, one for each hook.
    MACHINES: PerCpu<Machine>;

    HEADS: Memory<u32>;
    LISTS: Memory<Listed>;
    WIDE_MASKS: Memory<WideMask>;
    BUCKETS: Memory<u32>;
    ENTRIES: Memory<Entry>;
    OPS: Memory<Op>;
    TABLE_COUNTERS: PerCpu<TableCounter>;
    DROPS: PerCpu<u64>;

    NEAR_PORTS_BY_DEVICE: Memory<Port>;
    NEAR_PORTS_BY_NUMBER: Memory<Port>;
    PORT_COUNTERS: PerCpu<PortCounter>;

    TUPLES: Memory<TupleBucket>;
    RECORDS: Memory<Record>;
    REAP: Memory<Reap>;
}

/// A stretch for each CPU. With many CPUs this becomes larger than what the verifier lets a program address.
#[map]
static RULE_COUNTERS: Array<RuleCounter> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static FAR_PORTS: HashMap<u64, Port> = HashMap::with_max_entries(2 * MAX_PORTS, NO_PREALLOC);
#[map]
pub static PORT_LISTS: HashMap<u32, PortList> = HashMap::with_max_entries(MAX_BRIDGES, NO_PREALLOC);
#[map]
pub static DEVICES: DevMap = DevMap::with_max_entries(MAX_PORTS, 0);
#[map]
static MACS: LruHashMap<MacKey, MacSeen> = LruHashMap::with_max_entries(16384, 0);
#[map]
pub static DEFERRED: Array<Deferred> = Array::with_max_entries(DEFERRED_SLOTS, 0);

#[map]
static FREE_RECORDS: Queue<u32> = Queue::with_max_entries(1, 0);
#[map]
static DATAGRAMS: LruHashMap<Tuple, Datagram> = LruHashMap::with_max_entries(MAX_DATAGRAMS, 0);
#[map]
static NEW_DATAGRAM: PerCpuArray<Datagram> = PerCpuArray::with_max_entries(1, 0);
#[map]
static HELPS: HashMap<u64, Help> = HashMap::with_max_entries(MAX_HELPED, NO_PREALLOC);
#[map]
static NO_HELP: Array<Help> = Array::with_max_entries(1, 0);
#[map]
static EXPECTATIONS: HashMap<Tuple, Expectation> = HashMap::with_max_entries(MAX_HELPED, NO_PREALLOC);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_SIZE, 0);

/// The hooks, each of which has a machine of its own on each CPU.
#[derive(Clone, Copy)]
pub enum Hook {
    Xdp,
    Tcx,
}

/// The maps, as the pipeline sees them.
pub struct Maps {
    cpu: u32,
}

impl Maps {
    #[inline(always)]
    pub fn open() -> Self {
        // SAFETY: the helper has no preconditions.
        Self { cpu: unsafe { bpf_get_smp_processor_id() } }
    }

    /// This CPU's machine of a hook. None never happens: the verifier wants it said.
    #[inline(always)]
    pub fn machine(&self, hook: Hook) -> Option<NonNull<Machine>> {
        MACHINES.at(self.cpu, hook as u32, HOOKS, constant!(cpus))
    }

    /// The version of the flow tables that a packet sees from now on.
    #[inline(always)]
    pub fn version(&self) -> u64 {
        // SAFETY: the daemon writes the word atomically.
        unsafe { atomic::load(&raw const (*CONFIG.first().as_ptr()).version) }
    }

    /// Whether frames in several pieces cannot be redirected.
    #[inline(always)]
    pub fn one_piece_only(&self) -> bool {
        constant!(one_piece_only) != 0
    }

    /// An entry of the reaper's list.
    #[inline(always)]
    pub fn to_reap(&self, index: u32) -> Option<NonNull<Reap>> {
        REAP.at(index, REAP_BATCH)
    }

    /// The port of a device.
    #[inline(always)]
    pub fn port_of_device(&self, ifindex: u32) -> Option<&Port> {
        let port = if ifindex < NEAR_DEVICES {
            near_port(&NEAR_PORTS_BY_DEVICE, ifindex, NEAR_DEVICES)
        } else {
            far_port(far_device(ifindex))
        };
        port.filter(|port| port.flags & port_flags::PRESENT != 0)
    }

    /// A port of a bridge.
    #[inline(always)]
    pub fn port(&self, bridge: u32, number: u16) -> Option<&Port> {
        let port = if u32::from(number) < NEAR_NUMBERS {
            near_port(
                &NEAR_PORTS_BY_NUMBER,
                bridge * NEAR_NUMBERS + u32::from(number),
                MAX_BRIDGES * NEAR_NUMBERS,
            )
        } else {
            far_port(far_number(bridge, number))
        };
        port.filter(|port| port.flags & port_flags::PRESENT != 0)
    }

    /// The number of the next frame that XDP leaves to tcx.
    #[inline(always)]
    pub fn next_deferred(&self) -> u64 {
        // SAFETY: the word is valid, and everyone accesses it atomically.
        unsafe { atomic::fetch_add(&raw mut (*CONFIG.first().as_ptr()).deferred, 1) }
    }

    #[inline(always)]
    pub fn received(&self, port: &Port, bytes: u32) {
        if let Some(counter) = PORT_COUNTERS.at(self.cpu, port.slot, MAX_PORTS, constant!(cpus)) {
            let counter = counter.as_ptr();
            // SAFETY: the element is this CPU's alone to write.
            unsafe {
                (*counter).rx_packets += 1;
                (*counter).rx_bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    pub fn sent(&self, port: &Port, bytes: u32, accepted: bool) {
        if let Some(counter) = PORT_COUNTERS.at(self.cpu, port.slot, MAX_PORTS, constant!(cpus)) {
            let counter = counter.as_ptr();
            // SAFETY: the element is this CPU's alone to write.
            unsafe {
                if accepted {
                    (*counter).tx_packets += 1;
                    (*counter).tx_bytes += u64::from(bytes);
                } else {
                    (*counter).tx_dropped += 1;
                }
            }
        }
    }
}

#[inline(always)]
fn near_port(ports: &'static Memory<Port>, index: u32, len: u32) -> Option<&'static Port> {
    // SAFETY: the daemon writes words whole; see `Port` for what a packet may see of a change.
    unsafe { ports.get(index, len) }
}

#[inline(always)]
fn far_port<'a>(key: u64) -> Option<&'a Port> {
    // SAFETY: values are replaced as a whole, and freed only after the program has run.
    unsafe { FAR_PORTS.get(key) }
}

/// Reads a word that the daemon may change at any time.
#[inline(always)]
fn read(word: NonNull<u32>) -> u32 {
    // SAFETY: the word is valid, and written whole.
    unsafe { word.as_ptr().read_volatile() }
}

impl Tables for Maps {
    #[inline(always)]
    fn head(&self, bridge: u32, table: u32) -> u32 {
        HEADS.at(bridge * TABLES + table, MAX_BRIDGES * TABLES).map_or(0, read)
    }

    #[inline(always)]
    fn listed(&self, place: u32) -> Option<&[Listed; WINDOW as usize]> {
        // SAFETY: there are so many places more than searches may begin at. Lists that packets see do not change, and what
        // lies behind the end of one is not looked at.
        LISTS.at(place, constant!(listed)).map(|first| unsafe { first.cast().as_ref() })
    }

    #[inline(always)]
    fn wide_mask(&self, subtable: u32) -> Option<&WideMask> {
        let subtables = constant!(subtables);
        // SAFETY: a mask is written before a list has its subtable, and does not change.
        unsafe { WIDE_MASKS.get(subtable, subtables) }
    }

    #[inline(always)]
    fn bucket(&self, hash: u32) -> u32 {
        let buckets = constant!(buckets);
        BUCKETS.at(hash & buckets.wrapping_sub(1), buckets).map_or(0, read)
    }

    #[inline(always)]
    fn entry(&self, entry: u32) -> Option<&Entry> {
        if entry == 0 {
            return None;
        }
        let entries = constant!(entries);
        // SAFETY: an entry is written before a bucket holds it; what changes later is read by words.
        unsafe { ENTRIES.get(entry, entries) }
    }

    #[inline(always)]
    fn op(&self, pc: u32) -> Option<&Op> {
        let ops = constant!(ops);
        // SAFETY: an action is written before an entry refers to it.
        unsafe { OPS.get(pc, ops) }
    }

    #[inline(always)]
    fn hit(&self, rule: u32, bytes: u32, now: u64) {
        let index = self.cpu.wrapping_mul(constant!(rules)).wrapping_add(rule);
        if let Some(counter) = RULE_COUNTERS.get_ptr_mut(index) {
            // SAFETY: the element is this CPU's alone to write.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(bytes);
                (*counter).used = now;
            }
        }
    }

    #[inline(always)]
    fn looked_up(&self, bridge: u32, table: u32, hit: bool) {
        let (table, tables) = (bridge * TABLES + table, MAX_BRIDGES * TABLES);
        if let Some(counter) = TABLE_COUNTERS.at(self.cpu, table, tables, constant!(cpus)) {
            let counter = counter.as_ptr();
            // SAFETY: the element is this CPU's alone to write.
            unsafe {
                (*counter).lookups += 1;
                (*counter).matched += u64::from(hit);
            }
        }
    }

    #[inline(always)]
    fn dropped_by_number(&self, reason: u32) {
        if reason < DROP_COUNTERS
            && let Some(counter) = DROPS.at(self.cpu, reason, DROP_COUNTERS, constant!(cpus))
        {
            // SAFETY: the element is this CPU's alone to write.
            unsafe { *counter.as_ptr() += 1 };
        }
    }

    #[inline(always)]
    fn mac(&self, key: &MacKey) -> MacSeen {
        match MACS.get_ptr(key) {
            // SAFETY: the word is written whole.
            Some(seen) => unsafe { atomic::load(seen) },
            None => 0,
        }
    }

    #[inline(always)]
    fn learn_mac(&self, key: &MacKey, seen: MacSeen) {
        // A full table forgets the address seen longest ago; the frame is forwarded all the same.
        let _ = MACS.insert(key, seen, 0);
    }

    #[inline(always)]
    fn repeat(&self, times: u32, body: Body, context: *mut c_void) {
        // SAFETY: the callback has the signature that the helper calls, and `context` outlives the call. The
        // function goes by transmute, never through an integer, because its relocation needs the symbol.
        unsafe { bpf_loop(times, transmute::<Body, *mut c_void>(body), context, 0) };
    }
}

impl Connections for Maps {
    #[inline(always)]
    fn tuple_bucket(&self, number: u32) -> Option<NonNull<TupleBucket>> {
        TUPLES.at(number, constant!(tuples))
    }

    #[inline(always)]
    fn record(&self, number: u32) -> Option<NonNull<Record>> {
        RECORDS.at(number, constant!(records))
    }

    #[inline(always)]
    fn reuse(&self) -> Option<u32> {
        FREE_RECORDS.pop().ok().flatten()
    }

    #[inline(always)]
    fn release(&self, number: u32) {
        // There is room for every record's number.
        let _ = FREE_RECORDS.push(number, 0);
    }

    #[inline(always)]
    fn config(&self) -> NonNull<Config> {
        CONFIG.first()
    }

    #[inline(always)]
    fn zone(&self, zone: u16) -> Option<NonNull<Zone>> {
        ZONES.at(u32::from(zone), layout::ZONES)
    }

    #[inline(always)]
    fn datagram(&self, key: &Tuple) -> Option<NonNull<Datagram>> {
        DATAGRAMS.get_ptr_mut(key).and_then(NonNull::new)
    }

    #[inline(always)]
    fn insert_datagram(&self, key: &Tuple, expires: u64) {
        const NOEXIST: u64 = 1;
        let Some(empty) = NEW_DATAGRAM.get_ptr_mut(0) else { return };
        // SAFETY: the element is this CPU's alone, and nothing but this word of it is ever written. A packet that
        // interrupts another one at this place writes the same time.
        let empty = unsafe {
            (&raw mut (*empty).expires).write_volatile(expires);
            &*empty
        };
        let _ = DATAGRAMS.insert(key, empty, NOEXIST);
    }

    #[inline(always)]
    fn remove_datagram(&self, key: &Tuple) {
        let _ = DATAGRAMS.remove(key);
    }

    #[inline(always)]
    fn help(&self, owner: u64) -> Option<NonNull<Help>> {
        HELPS.get_ptr_mut(owner).and_then(NonNull::new)
    }

    #[inline(always)]
    fn insert_help(&self, owner: u64) {
        if let Some(fresh) = NO_HELP.get(0) {
            // Full: then the connection goes without.
            let _ = HELPS.insert(owner, fresh, 0);
        }
    }

    #[inline(always)]
    fn remove_help(&self, owner: u64) {
        let _ = HELPS.remove(owner);
    }

    #[inline(always)]
    fn expectation(&self, tuple: &Tuple) -> Option<Expectation> {
        // SAFETY: values are never changed, and freed only after the program has run.
        unsafe { EXPECTATIONS.get(tuple).copied() }
    }

    #[inline(always)]
    fn insert_expectation(&self, tuple: &Tuple, expectation: &Expectation) -> bool {
        const NOEXIST: u64 = 1;
        EXPECTATIONS.insert(tuple, expectation, NOEXIST).is_ok()
    }

    #[inline(always)]
    fn remove_expectation(&self, tuple: &Tuple) {
        let _ = EXPECTATIONS.remove(tuple);
    }

    #[inline(always)]
    fn timeouts(&self, policy: u16) -> Option<&Timeouts> {
        // SAFETY: a policy does not change while something refers to it.
        unsafe { TIMEOUTS.get(u32::from(policy), MAX_POLICIES) }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn listened_to(&self) -> bool {
        // SAFETY: the configuration is valid while the program runs; the daemon writes the word whole.
        unsafe { (&raw const (*CONFIG.first().as_ptr()).events).read_volatile() != 0 }
    }

    #[inline(never)]
    fn tell(&self, kind: u32, number: u32, now: u64, record: &Record) {
        let Some(mut event) = EVENTS.reserve::<Event>(0) else {
            // SAFETY: the word is valid, and everyone accesses it atomically.
            unsafe { atomic::fetch_add(&raw mut (*CONFIG.first().as_ptr()).events_lost, 1) };
            return;
        };
        // Field by field: the whole would not fit on the stack.
        let to: *mut Event = event.as_mut_ptr();
        // SAFETY: the memory is as large as an event, and ours until it is submitted.
        unsafe {
            (&raw mut (*to).kind).write(kind);
            (&raw mut (*to).number).write(number);
            (&raw mut (*to).at).write(now);
            let (from, to) =
                (core::ptr::from_ref(record).cast::<u64>(), (&raw mut (*to).record).cast::<u64>());
            let mut i = 0;
            while i < size_of::<Record>() / 8 {
                to.add(i).write(from.add(i).read());
                i += 1;
            }
        }
        event.submit(0);
    }
}
