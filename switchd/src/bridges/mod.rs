//! The switch's bridges and ports: the configuration that users change through `vsctl`, kept in a state file,
//! and its realisation on the devices there are.

mod config;
mod port;
mod prepared;
mod show;
mod state;
mod transaction;
mod zones;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use appctl::vsctl::{Command, FailMode, Failure, InterfaceColumn, Outcome};
use ofctl::port::PortNo;

pub use config::{BRIDGES_MAX, BridgeConfig, Config, Invalid, PortConfig, ZonesConfig};
pub use port::PortInfo;
pub use state::{StateError, StateFile};

use crate::hooks::{Hooks, PortStats};
use crate::netdev::{Devices, LinkEvent, Media, Netdevs};
use crate::rules::BridgeId;
use port::{Port, System};
use prepared::PreparedFile;
use transaction::{Output, Refusal};

/// Something that others have to know about. Changes are told in the order they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a new bridge.
    BridgeAdded(BridgeInfo),
    /// A bridge's flows are to be as at its beginning: [`BridgeInfo::standalone`] has changed.
    BridgeReset(BridgeInfo),
    /// A bridge is gone, after its ports.
    BridgeRemoved(BridgeInfo),
    /// A port works from now on.
    PortAdded(BridgeId, PortInfo),
    /// A port works no more, or is gone.
    PortRemoved(BridgeId, PortInfo),
    /// A port that works has changed.
    PortChanged(BridgeId, PortInfo),
    /// What is wanted of the zones of connection tracking has changed, from the first to the second.
    ZonesChanged(Box<(ZonesConfig, ZonesConfig)>),
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeInfo {
    /// Its number in the datapath.
    pub id: BridgeId,
    /// Its name.
    pub name: String,
    /// Its OpenFlow datapath id.
    pub datapath_id: u64,
    /// Its local port's Ethernet address.
    pub mac: [u8; 6],
    /// It has one flow to begin with, `priority=0 actions=NORMAL`; else none.
    pub standalone: bool,
}

/// All bridges, over a datapath and the system's devices.
///
/// Nothing here locks or spawns. Methods that change something block for as long as the kernel takes to look
/// devices up, prepare and attach them. What they changed is fetched by [`take_changes`](Self::take_changes).
pub struct Bridges<H: Hooks, D: Devices = Netdevs> {
    config: Config,
    file: StateFile,
    prepared: PreparedFile,
    running: Vec<Bridge>,
    changes: Vec<Change>,
    hooks: H,
    devices: D,
    /// Ports, from the first one on, that have had their turn to be looked after.
    looked_after: usize,
}

/// How many ports are looked after at once: each takes the time to find its peer's namespace, a millisecond or so.
const AT_ONCE: usize = 16;

/// A bridge that has been realised.
struct Bridge {
    info: BridgeInfo,
    ports: Vec<Port>,
}

impl<H: Hooks, D: Devices> Bridges<H, D> {
    /// Loads the configuration (an empty one is made where there is none) and realises it.
    ///
    /// To miss no device, open the [`LinkWatch`](crate::netdev::LinkWatch) before.
    ///
    /// # Errors
    /// The state file cannot be read, written or understood; nothing has been changed then.
    pub fn open(state_file: impl Into<PathBuf>, hooks: H, devices: D) -> Result<Self, StateError> {
        let file = StateFile::new(state_file);
        let prepared = PreparedFile::beside(file.path());
        let config = match file.load()? {
            Some(config) => config,
            None => file.create()?,
        };
        let mut bridges = Self {
            config,
            file,
            prepared,
            running: Vec::new(),
            changes: Vec::new(),
            hooks,
            devices,
            looked_after: 0,
        };
        bridges.undo_left_over();
        bridges.zones_changed(ZonesConfig::default());
        bridges.realise();
        Ok(bridges)
    }

    /// Carries out a `vsctl` transaction: all of its commands or, with an error, none.
    ///
    /// # Errors
    /// What `vsctl` is to print and to end with.
    pub fn execute(&mut self, commands: &[Command]) -> Result<Outcome, Failure> {
        let mut next = self.config.clone();
        let outputs = transaction::run(&mut next, commands)?;
        if next != self.config {
            self.file.save(&next).map_err(Refusal::from)?;
            let before = std::mem::replace(&mut self.config, next).zones;
            self.zones_changed(before);
            self.realise();
        }
        Ok(Outcome {
            outputs: outputs.into_iter().map(|output| self.print(output)).collect(),
            warnings: commands.iter().filter_map(|command| self.warning(command)).collect(),
        })
    }

