//! Actions as OpenFlow 1.0 with Nicira's extensions has them.

use super::{Action, Ct, Direction};
use crate::field::{Field, Subfield, ones};
use crate::flow::Match;

/// The actions of a flow without those that OpenFlow 1.0 does not know: `set_field` becomes a `mod_` action where
/// the field has one, else loads of the runs of bits that it writes; `goto_table` becomes a resubmit; `push_vlan`
/// becomes `mod_vlan_vid`, which adds a tag where there is none. Where there may be one, `push_vlan` stays as it is.
#[must_use]
pub fn to_openflow10(matching: &Match, actions: &[Action]) -> Vec<Action> {
    const TAG: u128 = 0x1000;
    let (tci, mask) = matching.get(Field::VlanTci);
    lower(actions, mask & TAG != 0 && tci & TAG == 0)
}

/// Lowers actions on packets that are known to have no VLAN tag, or not.
fn lower(actions: &[Action], mut untagged: bool) -> Vec<Action> {
    let mut lowered = Vec::with_capacity(actions.len());
    for action in actions {
        match action {
            Action::SetField { field, value, mask } => set_field(*field, *value, *mask, &mut lowered),
            Action::ModNwEcn(ecn) => lowered.push(whole_load(Field::IpEcn, *ecn)),
            Action::ModNwTtl(ttl) => lowered.push(whole_load(Field::IpTtl, *ttl)),
            Action::GotoTable(table) => {
                lowered.push(Action::Resubmit { port: None, table: Some(*table), ct: false });
            }
            Action::PushVlan(_) if untagged => lowered.push(Action::ModVlanVid(0)),
            Action::Ct(ct) => {
                let exec = lower(&ct.exec, untagged);
                lowered.push(Action::Ct(Box::new(Ct { exec, ..(**ct).clone() })));
            }
            Action::Clone(actions) => lowered.push(Action::Clone(lower(actions, untagged))),
            other => lowered.push(other.clone()),
        }
        untagged = matches!(action, Action::StripVlan) || untagged && !may_tag(action);
    }
    lowered
}

/// Whether packets may have a VLAN tag after this that had none before.
fn may_tag(action: &Action) -> bool {
    let field = match action {
        Action::PushVlan(_) | Action::ModVlanVid(_) | Action::ModVlanPcp(_) => return true,
        Action::SetField { field, .. } => *field,
        Action::Load { dst, .. } | Action::Move { dst, .. } => dst.field,
        _ => return false,
    };
    matches!(field, Field::VlanTci | Field::VlanVid | Field::VlanPcp | Field::DlVlan | Field::DlVlanPcp)
}

fn whole_load(field: Field, value: u8) -> Action {
    Action::Load { value: value.into(), dst: field.whole() }
}

fn set_field(field: Field, value: u128, mask: u128, lowered: &mut Vec<Action>) {
    if mask == field.info().value_mask()
        && let Some(action) = modify(field, value)
    {
        lowered.push(action);
        return;
    }
    if field == Field::VlanTci && mask == 0xffff {
        if value & 0x1000 == 0 {
            lowered.push(Action::StripVlan);
        } else {
            lowered.push(Action::ModVlanVid(value as u16 & 0xfff));
            lowered.push(Action::ModVlanPcp((value >> 13) as u8));
        }
        return;
    }
    let mut ofs = 0;
    let mut rest = mask;
    while rest != 0 {
        let zeros = rest.trailing_zeros() as u8;
        rest >>= zeros;
        ofs += zeros;
        let n_bits = (rest.trailing_ones() as u8).min(64);
        let value = (value >> ofs & ones(n_bits)) as u64;
        lowered.push(Action::Load { value, dst: Subfield { field, ofs, n_bits } });
        rest = rest.checked_shr(n_bits.into()).unwrap_or(0);
        ofs += n_bits;
    }
}

/// The `mod_` action that writes the whole field.
fn modify(field: Field, value: u128) -> Option<Action> {
    Some(match field {
        Field::EthSrc => Action::ModDl(Direction::Src, value as u64),
        Field::EthDst => Action::ModDl(Direction::Dst, value as u64),
        Field::VlanVid | Field::DlVlan => Action::ModVlanVid(value as u16 & 0xfff),
        Field::VlanPcp | Field::DlVlanPcp => Action::ModVlanPcp(value as u8),
        Field::Ipv4Src => Action::ModNw(Direction::Src, value as u32),
        Field::Ipv4Dst => Action::ModNw(Direction::Dst, value as u32),
        Field::IpTos => Action::ModNwTos(value as u8),
        Field::IpDscp => Action::ModNwTos((value as u8) << 2),
        Field::TcpSrc | Field::UdpSrc => Action::ModTp(Direction::Src, value as u16),
        Field::TcpDst | Field::UdpDst => Action::ModTp(Direction::Dst, value as u16),
        Field::InPortOxm => Action::Load { value: value as u64 & 0xffff, dst: Field::InPort.whole() },
        _ => return None,
    })
}

/// Fields that OpenFlow 1.0 can match or modify without Nicira's extensions.
pub(crate) const fn is_openflow10(field: Field) -> bool {
    matches!(
        field,
        Field::InPort
            | Field::EthSrc
            | Field::EthDst
            | Field::EthType
            | Field::VlanTci
            | Field::DlVlan
            | Field::DlVlanPcp
            | Field::VlanVid
            | Field::VlanPcp
            | Field::Ipv4Src
            | Field::Ipv4Dst
            | Field::IpProto
            | Field::IpTos
            | Field::IpDscp
            | Field::ArpOp
            | Field::ArpSpa
            | Field::ArpTpa
            | Field::TcpSrc
            | Field::TcpDst
            | Field::UdpSrc
            | Field::UdpDst
            | Field::IcmpType
            | Field::IcmpCode
    )
}
