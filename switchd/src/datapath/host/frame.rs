//! A frame in ordinary memory.

use switchd_ebpf::checksum;
use switchd_ebpf::packet::{Buffer, Changed, MAX_OFFSET, Packet};
use switchd_ebpf::parse::eth_type;

/// Length of the two MAC addresses, which the VLAN tag follows.
const ADDRESSES: usize = 12;
/// Length of a VLAN tag.
const TAG: usize = 4;

/// A frame in ordinary memory, from its Ethernet header on and without its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Frame {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn at(&self, offset: u32, len: usize) -> Option<&[u8]> {
        let start = offset as usize;
        if offset > MAX_OFFSET { None } else { self.0.get(start..start.checked_add(len)?) }
    }
}

impl Packet for Frame {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.at(offset, N)?.try_into().ok()
    }

    fn read(&self, offset: u32, buffer: &mut Buffer, len: u32) -> bool {
        let (Some(bytes), Some(to)) = (self.at(offset, len as usize), buffer.bytes.get_mut(..len as usize))
        else {
            return false;
        };
        to.copy_from_slice(bytes);
        len > 0
    }

    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        if self.at(offset, N).is_none() {
            return false;
        }
        self.0[offset as usize..offset as usize + N].copy_from_slice(&bytes);
        true
    }

    fn sum(&self, offset: u32, len: u32) -> Option<u16> {
        let words = self.at(offset, len as usize)?.chunks(2);
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        Some(checksum::fold(words.map(word).sum()))
    }

    fn resize(&mut self, length: u32) -> bool {
        self.0.resize(length as usize, 0);
        true
    }

    fn vlan_beside(&self) -> Option<u16> {
        None
    }

    fn push_vlan(&mut self, tci: u16) -> bool {
        if self.0.len() < ADDRESSES {
            return false;
        }
        let [p0, p1] = eth_type::VLAN.to_be_bytes();
        let [t0, t1] = tci.to_be_bytes();
        self.0.splice(ADDRESSES..ADDRESSES, [p0, p1, t0, t1]);
        true
    }

    fn pop_vlan(&mut self) -> bool {
        if self.0.len() < ADDRESSES + TAG {
            return false;
        }
        self.0.drain(ADDRESSES..ADDRESSES + TAG);
        true
    }

    fn set_vlan(&mut self, tci: u16) -> bool {
        self.store(ADDRESSES as u32 + 2, tci.to_be_bytes())
    }

    fn correct_checksum(&mut self, offset: u32, delta: u16, changed: Changed) -> bool {
        let Some(old) = self.load::<2>(offset) else { return false };
        let corrected = checksum::correct(u16::from_be_bytes(old), delta);
        // RFC 768: a UDP checksum of zero is sent as ones; to TCP and ICMP the two are the same.
        let corrected = if corrected == 0 && changed != Changed::IpHeader { 0xffff } else { corrected };
        self.store(offset, corrected.to_be_bytes())
    }
}
