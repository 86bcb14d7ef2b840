//! The measurement's own BPF programs, instruction by instruction: they are too small for a compiler, and must
//! contain nothing but what is to be measured.

/// An instruction as the kernel reads it: code, registers (destination low), offset and immediate from the
/// lowest byte up.
pub type Instruction = u64;

/// XDP_ABORTED.
pub const ABORTED: u32 = 0;
/// XDP_DROP.
pub const DROP: u32 = 1;
/// XDP_REDIRECT.
pub const REDIRECT: u32 = 4;
/// TC_ACT_SHOT.
pub const SHOT: u32 = 2;

/// Where TCP's ports are in an untagged IPv4 frame without options.
const PORTS: i16 = 14 + 20;
/// The urgent pointer, which means nothing without its flag.
const URGENT: i16 = PORTS + 18;

const fn encode(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    code as u64
        | (dst as u64) << 8
        | (src as u64) << 12
        | (offset.cast_unsigned() as u64) << 16
        | (immediate.cast_unsigned() as u64) << 32
}

/// `dst = immediate`
const fn set(dst: u8, immediate: i32) -> Instruction {
    encode(0xb7, dst, 0, 0, immediate)
}
/// `dst = src`
const fn copy(dst: u8, src: u8) -> Instruction {
    encode(0xbf, dst, src, 0, 0)
}
/// `dst += immediate`
const fn add(dst: u8, immediate: i32) -> Instruction {
    encode(0x07, dst, 0, 0, immediate)
}
/// `dst += src`
const fn add_register(dst: u8, src: u8) -> Instruction {
    encode(0x0f, dst, src, 0, 0)
}
/// `dst |= immediate`
const fn or(dst: u8, immediate: i32) -> Instruction {
    encode(0x47, dst, 0, 0, immediate)
}
/// `dst |= src`
const fn or_register(dst: u8, src: u8) -> Instruction {
    encode(0x4f, dst, src, 0, 0)
}
/// `dst &= immediate`
const fn and(dst: u8, immediate: i32) -> Instruction {
    encode(0x57, dst, 0, 0, immediate)
}
/// `dst ^= immediate`
const fn xor(dst: u8, immediate: i32) -> Instruction {
    encode(0xa7, dst, 0, 0, immediate)
}
/// `dst <<= immediate`
const fn shift_left(dst: u8, immediate: i32) -> Instruction {
    encode(0x67, dst, 0, 0, immediate)
}
/// `dst >>= immediate`
const fn shift_right(dst: u8, immediate: i32) -> Instruction {
    encode(0x77, dst, 0, 0, immediate)
}
/// `dst = big_endian(dst)`, of so many bits
const fn big_endian(dst: u8, bits: i32) -> Instruction {
    encode(0xdc, dst, 0, 0, bits)
}
/// `dst = *(u32 *)(src + offset)`
const fn load32(dst: u8, src: u8, offset: i16) -> Instruction {
    encode(0x61, dst, src, offset, 0)
}
/// `dst = *(u64 *)(src + offset)`
const fn load64(dst: u8, src: u8, offset: i16) -> Instruction {
    encode(0x79, dst, src, offset, 0)
}
/// `*(u16 *)(dst + offset) = src`
const fn store16(dst: u8, offset: i16, src: u8) -> Instruction {
    encode(0x6b, dst, src, offset, 0)
}
/// `*(u32 *)(dst + offset) = src`
const fn store32(dst: u8, offset: i16, src: u8) -> Instruction {
    encode(0x63, dst, src, offset, 0)
}
/// `*(u64 *)(dst + offset) = src`
const fn store64(dst: u8, offset: i16, src: u8) -> Instruction {
    encode(0x7b, dst, src, offset, 0)
}
/// `*(u32 *)(dst + offset) = immediate`
const fn store32_immediate(dst: u8, offset: i16, immediate: i32) -> Instruction {
    encode(0x62, dst, 0, offset, immediate)
}
/// `lock *(u64 *)(dst) += src`
const fn atomic_add(dst: u8, src: u8) -> Instruction {
    encode(0xdb, dst, src, 0, 0)
}
/// `if dst < immediate: skip so many instructions`
const fn if_less(dst: u8, immediate: i32, skip: i16) -> Instruction {
    encode(0xa5, dst, 0, skip, immediate)
}
/// `if dst > src: skip so many instructions`
const fn if_greater(dst: u8, src: u8, skip: i16) -> Instruction {
    encode(0x2d, dst, src, skip, 0)
}
/// `r0 = helper(r1, ...)`
const fn call(helper: i32) -> Instruction {
    encode(0x85, 0, 0, 0, helper)
}
const EXIT: Instruction = encode(0x95, 0, 0, 0, 0);

/// `dst = map`: two instructions' worth.
const fn map(dst: u8, fd: i32) -> [Instruction; 2] {
    [encode(0x18, dst, 1, 0, fd), 0]
}
/// `dst = the address of the map's first value`
const fn value(dst: u8, fd: i32) -> [Instruction; 2] {
    [encode(0x18, dst, 2, 0, fd), 0]
}

const TAIL_CALL: i32 = 12;
const REDIRECT_DEVICE: i32 = 23;
const REDIRECT_MAP: i32 = 51;

/// Drops.
pub fn empty() -> Vec<Instruction> {
    vec![set(0, DROP as i32), EXIT]
}

