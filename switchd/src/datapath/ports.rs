//! The datapath's ports: which devices its programs are attached to.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::{DevMap, HashMap, MapData, MapError};
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifierLink, TcAttachType};
use aya::programs::{ProgramError, SchedClassifier, Xdp, XdpMode, tc};
use ofctl::port::PortNo;
use switchd_ebpf::layout::{
    MAX_BRIDGE_PORTS, MAX_PORTS, NEAR_DEVICES, NEAR_NUMBERS, Port, PortCounter, PortList, far_device,
    far_number, port_flags,
};

use super::load::{chain, is_before};
use super::shared::{PerCpu, Shared};
use crate::hooks::{Hook, HookError, Hooks, PortStats};
use crate::rules::BridgeId;

/// The datapath's ports.
pub struct Ports {
    pub(super) maps: PortMaps,
    pub(super) programs: Option<Arc<Mutex<Ebpf>>>,
    attached: BTreeMap<(BridgeId, PortNo), Attached>,
    /// The bridges whose flows see the transport ports of fragments.
    showing: BTreeSet<BridgeId>,
}

/// The maps that ports are found in.
pub(super) struct PortMaps {
    pub near_by_device: Shared<Port>,
    pub near_by_number: Shared<Port>,
    pub far: HashMap<MapData, u64, Port>,
    pub lists: HashMap<MapData, u32, PortList>,
    pub counters: PerCpu<PortCounter>,
    pub devices: DevMap<MapData>,
}

/// A port's programs. They are detached when this is dropped.
struct Attached {
    port: Port,
    /// What the slot's counters were when the port got it.
    base: PortStats,
    _xdp: Option<FdLink>,
    _tcx: SchedClassifierLink,
}

impl Ports {
    pub(super) fn new(maps: PortMaps) -> Self {
        Self { maps, programs: None, attached: BTreeMap::new(), showing: BTreeSet::new() }
    }

    /// The first slot that no port has.
    fn free_slot(&self) -> Option<u32> {
        (0..MAX_PORTS).find(|slot| self.attached.values().all(|attached| attached.port.slot != *slot))
    }

    /// Tells the datapath about a port.
    fn publish(&mut self, port: &Port) -> Result<(), HookError> {
        let error = |error: &dyn std::error::Error| HookError::Kernel(chain(error));
        self.maps.devices.set(port.slot, port.ifindex, None, 0).map_err(|failed| error(&failed))?;
        self.maps.write(port).map_err(|failed| error(&failed))
    }

    /// Takes a port from the datapath.
    fn withdraw(&mut self, port: &Port) {
        // Each may be missing: a port that was being added, or whose device is gone.
        let _ = self.maps.write(&absent(port));
        let _ = self.maps.devices.set(port.slot, 0, None, 0);
    }

    /// Tells the datapath which ports a bridge floods to.
    fn publish_list(&mut self, bridge: BridgeId) -> Result<(), HookError> {
        let mut list = PortList { len: 0, ports: [0; MAX_BRIDGE_PORTS] };
        for &(of, number) in self.attached.keys() {
            if of == bridge {
                let Some(slot) = list.ports.get_mut(list.len as usize) else {
                    return Err(HookError::TooMany(MAX_BRIDGE_PORTS as u32));
                };
                *slot = number.0;
                list.len += 1;
            }
        }
        self.maps.lists.insert(u32::from(bridge.0), list, 0).map_err(|error| HookError::Kernel(chain(&error)))
    }

    fn slot_counters(&self, slot: u32) -> PortStats {
        let mut stats = PortStats::default();
        for counter in self.maps.counters.at(slot) {
            // SAFETY: within the mapping; each count is a word that is written whole.
            let counter = unsafe { counter.as_ptr().read_volatile() };
            stats.rx_packets += counter.rx_packets;
            stats.rx_bytes += counter.rx_bytes;
            stats.rx_dropped += counter.rx_dropped;
            stats.tx_packets += counter.tx_packets;
            stats.tx_bytes += counter.tx_bytes;
            stats.tx_dropped += counter.tx_dropped;
        }
        stats
    }