    /// Follows a device that appeared, changed or is gone.
    pub fn link_event(&mut self, event: &LinkEvent) {
        let Self { running, changes, hooks, devices, prepared, .. } = self;
        for Bridge { info, ports } in running {
            let system = &mut System { hooks, devices, prepared, bridge: info.id };
            for port in ports.iter_mut().filter(|port| port.name == event.name()) {
                // What comes back under the same index is attached anew, for it may have lost its programs.
                let lost =
                    matches!(event, LinkEvent::Gone { ifindex, .. } if port.ifindex() == Some(*ifindex));
                if lost {
                    track(port, info.id, changes, |port| port.close(system));
                }
                track(port, info.id, changes, |port| port.reconcile(system));
            }
        }
        self.keep_prepared();
    }

    /// Tries ports again that do not work, and looks after some of those that do. What kept a port may have gone without
    /// an event, as another's XDP program does; of a device that is as it was, nothing is tried. What is done to a peer
    /// in its namespace is no event here either.
    pub fn retry(&mut self) {
        self.keep_fit();
        let Self { running, changes, hooks, devices, prepared, .. } = self;
        for Bridge { info, ports } in running {
            let system = &mut System { hooks, devices, prepared, bridge: info.id };
            for port in ports.iter_mut().filter(|port| port.error().is_some()) {
                track(port, info.id, changes, |port| port.reconcile(system));
            }
        }
        self.keep_prepared();
    }

    /// Looks after the next ports in turn.
    fn keep_fit(&mut self) {
        let Self { running, hooks, devices, prepared, looked_after, .. } = self;
        let ports = running.iter_mut().flat_map(|Bridge { info, ports }| {
            let id = info.id;
            ports.iter_mut().filter(|port| port.is_in_use()).map(move |port| (id, port))
        });
        let mut ports: Vec<_> = ports.collect();
        let first = looked_after.checked_rem(ports.len()).unwrap_or(0);
        ports.rotate_left(first);
        for (bridge, port) in ports.into_iter().take(AT_ONCE) {
            port.keep_fit(&mut System { hooks, devices, prepared, bridge });
        }
        *looked_after = first + AT_ONCE;
    }

    /// Detaches all ports and undoes what was done to their peers, as dropping does. The configuration stays.
    pub fn shutdown(&mut self) {
        let Self { running, changes, hooks, devices, prepared, .. } = self;
        for bridge in running.drain(..) {
            bridge.close(changes, hooks, devices, prepared);
        }
        self.keep_prepared();
    }

    /// What has happened since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// All bridges, in the order they were added.
    pub fn bridges(&self) -> impl Iterator<Item = &BridgeInfo> {
        self.running.iter().map(|bridge| &bridge.info)
    }

    /// A bridge by name.
    pub fn bridge_by_name(&self, name: &str) -> Option<&BridgeInfo> {
        self.bridges().find(|info| info.name == name)
    }

    /// A bridge's ports that work, by number, and the local port last; none for a bridge that there is not.
    pub fn ports(&self, bridge: BridgeId) -> Vec<PortInfo> {
        let Some(bridge) = self.running(bridge) else { return Vec::new() };
        let mut ports: Vec<PortInfo> = bridge.ports.iter().filter_map(Port::info).collect();
        ports.push(bridge.info.local_port());
        ports.sort_by_key(|port| port.ofport);
        ports
    }

    /// A port's number; that of a port that does not work at present too, for flows may name it already.
    pub fn port_by_name(&self, bridge: BridgeId, name: &str) -> Option<PortNo> {
        let bridge = self.running(bridge)?;
        let port = bridge.ports.iter().find(|port| port.name == name).map(|port| port.ofport);
        port.or_else(|| (bridge.info.name == name).then_some(PortNo::LOCAL))
    }

    /// The names of all ports of a bridge, the local one's included, with their numbers.
    pub fn port_names(&self, bridge: BridgeId) -> Vec<(PortNo, String)> {
        let Some(bridge) = self.running(bridge) else { return Vec::new() };
        let ports = bridge.ports.iter().map(|port| (port.ofport, port.name.clone()));
        ports.chain([(PortNo::LOCAL, bridge.info.name.clone())]).collect()
    }

