//! What `vsctl show` prints, in the layout of `ovs-vsctl show`.

use std::fmt::{self, Write};

use appctl::vsctl::{DatapathType, FailMode};

/// A bridge as `show` has it.
pub(super) struct Bridge<'a> {
    pub(super) name: &'a str,
    pub(super) fail_mode: Option<FailMode>,
    pub(super) datapath_type: DatapathType,
    pub(super) ports: Vec<Port<'a>>,
}

/// A port as `show` has it, the local one aside.
pub(super) struct Port<'a> {
    pub(super) name: &'a str,
    pub(super) error: Option<&'a str>,
    /// Why it is served by tcx on a bridge that is for XDP.
    pub(super) note: Option<&'a str>,
}

pub(super) fn show(out: &mut impl Write, uuid: &str, bridges: &[Bridge<'_>]) -> fmt::Result {
    writeln!(out, "{uuid}")?;
    for bridge in bridges {
        writeln!(out, "    Bridge {}", Text(bridge.name))?;
        if let Some(mode) = bridge.fail_mode {
            writeln!(out, "        fail_mode: {mode}")?;
        }
        if bridge.datapath_type != DatapathType::default() {
            writeln!(out, "        datapath_type: {}", bridge.datapath_type)?;
        }
        for port in &bridge.ports {
            writeln!(out, "        Port {0}\n            Interface {0}", Text(port.name))?;
            if let Some(error) = port.error {
                writeln!(out, "                error: {}", Text(error))?;
            }
            if let Some(note) = port.note {
                writeln!(out, "                hook: {}", Text(&format!("tcx: {note}")))?;
            }
        }
        writeln!(out, "        Port {0}\n            Interface {0}", Text(bridge.name))?;
        writeln!(out, "                type: internal")?;
    }
    Ok(())
}

/// A string as OVS's database prints it: bare if it looks like an identifier, else quoted as in JSON.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let goes_on_well = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if begins_well && goes_on_well && !["true", "false"].contains(&text) {
            f.write_str(text)
        } else {
            write!(f, "{}", serde_json::Value::from(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_where_they_must_be() {
        for (text, printed) in [
            ("br0", "br0"),
            ("_a-b.c", "_a-b.c"),
            ("0br", "\"0br\""),
            ("", "\"\""),
            ("true", "\"true\""),
            ("a b\"c\n", r#""a b\"c\n""#),
        ] {
            assert_eq!(Text(text).to_string(), printed);
        }
    }

    #[test]
    fn the_layout_is_that_of_ovs_vsctl() {
        let ports = vec![
            Port { name: "veth_l0", error: None, note: None },
            Port { name: "x", error: Some("could not open network device x (No such device)"), note: None },
            Port { name: "y", error: None, note: Some("peer's namespace cannot be found") },
        ];
        let bridges = [
            Bridge { name: "br0", fail_mode: None, datapath_type: DatapathType::Xdp, ports },
            Bridge {
                name: "br1",
                fail_mode: Some(FailMode::Secure),
                datapath_type: DatapathType::Netdev,
                ports: Vec::new(),
            },
        ];
        let mut text = String::new();
        show(&mut text, "9f2a", &bridges).unwrap();
        assert_eq!(
            text,
            r#"9f2a
    Bridge br0
        Port veth_l0
            Interface veth_l0
        Port x
            Interface x
                error: "could not open network device x (No such device)"
        Port y
            Interface y
                hook: "tcx: peer's namespace cannot be found"
        Port br0
            Interface br0
                type: internal
    Bridge br1
        fail_mode: secure
        datapath_type: netdev
        Port br1
            Interface br1
                type: internal
"#
        );
    }
}
