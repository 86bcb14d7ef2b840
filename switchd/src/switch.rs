//! The switch: the datapath, the bridges over it, and each bridge's flow tables.
//!
//! Three locks, never held together but in this order: bridges, flows, counters. The connection table needs
//! none. What a client waits for is short under each: changes of configuration under the first, flow-mods and
//! pieces of dumps under the second.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use appctl::vsctl::{Command, Failure, Outcome};
use ofctl::port::PortNo;
use ofctl::wire::{Port, port_config, port_state};
use switchd_ebpf::drop_reason::DropReason;
use tokio::sync::watch;

use crate::bridges::{BridgeInfo, Bridges, Change, PortInfo, ZonesConfig};
use crate::datapath::{
    Connections, Counters, Datapath, Events, FlowTables, KernelStore, LearnedMac, Policies, Ports, Selection,
    Zones, clock, timeouts,
};
use crate::hooks::{Hooks as _, PortStats};
use crate::netdev::{LinkEvent, LinkModes, Netdevs};
use crate::ofproto::Ofproto;
use crate::openflow::{Backend, BridgeServer};
use crate::rules::{BridgeId, Rules};

/// The switch.
pub struct Switch {
    rundir: PathBuf,
    bridges: Mutex<Bridges<Ports>>,
    flows: Mutex<Flows>,
    counters: Mutex<Counters>,
    servers: Mutex<HashMap<BridgeId, BridgeServer>>,
    connections: Connections,
    zones: Zones,
    policies: Policies,
    events: Arc<Events>,
    sweep_interval: watch::Sender<Duration>,
}

/// How often expired connections are removed, unless told otherwise.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

struct Flows {
    tables: FlowTables<KernelStore>,
    bridges: HashMap<BridgeId, Ofproto>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere has left the data as some statement left them; the switch goes on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a datapath has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Look-ups of tables that found a flow.
    pub hits: u64,
    /// Those that did not.
    pub misses: u64,
    /// Flows in all tables.
    pub flows: u64,
}

impl Switch {
    /// A switch over a datapath, with the bridges of the state file.
    ///
    /// # Errors
    /// The state file cannot be read, in words.
    pub fn open(rundir: PathBuf, state: PathBuf, datapath: Datapath) -> Result<Arc<Self>, String> {
        let devices = Netdevs::open().map_err(|error| format!("network devices: {error}"))?;
        let bridges = Bridges::open(state, datapath.ports, devices).map_err(|error| error.to_string())?;
        let switch = Arc::new(Self {
            rundir,
            bridges: Mutex::new(bridges),
            flows: Mutex::new(Flows { tables: datapath.tables, bridges: HashMap::new() }),
            counters: Mutex::new(datapath.counters),
            servers: Mutex::default(),
            connections: datapath.connections,
            zones: datapath.zones,
            policies: datapath.policies,
            events: datapath.events,
            sweep_interval: watch::Sender::new(SWEEP_INTERVAL),
        });
        switch.follow(&mut lock(&switch.bridges));
        Ok(switch)
    }

    /// Carries out a transaction of `vsctl`.
    ///
    /// # Errors
    /// What the tool is to say; nothing was changed.
    pub fn execute(self: &Arc<Self>, commands: &[Command]) -> Result<Outcome, Failure> {
        let mut bridges = lock(&self.bridges);
        let result = bridges.execute(commands);
        self.follow(&mut bridges);
        result
    }

    /// Takes notice of a change of a network device.
    pub fn link_event(self: &Arc<Self>, event: &LinkEvent) {
        let mut bridges = lock(&self.bridges);
        bridges.link_event(event);
        self.follow(&mut bridges);
    }

    /// Gives new bridges their flow tables and sockets, and takes those of others away.
    fn follow(self: &Arc<Self>, bridges: &mut Bridges<Ports>) {
        for change in bridges.take_changes() {
            match change {
                Change::BridgeAdded(bridge) => {
                    if let Err(error) = self.add_bridge(&bridge) {
                        tracing::error!(bridge = bridge.name, error, "cannot serve OpenFlow");
                    }
                }
                Change::BridgeReset(bridge) => self.reset_flows(&bridge),
                Change::BridgeRemoved(bridge) => self.remove_bridge(bridge.id),
                Change::PortRemoved(bridge, port) => {
                    lock(&self.counters).forget_macs(bridge, |learned| learned.port == port.ofport.0);
                }
                Change::PortAdded(..) | Change::PortChanged(..) => {}
                Change::ZonesChanged(zones) => self.change_zones(&zones.0, &zones.1),
            }
        }
    }

