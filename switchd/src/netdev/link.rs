//! A network device as rtnetlink describes it.

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};

/// The device that a device is stacked on or, for a veth, its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowerLink {
    /// Its index, in its own namespace (IFLA_LINK).
    pub ifindex: u32,
    /// That namespace, by the number it has here (IFLA_LINK_NETNSID); `None`: this very namespace.
    pub nsid: Option<i32>,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zero for a device that has none.
    pub mac: [u8; 6],
    /// The largest payload of a frame, in bytes.
    pub mtu: u32,
    /// The driver's word for it ("veth", "dummy", ...); hardware has none.
    pub kind: Option<String>,
    /// Set up (IFF_UP).
    pub admin_up: bool,
    /// Up, with a carrier (IFF_LOWER_UP).
    pub carrier: bool,
    /// Carries Ethernet frames; a loopback or a tunnel of bare IP packets does not.
    pub ethernet: bool,
    /// Whether an XDP program is attached.
    pub xdp: bool,
    /// What it is stacked on; a veth's peer.
    pub lower: Option<LowerLink>,
}

impl Link {
    /// Whether it is one end of a veth pair.
    #[must_use]
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    /// Reads an RTM_NEWLINK or RTM_DELLINK. `None` for messages that borrow those numbers without describing
    /// a device: a bridge's ports (family AF_BRIDGE), wireless events (no name).
    pub(super) fn from_message(message: LinkMessage) -> Option<Self> {
        let header = message.header;
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let mut name = None;
        let mut link = Self {
            ifindex: header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            kind: None,
            admin_up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            ethernet: header.link_layer_type == LinkLayerType::Ether,
            xdp: false,
            lower: None,
        };
        let mut lower = None;
        let mut nsid = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Link(ifindex) => lower = Some(ifindex),
                LinkAttribute::LinkNetNsId(id) => nsid = Some(id),
                LinkAttribute::LinkInfo(infos) => link.kind = infos.into_iter().find_map(kind),
                LinkAttribute::Xdp(xdp) => link.xdp = xdp.iter().any(is_attached),
                _ => {}
            }
        }
        // Index 0 is the kernel's way to say that there is none (any more).
        link.lower = lower.filter(|&ifindex| ifindex != 0).map(|ifindex| LowerLink { ifindex, nsid });
        link.name = name?;
        Some(link)
    }
}

fn kind(info: LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(match kind {
            InfoKind::Other(name) => name,
            known => known.to_string(),
        }),
        _ => None,
    }
}

fn is_attached(xdp: &LinkXdp) -> bool {
    matches!(xdp, LinkXdp::Attached(mode) if *mode != XdpAttached::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![
            LinkAttribute::IfName("veth_l0".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Link(6),
            LinkAttribute::LinkNetNsId(0),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
            LinkAttribute::Xdp(vec![LinkXdp::Attached(XdpAttached::Driver)]),
        ];
        message
    }

    #[test]
    fn a_veth_is_read() {
        let link = Link::from_message(message()).unwrap();
        assert_eq!(
            link,
            Link {
                ifindex: 7,
                name: "veth_l0".into(),
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                kind: Some("veth".into()),
                admin_up: true,
                carrier: true,
                ethernet: true,
                xdp: true,
                lower: Some(LowerLink { ifindex: 6, nsid: Some(0) }),
            }
        );
        assert!(link.is_veth());
    }

    #[test]
    fn messages_that_describe_no_device_are_passed_over() {
        let mut of_bridge = message();
        of_bridge.header.interface_family = AddressFamily::Bridge;
        assert_eq!(Link::from_message(of_bridge), None);

        let mut nameless = message();
        nameless.attributes.remove(0);
        assert_eq!(Link::from_message(nameless), None);
    }
}
