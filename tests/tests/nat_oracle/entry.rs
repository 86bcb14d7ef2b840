//! Connections, as `conntrack -L` and `dump-conntrack -m -s` print them.

use std::net::IpAddr;

use anyhow::{Context, Result};

/// Addresses of a direction, and the client's port (of ICMP the identifier) in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub client_port: u16,
    pub server_port: u16,
}

impl Tuple {
    pub fn without_client_port(self) -> Self {
        Self { client_port: 0, ..self }
    }
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub protocol: String,
    pub original: Tuple,
    pub reply: Tuple,
    /// TCP's, in OVS's words.
    pub state: Option<String>,
    pub replied: bool,
    pub assured: bool,
    /// Seconds.
    pub timeout: u64,
}

/// `key=value` items of one direction; the client is at its source or, in a reply, at its destination.
fn tuple(items: &[&str], reply: bool) -> Result<Tuple> {
    let value = |key: &str| {
        let found = items.iter().find_map(|item| item.strip_prefix(key)?.strip_prefix('='));
        found.with_context(|| format!("no {key} in {items:?}"))
    };
    let (client, server) = if reply { ("dport", "sport") } else { ("sport", "dport") };
    let (client_port, server_port) = match value("id") {
        Ok(id) => (id.parse()?, 0),
        Err(_) => (value(client)?.parse()?, value(server)?.parse()?),
    };
    Ok(Tuple { src: value("src")?.parse()?, dst: value("dst")?.parse()?, client_port, server_port })
}

/// A line of `conntrack -L`: `tcp 6 119 SYN_SENT src=... [UNREPLIED] src=... [ASSURED] mark=0 use=1`.
pub fn of_kernel(line: &str) -> Result<Entry> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let sources: Vec<usize> =
        words.iter().enumerate().filter(|(_, word)| word.starts_with("src=")).map(|(at, _)| at).collect();
    let [first, second] = sources[..] else { anyhow::bail!("no two tuples in {line:?}") };
    let state = (words[0] == "tcp").then(|| {
        match words[3] {
            "SYN_SENT2" => "SYN_SENT",
            "FIN_WAIT" => "FIN_WAIT_1",
            "CLOSE" => "CLOSING",
            other => other,
        }
        .to_owned()
    });
    Ok(Entry {
        protocol: words[0].to_owned(),
        original: tuple(&words[first..second], false)?,
        reply: tuple(&words[second..], true)?,
        state,
        replied: !line.contains("[UNREPLIED]"),
        assured: line.contains("[ASSURED]"),
        timeout: words[2].parse()?,
    })
}

/// A line of `dump-conntrack -m -s`.
pub fn of_switch(line: &str) -> Result<Entry> {
    let direction = |name: &str| -> Result<Vec<&str>> {
        let start = line.find(&format!("{name}=(")).context("a tuple")? + name.len() + 2;
        let items = &line[start..];
        Ok(items[..items.find(')').context("its end")?].split(',').collect())
    };
    let rest = |key: &str| {
        let start = line.find(&format!("{key}="))? + key.len() + 1;
        line[start..].split([',', ')']).next()
    };
    let status = rest("status").context("no status")?;
    Ok(Entry {
        protocol: line.split(',').next().unwrap_or_default().to_owned(),
        original: tuple(&direction("orig")?, false)?,
        reply: tuple(&direction("reply")?, true)?,
        state: rest("state_orig").map(str::to_owned),
        replied: status.contains("SEEN_REPLY"),
        assured: status.contains("ASSURED"),
        timeout: rest("timeout").context("no timeout")?.parse()?,
    })
}
