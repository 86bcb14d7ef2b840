//! Making a veth's peer fit for native XDP on the veth.
//!
//! Frames that enter or leave a veth by XDP are bare bytes; three offloads of the peer would damage them:
//! - without GRO (or an XDP program of its own) the peer has no NAPI, and the kernel drops every frame that
//!   is redirected to it (`veth_xdp_xmit`);
//! - with transmit checksumming "offloaded", the peer's local senders leave the checksum to a later stage
//!   that XDP never reaches;
//! - with VLAN insertion "offloaded", tags travel beside the frame, where XDP neither sees nor keeps them.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use super::Netdevs;
use super::ethtool::{Ethtool, Feature};
use super::link::{Link, LowerLink};
use super::netns::{self, Netns, NetnsId};

/// What XDP needs of a peer: the kernel's features, with the offload of `ethtool -K` that each is part of.
const NEEDED: [Need; 8] = [
    Need { feature: "rx-gro", offload: "gro", on: true },
    Need { feature: "tx-checksum-ip-generic", offload: "tx", on: false },
    Need { feature: "tx-checksum-ipv4", offload: "tx", on: false },
    Need { feature: "tx-checksum-ipv6", offload: "tx", on: false },
    Need { feature: "tx-checksum-fcoe-crc", offload: "tx", on: false },
    Need { feature: "tx-checksum-sctp", offload: "tx", on: false },
    Need { feature: "tx-vlan-hw-insert", offload: "txvlan", on: false },
    Need { feature: "tx-vlan-stag-hw-insert", offload: "txvlan", on: false },
];

struct Need {
    feature: &'static str,
    offload: &'static str,
    on: bool,
}

/// What was done to make a device fit for XDP, and how it was before.
///
/// It names the peer's namespace without holding it: a user who deletes the namespace finds it gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    changes: Option<Changes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Changes {
    device: u32,
    peer: Peer,
    before: Vec<Feature>,
}

/// A veth's peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    ifindex: u32,
    name: String,
    /// `None`: the daemon's own namespace.
    netns: Option<(NetnsId, String)>,
}

impl Prepared {
    /// Whether nothing had to be changed.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.changes.is_none()
    }

    /// Adds what was changed once more, because somebody had changed it since.
    pub fn extend(&mut self, again: Self) {
        match (&mut self.changes, again.changes) {
            (Some(changes), Some(again)) => {
                changes.peer = again.peer;
                let new = again
                    .before
                    .into_iter()
                    .filter(|(name, _)| changes.before.iter().all(|(own, _)| own != name));
                let new: Vec<Feature> = new.collect();
                changes.before.extend(new);
            }
            (changes, Some(again)) => *changes = Some(again),
            (_, None) => {}
        }
    }
}