/// Redirects everything to the device in a device map.
pub fn bare_redirect(devices: i32) -> Vec<Instruction> {
    [&map(1, devices)[..], &[set(2, 0), set(3, 0), call(REDIRECT_MAP), EXIT]].concat()
}

/// Sends everything out of a device.
pub fn send_out_of(ifindex: u32) -> Vec<Instruction> {
    vec![set(1, ifindex.cast_signed()), set(2, 0), call(REDIRECT_DEVICE), EXIT]
}

/// Counts in an array's word, and answers with a verdict.
pub fn count(counter: i32, verdict: u32) -> Vec<Instruction> {
    [&value(1, counter)[..], &[set(2, 1), atomic_add(1, 2), set(0, verdict.cast_signed()), EXIT]].concat()
}

/// What [`vary`] writes into a frame.
#[derive(Clone, Copy)]
pub struct Variation {
    /// How many different frames there are.
    pub count: u32,
    /// How far apart two frames in a row are: [`Variation::scattered`] or 1.
    pub step: u32,
    /// The frame goes from the server to the client: its ports are exchanged.
    pub reply: bool,
}

impl Variation {
    /// The first server's port, above its client's: no port is ever zero, which Open vSwitch does not track.
    const BASE: u32 = 4096 << Self::CLIENT_BITS;
    /// So many bits of a frame's number are the client's port.
    const CLIENT_BITS: u32 = 15;
    /// The bits that are.
    const CLIENT_MASK: u32 = (1 << Self::CLIENT_BITS) - 1;
    /// The bit that all clients' ports have.
    const CLIENT: u32 = 1 << Self::CLIENT_BITS;

    /// All frames one after the other.
    pub const fn in_order(count: u32, reply: bool) -> Self {
        Self { count, step: 1, reply }
    }

    /// All frames in an order that no cache foresees: by steps near the golden ratio, without a common divisor.
    pub fn scattered(count: u32) -> Self {
        let near = (f64::from(count) * 0.618) as u32;
        let coprime = |&step: &u32| greatest_common_divisor(step, count) == 1;
        let step = (near.max(1)..count).find(coprime).unwrap_or(1);
        Self { count, step, reply: false }
    }

    /// The ports of each frame: server's and client's.
    pub fn ports(count: u32) -> impl Iterator<Item = (u16, u16)> {
        let port = |n: u32| ((n >> Self::CLIENT_BITS) as u16, (n & Self::CLIENT_MASK | Self::CLIENT) as u16);
        (0..count).map(|n| Self::BASE + n).map(port)
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Gives a TCP frame other ports each time, and leaves it to the program in a program array.
///
/// The frame's own ports and urgent pointer must be zero and its checksum right: the urgent pointer becomes what
/// keeps it right. `position` is an array whose word says where the next run goes on.
pub fn vary(position: i32, programs: i32, variation: Variation) -> Vec<Instruction> {
    let Variation { count, step, reply } = variation;
    // The source port comes first in the frame, so it is the word's high half.
    let (client, server) = if reply { (0, 16) } else { (16, 0) };
    [
        &[copy(6, 1)][..],
        &value(7, position),
        &[
            load64(8, 7, 0),
            add(8, step.cast_signed()),
            if_less(8, count.cast_signed(), 1),
            add(8, -count.cast_signed()),
            store64(7, 0, 8),
            add(8, Variation::BASE.cast_signed()),
            // r4: the client's port, r5: the server's.
            copy(4, 8),
            and(4, Variation::CLIENT_MASK.cast_signed()),
            or(4, Variation::CLIENT.cast_signed()),
            copy(5, 8),
            shift_right(5, Variation::CLIENT_BITS.cast_signed()),
            // r3: the complement of their sum.
            copy(3, 4),
            add_register(3, 5),
            copy(0, 3),
            shift_right(0, 16),
            and(3, 0xffff),
            add_register(3, 0),
            xor(3, 0xffff),
            big_endian(3, 16),
            shift_left(4, client),
            shift_left(5, server),
            or_register(4, 5),
            big_endian(4, 32),
            load32(2, 6, 0),
            load32(5, 6, 4),
            copy(0, 2),
            add(0, (URGENT + 2) as i32),
            if_greater(0, 5, 7),
            store32(2, PORTS, 4),
            store16(2, URGENT, 3),
            copy(1, 6),
        ],
        &map(2, programs),
        &[set(3, 0), call(TAIL_CALL), set(0, ABORTED.cast_signed()), EXIT],
    ]
    .concat()
}

/// Writes a whole frame, but for what follows its last whole word, and leaves it to the program in a program array.
///
/// Live frames are used again as they come back, with what the way has changed in them.
pub fn restore(frame: &[u8], programs: i32) -> Vec<Instruction> {
    let (words, _) = frame.as_chunks::<4>();
    let store = |(number, &word): (usize, &[u8; 4])| {
        store32_immediate(2, 4 * number as i16, i32::from_le_bytes(word))
    };
    let stores: Vec<_> = words.iter().enumerate().map(store).collect();
    [
        &[
            load32(2, 1, 0),
            load32(5, 1, 4),
            copy(0, 2),
            add(0, 4 * words.len() as i32),
            if_greater(0, 5, stores.len() as i16 + 4),
        ][..],
        &stores,
        &map(2, programs),
        &[set(3, 0), call(TAIL_CALL), set(0, ABORTED.cast_signed()), EXIT],
    ]
    .concat()
}