    fn attach_programs(
        &self,
        ifindex: u32,
        hook: Hook,
    ) -> Result<(Option<FdLink>, SchedClassifierLink), HookError> {
        let programs = self.programs.as_ref().ok_or_else(|| HookError::Kernel("no programs".to_owned()))?;
        let mut ebpf = lock(programs);
        let attach_xdp = |ebpf: &mut Ebpf| {
            if hook == Hook::Xdp { attach_xdp(ebpf, ifindex).map(Some) } else { Ok(None) }
        };
        if is_before(6, 6) {
            // No tcx yet. XDP first: it refuses a port of another switch that runs, whose classifier would be replaced.
            let xdp = attach_xdp(&mut ebpf)?;
            Ok((xdp, replace_classifier(&mut ebpf, ifindex)?))
        } else {
            // tcx first: what XDP passes on must find it.
            let tcx = attach_tcx(&mut ebpf, ifindex)?;
            Ok((attach_xdp(&mut ebpf)?, tcx))
        }
    }
}

impl PortMaps {
    /// Writes a port to where its device and its number lead.
    fn write(&mut self, port: &Port) -> Result<(), MapError> {
        let (bridge, number) = (u32::from(port.bridge), u32::from(port.number));
        let device = if port.ifindex < NEAR_DEVICES {
            write_near(&self.near_by_device, port.ifindex, port);
            Ok(())
        } else {
            self.write_far(far_device(port.ifindex), port)
        };
        let number = if number < NEAR_NUMBERS {
            write_near(&self.near_by_number, bridge * NEAR_NUMBERS + number, port);
            Ok(())
        } else {
            self.write_far(far_number(bridge, port.number), port)
        };
        device.and(number)
    }

    fn write_far(&mut self, key: u64, port: &Port) -> Result<(), MapError> {
        if port.flags & port_flags::PRESENT != 0 {
            return self.far.insert(key, port, 0);
        }
        // It need not be there.
        let _ = self.far.remove(&key);
        Ok(())
    }
}

/// Writes a port to a place that is its own, or nobody's.
fn write_near(ports: &Shared<Port>, index: u32, port: &Port) {
    let Some(place) = ports.at(index).map(NonNull::as_ptr) else { return };
    // SAFETY: within the mapping, and the datapath writes nothing there. Release: whoever sees that there is a port sees
    // which one.
    unsafe {
        let flags = AtomicU32::from_ptr(&raw mut (*place).flags);
        place.write_volatile(Port { flags: flags.load(Ordering::Relaxed), ..*port });
        flags.store(port.flags, Ordering::Release);
    }
}

/// The same port, not to be found.
fn absent(port: &Port) -> Port {
    Port { flags: 0, ..*port }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(name: &str) -> HookError {
    HookError::Kernel(format!("the program {name} is not loaded"))
}

const CLASSIFIER: &str = "switch_tcx";

/// Attaches the classifier by tcx, or, where there is none, as a filter.
fn attach_tcx(ebpf: &mut Ebpf, ifindex: u32) -> Result<SchedClassifierLink, HookError> {
    let program: &mut SchedClassifier = match ebpf.program_mut(CLASSIFIER).map(TryInto::try_into) {
        Some(Ok(program)) => program,
        _ => return Err(missing(CLASSIFIER)),
    };
    let device = device_name(ifindex).ok_or(HookError::NoDevice)?;
    let id = program.attach(&device, TcAttachType::Ingress).map_err(|error| explain(&error))?;
    program.take_link(id).map_err(|error| explain(&error))
}

/// Attaches the classifier as a filter, in the place of one that a killed daemon has left: unlike a link, a filter does
/// not go with the process.
fn replace_classifier(ebpf: &mut Ebpf, ifindex: u32) -> Result<SchedClassifierLink, HookError> {
    let device = device_name(ifindex).ok_or(HookError::NoDevice)?;
    // Either may be there, or not; what is really wrong, attaching will find.
    let _ = tc::qdisc_add_clsact(&device);
    let _ = tc::qdisc_detach_program(&device, TcAttachType::Ingress, CLASSIFIER);
    attach_tcx(ebpf, ifindex)
}

fn attach_xdp(ebpf: &mut Ebpf, ifindex: u32) -> Result<FdLink, HookError> {
    let name = "switch_xdp";
    let program: &mut Xdp = match ebpf.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => program,
        _ => return Err(missing(name)),
    };
    let id = program.attach_to_if_index(ifindex, XdpMode::Driver).map_err(|error| explain(&error))?;
    let link = program.take_link(id).map_err(|error| explain(&error))?;
    // aya falls back to netlink when the kernel refuses a link. Such an attachment would outlive us; it is
    // undone when the link is dropped here.
    FdLink::try_from(link).map_err(|_| HookError::NoNativeXdp("the kernel refuses a BPF link".to_owned()))
}

