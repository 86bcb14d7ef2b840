//! Direct access to a packet's linear bytes: the one door to them.

use aya_ebpf::helpers::generated::bpf_csum_diff;
use switchd_ebpf::packet::{Buffer, MAX_OFFSET};

/// The address of `len` bytes at `offset`, if they lie between `data` and `data_end`.
#[inline(always)]
fn at(data: usize, data_end: usize, offset: u32, len: usize) -> Option<usize> {
    if offset > MAX_OFFSET {
        return None;
    }
    let mut bounded = offset as usize;
    // LLVM knows that the mask changes nothing, and would leave it out; the verifier, which may have lost the
    // comparison by now, needs it.
    // SAFETY: the assembly touches nothing but its operand.
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) bounded, const MAX_OFFSET, options(pure, nomem, nostack));
    }
    let start = data + bounded;
    let mut end = start + len;
    // For one byte LLVM would compare `start >= data_end`, from which the verifier learns nothing.
    // SAFETY: a move to itself; it only hides where `end` comes from. (An empty one breaks BTF line info.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) end, options(pure, nomem, nostack)) };
    if end > data_end { None } else { Some(start) }
}

/// A length from 1 to 64, in a form that the verifier sees the bounds of.
#[inline(always)]
pub fn length(len: u32) -> Option<u32> {
    if len == 0 || len > 64 {
        return None;
    }
    let mut bounded = u64::from(len);
    // LLVM would leave all of it out, as in `at`. A comparison with zero would do for the lower bound only since
    // Linux 6.8.
    // SAFETY: the assembly touches nothing but its operand.
    unsafe {
        core::arch::asm!(
            "{0} += -1", "{0} &= 63", "{0} += 1", inout(reg) bounded, options(pure, nomem, nostack)
        );
    }
    Some(bounded as u32)
}

/// Reads a word at an address, or writes one there. By instructions of its own, because LLVM takes it that BPF cannot
/// do so where the address is not aligned, and would go byte by byte; the kernel can wherever the processor can (x86-64
/// and arm64).
macro_rules! word {
    ($size:literal, $at:expr) => {{
        let word: u64;
        core::arch::asm!(
            concat!("{0} = *(", $size, " *)({1} + 0)"), out(reg) word, in(reg) $at, options(pure, readonly, nostack)
        );
        word
    }};
    ($size:literal, $at:expr, $word:expr) => {
        core::arch::asm!(
            concat!("*(", $size, " *)({1} + 0) = {0}"), in(reg) u64::from($word), in(reg) $at, options(nostack)
        )
    };
}

/// Reads `N` bytes.
#[inline(always)]
pub fn load<const N: usize>(data: usize, data_end: usize, offset: u32) -> Option<[u8; N]> {
    let from = at(data, data_end, offset, N)?;
    let mut bytes = [0; N];
    // SAFETY: `at` has checked that the bytes lie within the packet, and there is room for as many.
    unsafe { copy::<N>(from, bytes.as_mut_ptr()) };
    Some(bytes)
}

/// Reads `N` bytes, a multiple of four, into the beginning of a buffer; zeros fill the last word of eight.
#[inline(always)]
pub fn read<const N: usize>(data: usize, data_end: usize, offset: u32, buffer: &mut Buffer) -> Option<()> {
    const { assert!(N <= size_of::<Buffer>() && N.is_multiple_of(4)) };
    let from = at(data, data_end, offset, N)?;
    let to = buffer.bytes.as_mut_ptr();
    // SAFETY: as in `load`. What is left of the last word is four bytes, and the buffer has whole words.
    unsafe {
        copy::<N>(from, to);
        if N & 4 != 0 {
            to.add(N).cast::<u32>().write_unaligned(0);
        }
    }
    Some(())
}

/// Reads `N` bytes from an address.
///
/// # Safety
/// They must lie within the packet, and `to` be valid for writing as many.
#[inline(always)]
unsafe fn copy<const N: usize>(from: usize, to: *mut u8) {
    let mut done = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while done + 8 <= N {
            to.add(done).cast::<u64>().write_unaligned(word!("u64", from + done));
            done += 8;
        }
        if N & 4 != 0 {
            to.add(done).cast::<u32>().write_unaligned(word!("u32", from + done) as u32);
            done += 4;
        }
        if N & 2 != 0 {
            to.add(done).cast::<u16>().write_unaligned(word!("u16", from + done) as u16);
            done += 2;
        }
        if N & 1 != 0 {
            to.add(done).write(word!("u8", from + done) as u8);
        }
    }
}

