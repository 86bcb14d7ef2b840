//! `dpctl/ct-events`: what happens to connections, live, in the manner of `conntrack -E`.

use std::fmt::Write as _;
use std::sync::Arc;

use appctl::client::strerror;
use switchd_ebpf::layout::{Event, event};
use tokio::runtime::Handle;

use super::super::failed;
use super::arguments::Arguments;
use super::dump::Printer;
use crate::control::Registry;
use crate::datapath::Notice;
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let switch = Arc::clone(switch);
    let usage =
        "[-m] [-s] [--json] [dp] [zone=N] [mark=X[/M]] [labels=X[/M]] [ct-orig-tuple [ct-reply-tuple]]";
    registry.register("dpctl/ct-events", usage, 0..=9, move |args, reply| {
        let arguments = Arguments::parse(args)?;
        let mut listener =
            switch.events().listen().map_err(|error| failed("cannot listen to events", &strerror(&error)))?;
        let mut printer = Printer::new(switch.connections(), &arguments);
        let runtime = Handle::current();
        loop {
            let waited = runtime.block_on(async {
                tokio::select! {
                    notice = listener.next() => Some(notice),
                    () = reply.unwanted() => None,
                }
            });
            let Some(first) = waited else { return Ok(()) };
            let mut next = Some(first);
            while let Some(notice) = next {
                match notice {
                    Notice::Event(event) if arguments.selection.fits(&event.record) => {
                        printer.now = event.at;
                        printer.write_event(reply, name(&event), &event)?;
                    }
                    Notice::Event(_) => {}
                    Notice::Lost(count) if arguments.json => {
                        writeln!(reply, r#"{{"event":"lost","count":{count}}}"#)?;
                    }
                    Notice::Lost(count) => writeln!(reply, "   [LOST] {count} events")?,
                }
                next = listener.try_next();
            }
            reply.flush()?;
        }
    });
}

/// What has happened, in a word.
fn name(event: &Event) -> &'static str {
    match event.kind {
        event::NEW => "NEW",
        event::DESTROY => "DESTROY",
        _ => "UPDATE",
    }
}
