//! The NORMAL action: a learning switch.

use crate::conntrack::Connections;
use crate::drop_reason::DropReason;
use crate::layout::{MAC_AGEING, MacKey};
use crate::packet::Packet;
use crate::pipeline::{Run, port};
use crate::tables::Tables;

const MULTICAST: u64 = 1 << 40;
const NANOS: u64 = 1_000_000_000;

/// Learns where the source is, and sends the packet to where the destination was learned to be, or everywhere.
#[inline(always)]
pub fn forward<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    let in_port = machine.in_port();
    let destination = machine.key.words[1] & 0xffff_ffff_ffff;
    let source = machine.key.words[2] & 0xffff_ffff_ffff;
    let seconds = machine.now / NANOS;
    let vlan = (machine.key.words[1] >> 48) as u32 & 0xfff;
    if destination & !0xf == 0x0180_c200_0000 {
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
