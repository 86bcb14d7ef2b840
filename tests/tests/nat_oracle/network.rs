//! Who is where: two clients on the left, a server and a router on the right.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The hosts at the left and at the right cable.
    pub hosts: [[IpAddr; 2]; 2],
    /// Those of the router between them.
    pub routers: [IpAddr; 2],
    /// The clients' address outside.
    pub outside: IpAddr,
    /// The address that clients call instead of the server's.
    pub called: IpAddr,
}

/// What the family is called.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// By nftables.
    pub nft: &'static str,
    /// By `conntrack`.
    pub conntrack: &'static str,
    /// In a flow.
    pub flow: &'static str,
    /// ICMP's protocol, by nftables.
    pub icmp: &'static str,
    pub prefix_len: u8,
}

impl Network {
    pub fn v4() -> Self {
        Self::of(|cable, host| Ipv4Addr::new(10, 1, cable, host).into())
    }

    pub fn v6() -> Self {
        Self::of(|cable, host| Ipv6Addr::new(0xfd00, 0, 0, cable.into(), 0, 0, 0, host.into()).into())
    }

    fn of(address: impl Fn(u8, u8) -> IpAddr) -> Self {
        Self {
            hosts: [[address(1, 1), address(1, 3)], [address(2, 1), address(2, 9)]],
            routers: [address(1, 254), address(2, 254)],
            outside: address(2, 240),
            called: address(2, 64),
        }
    }

    pub fn clients(&self) -> [IpAddr; 2] {
        self.hosts[0]
    }

    pub fn server(&self) -> IpAddr {
        self.hosts[1][0]
    }

    /// A router behind the server, which reports errors.
    pub fn reporter(&self) -> IpAddr {
        self.hosts[1][1]
    }

    pub fn words(&self) -> Words {
        if self.outside.is_ipv4() {
            Words { nft: "ip", conntrack: "ipv4", flow: "ip", icmp: "icmp", prefix_len: 24 }
        } else {
            Words { nft: "ip6", conntrack: "ipv6", flow: "ipv6", icmp: "ipv6-icmp", prefix_len: 64 }
        }
    }
}

/// An address with ports, as both nftables and flows have it.
pub fn with_ports(address: IpAddr, ports: impl Display) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{ports}"),
        IpAddr::V6(address) => format!("[{address}]:{ports}"),
    }
}