/// Writes `N` bytes. None: they are not all within the packet.
#[inline(always)]
pub fn store<const N: usize>(data: usize, data_end: usize, offset: u32, bytes: [u8; N]) -> Option<()> {
    let to = at(data, data_end, offset, N)?;
    let from: *const u8 = bytes.as_ptr();
    let mut done = 0;
    // SAFETY: as in `load`.
    unsafe {
        while done + 8 <= N {
            word!("u64", to + done, from.add(done).cast::<u64>().read_unaligned());
            done += 8;
        }
        if N & 4 != 0 {
            word!("u32", to + done, from.add(done).cast::<u32>().read_unaligned());
            done += 4;
        }
        if N & 2 != 0 {
            word!("u16", to + done, from.add(done).cast::<u16>().read_unaligned());
            done += 2;
        }
        if N & 1 != 0 {
            word!("u8", to + done, from.add(done).read());
        }
    }
    Some(())
}

/// Sums `N` bytes, a multiple of 4, in memory order onto `seed`, with [`NOT_LINEAR`] set if they cannot be had.
#[inline(always)]
pub fn chunk<const N: u32>(data: usize, data_end: usize, offset: u32, seed: u64) -> u64 {
    let Some(start) = at(data, data_end, offset, N as usize) else { return NOT_LINEAR };
    // SAFETY: `at` has checked that the bytes lie within the packet; the helper only reads them.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, start as *mut u32, N, seed as u32) };
    seed & NOT_LINEAR | sum as u64 & 0xffff_ffff
}

/// Sums the last `len % 4` bytes.
#[inline(always)]
pub fn rest(data: usize, data_end: usize, offset: u32, len: u32) -> Option<u64> {
    let mut sum = 0;
    if len & 2 != 0 {
        sum += u64::from(u16::from_be_bytes(load::<2>(data, data_end, offset)?));
    }
    if len & 1 != 0 {
        let [last] = load::<1>(data, data_end, offset + (len & 2))?;
        sum += u64::from(last) << 8;
    }
    Some(sum)
}

/// See [`chunk`].
pub const NOT_LINEAR: u64 = 1 << 32;

/// Defines `sum(ctx, offset, len)` for a hook: see [`switchd_ebpf::packet::Packet::sum`]; none if the bytes are
/// not all linear.
///
/// The helper wants sizes that the verifier knows, so the run is cut into powers of two. Each size is a global
/// function: the verifier knows nothing of it where it is called, and need not follow every combination.
macro_rules! define_sum {
    ($ctx:ty, $rest:ident, $largest:ident, $($chunk:ident = $size:literal),+) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $rest(ctx: *mut $ctx, offset: u32, len: u32) -> u64 {
            // SAFETY: the context is the program's own.
            let (data, data_end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
            $crate::bpf::bytes::rest(data, data_end, offset, len).unwrap_or($crate::bpf::bytes::NOT_LINEAR)
        }
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $chunk(ctx: *mut $ctx, offset: u32, seed: u64) -> u64 {
                // SAFETY: the context is the program's own.
                let (data, data_end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
                $crate::bpf::bytes::chunk::<$size>(data, data_end, offset, seed)
            }
        )+

        #[inline(always)]
        fn sum(ctx: *mut $ctx, offset: u32, len: u32) -> Option<u16> {
            use switchd_ebpf::checksum::fold;
            let mut at = offset;
            let mut total = 0;
            let mut left = len / 512;
            while left > 0 && left <= MAX_OFFSET / 512 {
                total = $largest(ctx, at, total);
                at += 512;
                left -= 1;
            }
            $(
                if len & ($size & 511) != 0 {
                    total = $chunk(ctx, at, total);
                    at += $size;
                }
            )+
            if left > 0 || total & $crate::bpf::bytes::NOT_LINEAR != 0 {
                return None;
            }
            let mut sum = u64::from(fold(total).to_be());
            if len & 3 != 0 {
                let rest = $rest(ctx, at, len);
                if rest & $crate::bpf::bytes::NOT_LINEAR != 0 {
                    return None;
                }
                sum += rest;
            }
            Some(fold(sum))
        }
    };
}
pub(super) use define_sum;
