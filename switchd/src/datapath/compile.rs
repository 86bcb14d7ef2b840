//! From OpenFlow actions to the datapath's.

use std::net::IpAddr;

use conntrack_core::nat::flags;
use ofctl::action::{Action, Alg, Ct, Direction, Nat, Zone};
use ofctl::field::{Field, Subfield};
use ofctl::port::PortNo;
use switchd_ebpf::key::{self, Location};
use switchd_ebpf::layout::{Op, op};
use switchd_ebpf::parse::{VLAN_CFI, eth_type};
use switchd_ebpf::pipeline::MAX_CLONES;

use crate::rules::RuleError;

/// Compiles the actions of a rule in `table`. The last one is [`op::END`].
///
/// # Errors
/// [`RuleError::Unsupported`] names what the datapath cannot do.
pub fn compile(table: u8, actions: &[Action]) -> Result<Vec<Op>, RuleError> {
    let mut compiler = Compiler { table, ops: Vec::with_capacity(actions.len() + 1), clones: 0 };
    compiler.actions(actions)?;
    if let Some(last) = compiler.ops.last_mut().filter(|last| last.code == op::CT) {
        last.c |= op::CT_LAST;
    }
    compiler.ops.push(Op { code: op::END, ..Op::default() });
    Ok(compiler.ops)
}

struct Compiler {
    table: u8,
    ops: Vec<Op>,
    clones: usize,
}

fn unsupported(what: &str) -> RuleError {
    RuleError::Unsupported(what.to_owned())
}

impl Compiler {
    fn actions(&mut self, actions: &[Action]) -> Result<(), RuleError> {
        actions.iter().try_for_each(|action| self.action(action))
    }

    fn action(&mut self, action: &Action) -> Result<(), RuleError> {
        match *action {
            Action::Output { port, .. } => self.output(port)?,
            Action::OutputReg(src) => self.output_reg(src)?,
            Action::Resubmit { ct: true, .. } => return Err(unsupported("resubmit with ct")),
            Action::Resubmit { port, table, .. } => {
                let port = port.filter(|&port| port != PortNo::IN_PORT);
                self.ops.push(Op {
                    code: op::RESUBMIT,
                    b: u16::from(table.unwrap_or(self.table)),
                    c: port.map_or(op::NO_PORT, |port| u32::from(port.0)),
                    ..Op::default()
                });
            }
            Action::GotoTable(table) => {
                self.ops.push(Op { code: op::GOTO, b: u16::from(table), ..Op::default() });
            }
            Action::WriteMetadata { value, mask } => {
                self.set(op::SET, key::METADATA, 0, u128::from(value), u128::from(mask));
            }
            Action::Load { value, dst } => self.load(op::SET, dst, value)?,
            Action::SetField { field, value, mask } => self.set_field(op::SET, field, value, mask)?,
            Action::Move { src, dst } => self.copy(op::MOVE, src, dst)?,
            Action::ModDl(direction, address) => {
                let at = if direction == Direction::Src { key::ETH_SRC } else { key::ETH_DST };
                self.set_whole(at, u128::from(address));
            }
            Action::ModNw(direction, address) => {
                let at = if direction == Direction::Src { key::IPV4_SRC } else { key::IPV4_DST };
                // ARP keeps its addresses in the same place, and is none of this action's business.
                self.ops.push(Op {
                    code: op::SET,
                    a: at.word,
                    b: eth_type::IPV4,
                    value: u64::from(address) << at.shift,
                    mask: at.low_mask() << at.shift,
                    ..Op::default()
                });
            }
            Action::ModTp(direction, port) => {
                let at = if direction == Direction::Src { key::TP_SRC } else { key::TP_DST };
                self.set_whole(at, u128::from(port));
            }
            Action::ModNwTos(tos) => self.set_whole(key::IP_DSCP, u128::from(tos >> 2)),
            Action::ModNwEcn(ecn) => self.set_whole(key::IP_ECN, u128::from(ecn)),
            Action::ModNwTtl(ttl) => self.set_whole(key::IP_TTL, u128::from(ttl)),
            Action::DecTtl => self.ops.push(Op { code: op::DEC_TTL, ..Op::default() }),
            Action::ModVlanVid(vid) => {
                let value = u128::from(vid & 0x0fff | VLAN_CFI);
                self.set(op::SET, key::VLAN_TCI, 0, value, 0x1fff);
            }
            Action::ModVlanPcp(pcp) => {
                let value = u128::from(u16::from(pcp & 7) << 13 | VLAN_CFI);
                self.set(op::SET, key::VLAN_TCI, 0, value, 0xf000);
            }
            Action::StripVlan => self.set_whole(key::VLAN_TCI, 0),
            Action::PushVlan(0x8100) => self.ops.push(Op { code: op::PUSH_VLAN, ..Op::default() }),
            Action::PushVlan(tpid) => return Err(unsupported(&format!("push_vlan:{tpid:#06x}"))),
            Action::Ct(ref ct) => self.ct(ct)?,
            Action::CtClear => self.ops.push(Op { code: op::CT_CLEAR, ..Op::default() }),
            Action::Clone(ref actions) => {
                if self.clones == MAX_CLONES {
                    return Err(unsupported(&format!("clone nested more than {MAX_CLONES} deep")));
                }
                self.clones += 1;
                self.ops.push(Op { code: op::CLONE, ..Op::default() });
                self.actions(actions)?;
                self.ops.push(Op { code: op::UNCLONE, ..Op::default() });
                self.clones -= 1;
            }
            Action::Note(_) => {}
        }
        Ok(())
    }