impl fmt::Display for Prepared {
    /// `veth_l1 in left: tx-checksum-ip-generic off, rx-gro on`, empty when nothing was changed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Changes { peer, before, .. }) = &self.changes else { return Ok(()) };
        write!(f, "{peer}:")?;
        for (place, (feature, on)) in before.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma} {feature} {}", on_off(!on))?;
        }
        Ok(())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Some((_, netns)) => write!(f, "{} in {netns}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Why a peer cannot be made fit.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is in no namespace that a mount or a process leads to.
    #[error("peer's namespace cannot be found")]
    NoNamespace,
    /// Its namespace does not let us in.
    #[error("peer's namespace {netns} cannot be entered ({source})")]
    Enter {
        /// The namespace.
        netns: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It vanished meanwhile.
    #[error("peer cannot be found")]
    NoPeer,
    /// An offload stayed as it was.
    #[error("could not turn {offload} {} on peer {peer}", on_off(*on))]
    Refused {
        /// The offload, as `ethtool -K` calls it.
        offload: &'static str,
        /// How it should be.
        on: bool,
        /// The peer.
        peer: String,
    },
    /// The device itself could not be set down and up again.
    #[error("could not be set down and up ({0})")]
    Reopen(io::Error),
    /// The kernel refused a request.
    #[error("peer's offloads cannot be handled ({0})")]
    Io(#[from] io::Error),
}

/// See [`Devices::prepare`](super::Devices::prepare).
pub(super) fn prepare(
    own: &mut Netdevs,
    link: &Link,
    note: &mut dyn FnMut(&Prepared),
) -> Result<Prepared, PrepareError> {
    if !link.is_veth() {
        return Ok(Prepared::default());
    }
    let lower = link.lower.ok_or(PrepareError::NoPeer)?;
    let (prepared, is_up) = on_peer(own, lower, |netdevs, peer| {
        let was_up = is_up(netdevs, peer.ifindex)?;
        let before = unfit(&netdevs.ethtool, peer)?;
        if before.is_empty() {
            return Ok((Prepared::default(), was_up));
        }
        let changes = Changes { device: link.ifindex, peer: peer.clone(), before };
        let prepared = Prepared { changes: Some(changes.clone()) };
        note(&prepared);
        make_fit(&netdevs.ethtool, peer, &changes.before)?;
        Ok((prepared, was_up && is_up(netdevs, peer.ifindex)?))
    })?;
    if !is_up && let Err(error) = reopen(own, link.ifindex) {
        // It fails already; that this cannot be undone either would be no news.
        let _ = undo(own, &prepared);
        return Err(PrepareError::Reopen(error));
    }
    Ok(prepared)
}

fn is_up(netdevs: &mut Netdevs, ifindex: u32) -> io::Result<bool> {
    Ok(netdevs.rtnl.link_by_index(ifindex)?.is_some_and(|link| link.admin_up))
}

/// Has the kernel look again whether frames can be redirected to a device: while its peer is down, it takes no note of
/// the peer's features (`veth_set_features`), but when the device is set up (`veth_open`). No frame is lost, as there is
/// no carrier.
fn reopen(own: &mut Netdevs, ifindex: u32) -> io::Result<()> {
    if is_up(own, ifindex)? {
        own.rtnl.set_up(ifindex, false)?;
        own.rtnl.set_up(ifindex, true)?;
    }
    Ok(())
}

/// See [`Devices::undo`](super::Devices::undo).
pub(super) fn undo(own: &mut Netdevs, prepared: &Prepared) -> Result<(), PrepareError> {
    let Some(Changes { device, peer, before }) = &prepared.changes else { return Ok(()) };
    // Where the peer is now, if the device is still here to tell; else where it was.
    let lower = own.rtnl.link_by_index(*device)?.filter(Link::is_veth).and_then(|link| link.lower);
    let restore = |netdevs: &mut Netdevs, now: &Peer| {
        netdevs.ethtool.set_features(&now.name, before).map_err(PrepareError::from)
    };
    let restored = match lower {
        Some(lower) if lower.ifindex == peer.ifindex => on_peer(own, lower, restore),
        _ => on_former_peer(own, peer, restore),
    };
    match restored {
        Err(PrepareError::NoNamespace | PrepareError::NoPeer) => Ok(()),
        other => other,
    }
}

/// Runs a function on a veth's peer, in the peer's namespace.
fn on_peer<T>(
    own: &mut Netdevs,
    lower: LowerLink,
    work: impl FnOnce(&mut Netdevs, &Peer) -> Result<T, PrepareError>,
) -> Result<T, PrepareError> {
    let Some(nsid) = lower.nsid else {
        let peer = peer_in(own, lower.ifindex, None)?;
        return work(own, &peer);
    };
    let netns = netns::reachable()
        .find(|netns| own.rtnl.nsid(netns.file.as_fd()).is_ok_and(|id| id == Some(nsid)))
        .ok_or(PrepareError::NoNamespace)?;
    in_netns(&netns, lower.ifindex, work)
}

/// Runs a function on what was a veth's peer, in the namespace where it was.
fn on_former_peer<T>(
    own: &mut Netdevs,
    peer: &Peer,
    work: impl FnOnce(&mut Netdevs, &Peer) -> Result<T, PrepareError>,
) -> Result<T, PrepareError> {
    let Some((id, _)) = &peer.netns else {
        let peer = peer_in(own, peer.ifindex, None)?;
        return work(own, &peer);
    };
    let netns = netns::reachable().find(|netns| netns.id == *id).ok_or(PrepareError::NoNamespace)?;
    in_netns(&netns, peer.ifindex, work)
}

fn in_netns<T>(
    netns: &Netns,
    ifindex: u32,
    work: impl FnOnce(&mut Netdevs, &Peer) -> Result<T, PrepareError>,
) -> Result<T, PrepareError> {
    // Sockets belong to the namespace they were opened in, whoever uses them.
    let opened = netns.run(Netdevs::open);
    let mut netdevs = opened.map_err(|source| PrepareError::Enter { netns: netns.name(), source })?;
    let peer = peer_in(&mut netdevs, ifindex, Some((netns.id, netns.name())))?;
    work(&mut netdevs, &peer)
}

fn peer_in(
    netdevs: &mut Netdevs,
    ifindex: u32,
    netns: Option<(NetnsId, String)>,
) -> Result<Peer, PrepareError> {
    // The index may have been given to something else since; a peer is a veth in any case.
    let link = netdevs.rtnl.link_by_index(ifindex)?.filter(Link::is_veth).ok_or(PrepareError::NoPeer)?;
    Ok(Peer { ifindex, name: link.name, netns })
}

/// Sets those of a peer's features that are not as needed, all or none.
fn make_fit(ethtool: &Ethtool, peer: &Peer, before: &[Feature]) -> Result<(), PrepareError> {
    let wanted: Vec<Feature> = before.iter().map(|(name, on)| (name.clone(), !on)).collect();
    let refusal = match ethtool.set_features(&peer.name, &wanted).and_then(|()| unfit(ethtool, peer)) {
        Ok(refused) => {
            match NEEDED.iter().find(|need| refused.iter().any(|(name, _)| name == need.feature)) {
                None => return Ok(()),
                Some(need) => {
                    PrepareError::Refused { offload: need.offload, on: need.on, peer: peer.to_string() }
                }
            }
        }
        Err(error) => error.into(),
    };
    // It fails already; that the rest cannot be put back either would be no news.
    let _ = ethtool.set_features(&peer.name, before);
    Err(refusal)
}

/// The features that are not as needed, as they are.
fn unfit(ethtool: &Ethtool, peer: &Peer) -> io::Result<Vec<Feature>> {
    let mut features = ethtool.features(&peer.name)?;
    features.retain(|(name, on)| NEEDED.iter().any(|need| need.feature == name && need.on != *on));
    Ok(features)
}
