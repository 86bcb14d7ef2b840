//! The commands about connections: `dpctl/dump-conntrack`, `dpctl/flush-conntrack` and `dpctl/ct-*`.

mod arguments;
mod dump;
mod events;
mod flush;
mod json;
mod limits;
mod settings;
mod statistics;
mod text;
mod timestamp;

use std::sync::Arc;

use crate::control::Registry;
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    dump::register(registry, switch);
    events::register(registry, switch);
    flush::register(registry, switch);
    limits::register(registry, switch);
    settings::register(registry, switch);
    statistics::register(registry, switch);
}