    /// Gives zones the limits and timeouts that are wanted now, where that was different before. Limits that were
    /// given to others at run time stay.
    fn change_zones(&self, before: &ZonesConfig, now: &ZonesConfig) {
        let default = (before.default_limit != now.default_limit).then(|| now.default_limit.unwrap_or(0));
        let limits = differing(&before.limits, &now.limits).map(|(zone, limit)| (zone, limit.copied()));
        self.zones.set_limits(default, &limits.collect::<Vec<_>>());
        for (zone, wanted) in differing(&before.timeouts, &now.timeouts) {
            self.policies.assign(zone, wanted.map(timeouts), &self.zones, &self.connections);
        }
    }

    fn add_bridge(self: &Arc<Self>, bridge: &BridgeInfo) -> Result<(), String> {
        {
            let flows = &mut *lock(&self.flows);
            let ofproto = Ofproto::new(bridge.id, &mut flows.tables);
            flows.bridges.insert(bridge.id, ofproto);
        }
        self.reset_flows(bridge);
        let socket = self.rundir.join(format!("{}.mgmt", bridge.name));
        let server = BridgeServer::start(Arc::clone(self), bridge.id, &socket)
            .map_err(|error| format!("{}: {error}", socket.display()))?;
        lock(&self.servers).insert(bridge.id, server);
        Ok(())
    }

    /// Gives a bridge the flows that it begins with.
    fn reset_flows(&self, bridge: &BridgeInfo) {
        let flows = &mut *lock(&self.flows);
        let Some(ofproto) = flows.bridges.get_mut(&bridge.id) else { return };
        ofproto.clear(&mut flows.tables, self.now());
        if bridge.standalone
            && let Err(error) = ofproto.add_normal(&mut flows.tables, self.now())
        {
            tracing::error!(bridge = bridge.name, %error, "cannot add the flow for NORMAL");
        }
    }

    fn remove_bridge(&self, bridge: BridgeId) {
        lock(&self.servers).remove(&bridge);
        let flows = &mut *lock(&self.flows);
        if let Some(mut ofproto) = flows.bridges.remove(&bridge) {
            ofproto.clear(&mut flows.tables, self.now());
        }
        lock(&self.counters).forget_macs(bridge, |_| true);
    }

    /// Removes expired connections, which nobody finds any more.
    pub fn sweep(&self) {
        let swept = self.connections.sweep();
        if swept > 0 {
            tracing::debug!(swept, "expired connections");
        }
    }

    /// How often [`sweep`](Self::sweep) is to be called; can be set.
    pub fn sweep_interval(&self) -> &watch::Sender<Duration> {
        &self.sweep_interval
    }

    /// What has to be done every few seconds: old MAC addresses go, and ports that do not work are tried again.
    pub fn housekeep(self: &Arc<Self>) {
        lock(&self.counters).age_macs();
        lock(&self.flows).tables.collect();
        self.policies.retry(&self.zones, &self.connections);
        let mut bridges = lock(&self.bridges);
        bridges.retry();
        self.follow(&mut bridges);
    }

    /// Takes all ports from the datapath, and undoes what was done to them.
    pub fn shutdown(&self) {
        lock(&self.servers).clear();
        lock(&self.bridges).shutdown();
    }

    /// The connection table.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The zones of connection tracking, and how many connections there may be.
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// How long connections live.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// What happens to connections.
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// A bridge by its name.
    pub fn bridge(&self, name: &str) -> Option<BridgeId> {
        lock(&self.bridges).bridge_by_name(name).map(|bridge| bridge.id)
    }

    /// Every bridge with its ports.
    pub fn ports_by_bridge(&self) -> Vec<(String, Vec<PortInfo>)> {
        let bridges = lock(&self.bridges);
        bridges.bridges().map(|bridge| (bridge.name.clone(), bridges.ports(bridge.id))).collect()
    }

    /// The MAC addresses that a bridge has learned.
    pub fn macs(&self, bridge: BridgeId) -> Vec<LearnedMac> {
        lock(&self.counters).macs(bridge)
    }

