//! Actions as OpenFlow 1.0 with Nicira's extensions has them.

use super::{Action, Ct, Direction};
use crate::field::{Field, Subfield, ones};

/// The same actions without those that OpenFlow 1.0 does not know: `set_field` becomes a `mod_` action where
/// the field has one, else loads of the runs of bits that it writes; `goto_table` becomes a resubmit.
#[must_use]
pub fn to_openflow10(actions: &[Action]) -> Vec<Action> {
    let mut lowered = Vec::with_capacity(actions.len());
    for action in actions {
        match action {
            Action::SetField { field, value, mask } => set_field(*field, *value, *mask, &mut lowered),
            Action::ModNwEcn(ecn) => lowered.push(whole_load(Field::IpEcn, *ecn)),
            Action::ModNwTtl(ttl) => lowered.push(whole_load(Field::IpTtl, *ttl)),
            Action::GotoTable(table) => {
                lowered.push(Action::Resubmit { port: None, table: Some(*table), ct: false });
            }
            Action::Ct(ct) => {
                lowered.push(Action::Ct(Box::new(Ct { exec: to_openflow10(&ct.exec), ..(**ct).clone() })));
            }
            Action::Clone(actions) => lowered.push(Action::Clone(to_openflow10(actions))),
            other => lowered.push(other.clone()),
        }
    }
    lowered
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
