//! One port of a bridge: attaching its device to the datapath, and keeping up with the device.

use ofctl::port::PortNo;

use super::prepared::PreparedFile;
use crate::hooks::{Hook, HookError, Hooks};
use crate::netdev::{Devices, Link, Media, PrepareError, Prepared};
use crate::rules::BridgeId;

/// A port as OpenFlow tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its number.
    pub ofport: PortNo,
    /// Its device's name.
    pub name: String,
    /// Its device's Ethernet address.
    pub mac: [u8; 6],
    /// Its device's index; `None` for a local port, which has no device.
    pub ifindex: Option<u32>,
    /// The largest payload of a frame, in bytes; 0 for a local port.
    pub mtu: u32,
    /// Set down (OFPPC_PORT_DOWN).
    pub admin_down: bool,
    /// Without a carrier (OFPPS_LINK_DOWN).
    pub link_down: bool,
    /// Speed and modes.
    pub media: Media,
    /// What serves it; `None` for a local port.
    pub hook: Option<Hook>,
}

/// A port, with or without its device.
pub(super) struct Port {
    pub(super) name: String,
    pub(super) ofport: PortNo,
    /// The hook that the bridge is for.
    pub(super) wanted: Hook,
    state: State,
}

enum State {
    Down {
        error: String,
        /// The device that could not be served, as it was then: no second attempt before it changes.
        refused: Option<Link>,
    },
    Up(Attached),
}

struct Attached {
    link: Link,
    media: Media,
    hook: Hook,
    /// Why the hook is not the one that the bridge is for.
    note: Option<String>,
    prepared: Prepared,
}

/// The rest of the system, as a port sees it.
pub(super) struct System<'a, H, D> {
    pub(super) hooks: &'a mut H,
    pub(super) devices: &'a mut D,
    /// Where what is done to peers is noted before it is done.
    pub(super) prepared: &'a mut PreparedFile,
    pub(super) bridge: BridgeId,
}

impl<H, D: Devices> System<'_, H, D> {
    fn prepare(&mut self, link: &Link) -> Result<Prepared, PrepareError> {
        let Self { devices, prepared, .. } = self;
        devices.prepare(link, &mut |planned| prepared.add(planned))
    }
}

impl Port {
    /// A port whose device has not been looked for.
    pub(super) fn new(name: &str, ofport: PortNo, wanted: Hook) -> Self {
        let error = no_device(name);
        Self { name: name.to_owned(), ofport, wanted, state: State::Down { error, refused: None } }
    }

    /// Why the port does not work.
    pub(super) fn error(&self) -> Option<&str> {
        match &self.state {
            State::Down { error, .. } => Some(error),
            State::Up(_) => None,
        }
    }

    /// Why the port is served by tcx on a bridge that is for XDP.
    pub(super) fn note(&self) -> Option<&str> {
        match &self.state {
            State::Down { .. } => None,
            State::Up(attached) => attached.note.as_deref(),
        }
    }

    /// What was done to its peer, if anything.
    pub(super) fn prepared(&self) -> Option<&Prepared> {
        match &self.state {
            State::Up(attached) if !attached.prepared.is_unchanged() => Some(&attached.prepared),
            State::Up(_) | State::Down { .. } => None,
        }
    }

    /// What OpenFlow tells of it; nothing while it does not work.
    pub(super) fn info(&self) -> Option<PortInfo> {
        let State::Up(Attached { link, media, hook, .. }) = &self.state else { return None };
        Some(PortInfo {
            ofport: self.ofport,
            name: self.name.clone(),
            mac: link.mac,
            ifindex: Some(link.ifindex),
            mtu: link.mtu,
            admin_down: !link.admin_up,
            link_down: !link.carrier,
            media: *media,
            hook: Some(*hook),
        })
    }

    /// The device it is attached to.
    pub(super) fn ifindex(&self) -> Option<u32> {
        match &self.state {
            State::Down { .. } => None,
            State::Up(attached) => Some(attached.link.ifindex),
        }
    }

    /// Looks at the device again, and attaches, detaches or just takes note.
    pub(super) fn reconcile<H: Hooks, D: Devices>(&mut self, system: &mut System<'_, H, D>) {
        let found = system.devices.link(&self.name);
        let error = match &found {
            Ok(_) => no_device(&self.name),
            Err(error) => format!("could not open network device {} ({error})", self.name),
        };
        match (found.unwrap_or(None), &mut self.state) {
            (Some(link), State::Up(attached)) if attached.link.ifindex == link.ifindex => {
                if attached.link != link {
                    attached.media = system.devices.media(&link.name);
                    attached.link = link;
                }
            }
            (Some(link), State::Down { refused: Some(refused), .. }) if *refused == link => {}
            (Some(link), _) => {
                self.close(system);
                self.attach(link, system);
            }
            (None, _) => {
                self.close(system);
                self.state = State::Down { error, refused: None };
            }
        }
    }