    /// Forgets the MAC addresses of one bridge, or of all.
    pub fn flush_macs(&self, bridge: Option<BridgeId>) {
        let ids: Vec<BridgeId> = match bridge {
            Some(bridge) => vec![bridge],
            None => lock(&self.bridges).bridges().map(|bridge| bridge.id).collect(),
        };
        let mut counters = lock(&self.counters);
        ids.into_iter().for_each(|bridge| counters.forget_macs(bridge, |_| true));
    }

    /// Packets dropped, by reason.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        lock(&self.counters).drops()
    }

    /// What the datapath has done so far.
    pub fn totals(&self) -> Totals {
        let flows = lock(&self.flows);
        let mut totals = Totals::default();
        for ofproto in flows.bridges.values() {
            for table in ofproto.table_stats(&flows.tables) {
                totals.hits += table.matched;
                totals.misses += table.lookups - table.matched.min(table.lookups);
                totals.flows += u64::from(table.active);
            }
        }
        totals
    }
}

impl Backend for Switch {
    fn with_tables<T>(
        &self,
        bridge: BridgeId,
        f: impl FnOnce(&mut Ofproto, &mut dyn Rules) -> T,
    ) -> Option<T> {
        let flows = &mut *lock(&self.flows);
        flows.bridges.get_mut(&bridge).map(|ofproto| f(ofproto, &mut flows.tables))
    }

    fn datapath_id(&self, bridge: BridgeId) -> u64 {
        let bridges = lock(&self.bridges);
        bridges.bridges().find(|info| info.id == bridge).map_or(0, |info| info.datapath_id)
    }

    fn ports(&self, bridge: BridgeId) -> Vec<Port> {
        lock(&self.bridges).ports(bridge).into_iter().map(openflow_port).collect()
    }

    fn shows_fragments(&self, bridge: BridgeId) -> bool {
        lock(&self.bridges).hooks().shows_fragments(bridge)
    }

    fn show_fragments(&self, bridge: BridgeId, show: bool) {
        lock(&self.bridges).hooks_mut().show_fragments(bridge, show);
    }

    fn port_stats(&self, bridge: BridgeId, port: PortNo) -> PortStats {
        lock(&self.bridges).port_stats(bridge, port)
    }

    fn flush_connections(&self, which: &Selection) {
        self.connections.flush(|record| which.fits(record));
    }

    fn now(&self) -> Duration {
        // Whole milliseconds, which is what OVS counts in and users expect to see.
        Duration::from_millis(clock::now().as_millis() as u64)
    }
}

/// The zones of which something else is said than before, and what is said now.
fn differing<'a, T: PartialEq>(
    before: &'a BTreeMap<u16, T>,
    now: &'a BTreeMap<u16, T>,
) -> impl Iterator<Item = (u16, Option<&'a T>)> {
    let zones: BTreeSet<u16> = before.keys().chain(now.keys()).copied().collect();
    let said = |zone| (zone, before.get(&zone), now.get(&zone));
    zones.into_iter().map(said).filter(|(_, before, now)| before != now).map(|(zone, _, now)| (zone, now))
}

/// Link modes are numbered as in OpenFlow 1.0; later versions have put faster rates in between.
fn port_features(modes: LinkModes) -> u32 {
    modes.0 & 0x7f | (modes.0 & !0x7f) << 4
}

fn openflow_port(port: PortInfo) -> Port {
    Port {
        number: port.ofport,
        hw_addr: port.mac,
        name: port.name,
        config: if port.admin_down { port_config::PORT_DOWN } else { 0 },
        state: if port.link_down { port_state::LINK_DOWN } else { 0 },
        current: port_features(port.media.current),
        advertised: port_features(port.media.advertised),
        supported: port_features(port.media.supported),
        peer: 0,
    }
}

/// Follows changes of network devices, for as long as the switch serves.
///
/// # Errors
/// The kernel's, if it can no longer be listened to.
pub async fn watch_links(switch: Arc<Switch>, mut watch: crate::netdev::LinkWatch) -> io::Result<()> {
    loop {
        let event = watch.next().await?;
        let switch = Arc::clone(&switch);
        // Attaching takes the kernel some milliseconds.
        tokio::task::spawn_blocking(move || switch.link_event(&event)).await.map_err(io::Error::other)?;
    }
}
