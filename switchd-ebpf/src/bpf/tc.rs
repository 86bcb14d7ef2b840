//! The tcx host of the pipeline: the hook of ports without native XDP, and the one that finishes what XDP
//! cannot.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_ENFORCE, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT,
};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
};
use switchd_ebpf::drop_reason::DropReason;
use switchd_ebpf::key::WORDS;
use switchd_ebpf::layout::{DEFERRED as DEFERRED_SLOTS, MAX_BRIDGE_PORTS, NOTE_MAGIC, Note, PortList};
use switchd_ebpf::packet::{Buffer, Changed, MAX_OFFSET, Packet};
use switchd_ebpf::parse::{eth_type, parse};
use switchd_ebpf::pipeline::{Effects, MAX_COPIES, MAX_OUTPUTS, Machine, Run, copy_headers, port};
use switchd_ebpf::rewrite::rewrite;
use switchd_ebpf::tables::Tables;

use super::bytes::{self, define_sum};
use super::maps::{DEFERRED, Hook, Maps, PORT_LISTS};

/// Runs a frame through the pipeline, or finishes what XDP began, and returns the tc action.
#[inline(always)]
pub fn process(skb: *mut __sk_buff) -> i32 {
    let maps = Maps::open();
    // SAFETY: the context is the program's own.
    let ifindex = unsafe { (*skb).ifindex };
    let Some(entry) = maps.port_of_device(ifindex) else {
        maps.dropped(DropReason::NotAPort);
        return TC_ACT_SHOT;
    };
    let Some(machine) = maps.machine(Hook::Tcx) else { return TC_ACT_SHOT };
    // SAFETY: this machine is used by tcx at ingress alone, which does not nest.
    let machine = unsafe { &mut *machine.as_ptr() };
    let packet = TcPacket { skb };
    tc_parse(skb, u32::from(entry.number));
    let len = packet.wire_length();
    if let Some(number) = note(skb) {
        machine.bridge = u32::from(entry.bridge);
        machine.start(u32::from(entry.bridge), 0, len, 0, 0);
        keep_headers(machine);
        let Some(slot) = DEFERRED.get_ptr(number as u32 & (DEFERRED_SLOTS - 1)) else { return TC_ACT_SHOT };
        // SAFETY: see where XDP writes it.
        let slot = unsafe { &*slot };
        if slot.number != number {
            maps.dropped(DropReason::Overtaken);
            return TC_ACT_SHOT;
        }
        return send(&maps, packet, machine, &slot.effects);
    }
    maps.received(entry, len);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    machine.start(u32::from(entry.bridge), entry.flags, len, now, maps.version());
    let mut run = Run { packet: TcPacket { skb }, datapath: &maps, machine };
    run.run();
    let machine = &mut *run.machine;
    keep_headers(machine);
    let effects: *const Effects = &raw const machine.effects;
    // SAFETY: the outputs are only read from here on, and `send` writes to other parts of the machine.
    send(&maps, packet, machine, unsafe { &*effects })
}

/// A function of its own, so that the program's frame, on which all of the pipeline's stand, has no room for the headers
/// on their way.
#[inline(never)]
fn keep_headers(machine: &mut Machine) {
    machine.before_headers_change();
}

/// The number that XDP has written beside the frame.
#[inline(always)]
fn note(skb: *mut __sk_buff) -> Option<u64> {
    // SAFETY: the context is the program's own.
    let (meta, data) = unsafe { ((*skb).data_meta as usize, (*skb).data as usize) };
    let bytes = bytes::load::<{ size_of::<Note>() }>(meta, data, 0)?;
    // SAFETY: a note is two numbers, and there are as many bytes.
    let note = unsafe { core::mem::transmute::<[u8; size_of::<Note>()], Note>(bytes) };
    (note.magic == NOTE_MAGIC).then_some(note.number)
}

/// The sending of one frame's outputs.
struct Sending<'a> {
    maps: &'a Maps,
    packet: TcPacket,
    machine: &'a mut Machine,
    effects: &'a Effects,
    /// The ports of a flood.
    list: Option<&'a PortList>,
    /// The action for the frame itself.
    action: i32,
}