fn device_name(ifindex: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call asks for.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the call has written a terminated string.
    unsafe { CStr::from_ptr(found) }.to_str().ok().map(str::to_owned)
}

fn explain(error: &ProgramError) -> HookError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.raw_os_error() {
                Some(libc::EBUSY | libc::EEXIST) => HookError::Busy,
                Some(libc::ENODEV) => HookError::NoDevice,
                Some(libc::EOPNOTSUPP | libc::ERANGE) => HookError::NoNativeXdp(io.to_string()),
                _ => HookError::Kernel(io.to_string()),
            };
        }
        source = error.source();
    }
    HookError::Kernel(chain(error))
}

impl Hooks for Ports {
    fn attach(
        &mut self,
        bridge: BridgeId,
        number: PortNo,
        ifindex: u32,
        hook: Hook,
    ) -> Result<(), HookError> {
        let slot = self.free_slot().ok_or(HookError::TooMany(MAX_PORTS))?;
        let mut flags = port_flags::PRESENT;
        flags |= if hook == Hook::Xdp { port_flags::XDP } else { 0 };
        flags |= if self.shows_fragments(bridge) { 0 } else { port_flags::HIDES_FRAGMENTS };
        let port = Port { ifindex, slot, number: number.0, bridge: u16::from(bridge.0), flags };
        let base = self.slot_counters(slot);
        // The maps come first, so that the first frame already finds its port.
        let attached = self.publish(&port).and_then(|()| {
            let (xdp, tcx) = self.attach_programs(ifindex, hook)?;
            Ok(Attached { port, base, _xdp: xdp, _tcx: tcx })
        });
        let result = attached.and_then(|attached| {
            self.attached.insert((bridge, number), attached);
            self.publish_list(bridge)
        });
        if result.is_err() {
            self.attached.remove(&(bridge, number));
            self.withdraw(&port);
        }
        result
    }

    fn detach(&mut self, bridge: BridgeId, number: PortNo) {
        let Some(attached) = self.attached.remove(&(bridge, number)) else { return };
        if let Err(error) = self.publish_list(bridge) {
            tracing::warn!(%error, port = number.0, "the port stays in the list for flooding");
        }
        let port = attached.port;
        drop(attached);
        self.withdraw(&port);
    }

    fn shows_fragments(&self, bridge: BridgeId) -> bool {
        self.showing.contains(&bridge)
    }

    fn show_fragments(&mut self, bridge: BridgeId, show: bool) {
        let changed = if show { self.showing.insert(bridge) } else { self.showing.remove(&bridge) };
        if !changed {
            return;
        }
        for ((of, number), attached) in &mut self.attached {
            if *of != bridge {
                continue;
            }
            let port = &mut attached.port;
            port.flags &= !port_flags::HIDES_FRAGMENTS;
            port.flags |= if show { 0 } else { port_flags::HIDES_FRAGMENTS };
            if let Err(error) = self.maps.write(port) {
                tracing::warn!(%error, port = number.0, "its fragments are treated as before");
            }
        }
    }

    fn port_stats(&self, bridge: BridgeId, number: PortNo) -> PortStats {
        let Some(attached) = self.attached.get(&(bridge, number)) else { return PortStats::default() };
        let (now, base) = (self.slot_counters(attached.port.slot), attached.base);
        PortStats {
            rx_packets: now.rx_packets - base.rx_packets,
            rx_bytes: now.rx_bytes - base.rx_bytes,
            rx_dropped: now.rx_dropped - base.rx_dropped,
            tx_packets: now.tx_packets - base.tx_packets,
            tx_bytes: now.tx_bytes - base.tx_bytes,
            tx_dropped: now.tx_dropped - base.tx_dropped,
            ..now
        }
    }
}
