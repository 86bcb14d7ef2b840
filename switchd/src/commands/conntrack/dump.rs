//! `dpctl/dump-conntrack`: connections, one to a line.

use std::fmt::{self, Write};
use std::sync::Arc;

use conntrack_core::status;
use switchd_ebpf::layout::{Event, Record, life};

use super::arguments::Arguments;
use super::{json, text};
use crate::control::Registry;
use crate::datapath::{Connections, clock};
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let switch = Arc::clone(switch);
    let usage =
        "[-m] [-s] [--json] [dp] [zone=N] [mark=X[/M]] [labels=X[/M]] [ct-orig-tuple [ct-reply-tuple]]";
    registry.register("dpctl/dump-conntrack", usage, 0..=9, move |args, reply| {
        let arguments = Arguments::parse(args)?;
        let printer = Printer::new(switch.connections(), &arguments);
        for (number, record) in switch.connections().iter() {
            if arguments.selection.fits(&record) {
                printer.write(reply, number, &record)?;
            }
        }
        Ok(())
    });
}

/// Prints connections.
pub(super) struct Printer<'a> {
    connections: &'a Connections,
    /// Ids, status, the state of each side, and the connection that expected this one.
    pub more: bool,
    /// Counters, timeouts, and when it was made.
    pub statistics: bool,
    json: bool,
    /// The time, on the clock of the records.
    pub now: u64,
    /// The wall clock's time at which that one stood at zero.
    pub epoch: u64,
}

impl<'a> Printer<'a> {
    pub fn new(connections: &'a Connections, arguments: &Arguments) -> Self {
        let (now, epoch) = (clock::now_ns(), clock::epoch_ns());
        let Arguments { more, statistics, json, .. } = *arguments;
        Self { connections, more, statistics, json, now, epoch }
    }

    /// Writes a connection's line.
    pub fn write(&self, out: &mut dyn Write, number: u32, record: &Record) -> fmt::Result {
        if self.json {
            json::write(out, self, number, record)
        } else {
            text::write(out, self, number, record)
        }
    }

    /// Writes what has happened to a connection, and its line.
    pub fn write_event(&self, out: &mut dyn Write, name: &str, event: &Event) -> fmt::Result {
        if self.json {
            json::write_event(out, self, name, event)
        } else {
            // In a column, as wide as the longest.
            write!(out, "{:>9} ", format!("[{name}]"))?;
            text::write(out, self, event.number, &event.record)
        }
    }

    /// The connection that expected this one, if it was expected and the other is still there.
    pub fn parent(&self, record: &Record) -> Option<Record> {
        if record.connection.status & status::EXPECTED == 0 {
            return None;
        }
        let parent = self.connections.read(record.parent as u32)?;
        (life::generation(parent.life) == (record.parent >> 32) as u32).then_some(parent)
    }

    /// The seconds that a connection has left.
    pub fn timeout(&self, record: &Record) -> u64 {
        record.expires.saturating_sub(self.now) / 1_000_000_000
    }
}
