//! `dpctl/flush-conntrack`: forgets connections.

use std::sync::Arc;

use ofctl::syntax::parse_ct_flush;

use super::super::{failed, invalid};
use super::arguments::{without_datapath, words};
use crate::control::Registry;
use crate::datapath::Selection;
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let switch = Arc::clone(switch);
    let usage = "[dp] [zone=N] [mark=X[/M]] [labels=X[/M]] [ct-orig-tuple [ct-reply-tuple]]";
    registry.register("dpctl/flush-conntrack", usage, 0..=6, move |args, _| {
        let words = words(args)?;
        let flush = parse_ct_flush(without_datapath(&words)).map_err(|error| invalid(&error.to_string()))?;
        let mut selection = Selection::new(flush);
        let exact = selection.make_exact();
        // Only who names a single connection is told that it is not there.
        if switch.connections().flush(|record| selection.fits(record)) == 0 && exact {
            return Err(failed("failed to flush conntrack", "No such file or directory"));
        }
        Ok(())
    });
}
