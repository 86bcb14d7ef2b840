//! Bridges with hosts at their ports, for tests that need no more than cables.

use anyhow::Result;

use crate::{lab::Lab, netns::Netns, wire::Wire};

/// What serves a bridge's ports: the `datapath_type` of `vsctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    /// Native XDP, with tcx for what XDP cannot finish.
    Xdp,
    /// tcx alone.
    Tc,
}

impl Datapath {
    fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// Makes a bridge with ports numbered from 1, and tells the far ends of their cables, which lie in a
/// namespace `hosts-BRIDGE` and are called `PORT-peer`.
pub fn bridge(lab: &Lab, name: &str, datapath: Datapath, ports: &[&str]) -> Result<Vec<Wire>> {
    let hosts = lab.netns(&format!("hosts-{name}"))?;
    add_bridge(lab, name, datapath)?;
    ports
        .iter()
        .map(|port| {
            let peer = format!("{port}-peer");
            lab.veth(port, &peer, Some(&hosts))?;
            lab.ovs("vsctl", &["add-port", name, port])?.ok()?;
            hosts.open_wire(&peer)
        })
        .collect()
}

/// Makes a bridge.
pub fn add_bridge(lab: &Lab, name: &str, datapath: Datapath) -> Result<()> {
    let datapath_type = format!("datapath_type={}", datapath.name());
    lab.ovs("vsctl", &["add-br", name, "--", "set", "bridge", name, &datapath_type])?.ok()?;
    Ok(())
}

/// A host at a new port `NAME0` of a bridge, with addresses of its own, and others that it finds at another host's
/// hardware address.
pub fn host(
    lab: &Lab,
    bridge: &str,
    (name, mac): (&str, &str),
    own: &[&str],
    (other_mac, others): (&str, &[&str]),
) -> Result<Netns> {
    let host = lab.netns(name)?;
    lab.veth(&format!("{name}0"), "eth0", Some(&host))?;
    host.exec("ip", &["link", "set", "eth0", "address", mac])?.ok()?;
    for address in own {
        let length = if address.contains(':') { 64 } else { 16 };
        host.exec("ip", &["addr", "add", &format!("{address}/{length}"), "dev", "eth0"])?.ok()?;
    }
    for address in others {
        let neighbour = ["neigh", "replace", address, "lladdr", other_mac, "dev", "eth0", "nud", "permanent"];
        host.exec("ip", &neighbour)?.ok()?;
    }
    lab.ovs("vsctl", &["add-port", bridge, &format!("{name}0")])?.ok()?;
    Ok(host)
}

/// Replaces all flows of a bridge by those given, as one file.
pub fn replace_flows(lab: &Lab, bridge: &str, flows: &[&str]) -> Result<()> {
    lab.ovs("ofctl", &["del-flows", bridge])?.ok()?;
    lab.ovs_with_input("ofctl", &["add-flows", bridge, "-"], &flows.join("\n"))?.ok()?;
    Ok(())
}