    fn output(&mut self, port: PortNo) -> Result<(), RuleError> {
        match port {
            PortNo::CONTROLLER => return Err(unsupported("output to a controller")),
            PortNo::TABLE | PortNo::UNSET => return Err(unsupported("output to that reserved port")),
            PortNo::NONE => {}
            _ => self.ops.push(Op { code: op::OUTPUT, c: u32::from(port.0), ..Op::default() }),
        }
        Ok(())
    }

    fn output_reg(&mut self, src: Subfield) -> Result<(), RuleError> {
        let at = part(src);
        let [(word, shift, bits)] = words(at)[..] else {
            return Err(unsupported("output to a port number of more than 64 bits"));
        };
        self.ops.push(Op {
            code: op::OUTPUT_REG,
            a: word,
            b: u16::from(shift),
            mask: ones(bits),
            ..Op::default()
        });
        Ok(())
    }

    /// Sets the bits of `mask` in a field, both right-aligned at bit `ofs` of it.
    fn set(&mut self, code: u8, at: Location, ofs: u8, value: u128, mask: u128) {
        let (value, mask) = (value << ofs, mask << ofs);
        let mut done = 0;
        for (word, shift, bits) in words((at, 0, at.bits)) {
            let mask = (mask >> done) as u64 & ones(bits);
            if mask != 0 {
                let value = (value >> done) as u64 & mask;
                self.ops.push(Op {
                    code,
                    a: word,
                    value: value << shift,
                    mask: mask << shift,
                    ..Op::default()
                });
            }
            done += bits;
        }
    }

    fn set_whole(&mut self, at: Location, value: u128) {
        self.set(op::SET, at, 0, value, u128::MAX >> (128 - u32::from(at.bits)));
    }

    fn load(&mut self, code: u8, dst: Subfield, value: u64) -> Result<(), RuleError> {
        self.check_writable(code, dst.field)?;
        self.set(code, dst.field.info().location, dst.ofs, u128::from(value), u128::from(ones(dst.n_bits)));
        Ok(())
    }

    fn set_field(&mut self, code: u8, field: Field, value: u128, mask: u128) -> Result<(), RuleError> {
        self.check_writable(code, field)?;
        match field {
            // OXM's vlan_vid has the bit that says that there is a tag; setting the id keeps the tag.
            Field::VlanVid | Field::DlVlan => {
                let value = value & 0x0fff | u128::from(VLAN_CFI);
                self.set(op::SET, key::VLAN_TCI, 0, value, mask & 0x0fff | u128::from(VLAN_CFI));
            }
            Field::VlanPcp | Field::DlVlanPcp => {
                self.set(op::SET, key::VLAN_PCP, 0, value, mask);
                self.set(op::SET, key::VLAN_TCI, 0, u128::from(VLAN_CFI), u128::from(VLAN_CFI));
            }
            _ => self.set(code, field.info().location, 0, value, mask & field.info().value_mask()),
        }
        Ok(())
    }

    fn check_writable(&self, code: u8, field: Field) -> Result<(), RuleError> {
        if code == op::CT_SET && !matches!(field, Field::CtMark | Field::CtLabel) {
            return Err(unsupported(&format!("exec on {}", field.info().name)));
        }
        Ok(())
    }

    fn copy(&mut self, code: u8, src: Subfield, dst: Subfield) -> Result<(), RuleError> {
        self.check_writable(if code == op::CT_MOVE { op::CT_SET } else { op::SET }, dst.field)?;
        // Both as runs within words; each piece ends where either of the two ends.
        let (from, to) = (words(part(src)), words(part(dst)));
        let (mut from, mut to) = (from.into_iter(), to.into_iter());
        let (mut read, mut write) = (from.next(), to.next());
        while let (Some((a, read_shift, read_bits)), Some((b, write_shift, write_bits))) = (read, write) {
            let bits = read_bits.min(write_bits);
            self.ops.push(Op {
                code,
                a,
                b: u16::from(b),
                c: u32::from(read_shift) | u32::from(write_shift) << 8,
                mask: ones(bits),
                ..Op::default()
            });
            read =
                if read_bits > bits { Some((a, read_shift + bits, read_bits - bits)) } else { from.next() };
            write =
                if write_bits > bits { Some((b, write_shift + bits, write_bits - bits)) } else { to.next() };
        }
        // The bits that the key does not have are zero.
        let moved = part(src).2;
        let zeros = src.n_bits - moved;
        if zeros > 0 {
            let code = if code == op::CT_MOVE { op::CT_SET } else { op::SET };
            let mask = u128::MAX >> (128 - u32::from(zeros));
            self.set(code, dst.field.info().location, dst.ofs + moved, 0, mask);
        }
        Ok(())
    }