    /// A port's counters.
    pub fn port_stats(&self, bridge: BridgeId, port: PortNo) -> PortStats {
        self.hooks.port_stats(bridge, port)
    }

    /// The datapath.
    pub fn hooks(&self) -> &H {
        &self.hooks
    }

    /// The datapath.
    pub fn hooks_mut(&mut self) -> &mut H {
        &mut self.hooks
    }

    /// Notes whether what is wanted of zones is no longer what it was before.
    fn zones_changed(&mut self, before: ZonesConfig) {
        let now = self.config.zones.clone();
        if before != now {
            self.changes.push(Change::ZonesChanged(Box::new((before, now))));
        }
    }

    fn running(&self, id: BridgeId) -> Option<&Bridge> {
        self.running.iter().find(|bridge| bridge.info.id == id)
    }

    /// Makes what runs equal to the configuration: first takes away, then adds.
    fn realise(&mut self) {
        let Self { config, running, changes, hooks, devices, prepared, .. } = self;

        for mut bridge in std::mem::take(running) {
            match config.bridges.iter().find(|wanted| bridge.info.is(wanted)) {
                Some(wanted) => {
                    let info = BridgeInfo::from(wanted);
                    if bridge.info != info {
                        bridge.info = info.clone();
                        changes.push(Change::BridgeReset(info));
                    }
                    bridge.retain_ports(wanted, changes, hooks, devices, prepared);
                    running.push(bridge);
                }
                None => bridge.close(changes, hooks, devices, prepared),
            }
        }

        for wanted in &config.bridges {
            let place = running.iter().position(|bridge| bridge.info.id == wanted.id());
            let place = place.unwrap_or_else(|| {
                changes.push(Change::BridgeAdded(wanted.into()));
                running.push(Bridge { info: wanted.into(), ports: Vec::new() });
                running.len() - 1
            });
            running[place].add_ports(wanted, changes, hooks, devices, prepared);
        }
        self.keep_prepared();
    }

    /// Undoes what a daemon that was killed has done to peers, so that what is found there is theirs again.
    fn undo_left_over(&mut self) {
        for prepared in self.prepared.load() {
            match self.devices.undo(&prepared) {
                Ok(()) => tracing::info!("undone, after a daemon that was killed: {prepared}"),
                Err(error) => tracing::warn!("{prepared} could not be undone: {error}"),
            }
        }
    }

    /// Notes on disk what is to be undone, should this daemon be killed.
    fn keep_prepared(&mut self) {
        let ports = self.running.iter().flat_map(|bridge| &bridge.ports);
        self.prepared.save(ports.filter_map(Port::prepared).cloned().collect());
    }

    fn print(&self, output: Output) -> String {
        match output {
            Output::Text(text) => text,
            Output::Show => self.show(),
            Output::Interface(name, columns) => {
                columns.iter().map(|column| self.interface_column(&name, *column) + "\n").collect()
            }
        }
    }

    fn show(&self) -> String {
        let mut bridges: Vec<_> = self.config.bridges.iter().map(|bridge| self.shown(bridge)).collect();
        bridges.sort_by_key(|bridge| bridge.name);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = show::show(&mut text, &self.config.uuid, &bridges);
        text
    }

    fn shown<'a>(&'a self, bridge: &'a BridgeConfig) -> show::Bridge<'a> {
        let ports = self.running(bridge.id()).map_or(&[][..], |running| &running.ports);
        let port = |port: &'a Port| show::Port { name: &port.name, error: port.error(), note: port.note() };
        show::Bridge {
            name: &bridge.name,
            fail_mode: bridge.fail_mode,
            datapath_type: bridge.datapath_type,
            ports: ports.iter().map(port).collect(),
        }
    }

    fn port(&self, name: &str) -> Option<&Port> {
        self.running.iter().flat_map(|bridge| &bridge.ports).find(|port| port.name == name)
    }

    fn interface_column(&self, name: &str, column: InterfaceColumn) -> String {
        let port = self.port(name);
        match column {
            InterfaceColumn::Ofport => match port {
                Some(port) if port.error().is_some() => "-1".to_owned(),
                Some(port) => port.ofport.0.to_string(),
                None if self.bridge_by_name(name).is_some() => PortNo::LOCAL.0.to_string(),
                None => "[]".to_owned(),
            },
            InterfaceColumn::OfportRequest => {
                let request = self.config.port(name).and_then(|(_, port)| port.ofport_request);
                request.map_or_else(|| "[]".to_owned(), |number| number.to_string())
            }
        }
    }