/// Sends each output: copies for all but the last, which gets the frame itself. A function of its own for the same reason.
#[inline(never)]
fn send(maps: &Maps, packet: TcPacket, machine: &mut Machine, effects: &Effects) -> i32 {
    let mut sending = Sending { maps, packet, machine, effects, list: None, action: TC_ACT_SHOT };
    maps.repeat(MAX_OUTPUTS as u32, send_one, (&raw mut sending).cast());
    sending.action
}

extern "C" fn send_one(index: u64, sending: *mut c_void) -> i64 {
    // SAFETY: `send` passes its own, exclusively borrowed for as long as the loop runs.
    let sending = unsafe { &mut *sending.cast::<Sending<'_>>() };
    let effects = sending.effects;
    let index = index as usize & (MAX_OUTPUTS - 1);
    let n_outputs = effects.n_outputs as usize;
    if index >= n_outputs {
        return 1;
    }
    let output = &effects.outputs[index];
    let machine = &mut *sending.machine;
    let to = &effects.copies[usize::from(output.copy) & (MAX_COPIES - 1)];
    copy_headers(machine.key.headers_mut(), to);
    if tc_rewrite(sending.packet.skb) == 0 {
        sending.maps.dropped(DropReason::Rewrite);
        return 1;
    }
    copy_headers(&mut machine.wire, to);
    if output.port == port::FLOOD || output.port == port::ALL {
        // SAFETY: values are replaced as a whole, and freed only after the program has run.
        sending.list = unsafe { PORT_LISTS.get(machine.bridge) };
        let maps = sending.maps;
        maps.repeat(MAX_BRIDGE_PORTS as u32, flood_one, core::ptr::from_mut(sending).cast());
    } else if index + 1 == n_outputs {
        send_last(sending, output.port);
        return 1;
    } else {
        send_copy(sending, output.port);
    }
    0
}

extern "C" fn flood_one(index: u64, sending: *mut c_void) -> i64 {
    // SAFETY: `send_one` passes its own, exclusively borrowed for as long as the loop runs.
    let sending = unsafe { &mut *sending.cast::<Sending<'_>>() };
    let Some(list) = sending.list else { return 1 };
    if index >= u64::from(list.len) {
        return 1;
    }
    let Some(&number) = list.ports.get(index as usize) else { return 1 };
    if number != sending.machine.key.words[0] as u16 {
        send_copy(sending, number);
    }
    0
}

/// Sends a copy.
#[inline(always)]
fn send_copy(sending: &mut Sending<'_>, number: u16) {
    let Some(out) = sending.maps.port(sending.machine.bridge, number) else {
        sending.maps.dropped(DropReason::NoSuchPort);
        return;
    };
    // SAFETY: the context is the program's own.
    let sent = unsafe { bpf_clone_redirect(sending.packet.skb, out.ifindex, 0) } == 0;
    if !sent {
        sending.maps.dropped(DropReason::Transmit);
    }
    sending.maps.sent(out, sending.packet.wire_length(), sent);
}

/// Sends the frame itself.
#[inline(always)]
fn send_last(sending: &mut Sending<'_>, number: u16) {
    let Some(out) = sending.maps.port(sending.machine.bridge, number) else {
        sending.maps.dropped(DropReason::NoSuchPort);
        return;
    };
    // SAFETY: the helper has no preconditions.
    sending.action = unsafe { bpf_redirect(out.ifindex, 0) } as i32;
    sending.maps.sent(out, sending.packet.wire_length(), true);
}

// Global functions to the verifier, as in the XDP host.

/// Parses the frame into this CPU's machine.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_parse(skb: *mut __sk_buff, in_port: u32) -> u32 {
    let maps = Maps::open();
    let Some(machine) = maps.machine(Hook::Tcx) else { return 0 };
    // SAFETY: the caller is this CPU's tcx program, which holds no other reference across the call.
    let machine = unsafe { &mut *machine.as_ptr() };
    machine.key.words = [0; WORDS];
    parse(&TcPacket { skb }, in_port as u16, &mut machine.key, &mut machine.layout);
    1
}

/// Gives the frame the headers in the machine's key; 0 if that failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tc_rewrite(skb: *mut __sk_buff) -> u32 {
    let maps = Maps::open();
    let Some(machine) = maps.machine(Hook::Tcx) else { return 0 };
    // SAFETY: as in `tc_parse`.
    let machine = unsafe { &mut *machine.as_ptr() };
    u32::from(rewrite(
        &maps,
        &mut TcPacket { skb },
        &machine.layout,
        &machine.wire,
        machine.key.headers(),
        &mut machine.due,
    ))
}