    fn ct(&mut self, ct: &Ct) -> Result<(), RuleError> {
        for action in &ct.exec {
            match *action {
                Action::Load { value, dst } => self.load(op::CT_SET, dst, value)?,
                Action::SetField { field, value, mask } => self.set_field(op::CT_SET, field, value, mask)?,
                Action::Move { src, dst } => self.copy(op::CT_MOVE, src, dst)?,
                _ => return Err(unsupported("that action in exec")),
            }
        }
        let mut flags = match ct.alg {
            None => 0,
            Some(Alg::Ftp) => op::CT_FTP,
            Some(Alg::Tftp) => op::CT_TFTP,
        };
        if let Some(nat) = &ct.nat {
            flags |= op::CT_NAT;
            self.nat(nat);
        }
        let mut compiled = Op { code: op::CT, ..Op::default() };
        if ct.commit {
            flags |= op::CT_COMMIT;
        }
        if ct.force {
            flags |= op::CT_FORCE;
        }
        if let Some(table) = ct.table {
            flags |= op::CT_TABLE;
            compiled.b = u16::from(table);
        }
        match ct.zone {
            Zone::Constant(zone) => compiled.value = u64::from(zone),
            Zone::Field(src) => {
                let [(word, shift, 16)] = words(part(src))[..] else {
                    return Err(unsupported("a zone that is not 16 bits of one field"));
                };
                flags |= op::CT_ZONE_FIELD;
                compiled.a = word;
                compiled.value = u64::from(shift);
            }
        }
        compiled.c = flags;
        self.ops.push(compiled);
        Ok(())
    }

    /// What a `ct` may translate a new connection to.
    fn nat(&mut self, nat: &Nat) {
        let mut bits = match nat.direction {
            Some(Direction::Src) => flags::SRC,
            Some(Direction::Dst) => flags::DST,
            None => 0,
        };
        for (asked, bit) in
            [(nat.persistent, flags::PERSISTENT), (nat.hash, flags::HASH), (nat.random, flags::RANDOM)]
        {
            bits |= if asked { bit } else { 0 };
        }
        let mut addresses = [0, 0];
        if let Some(range) = &nat.addresses {
            bits |= flags::ADDRESSES;
            addresses = [range.start(), range.end()].map(|address| match *address {
                IpAddr::V4(address) => u128::from(address.to_bits()),
                IpAddr::V6(address) => {
                    bits |= flags::IPV6;
                    address.to_bits()
                }
            });
        }
        let mut ports = 0;
        if let Some(range) = &nat.ports {
            bits |= flags::PORTS;
            ports = u32::from(*range.start()) << 16 | u32::from(*range.end());
        }
        let [low, high] = [0, 64].map(|shift| addresses.map(|address| (address >> shift) as u64));
        self.ops.push(Op {
            code: op::NAT,
            b: bits as u16,
            c: ports,
            value: low[0],
            mask: low[1],
            ..Op::default()
        });
        if high != [0, 0] {
            self.ops.push(Op { code: op::NAT_HIGH, value: high[0], mask: high[1], ..Op::default() });
        }
    }
}

fn ones(bits: u8) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// A run of bits of a field: the field's place, the first bit, and how many. Where the key has fewer bits than
/// the field, the others, which are always zero, are left out.
fn part(subfield: Subfield) -> (Location, u8, u8) {
    let at = subfield.field.info().location;
    (at, subfield.ofs, subfield.n_bits.min(at.bits.saturating_sub(subfield.ofs)))
}

/// The runs of bits within words that make up a run within a field, from the least significant up: word,
/// shift, and width.
fn words((at, ofs, n_bits): (Location, u8, u8)) -> Vec<(u8, u8, u8)> {
    if at.bits < 128 {
        return vec![(at.word, at.shift + ofs, n_bits)];
    }
    let mut runs = Vec::with_capacity(2);
    let low = 64u8.saturating_sub(ofs).min(n_bits);
    if low > 0 {
        runs.push((at.word + 1, ofs, low));
    }
    if n_bits > low {
        runs.push((at.word, (ofs + low) - 64, n_bits - low));
    }
    runs
}
