//! SCTP: a packet's chunks, which are what the rules go by, and its checksum.

use core::ffi::c_void;

use conntrack_core::sctp::MAX_CHUNKS;

use super::{Connections, invalid};
use crate::crc32c;
use crate::packet::{MAX_OFFSET, Packet};
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

/// The common header (RFC 9260, 3.1).
const HEADER: u32 = 12;
/// Offset of the checksum in it.
const CHECKSUM: u32 = 8;
/// Pieces of 64 bytes in the largest packet, and single bytes behind them.
const MAX_PIECES: u32 = 1024 + 63;

/// Stage [`stage::CHUNKS`]: reads the chunks.
#[inline(always)]
pub fn chunks<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let Machine { layout, track, .. } = &mut *run.machine;
    let at = u32::from(layout.l4);
    let Some(tag) = run.packet.load::<4>(at + 4) else { return invalid(run) };
    track.chunks.start(u32::from_be_bytes(tag));
    track.chunk_at = at + HEADER;
    let whole = track.fragment.leads == 0;
    let datapath = run.datapath;
    datapath.repeat(MAX_CHUNKS as u32, read_chunk::<P, D>, core::ptr::from_mut(run).cast());
    run.machine.stage = if whole { stage::CRC } else { stage::CONNECT };
}

extern "C" fn read_chunk<P: Packet, D>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `chunks` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let Machine { layout, track, .. } = &mut *run.machine;
    let (at, end) = (track.chunk_at, u32::from(layout.l4) + u32::from(layout.l4_len));
    if at > MAX_OFFSET || at + 4 > end {
        return 1;
    }
    let Some([kind, flags, l0, l1]) = run.packet.load::<4>(at) else { return 1 };
    let length = u16::from_be_bytes([l0, l1]);
    let tag = if at + 20 <= end { run.packet.load::<4>(at + 4) } else { None };
    track.chunk_at = at + ((u32::from(length) + 3) & !3);
    i64::from(!track.chunks.push(kind, flags, length, tag.map(u32::from_be_bytes)))
}

/// Stage [`stage::CRC`]: sees whether the checksum is right. One of zero is none: it was left to the hardware, or there
/// is no need of it (RFC 9653).
#[inline(always)]
pub fn crc<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let at = u32::from(run.machine.layout.l4) + CHECKSUM;
    let Some(field) = run.packet.load::<4>(at) else { return invalid(run) };
    let expected = u32::from_le_bytes(field);
    run.machine.stage = stage::CONNECT;
    if expected == 0 {
        return;
    }
    run.machine.track.crc = crc32c::START;
    run.machine.track.summed = 0;
    let datapath = run.datapath;
    datapath.repeat(MAX_PIECES, push_piece::<P, D>, core::ptr::from_mut(run).cast());
    if !run.machine.track.crc != expected {
        invalid(run);
    }
}

/// Shifts 64 bytes through the register; where fewer are left, one.
extern "C" fn push_piece<P: Packet, D>(_index: u64, run: *mut c_void) -> i64 {
    const PIECE: u32 = 64;
    // SAFETY: `crc` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let Machine { layout, track, .. } = &mut *run.machine;
    let done = track.summed as u32;
    let left = u32::from(layout.l4_len).saturating_sub(done);
    if left == 0 {
        return 1;
    }
    let size = if left < PIECE { 1 } else { PIECE };
    if !run.packet.read(u32::from(layout.l4) + done, &mut track.header, size) {
        return 1;
    }
    if size == 1 {
        // The checksum counts as zeros.
        let is_field = (CHECKSUM..CHECKSUM + 4).contains(&done);
        let byte = if is_field { 0 } else { track.header.bytes[0] };
        track.crc = crc32c::push(track.crc, byte);
    } else {
        if done == 0 {
            track.header.bytes[CHECKSUM as usize..CHECKSUM as usize + 4].fill(0);
        }
        let mut i = 0;
        while i < PIECE as usize {
            track.crc = crc32c::push(track.crc, track.header.bytes[i]);
            i += 1;
        }
    }
    track.summed += u64::from(size);
    0
}
