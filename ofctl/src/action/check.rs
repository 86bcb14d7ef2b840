//! Whether actions make sense for the packets that a flow matches.

use std::net::IpAddr;

use thiserror::Error;

use super::{Action, Alg, Ct, Zone};
use crate::field::{Field, Prerequisite, Subfield};
use crate::flow::Match;
use crate::port::PortNo;

const TCP: u128 = 6;
const UDP: u128 = 17;

/// Why OpenFlow refuses the actions of a flow; the names are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("actions are invalid with specified match ({})", self.name())]
pub enum CheckError {
    /// An action needs packets of another kind than those matched: a TCP port to be set, but no `tcp`.
    MatchInconsistent,
    /// Output to a number that no port can have.
    BadOutPort,
    /// A field that only the switch may write, or `ct` alone.
    BadSetArgument,
    /// A zone that is not 16 bits wide.
    BadSetLen,
    /// `ct` with `exec` or a NAT range, but without `commit`.
    BadArgument,
    /// An action behind `write_metadata`, which later versions of OpenFlow carry out after all actions.
    UnsupportedOrder,
    /// `goto_table` that does not go forward: that it does is what makes a pipeline of them end.
    BadTableId,
}

impl CheckError {
    /// The name of the error in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MatchInconsistent => "OFPBAC_MATCH_INCONSISTENT",
            Self::BadOutPort => "OFPBAC_BAD_OUT_PORT",
            Self::BadSetArgument => "OFPBAC_BAD_SET_ARGUMENT",
            Self::BadSetLen => "OFPBAC_BAD_SET_LEN",
            Self::BadArgument => "OFPBAC_BAD_ARGUMENT",
            Self::UnsupportedOrder => "OFPBAC_UNSUPPORTED_ORDER",
            Self::BadTableId => "OFPBIC_BAD_TABLE_ID",
        }
    }
}

/// Checks that the actions make sense for what is matched. Like OpenFlow 1.0, it lets the `mod_` actions and
/// `dec_ttl` pass anywhere: they do nothing to packets of another kind.
///
/// # Errors
/// Says which of OpenFlow's errors it is.
pub fn check_consistency(matching: &Match, actions: &[Action]) -> Result<(), CheckError> {
    // The packets, as the actions so far have made them: only the VLAN tag decides about later actions.
    let mut packets = *matching;
    let mut written = false;
    actions.iter().try_for_each(|action| {
        if written && !matches!(action, Action::GotoTable(_)) {
            return Err(CheckError::UnsupportedOrder);
        }
        if action.sets_connection() {
            return Err(CheckError::BadSetArgument);
        }
        written = matches!(action, Action::WriteMetadata { .. });
        check(&mut packets, action)
    })
}

/// Checks that each `goto_table` of a flow in table `from` goes forward, and no further than to `last`.
///
/// # Errors
/// [`CheckError::BadTableId`].
pub fn check_goto(from: u8, last: u8, actions: &[Action]) -> Result<(), CheckError> {
    let forward = |action: &Action| match action {
        Action::GotoTable(to) => from < *to && *to <= last,
        _ => true,
    };
    if actions.iter().all(forward) { Ok(()) } else { Err(CheckError::BadTableId) }
}

fn check(packets: &mut Match, action: &Action) -> Result<(), CheckError> {
    match action {
        Action::Output { port, .. } => check_output(*port),
        Action::OutputReg(src) => readable(packets, src.field),
        Action::Resubmit { ct: true, .. } => demand(packets, Prerequisite::Ct),
        Action::Load { dst, .. } => written(packets, dst.field),
        Action::SetField { field, .. } => written(packets, *field),
        Action::Move { src, dst } => readable(packets, src.field).and(written(packets, dst.field)),
        Action::ModNwEcn(_) | Action::ModNwTtl(_) => demand(packets, Prerequisite::Ip),
        Action::ModVlanVid(_) | Action::ModVlanPcp(_) | Action::PushVlan(_) => {
            packets.set(Field::VlanTci, 0x1000, 0x1000);
            Ok(())
        }
        Action::StripVlan => {
            packets.set(Field::VlanTci, 0, 0xffff);
            Ok(())
        }
        Action::Ct(ct) => check_ct(packets, ct),
        Action::Clone(actions) => check_consistency(packets, actions),
        Action::Resubmit { .. }
        | Action::GotoTable(_)
        | Action::WriteMetadata { .. }
        | Action::ModDl(..)
        | Action::ModNw(..)
        | Action::ModTp(..)
        | Action::ModNwTos(_)
        | Action::DecTtl
        | Action::CtClear
        | Action::Note(_) => Ok(()),
    }
}

fn demand(packets: &Match, prerequisite: Prerequisite) -> Result<(), CheckError> {
    if prerequisite.holds(packets) { Ok(()) } else { Err(CheckError::MatchInconsistent) }
}

/// Unlike [`Prerequisite::Tcp`] and its kind, this takes later fragments, too: they are tracked with the first.
fn demand_protocol(packets: &Match, number: u128) -> Result<(), CheckError> {
    if packets.exact(Field::IpProto) == Some(number) { Ok(()) } else { Err(CheckError::MatchInconsistent) }
}

fn readable(packets: &Match, field: Field) -> Result<(), CheckError> {
    demand(packets, field.info().prerequisite)
}

fn written(packets: &mut Match, field: Field) -> Result<(), CheckError> {
    if !field.info().writable {
        return Err(CheckError::BadSetArgument);
    }
    readable(packets, field)?;
    // Writing one of these adds a tag where there is none.
    if matches!(field, Field::VlanVid | Field::DlVlan | Field::DlVlanPcp) {
        packets.set(Field::VlanTci, 0x1000, 0x1000);
    }
    Ok(())
}

fn check_output(port: PortNo) -> Result<(), CheckError> {
    let reserved = PortNo::IN_PORT..=PortNo::LOCAL;
    if port <= PortNo::MAX || reserved.contains(&port) { Ok(()) } else { Err(CheckError::BadOutPort) }
}

fn check_ct(packets: &mut Match, ct: &Ct) -> Result<(), CheckError> {
    demand(packets, Prerequisite::Ip)?;
    match ct.alg {
        Some(Alg::Ftp) => demand_protocol(packets, TCP)?,
        Some(Alg::Tftp) => demand_protocol(packets, UDP)?,
        None => {}
    }
    if let Zone::Field(Subfield { field, n_bits, .. }) = ct.zone {
        readable(packets, field)?;
        if n_bits != 16 {
            return Err(CheckError::BadSetLen);
        }
    }
    let binds = ct.nat.as_ref().is_some_and(|nat| nat.direction.is_some());
    if !ct.commit && (binds || !ct.exec.is_empty()) {
        return Err(CheckError::BadArgument);
    }
    let address = ct.nat.as_ref().and_then(|nat| nat.addresses.as_ref()).map(|range| *range.start());
    match address {
        Some(IpAddr::V4(_)) => demand(packets, Prerequisite::Ipv4)?,
        Some(IpAddr::V6(_)) => demand(packets, Prerequisite::Ipv6)?,
        None => {}
    }
    ct.exec.iter().try_for_each(|action| check(packets, action))
}
