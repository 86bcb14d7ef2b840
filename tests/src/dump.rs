//! Reading what the tools print.

/// One line of `dump-flows`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Packets that hit it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything behind the statistics: from `priority=` or the match on, with the actions.
    pub rule: String,
}

/// The flows of a `dump-flows` with statistics; lines that are no flow are left out.
pub fn flows(text: &str) -> Vec<Flow> {
    text.lines().filter_map(flow).collect()
}

fn flow(line: &str) -> Option<Flow> {
    // The statistics are separated by comma and blank, the match by commas alone.
    let (statistics, rule) = line.rsplit_once(", ")?;
    let number = |key: &str| statistics.split(", ").find_map(|item| item.strip_prefix(key)?.parse().ok());
    Some(Flow { packets: number("n_packets=")?, bytes: number("n_bytes=")?, rule: rule.into() })
}

/// The value of `KEY=` in a line of comma-separated items, up to the next comma or closing bracket.
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let key = format!("{key}=");
    let start = line.match_indices(&key).find(|(at, _)| {
        let before = line[..*at].chars().next_back();
        before.is_none_or(|c| matches!(c, ',' | '(' | ' '))
    })?;
    line[start.0 + key.len()..].split([',', ')']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_a_dump() {
        let text = "NXST_FLOW reply (xid=0x4):\n cookie=0x0, duration=9.151s, table=0, n_packets=2, \
                    n_bytes=108, idle_age=7, priority=50,ct_state=+new+trk,tcp,in_port=1 \
                    actions=ct(commit),output:2\n";
        let rule = "priority=50,ct_state=+new+trk,tcp,in_port=1 actions=ct(commit),output:2".into();
        assert_eq!(flows(text), [Flow { packets: 2, bytes: 108, rule }]);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let line = "tcp,orig=(src=1.2.3.4,sport=5),timeout=119,protoinfo=(state=SYN_SENT)";
        assert_eq!(field(line, "timeout"), Some("119"));
        assert_eq!(field(line, "state"), Some("SYN_SENT"));
        assert_eq!(field(line, "port"), None);
    }
}
