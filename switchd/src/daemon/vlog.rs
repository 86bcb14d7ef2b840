//! Log levels per module, in the language of OVS's `vlog/set` and `vlog/list`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The modules whose level can be set: this crate's, by name. What other crates log goes by [`OTHERS`].
pub const MODULES: &[&str] =
    &["bridges", "commands", "control", "daemon", "datapath", "netdev", "ofproto", "openflow", "switch"];

/// Stands for all crates but this one.
const OTHERS: &str = "others";

/// Where log lines can go, by OVS's names. The daemon has one destination at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Destination {
    Console,
    Syslog,
    File,
}

/// One change of levels: `[MODULE:][DESTINATION:]LEVEL`, the words in any order, `any` for what is left open,
/// `dbg` when no level is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// `None`: all.
    module: Option<&'static str>,
    /// `None`: all.
    destination: Option<Destination>,
    level: LevelFilter,
}

/// Why a text is no [`Spec`]; OVS's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A word that is none of the three.
    #[error("no destination, level, or module \"{0}\"")]
    Unknown(String),
    /// Two words of one kind, named in the plural.
    #[error("cannot specify multiple {0}")]
    Repeated(&'static str),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (mut module, mut destination, mut level) = (None, None, None);
        let words = text.split([':', ' ', '\t', ',']).filter(|word| !word.is_empty());
        for word in words.map(str::to_ascii_lowercase).filter(|word| word != "any") {
            if let Some(found) = destination_named(&word) {
                set_once(&mut destination, found, "destinations")?;
            } else if let Some(found) = level_named(&word) {
                set_once(&mut level, found, "levels")?;
            } else if let Some(found) = modules().find(|name| *name == word) {
                set_once(&mut module, found, "modules")?;
            } else {
                return Err(SpecError::Unknown(word));
            }
        }
        Ok(Self { module, destination, level: level.unwrap_or(LevelFilter::DEBUG) })
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), SpecError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(SpecError::Repeated(what)),
    }
}

fn modules() -> impl Iterator<Item = &'static str> {
    MODULES.iter().copied().chain([OTHERS])
}

fn destination_named(word: &str) -> Option<Destination> {
    match word {
        "console" => Some(Destination::Console),
        "syslog" => Some(Destination::Syslog),
        "file" => Some(Destination::File),
        _ => None,
    }
}

fn level_named(word: &str) -> Option<LevelFilter> {
    match word {
        "off" => Some(LevelFilter::OFF),
        "emer" | "err" => Some(LevelFilter::ERROR),
        "warn" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "dbg" => Some(LevelFilter::DEBUG),
        "trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

fn level_name(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::OFF => "OFF",
        LevelFilter::ERROR => "ERR",
        LevelFilter::WARN => "WARN",
        LevelFilter::INFO => "INFO",
        LevelFilter::DEBUG => "DBG",
        LevelFilter::TRACE => "TRACE",
    }
}

/// The level of each module at the daemon's one destination.
#[derive(Clone, Debug)]
pub struct Levels {
    destination: Destination,
    by_module: BTreeMap<&'static str, LevelFilter>,
}

impl Levels {
    /// Information and what is graver, for all.
    #[must_use]
    pub fn new(destination: Destination) -> Self {
        Self { destination, by_module: modules().map(|name| (name, LevelFilter::INFO)).collect() }
    }

    /// Makes a change. One for a destination that is not ours changes nothing, as in an OVS without it.
    pub fn apply(&mut self, spec: &Spec) {
        if spec.destination.is_some_and(|destination| destination != self.destination) {
            return;
        }
        for (name, level) in &mut self.by_module {
            if spec.module.is_none_or(|module| module == *name) {
                *level = spec.level;
            }
        }
    }

    /// The filter that these levels make.
    #[must_use]
    pub fn to_filter(&self) -> Targets {
        self.by_module.iter().fold(Targets::new(), |filter, (name, level)| match *name {
            OTHERS => filter.with_default(*level),
            module => filter.with_target(format!("switchd::{module}"), *level),
        })
    }
}

/// The table of `vlog/list`.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "                 console    syslog    file")?;
        writeln!(f, "                 -------    ------    ------")?;
        for (name, level) in &self.by_module {
            let at = |destination| {
                level_name(if self.destination == destination { *level } else { LevelFilter::OFF })
            };
            writeln!(
                f,
                "{name:<16}  {:>4}       {:>4}       {:>4}",
                at(Destination::Console),
                at(Destination::Syslog),
                at(Destination::File)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(
        module: Option<&'static str>,
        destination: Option<Destination>,
        level: LevelFilter,
    ) -> Result<Spec, SpecError> {
        Ok(Spec { module, destination, level })
    }

    #[test]
    fn specs_in_every_form_of_ovs() {
        use Destination::{Console, File};
        for (text, wanted) in [
            ("warn", spec(None, None, LevelFilter::WARN)),
            ("", spec(None, None, LevelFilter::DEBUG)),
            ("netdev", spec(Some("netdev"), None, LevelFilter::DEBUG)),
            ("netdev:ERR", spec(Some("netdev"), None, LevelFilter::ERROR)),
            ("netdev:file:off", spec(Some("netdev"), Some(File), LevelFilter::OFF)),
            ("ANY:console:trace", spec(None, Some(Console), LevelFilter::TRACE)),
            ("info control", spec(Some("control"), None, LevelFilter::INFO)),
            ("foo", Err(SpecError::Unknown("foo".to_owned()))),
            ("netdev:foo:dbg", Err(SpecError::Unknown("foo".to_owned()))),
            ("err:warn", Err(SpecError::Repeated("levels"))),
            ("netdev:control", Err(SpecError::Repeated("modules"))),
            ("file:console", Err(SpecError::Repeated("destinations"))),
        ] {
            assert_eq!(text.parse::<Spec>(), wanted, "{text}");
        }
        let error = "foo".parse::<Spec>().unwrap_err();
        assert_eq!(error.to_string(), "no destination, level, or module \"foo\"");
    }

    #[test]
    fn changes_reach_the_filter() {
        let mut levels = Levels::new(Destination::File);
        for text in ["warn", "netdev:dbg", "control:console:trace", "others:off"] {
            levels.apply(&text.parse().unwrap());
        }
        let filter = levels.to_filter();
        assert!(filter.would_enable("switchd::netdev::link", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("switchd::netdev::link", &tracing::Level::TRACE));
        assert!(filter.would_enable("switchd::control", &tracing::Level::WARN));
        assert!(!filter.would_enable("switchd::control", &tracing::Level::INFO));
        assert!(!filter.would_enable("aya", &tracing::Level::ERROR));
    }

    #[test]
    fn the_list_has_the_columns_of_ovs() {
        let mut levels = Levels::new(Destination::Console);
        levels.apply(&"netdev:dbg".parse().unwrap());
        let text = levels.to_string();
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with([' ', 'n']) || line.contains("trol"))
                .collect::<Vec<_>>(),
            [
                "                 console    syslog    file",
                "                 -------    ------    ------",
                "control           INFO        OFF        OFF",
                "netdev             DBG        OFF        OFF",
            ]
        );
    }

    #[test]
    fn every_module_of_this_crate_that_logs_has_a_level() {
        let declared = include_str!("../lib.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        // They are traits and plain data.
        let silent = ["hooks", "rules"];
        for name in declared.filter(|name| !silent.contains(name)) {
            assert!(MODULES.contains(&name), "{name}");
        }
    }
}
