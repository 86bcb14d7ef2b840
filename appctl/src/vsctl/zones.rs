//! Arguments of the commands about zones of connection tracking.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timeouts;
use super::columns::ColumnError;

/// A timeout that a policy may set, by OVS's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are OVS's")]
pub enum Timeout {
    IcmpFirst,
    IcmpReply,
    TcpClose,
    TcpCloseWait,
    TcpEstablished,
    TcpFinWait,
    TcpLastAck,
    TcpRetransmit,
    TcpSynRecv,
    TcpSynSent,
    TcpSynSent2,
    TcpTimeWait,
    TcpUnack,
    UdpFirst,
    UdpMultiple,
    UdpSingle,
}

/// All timeouts with their names, in the order of printing.
const NAMES: [(Timeout, &str); 16] = [
    (Timeout::IcmpFirst, "icmp_first"),
    (Timeout::IcmpReply, "icmp_reply"),
    (Timeout::TcpClose, "tcp_close"),
    (Timeout::TcpCloseWait, "tcp_close_wait"),
    (Timeout::TcpEstablished, "tcp_established"),
    (Timeout::TcpFinWait, "tcp_fin_wait"),
    (Timeout::TcpLastAck, "tcp_last_ack"),
    (Timeout::TcpRetransmit, "tcp_retransmit"),
    (Timeout::TcpSynRecv, "tcp_syn_recv"),
    (Timeout::TcpSynSent, "tcp_syn_sent"),
    (Timeout::TcpSynSent2, "tcp_syn_sent2"),
    (Timeout::TcpTimeWait, "tcp_time_wait"),
    (Timeout::TcpUnack, "tcp_unack"),
    (Timeout::UdpFirst, "udp_first"),
    (Timeout::UdpMultiple, "udp_multiple"),
    (Timeout::UdpSingle, "udp_single"),
];

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES[*self as usize].1)
    }
}

/// The names of all timeouts.
pub(super) fn timeout_names() -> String {
    NAMES.map(|(_, name)| name).join(", ")
}

/// Reads `zone=N`; OVS's older commands want the key, its newer ones the number alone.
pub(super) fn zone(text: &str) -> Result<u16, ColumnError> {
    integer(text.strip_prefix("zone=").unwrap_or(text), &u16::MAX)
}

/// Reads a zone, or `default`.
pub(super) fn zone_or_default(text: &str) -> Result<Option<u16>, ColumnError> {
    if text == "default" { Ok(None) } else { zone(text).map(Some) }
}

/// Reads a limit.
pub(super) fn limit(text: &str) -> Result<u32, ColumnError> {
    integer(text, &u32::MAX)
}

/// Reads `NAME=SECONDS...`; of several for one name the last counts.
pub(super) fn timeouts(settings: &[String]) -> Result<Timeouts, ColumnError> {
    let setting = |text: &String| {
        let (name, value) = text.split_once('=').ok_or_else(|| ColumnError::NoValue(text.clone()))?;
        let known = NAMES.iter().find(|(_, known)| *known == name);
        let (timeout, _) = known.ok_or_else(|| ColumnError::NotATimeout { name: name.to_owned() })?;
        Ok((*timeout, integer(value, &u32::MAX)?))
    };
    settings.iter().map(setting).collect()
}

/// Reads an integer from 0 to `max`.
fn integer<T: TryFrom<i64> + fmt::Display>(text: &str, max: &T) -> Result<T, ColumnError> {
    let number: i64 = text.parse().map_err(|_| ColumnError::NotAnInteger(text.to_owned()))?;
    T::try_from(number).map_err(|_| ColumnError::NotUpTo { number, max: max.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_travel() {
        for (place, (timeout, name)) in NAMES.iter().enumerate() {
            assert_eq!(*timeout as usize, place, "{name}");
            assert_eq!(serde_json::to_string(timeout).unwrap(), format!("\"{timeout}\""));
        }
        assert!(NAMES.is_sorted());
    }
}