define_sum!(
    __sk_buff,
    tc_sum_rest,
    tc_sum_512,
    tc_sum_512 = 512,
    tc_sum_256 = 256,
    tc_sum_128 = 128,
    tc_sum_64 = 64,
    tc_sum_32 = 32,
    tc_sum_16 = 16,
    tc_sum_8 = 8,
    tc_sum_4 = 4
);

/// A frame as tc has it.
#[derive(Clone, Copy)]
pub struct TcPacket {
    skb: *mut __sk_buff,
}

impl Packet for TcPacket {
    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut out = [0; N];
        // SAFETY: the context is the program's own, and `out` has the length that is passed.
        let result =
            unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, out.as_mut_ptr().cast(), N as u32) };
        (result == 0).then_some(out)
    }

    #[inline(always)]
    fn read(&self, offset: u32, buffer: &mut Buffer, len: u32) -> bool {
        let Some(len) = bytes::length(len) else { return false };
        // SAFETY: the context is the program's own, and the buffer is at least as long as `len`.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, buffer.bytes.as_mut_ptr().cast(), len) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        // SAFETY: the context is the program's own, and `bytes` has the length that is passed.
        unsafe {
            bpf_skb_store_bytes(
                self.skb,
                offset,
                bytes.as_ptr().cast(),
                N as u32,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) == 0
        }
    }

    #[inline(always)]
    fn sum(&self, offset: u32, len: u32) -> Option<u16> {
        sum(self.skb, offset, len)
    }

    #[inline(always)]
    fn resize(&mut self, length: u32) -> bool {
        // SAFETY: the context is the program's own.
        unsafe { bpf_skb_change_tail(self.skb, length, 0) == 0 }
    }

    #[inline(always)]
    fn vlan_beside(&self) -> Option<u16> {
        // SAFETY: the context is the program's own.
        unsafe { ((*self.skb).vlan_present != 0).then_some((*self.skb).vlan_tci as u16) }
    }

    #[inline(always)]
    fn push_vlan(&mut self, tci: u16) -> bool {
        // SAFETY: the context is the program's own.
        unsafe { bpf_skb_vlan_push(self.skb, eth_type::VLAN.to_be(), tci) == 0 }
    }

    #[inline(always)]
    fn pop_vlan(&mut self) -> bool {
        // SAFETY: the context is the program's own.
        unsafe { bpf_skb_vlan_pop(self.skb) == 0 }
    }

    #[inline(always)]
    fn set_vlan(&mut self, tci: u16) -> bool {
        // The tag stays one of the customer's or of the service's, as it was.
        // SAFETY: the context is the program's own.
        let protocol = unsafe { (*self.skb).vlan_proto as u16 };
        // SAFETY: as above.
        self.pop_vlan() && unsafe { bpf_skb_vlan_push(self.skb, protocol, tci) == 0 }
    }

    #[inline(always)]
    fn correct_checksum(&mut self, offset: u32, delta: u16, changed: Changed) -> bool {
        // The helpers take the difference as a sum in memory order.
        let delta = u64::from(delta.to_be());
        // A sum of zero is sent as ones (RFC 768). Without the second flag one that already is zero would stay so:
        // in UDP nobody asks for that, and in TCP it is a sum like any other.
        let transport = u64::from(BPF_F_MARK_MANGLED_0 | BPF_F_MARK_ENFORCE);
        // SAFETY: the context is the program's own.
        unsafe {
            match changed {
                Changed::IpHeader => bpf_l3_csum_replace(self.skb, offset, 0, delta, 0) == 0,
                Changed::Transport => bpf_l4_csum_replace(self.skb, offset, 0, delta, transport) == 0,
                Changed::PseudoHeader => {
                    let flags = transport | u64::from(BPF_F_PSEUDO_HDR);
                    bpf_l4_csum_replace(self.skb, offset, 0, delta, flags) == 0
                }
            }
        }
    }
}