    /// What a user who adds a port is told when it does not work (yet).
    fn warning(&self, command: &Command) -> Option<String> {
        let Command::AddPort { port, .. } = command else { return None };
        let error = self.port(port)?.error()?;
        Some(format!("Error detected while setting up '{port}': {error}.  See switchd log for details."))
    }
}

impl<H: Hooks, D: Devices> Drop for Bridges<H, D> {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Bridge {
    /// Closes the ports that are to be different, or not to be at all.
    fn retain_ports<H: Hooks, D: Devices>(
        &mut self,
        wanted: &BridgeConfig,
        changes: &mut Vec<Change>,
        hooks: &mut H,
        devices: &mut D,
        prepared: &mut PreparedFile,
    ) {
        let system = &mut System { hooks, devices, prepared, bridge: self.info.id };
        self.ports.retain_mut(|port| {
            let stays = port.wanted == wanted.hook()
                && wanted.port(&port.name).is_some_and(|wanted| wanted.ofport == Some(port.ofport.0));
            if !stays {
                track(port, self.info.id, changes, |port| port.close(system));
            }
            stays
        });
    }

    /// Opens the ports that are not there yet.
    fn add_ports<H: Hooks, D: Devices>(
        &mut self,
        wanted: &BridgeConfig,
        changes: &mut Vec<Change>,
        hooks: &mut H,
        devices: &mut D,
        prepared: &mut PreparedFile,
    ) {
        let system = &mut System { hooks, devices, prepared, bridge: self.info.id };
        for config in &wanted.ports {
            // A complete transaction leaves no port without a number.
            let Some(ofport) = config.ofport.map(PortNo) else { continue };
            if self.ports.iter().any(|port| port.name == config.name) {
                continue;
            }
            let mut port = Port::new(&config.name, ofport, wanted.hook());
            track(&mut port, self.info.id, changes, |port| port.reconcile(system));
            self.ports.push(port);
        }
        self.ports.sort_by_key(|port| port.ofport);
    }

    fn close<H: Hooks, D: Devices>(
        mut self,
        changes: &mut Vec<Change>,
        hooks: &mut H,
        devices: &mut D,
        prepared: &mut PreparedFile,
    ) {
        let system = &mut System { hooks, devices, prepared, bridge: self.info.id };
        for port in &mut self.ports {
            track(port, self.info.id, changes, |port| port.close(system));
        }
        // Another bridge may get this number.
        hooks.show_fragments(self.info.id, false);
        changes.push(Change::BridgeRemoved(self.info));
    }
}

impl BridgeInfo {
    /// Whether this is what a configuration means, and not another bridge in its place.
    fn is(&self, config: &BridgeConfig) -> bool {
        self.id == config.id() && self.name == config.name && self.mac == config.mac
    }

    /// The local port. It has no device: nothing is sent or received there.
    fn local_port(&self) -> PortInfo {
        PortInfo {
            ofport: PortNo::LOCAL,
            name: self.name.clone(),
            mac: self.mac,
            ifindex: None,
            mtu: 0,
            admin_down: true,
            link_down: true,
            media: Media::default(),
            hook: None,
        }
    }
}

impl From<&BridgeConfig> for BridgeInfo {
    fn from(config: &BridgeConfig) -> Self {
        Self {
            id: config.id(),
            name: config.name.clone(),
            datapath_id: config.datapath_id(),
            mac: config.mac,
            standalone: config.fail_mode != Some(FailMode::Secure),
        }
    }
}

/// Does something to a port, and notes what became of it.
fn track(port: &mut Port, bridge: BridgeId, changes: &mut Vec<Change>, work: impl FnOnce(&mut Port)) {
    let before = port.info();
    work(port);
    match (before, port.info()) {
        (None, Some(now)) => changes.push(Change::PortAdded(bridge, now)),
        (Some(before), None) => changes.push(Change::PortRemoved(bridge, before)),
        (Some(before), Some(now)) if before.ifindex != now.ifindex => {
            changes.push(Change::PortRemoved(bridge, before));
            changes.push(Change::PortAdded(bridge, now));
        }
        (Some(before), Some(now)) if before != now => changes.push(Change::PortChanged(bridge, now)),
        _ => {}
    }
}
