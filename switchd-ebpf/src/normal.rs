//! The NORMAL action: a learning switch.

use crate::conntrack::Connections;
use crate::drop_reason::DropReason;
use crate::layout::{MAC_AGEING, MacKey};
use crate::packet::Packet;
use crate::pipeline::{Run, port};
use crate::tables::Tables;

const MULTICAST: u64 = 1 << 40;
const NANOS: u64 = 1_000_000_000;

/// Whether frames to an address stay on their link, as protocols between neighbours: the list is OVS's
/// (`eth_addr_is_reserved`).
#[inline(always)]
fn is_reserved(mac: u64) -> bool {
    match mac {
        // IEEE 802.1D, table 7-10.
        0x0180_c200_0000..=0x0180_c200_000f
        // Cisco's: ISL; CDP and VTP; PVST+; spanning tree of uplinks; and what CFM uses.
        | 0x0100_0c00_0000
        | 0x0100_0ccc_cccc
        | 0x0100_0ccc_cccd
        | 0x0100_0ccd_cdcd
        | 0x0100_0ccc_ccc0..=0x0100_0ccc_ccc7
        // Extreme's: discovery, and automatic protection switching.
        | 0x00e0_2b00_0000
        | 0x00e0_2b00_0004
        | 0x00e0_2b00_0006 => true,
        _ => false,
    }
}

/// Learns where the source is, and sends the packet to where the destination was learned to be, or everywhere.
#[inline(always)]
pub fn forward<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    let in_port = machine.in_port();
    let destination = machine.key.words[1] & 0xffff_ffff_ffff;
    let source = machine.key.words[2] & 0xffff_ffff_ffff;
    let seconds = machine.now / NANOS;
    let vlan = (machine.key.words[1] >> 48) as u32 & 0xfff;
    if is_reserved(destination) {
        run.blame(DropReason::ReservedAddress);
        return;
    }
    let mut key = MacKey { mac: source, vlan, bridge: machine.bridge };
    if source & MULTICAST == 0 {
        let seen = seconds << 16 | u64::from(in_port);
        if run.datapath.mac(&key) != seen {
            run.datapath.learn_mac(&key, seen);
        }
    }
    if destination & MULTICAST != 0 {
        run.output(port::FLOOD);
        return;
    }
    key.mac = destination;
    let seen = run.datapath.mac(&key);
    if seen == 0 || seconds > (seen >> 16) + MAC_AGEING {
        run.output(port::FLOOD);
    } else if seen as u16 == in_port {
        run.blame(DropReason::InputPort);
    } else {
        run.output(seen as u16);
    }
}
