//! How much of the BPF stack the programs take, seen in the object: the kernel at hand may be more generous than an
//! older one.

use std::collections::{BTreeMap, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use super::load::OBJECT;

/// Bytes of stack of a chain of calls.
const STACK: usize = 512;
/// What kernels before Linux 6.8 round a frame up to; later ones to 16.
const ROUNDED: usize = 32;

/// The register that points to the end of the frame.
const FRAME: u8 = 10;
/// In a call, and in a load of an address: it is a function's.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;

/// A function: the bytes of its frame, and where those begin that it calls, or hands to a helper that does.
#[derive(Default)]
struct Frame {
    size: usize,
    callees: HashSet<usize>,
}

#[test]
fn every_chain_of_calls_fits_on_the_stack_of_an_older_kernel() {
    let mut object = Object::parse(OBJECT).unwrap();
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).unwrap();
    assert_eq!(object.programs.len(), 3);
    for (name, program) in &object.programs {
        let frames = frames(&object.functions[&program.function_key()].instructions);
        let (bytes, chain) = deepest(&frames, 0);
        assert!(chain.len() > 2, "{name}: the calls were not found");
        assert!(bytes <= STACK, "{name}: {bytes} bytes, by frames of {chain:?}");
    }
}

/// The functions of a linked program, by their first instruction.
fn frames(program: &[bpf_insn]) -> BTreeMap<usize, Frame> {
    let callee = |at: usize| {
        let instruction = &program[at];
        let is_function = match instruction.code {
            0x85 => instruction.src_reg() == PSEUDO_CALL,
            0x18 => instruction.src_reg() == PSEUDO_FUNC,
            _ => false,
        };
        is_function.then(|| at.checked_add_signed(instruction.imm as isize + 1).unwrap())
    };
    let mut frames: BTreeMap<_, _> =
        (0..program.len()).filter_map(callee).chain([0]).map(|start| (start, Frame::default())).collect();
    for at in 0..program.len() {
        let instruction = &program[at];
        let offset = match instruction.code & 0x07 {
            // A load, a store.
            0x01 if instruction.src_reg() == FRAME => -i64::from(instruction.off),
            0x02 | 0x03 if instruction.dst_reg() == FRAME => -i64::from(instruction.off),
            // An address: the pointer is copied, and a negative number added.
            _ if instruction.code == 0xbf && instruction.src_reg() == FRAME => {
                let mut behind = program[at + 1..].iter();
                let added = behind.find(|next| next.dst_reg() == instruction.dst_reg()).unwrap();
                if added.code == 0x07 { -i64::from(added.imm) } else { 0 }
            }
            _ => 0,
        };
        let (_, frame) = frames.range_mut(..=at).next_back().unwrap();
        frame.size = frame.size.max(offset.try_into().unwrap_or(0));
        frame.callees.extend(callee(at));
    }
    frames
}

/// The chain of calls from a function on that takes the most.
fn deepest(frames: &BTreeMap<usize, Frame>, start: usize) -> (usize, Vec<usize>) {
    let frame = &frames[&start];
    let (bytes, mut chain) =
        frame.callees.iter().map(|&callee| deepest(frames, callee)).max().unwrap_or_default();
    chain.insert(0, frame.size);
    (bytes + frame.size.max(1).next_multiple_of(ROUNDED), chain)
}
