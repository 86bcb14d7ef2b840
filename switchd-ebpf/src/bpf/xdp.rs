//! The XDP host of the pipeline.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::XdpContext;
use switchd_ebpf::checksum;
use switchd_ebpf::drop_reason::DropReason;
use switchd_ebpf::key::WORDS;
use switchd_ebpf::layout::{DEFERRED as DEFERRED_SLOTS, NOTE_MAGIC, Note, port_flags};
use switchd_ebpf::packet::{Buffer, Changed, MAX_OFFSET, Packet};
use switchd_ebpf::parse::{eth_type, parse};
use switchd_ebpf::pipeline::{MAX_COPIES, MAX_OUTPUTS, Machine, Run, copy_headers, port};
use switchd_ebpf::rewrite::rewrite;
use switchd_ebpf::tables::Tables as _;

use super::bytes::{self, define_sum};
use super::maps::{DEFERRED, DEVICES, Hook, Maps};

/// What becomes of a frame.
pub enum Verdict {
    /// It goes out of the device in this slot of the device map.
    Redirect(u32),
    /// The tcx program of the same port finishes it.
    Defer,
    /// It is dropped, which was counted.
    Drop,
}

/// Runs a frame through the pipeline.
#[inline(always)]
pub fn process(ctx: &XdpContext) -> Verdict {
    let maps = Maps::open();
    let Some(entry) = maps.port_of_device(ctx.ingress_ifindex() as u32) else {
        maps.dropped(DropReason::NotAPort);
        return Verdict::Drop;
    };
    let Some(machine) = maps.machine(Hook::Xdp) else { return Verdict::Drop };
    // SAFETY: this machine is used by XDP alone, which does not nest.
    let machine = unsafe { &mut *machine.as_ptr() };
    let packet = XdpPacket { ctx: XdpContext::new(ctx.ctx) };
    xdp_parse(ctx.ctx, u32::from(entry.number));
    if machine.layout.partial != 0 {
        // All but surely a local sender's frame whose checksum is left to the hardware: an XDP frame cannot
        // carry that mark, an skb can. Nothing has been counted yet; tcx does it all.
        return Verdict::Defer;
    }
    let len = packet.length();
    maps.received(entry, len);
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    machine.start(u32::from(entry.bridge), entry.flags, len, now, maps.version());
    let mut run = Run { packet, datapath: &maps, machine };
    run.run();
    finish(run)
}

/// Carries out what the run came to.
#[inline(always)]
fn finish(run: Run<'_, XdpPacket, Maps>) -> Verdict {
    let maps = run.datapath;
    let machine = &mut *run.machine;
    if machine.effects.n_outputs == 0 {
        return Verdict::Drop;
    }
    let only = machine.effects.outputs[0];
    if machine.effects.n_outputs > 1 || only.port >= port::IN_PORT {
        return defer(&run.packet, maps, machine);
    }
    let Some(out) = maps.port(machine.bridge, only.port) else {
        maps.dropped(DropReason::NoSuchPort);
        return Verdict::Drop;
    };
    let in_pieces = run.packet.linear_length() < machine.len;
    if out.flags & port_flags::XDP == 0 || in_pieces && maps.one_piece_only() {
        return defer(&run.packet, maps, machine);
    }
    let mut len = machine.len;
    if machine.headers_changed != 0 {
        if xdp_rewrite(run.packet.ctx.ctx) == 0 {
            maps.dropped(DropReason::Rewrite);
            return Verdict::Drop;
        }
        // A tag may have come or gone.
        len = run.packet.length();
    }
    maps.sent(out, len, true);
    Verdict::Redirect(out.slot)
}

/// Leaves the outputs to tcx: XDP cannot copy a frame, nor send one to a port that takes no XDP frames, nor, on older
/// kernels, one in several pieces. A function of its own, so that the program's frame, on which all of the pipeline's
/// stand, has no room for the headers on their way.
#[inline(never)]
fn defer(packet: &XdpPacket, maps: &Maps, machine: &mut Machine) -> Verdict {
    // SAFETY: the context is the program's own.
    if unsafe { bpf_xdp_adjust_meta(packet.ctx.ctx, -(size_of::<Note>() as i32)) } != 0 {
        maps.dropped(DropReason::Rewrite);
        return Verdict::Drop;
    }
    machine.before_headers_change();
    let number = maps.next_deferred();
    let Some(slot) = DEFERRED.get_ptr_mut(number as u32 & (DEFERRED_SLOTS - 1)) else { return Verdict::Drop };
    // SAFETY: another CPU comes to this slot only if it is overtaken by as many frames as there are slots;
    // tcx then finds another number in it, or at worst sends a mix of two frames' headers.
    let slot = unsafe { &mut *slot };
    slot.effects.n_outputs = machine.effects.n_outputs;
    slot.effects.n_copies = machine.effects.n_copies;
    let mut i = 0;
    while i < MAX_OUTPUTS && i < machine.effects.n_outputs as usize {
        slot.effects.outputs[i] = machine.effects.outputs[i];
        i += 1;
    }
    let mut i = 0;
    while i < MAX_COPIES && i < machine.effects.n_copies as usize {
        copy_headers(&mut slot.effects.copies[i], &machine.effects.copies[i]);
        i += 1;
    }
    slot.number = number;
    let (meta, data) = (packet.ctx.metadata(), packet.ctx.data());
    if meta + size_of::<Note>() > data {
        return Verdict::Drop;
    }
    // SAFETY: the check above; the metadata area is aligned to 4 bytes, hence unaligned.
    unsafe { (meta as *mut Note).write_unaligned(Note { magic: NOTE_MAGIC, number }) };
    Verdict::Defer
}