    /// Whether XDP serves a device that has a carrier.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(&self.state, State::Up(attached) if attached.hook == Hook::Xdp && attached.link.carrier)
    }

    /// Looks whether the peer is still fit for XDP, and prepares it anew if somebody has changed that: all frames to it
    /// would be lost.
    pub(super) fn keep_fit<H, D: Devices>(&mut self, system: &mut System<'_, H, D>) {
        let State::Up(attached) = &mut self.state else { return };
        match system.prepare(&attached.link) {
            Ok(again) if again.is_unchanged() => {}
            Ok(again) => {
                tracing::warn!(port = self.name, "peer was changed, and is prepared for XDP again: {again}");
                attached.prepared.extend(again);
            }
            Err(reason) => tracing::debug!(port = self.name, "{reason}"),
        }
    }

    /// Takes the datapath off the device, and undoes what was done to its peer.
    pub(super) fn close<H: Hooks, D: Devices>(&mut self, system: &mut System<'_, H, D>) {
        let down = State::Down { error: no_device(&self.name), refused: None };
        let State::Up(attached) = std::mem::replace(&mut self.state, down) else { return };
        system.hooks.detach(system.bridge, self.ofport);
        self.undo(&attached.prepared, system);
    }

    fn attach<H: Hooks, D: Devices>(&mut self, link: Link, system: &mut System<'_, H, D>) {
        let result = match self.wanted {
            _ if !link.ethernet => Err(HookError::NotEthernet),
            Hook::Xdp => self.attach_xdp(&link, system),
            Hook::Tcx => self.attach_tcx(&link, None, system),
        };
        self.state = match result {
            Ok((hook, note, prepared)) => {
                if let Some(note) = &note {
                    tracing::warn!(port = self.name, "served by tcx: {note}");
                }
                let media = system.devices.media(&link.name);
                // Attaching changed the link itself (an XDP program is there now).
                let link = system.devices.link(&self.name).ok().flatten().unwrap_or(link);
                State::Up(Attached { link, media, hook, note, prepared })
            }
            Err(HookError::NoDevice) => State::Down { error: no_device(&self.name), refused: None },
            Err(error) => {
                let error = format!("could not add network device {} to ofproto ({error})", self.name);
                let now = system.devices.link(&self.name).ok().flatten();
                State::Down { error, refused: now }
            }
        };
    }

    /// XDP if the device can be prepared for it and takes it, else tcx.
    fn attach_xdp<H: Hooks, D: Devices>(
        &self,
        link: &Link,
        system: &mut System<'_, H, D>,
    ) -> Result<(Hook, Option<String>, Prepared), HookError> {
        let prepared = match system.prepare(link) {
            Ok(prepared) => prepared,
            Err(reason) => return self.attach_tcx(link, Some(reason.to_string()), system),
        };
        match system.hooks.attach(system.bridge, self.ofport, link.ifindex, Hook::Xdp) {
            Ok(()) => {
                if !prepared.is_unchanged() {
                    tracing::info!(port = self.name, "peer prepared for XDP: {prepared}");
                }
                Ok((Hook::Xdp, None, prepared))
            }
            Err(reason) => {
                self.undo(&prepared, system);
                match reason {
                    HookError::NoNativeXdp(_) | HookError::Kernel(_) => {
                        self.attach_tcx(link, Some(reason.to_string()), system)
                    }
                    HookError::Busy
                    | HookError::NoDevice
                    | HookError::NotEthernet
                    | HookError::TooMany(_) => Err(reason),
                }
            }
        }
    }

    fn attach_tcx<H: Hooks, D: Devices>(
        &self,
        link: &Link,
        note: Option<String>,
        system: &mut System<'_, H, D>,
    ) -> Result<(Hook, Option<String>, Prepared), HookError> {
        system.hooks.attach(system.bridge, self.ofport, link.ifindex, Hook::Tcx)?;
        Ok((Hook::Tcx, note, Prepared::default()))
    }

    fn undo<H, D: Devices>(&self, prepared: &Prepared, system: &mut System<'_, H, D>) {
        if let Err(error) = system.devices.undo(prepared) {
            tracing::warn!(port = self.name, "{prepared} could not be undone: {error}");
        }
    }
}

fn no_device(name: &str) -> String {
    format!("could not open network device {name} (No such device)")
}
