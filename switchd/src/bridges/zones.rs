//! What the `vsctl` commands about zones of connection tracking do to a configuration.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use appctl::vsctl::Command;
use switchd_ebpf::layout::MAX_POLICIES;

use super::config::ZonesConfig;
use super::transaction::{Output, Refusal};

/// Timeouts that differ; the datapath has room for as many beside the default. Connections keep those that they were
/// made with, and may need a place for them after their zone got others: then a change waits until they are gone.
pub(super) const POLICIES_MAX: usize = MAX_POLICIES as usize - 1;

/// Carries out a command about zones. Others do nothing.
pub(super) fn run(zones: &mut ZonesConfig, command: &Command) -> Result<Output, Refusal> {
    match command {
        Command::AddZoneTp { datapath, zone, timeouts, may_exist } => {
            check_datapath(datapath)?;
            if zones.timeouts.contains_key(zone) && !may_exist {
                return Err(Refusal::ZoneExists(*zone));
            }
            zones.timeouts.insert(*zone, timeouts.clone());
            if zones.timeouts.values().collect::<BTreeSet<_>>().len() > POLICIES_MAX {
                return Err(Refusal::TooManyPolicies);
            }
        }
        Command::DelZoneTp { datapath, zone, if_exists } => {
            check_datapath(datapath)?;
            if zones.timeouts.remove(zone).is_none() && !if_exists {
                return Err(Refusal::NoZone(*zone));
            }
        }
        Command::ListZoneTp { datapath } => {
            check_listed(datapath)?;
            let mut text = String::new();
            for (zone, timeouts) in &zones.timeouts {
                // Writing to a string does not fail.
                let _ = write!(text, "Zone:{zone}, Timeout Policies:");
                for (timeout, seconds) in timeouts {
                    let _ = write!(text, " {timeout}={seconds}");
                }
                text.push('\n');
            }
            return Ok(Output::Text(text));
        }
        Command::SetZoneLimit { datapath, zone, limit } => {
            check_datapath(datapath)?;
            match zone {
                Some(zone) => {
                    zones.limits.insert(*zone, *limit);
                }
                None => zones.default_limit = Some(*limit),
            }
        }
        Command::DelZoneLimit { datapath, zone, if_exists } => {
            check_datapath(datapath)?;
            match zone {
                Some(zone) if zones.limits.remove(zone).is_none() && !if_exists => {
                    return Err(Refusal::NoZone(*zone));
                }
                None if zones.default_limit.take().is_none() && !if_exists => {
                    return Err(Refusal::NoDefaultLimit);
                }
                _ => {}
            }
        }
        Command::ListZoneLimits { datapath } => {
            check_listed(datapath)?;
            let default = zones.default_limit.map(|limit| format!("Default limit: {limit}\n"));
            let limits = zones.limits.iter().map(|(zone, limit)| format!("Zone: {zone}, Limit: {limit}\n"));
            return Ok(Output::Text(default.into_iter().chain(limits).collect()));
        }
        _ => {}
    }
    Ok(Output::NONE)
}

/// The names of the datapath: there is one, whose zones all bridges share.
fn is_datapath(name: &str) -> bool {
    matches!(name, "system" | "netdev" | "xdp" | "tc")
}

fn check_datapath(name: &str) -> Result<(), Refusal> {
    if is_datapath(name) { Ok(()) } else { Err(Refusal::NoDatapath(name.to_owned())) }
}

fn check_listed(name: &str) -> Result<(), Refusal> {
    if is_datapath(name) { Ok(()) } else { Err(Refusal::NoDatapathRecord(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use appctl::vsctl::parse::{Invocation, parse};

    use super::*;

    /// What the commands of a line print, one after the other, or why one of them may not be carried out.
    fn execute(zones: &mut ZonesConfig, line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Ok(Invocation::Run { commands, .. }) = parse(&words) else { panic!("{line}") };
        let run = |command| match run(zones, command) {
            Ok(Output::Text(text)) => Ok(text),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.to_string()),
        };
        commands.iter().map(run).collect()
    }

    #[test]
    fn timeouts_of_zones() {
        let zones = &mut ZonesConfig::default();
        for (line, wanted) in [
            ("list-zone-tp netdev", Ok("")),
            ("add-zone-tp netdev zone=6 udp_single=2 udp_multiple=3 udp_first=1", Ok("")),
            ("add-zone-tp system zone=6 udp_single=9", Err("zone id 6 already exists")),
            (
                "list-zone-tp system",
                Ok("Zone:6, Timeout Policies: udp_first=1 udp_multiple=3 udp_single=2\n"),
            ),
            ("add-zone-tp xdp zone=0 icmp_first=5 -- --may-exist add-zone-tp tc zone=6 tcp_close=1", Ok("")),
            (
                "list-zone-tp system",
                Ok("Zone:0, Timeout Policies: icmp_first=5\nZone:6, Timeout Policies: tcp_close=1\n"),
            ),
            ("del-zone-tp netdev zone=7", Err("zone id 7 does not exist")),
            ("--if-exists del-zone-tp netdev zone=7", Ok("")),
            ("del-zone-tp netdev zone=6", Ok("")),
            ("list-zone-tp system", Ok("Zone:0, Timeout Policies: icmp_first=5\n")),
            ("add-zone-tp foo zone=1 udp_first=1", Err("datapath foo does not exist")),
            ("del-zone-tp foo zone=0", Err("datapath foo does not exist")),
            ("list-zone-tp foo", Err("datapath: foo record not found")),
        ] {
            let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(execute(zones, line), wanted, "{line}");
        }
    }

    #[test]
    fn limits_of_zones() {
        let zones = &mut ZonesConfig::default();
        for (line, wanted) in [
            ("set-zone-limit netdev 5 10 -- set-zone-limit netdev default 3", Ok("")),
            ("set-zone-limit netdev zone=0 0 -- set-zone-limit netdev 5 11", Ok("")),
            ("list-zone-limits netdev", Ok("Default limit: 3\nZone: 0, Limit: 0\nZone: 5, Limit: 11\n")),
            ("del-zone-limit netdev default", Ok("")),
            ("del-zone-limit netdev default", Err("there is no default limit")),
            ("del-zone-limit netdev 6", Err("zone id 6 does not exist")),
            ("--if-exists del-zone-limit netdev 6 -- --if-exists del-zone-limit netdev default", Ok("")),
            ("del-zone-limit netdev 5", Ok("")),
            ("list-zone-limits netdev", Ok("Zone: 0, Limit: 0\n")),
            ("set-zone-limit foo 5 10", Err("datapath foo does not exist")),
            ("list-zone-limits foo", Err("datapath: foo record not found")),
        ] {
            let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(execute(zones, line), wanted, "{line}");
        }
    }

    #[test]
    fn no_more_timeouts_than_there_is_room_for() {
        let zones = &mut ZonesConfig::default();
        for zone in 0..=POLICIES_MAX {
            // Every second zone is like the one before it.
            let line = format!("add-zone-tp netdev zone={zone} udp_single={}", zone / 2);
            assert_eq!(execute(zones, &line), Ok(String::new()));
        }
        let distinct = POLICIES_MAX / 2 + 1;
        for zone in 0..POLICIES_MAX - distinct {
            let line = format!("add-zone-tp netdev zone={} tcp_close={zone}", 2000 + zone);
            assert_eq!(execute(zones, &line), Ok(String::new()));
        }
        assert_eq!(
            execute(zones, "add-zone-tp netdev zone=9999 tcp_close=9999"),
            Err("no more than 1023 zones can have timeouts that differ".to_owned())
        );
    }
}