/// The action for a verdict.
#[inline(always)]
pub fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Redirect(slot) => DEVICES.redirect(slot, 0).unwrap_or(xdp_action::XDP_ABORTED),
        Verdict::Defer => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

// The three functions below are global ones to the verifier: it checks each by itself, once, and knows nothing
// of what it did where it is called. Inlined, the number of ways through a program would be their product.

/// Parses the frame into this CPU's machine.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_parse(ctx: *mut xdp_md, in_port: u32) -> u32 {
    let maps = Maps::open();
    let Some(machine) = maps.machine(Hook::Xdp) else { return 0 };
    // SAFETY: the caller is this CPU's XDP program, which holds no other reference across the call.
    let machine = unsafe { &mut *machine.as_ptr() };
    machine.key.words = [0; WORDS];
    let packet = XdpPacket { ctx: XdpContext::new(ctx) };
    parse(&packet, in_port as u16, &mut machine.key, &mut machine.layout);
    1
}

/// Gives the frame the headers of its only output; 0 if that failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn xdp_rewrite(ctx: *mut xdp_md) -> u32 {
    let maps = Maps::open();
    let Some(machine) = maps.machine(Hook::Xdp) else { return 0 };
    // SAFETY: as in `xdp_parse`.
    let machine = unsafe { &mut *machine.as_ptr() };
    // Its headers are the first that were kept, or else the present ones.
    if machine.effects.n_copies != 0 {
        copy_headers(machine.key.headers_mut(), &machine.effects.copies[0]);
    }
    let mut packet = XdpPacket { ctx: XdpContext::new(ctx) };
    u32::from(rewrite(
        &maps,
        &mut packet,
        &machine.layout,
        &machine.wire,
        machine.key.headers(),
        &mut machine.due,
    ))
}

define_sum!(
    xdp_md,
    xdp_sum_rest,
    xdp_sum_512,
    xdp_sum_512 = 512,
    xdp_sum_256 = 256,
    xdp_sum_128 = 128,
    xdp_sum_64 = 64,
    xdp_sum_32 = 32,
    xdp_sum_16 = 16,
    xdp_sum_8 = 8,
    xdp_sum_4 = 4
);

/// An XDP frame.
pub struct XdpPacket {
    ctx: XdpContext,
}

impl XdpPacket {
    /// Length of the first piece.
    #[inline(always)]
    fn linear_length(&self) -> u32 {
        (self.ctx.data_end() - self.ctx.data()) as u32
    }

    /// Moves the start of the frame by `by` bytes and the two MAC addresses with it.
    #[inline(always)]
    fn move_addresses(&mut self, by: i32) -> Option<()> {
        let (from, to) = if by < 0 { (0, 0) } else { (0, by as u32) };
        let addresses = self.load::<12>(from)?;
        if by > 0 && !self.store(to, addresses) {
            return None;
        }
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_head(self.ctx.ctx, by) } != 0 {
            return None;
        }
        (by > 0 || self.store(0, addresses)).then_some(())
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn length(&self) -> u32 {
        // Frames in several fragments are longer than their linear part.
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) as u32 }
    }

    #[inline(always)]
    fn holds(&self, bytes: u32) -> bool {
        // Most frames are in one piece.
        self.linear_length() >= bytes || bytes <= self.length()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        bytes::load(self.ctx.data(), self.ctx.data_end(), offset)
    }

    #[inline(always)]
    fn read_exactly<const N: usize>(&self, offset: u32, buffer: &mut Buffer) -> bool {
        if bytes::read::<N>(self.ctx.data(), self.ctx.data_end(), offset, buffer).is_some() {
            return true;
        }
        // A frame may be in pieces.
        buffer.clear();
        self.read(offset, buffer, N as u32)
    }

    #[inline(always)]
    fn read(&self, offset: u32, buffer: &mut Buffer, len: u32) -> bool {
        let Some(len) = bytes::length(len) else { return false };
        // SAFETY: the context is the program's own, and the buffer is at least as long as `len`.
        unsafe { bpf_xdp_load_bytes(self.ctx.ctx, offset, buffer.bytes.as_mut_ptr().cast(), len) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        bytes::store(self.ctx.data(), self.ctx.data_end(), offset, bytes).is_some()
    }

    #[inline(always)]
    fn sum(&self, offset: u32, len: u32) -> Option<u16> {
        sum(self.ctx.ctx, offset, len)
    }

    #[inline(always)]
    fn resize(&mut self, length: u32) -> bool {
        let by = length.wrapping_sub(self.length()) as i32;
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, by) == 0 }
    }

    #[inline(always)]
    fn vlan_beside(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn push_vlan(&mut self, tci: u16) -> bool {
        let [p0, p1] = eth_type::VLAN.to_be_bytes();
        let [t0, t1] = tci.to_be_bytes();
        self.move_addresses(-4).is_some() && self.store(12, [p0, p1, t0, t1])
    }

    #[inline(always)]
    fn pop_vlan(&mut self) -> bool {
        self.move_addresses(4).is_some()
    }

    #[inline(always)]
    fn set_vlan(&mut self, tci: u16) -> bool {
        self.store(14, tci.to_be_bytes())
    }

    #[inline(always)]
    fn correct_checksum(&mut self, offset: u32, delta: u16, changed: Changed) -> bool {
        let Some(old) = self.load::<2>(offset) else { return false };
        let corrected = checksum::correct(u16::from_be_bytes(old), delta);
        // RFC 768: a sum of zero is sent as ones; for the others the two are the same.
        let corrected = if corrected == 0 && changed != Changed::IpHeader { 0xffff } else { corrected };
        self.store(offset, corrected.to_be_bytes())
    }
}
