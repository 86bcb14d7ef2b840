//! The `vsctl` command line: `vsctl [OPTION...] COMMAND [-- COMMAND]...`, each command with its own options
//! before its name. Texts of errors are `ovs-vsctl`'s.

use std::ops::RangeInclusive;

use super::{Command, Transaction};
use super::{columns, zones};

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// The help text.
    Help,
    /// The version.
    Version,
    /// To carry out commands.
    Run {
        /// Seconds after which to give up.
        timeout: Option<u32>,
        /// The commands, at least one.
        commands: Transaction,
    },
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum UsageError {
    #[error("missing command name (use --help for help)")]
    NoCommand,
    #[error("unknown command '{0}'; use --help for help")]
    UnknownCommand(String),
    #[error("unrecognized option '{0}'")]
    UnknownOption(String),
    #[error("invalid option -- '{0}'")]
    UnknownShortOption(char),
    #[error("option '{0}' requires an argument")]
    NoValue(String),
    #[error("option '{0}' doesn't allow an argument")]
    UnwantedValue(String),
    #[error("value {0} on -t or --timeout is invalid")]
    BadTimeout(String),
    #[error("'{command}' command has no '{option}' option")]
    ForeignOption { command: &'static str, option: String },
    #[error("'{command}' command requires at least {min} arguments")]
    TooFewArguments { command: &'static str, min: usize },
    #[error("'{command}' command takes at most {max} arguments")]
    TooManyArguments { command: &'static str, max: usize },
    #[error(transparent)]
    Column(#[from] columns::ColumnError),
}

/// Options that belong to single commands.
const MAY_EXIST: &str = "--may-exist";
const IF_EXISTS: &str = "--if-exists";

/// What a command looks like on the command line.
struct Syntax {
    name: &'static str,
    /// Its arguments, for the help text.
    usage: &'static str,
    arity: RangeInclusive<usize>,
    option: Option<&'static str>,
    build: fn(Words<'_>) -> Result<Command, UsageError>,
}

/// A command's arguments, their number checked, and whether its option was given.
struct Words<'a> {
    args: &'a [String],
    flag: bool,
}

impl Words<'_> {
    fn next(&mut self) -> String {
        let Some((first, rest)) = self.args.split_first() else {
            return String::new();
        };
        self.args = rest;
        first.clone()
    }
}

const ANY: usize = usize::MAX;

const COMMANDS: &[Syntax] = &[
    Syntax {
        name: "add-br",
        usage: "BRIDGE",
        arity: 1..=1,
        option: Some(MAY_EXIST),
        build: |mut words| Ok(Command::AddBr { bridge: words.next(), may_exist: words.flag }),
    },
    Syntax {
        name: "del-br",
        usage: "BRIDGE",
        arity: 1..=1,
        option: Some(IF_EXISTS),
        build: |mut words| Ok(Command::DelBr { bridge: words.next(), if_exists: words.flag }),
    },
    Syntax { name: "list-br", usage: "", arity: 0..=0, option: None, build: |_| Ok(Command::ListBr) },
    Syntax {
        name: "br-exists",
        usage: "BRIDGE",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::BrExists { bridge: words.next() }),
    },
    Syntax {
        name: "add-port",
        usage: "BRIDGE PORT",
        arity: 2..=ANY,
        option: Some(MAY_EXIST),
        build: |mut words| {
            let (bridge, port) = (words.next(), words.next());
            // OVS takes settings of the Port table here; we have none.
            columns::no_port_settings(words.args)?;
            Ok(Command::AddPort { bridge, port, may_exist: words.flag })
        },
    },
    Syntax {
        name: "del-port",
        usage: "[BRIDGE] PORT",
        arity: 1..=2,
        option: Some(IF_EXISTS),
        build: |mut words| {
            let bridge = (words.args.len() == 2).then(|| words.next());
            Ok(Command::DelPort { bridge, port: words.next(), if_exists: words.flag })
        },
    },
    Syntax {
        name: "list-ports",
        usage: "BRIDGE",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::ListPorts { bridge: words.next() }),
    },
    Syntax {
        name: "list-ifaces",
        usage: "BRIDGE",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::ListIfaces { bridge: words.next() }),
    },
    Syntax {
        name: "port-to-br",
        usage: "PORT",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::PortToBr { port: words.next() }),
    },
    Syntax {
        name: "iface-to-br",
        usage: "INTERFACE",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::IfaceToBr { interface: words.next() }),
    },
    Syntax { name: "show", usage: "", arity: 0..=0, option: None, build: |_| Ok(Command::Show) },
    Syntax {
        name: "set",
        usage: "interface INTERFACE ofport_request=N | bridge BRIDGE COLUMN=VALUE...",
        arity: 3..=ANY,
        option: Some(IF_EXISTS),
        build: |mut words| {
            let (table, record) = (words.next(), words.next());
            Ok(columns::set(&table, record, words.args, words.flag)?)
        },
    },
    Syntax {
        name: "get",
        usage: "interface INTERFACE [ofport|ofport_request]... | bridge BRIDGE [datapath_type|fail_mode]...",
        arity: 2..=ANY,
        option: Some(IF_EXISTS),
        build: |mut words| {
            let (table, record) = (words.next(), words.next());
            Ok(columns::get(&table, record, words.args, words.flag)?)
        },
    },
    Syntax {
        name: "set-fail-mode",
        usage: "BRIDGE standalone|secure",
        arity: 2..=2,
        option: None,
        build: |mut words| {
            let (bridge, fail_mode) = (words.next(), columns::fail_mode(&words.next())?);
            Ok(Command::SetFailMode { bridge, fail_mode: Some(fail_mode) })
        },
    },
    Syntax {
        name: "del-fail-mode",
        usage: "BRIDGE",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::SetFailMode { bridge: words.next(), fail_mode: None }),
    },
    Syntax {
        name: "get-fail-mode",
        usage: "BRIDGE",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::GetFailMode { bridge: words.next() }),
    },
    Syntax {
        name: "add-zone-tp",
        usage: "DATAPATH zone=N TIMEOUT=SECS...",
        arity: 3..=ANY,
        option: Some(MAY_EXIST),
        build: |mut words| {
            let (datapath, zone) = (words.next(), zones::zone(&words.next())?);
            let timeouts = zones::timeouts(words.args)?;
            Ok(Command::AddZoneTp { datapath, zone, timeouts, may_exist: words.flag })
        },
    },
    Syntax {
        name: "del-zone-tp",
        usage: "DATAPATH zone=N",
        arity: 2..=2,
        option: Some(IF_EXISTS),
        build: |mut words| {
            let (datapath, zone) = (words.next(), zones::zone(&words.next())?);
            Ok(Command::DelZoneTp { datapath, zone, if_exists: words.flag })
        },
    },
    Syntax {
        name: "list-zone-tp",
        usage: "DATAPATH",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::ListZoneTp { datapath: words.next() }),
    },
    Syntax {
        name: "set-zone-limit",
        usage: "DATAPATH zone=N|default LIMIT",
        arity: 3..=3,
        option: None,
        build: |mut words| {
            let (datapath, zone) = (words.next(), zones::zone_or_default(&words.next())?);
            Ok(Command::SetZoneLimit { datapath, zone, limit: zones::limit(&words.next())? })
        },
    },
    Syntax {
        name: "del-zone-limit",
        usage: "DATAPATH zone=N|default",
        arity: 2..=2,
        option: Some(IF_EXISTS),
        build: |mut words| {
            let (datapath, zone) = (words.next(), zones::zone_or_default(&words.next())?);
            Ok(Command::DelZoneLimit { datapath, zone, if_exists: words.flag })
        },
    },
    Syntax {
        name: "list-zone-limits",
        usage: "DATAPATH",
        arity: 1..=1,
        option: None,
        build: |mut words| Ok(Command::ListZoneLimits { datapath: words.next() }),
    },
];

/// The help text.
#[must_use]
pub fn help() -> String {
    let commands: Vec<String> = COMMANDS
        .iter()
        .map(|syntax| {
            let option = syntax.option.map_or(String::new(), |option| format!("[{option}] "));
            format!("  {option}{} {}", syntax.name, syntax.usage).trim_end().to_owned()
        })
        .collect();
    format!(
        "Manages the switch's bridges and ports, and the zones of connection tracking.\n\
         \n\
         Usage: vsctl [OPTION...] COMMAND [-- COMMAND]...\n\
         All commands of a line are carried out, or none.\n\
         \n\
         Commands:\n{}\n\
         \n\
         Options:\n\
         \x20 -t, --timeout SECS  give up after so many seconds, by the alarm signal\n\
         \x20 -h, --help          print this help\n\
         \x20 -V, --version       print the version\n\
         \x20 --no-wait, --db DB  taken for ovs-vsctl's sake, without effect\n",
        commands.join("\n")
    )
}

/// Reads a command line, without the program's name.
///
/// # Errors
/// See [`UsageError`].
pub fn parse(args: &[String]) -> Result<Invocation, UsageError> {
    let mut timeout = None;
    let mut first_options = Vec::new();
    let mut rest = args.iter();
    while let Some(option) = rest.as_slice().first().filter(|arg| arg.starts_with('-') && *arg != "-") {
        rest.next();
        if option == "--" {
            break;
        }
        let (name, value) = split_option(option)?;
        let mut value_of = |name: &str| {
            let value = value.or_else(|| rest.next().map(String::as_str));
            value.ok_or_else(|| UsageError::NoValue(name.to_owned()))
        };
        match name {
            "-h" | "--help" => return Ok(Invocation::Help),
            "-V" | "--version" => return Ok(Invocation::Version),
            "-t" | "--timeout" => timeout = Some(parse_timeout(value_of(name)?)?),
            "--db" => {
                value_of(name)?;
            }
            "--no-wait" | MAY_EXIST | IF_EXISTS if value.is_some() => {
                return Err(UsageError::UnwantedValue(name.to_owned()));
            }
            "--no-wait" => {}
            // The first command's options may stand among the global ones.
            MAY_EXIST | IF_EXISTS => first_options.push(option.clone()),
            _ => return Err(UsageError::UnknownOption(name.to_owned())),
        }
    }
    first_options.extend_from_slice(rest.as_slice());
    let commands = first_options
        .split(|arg| arg == "--")
        .filter(|words| !words.is_empty())
        .map(parse_command)
        .collect::<Result<Transaction, _>>()?;
    if commands.is_empty() { Err(UsageError::NoCommand) } else { Ok(Invocation::Run { timeout, commands }) }
}

/// The name of an option and the value that sticks to it: `--name=value`, `-nvalue`.
fn split_option(option: &str) -> Result<(&str, Option<&str>), UsageError> {
    if option.starts_with("--") {
        return Ok(option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value))));
    }
    match option.chars().nth(1) {
        Some('h' | 'V') => Ok((&option[..2], None)),
        Some('t') => Ok(("-t", Some(&option[2..]).filter(|value| !value.is_empty()))),
        other => Err(UsageError::UnknownShortOption(other.unwrap_or('-'))),
    }
}

fn parse_timeout(value: &str) -> Result<u32, UsageError> {
    let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| UsageError::BadTimeout(value.to_owned()))
}

fn parse_command(words: &[String]) -> Result<Command, UsageError> {
    let count = words.iter().take_while(|word| word.starts_with('-')).count();
    let (options, rest) = words.split_at(count);
    let Some((name, args)) = rest.split_first() else {
        return Err(UsageError::NoCommand);
    };
    let Some(syntax) = COMMANDS.iter().find(|syntax| syntax.name == name) else {
        return Err(UsageError::UnknownCommand(name.clone()));
    };
    let command = syntax.name;
    if let Some(option) = options.iter().find(|option| syntax.option != Some(option.as_str())) {
        return Err(UsageError::ForeignOption { command, option: option.clone() });
    }
    let (min, max) = (*syntax.arity.start(), *syntax.arity.end());
    if args.len() < min {
        return Err(UsageError::TooFewArguments { command, min });
    }
    if args.len() > max {
        return Err(UsageError::TooManyArguments { command, max });
    }
    (syntax.build)(Words { args, flag: !options.is_empty() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsctl::{BridgeColumn, BridgeSetting, DatapathType, FailMode, InterfaceColumn, Timeout};

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn commands(line: &str) -> Transaction {
        match parse(&words(line)) {
            Ok(Invocation::Run { commands, .. }) => commands,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_command() {
        let s = str::to_owned;
        for (line, wanted) in [
            ("add-br br0", Command::AddBr { bridge: s("br0"), may_exist: false }),
            ("--may-exist add-br br0", Command::AddBr { bridge: s("br0"), may_exist: true }),
            ("del-br br0", Command::DelBr { bridge: s("br0"), if_exists: false }),
            ("--if-exists del-br br0", Command::DelBr { bridge: s("br0"), if_exists: true }),
            ("list-br", Command::ListBr),
            ("br-exists br0", Command::BrExists { bridge: s("br0") }),
            ("add-port br0 p", Command::AddPort { bridge: s("br0"), port: s("p"), may_exist: false }),
            ("del-port p", Command::DelPort { bridge: None, port: s("p"), if_exists: false }),
            (
                "--if-exists del-port br0 p",
                Command::DelPort { bridge: Some(s("br0")), port: s("p"), if_exists: true },
            ),
            ("list-ports br0", Command::ListPorts { bridge: s("br0") }),
            ("list-ifaces br0", Command::ListIfaces { bridge: s("br0") }),
            ("port-to-br p", Command::PortToBr { port: s("p") }),
            ("iface-to-br p", Command::IfaceToBr { interface: s("p") }),
            ("show", Command::Show),
            (
                "set Interface p ofport_request=5 ofport_request=7",
                Command::SetInterface { interface: s("p"), ofport_request: Some(7), if_exists: false },
            ),
            (
                "--if-exists set interface p ofport_request=[]",
                Command::SetInterface { interface: s("p"), ofport_request: None, if_exists: true },
            ),
            (
                "set bridge br0 datapath_type=tc",
                Command::SetBridge {
                    bridge: s("br0"),
                    settings: vec![BridgeSetting::DatapathType(DatapathType::Tc)],
                    if_exists: false,
                },
            ),
            (
                "--if-exists set Bridge br0 datapath-type=netdev fail-mode=secure fail_mode=[]",
                Command::SetBridge {
                    bridge: s("br0"),
                    settings: vec![
                        BridgeSetting::DatapathType(DatapathType::Netdev),
                        BridgeSetting::FailMode(Some(FailMode::Secure)),
                        BridgeSetting::FailMode(None),
                    ],
                    if_exists: true,
                },
            ),
            (
                "set br br0 datapath_t=\"\" fail=secure",
                Command::SetBridge {
                    bridge: s("br0"),
                    settings: vec![
                        BridgeSetting::DatapathType(DatapathType::Xdp),
                        BridgeSetting::FailMode(Some(FailMode::Secure)),
                    ],
                    if_exists: false,
                },
            ),
            (
                "set int p ofport_r=7",
                Command::SetInterface { interface: s("p"), ofport_request: Some(7), if_exists: false },
            ),
            (
                "set-fail-mode br0 standalone",
                Command::SetFailMode { bridge: s("br0"), fail_mode: Some(FailMode::Standalone) },
            ),
            ("del-fail-mode br0", Command::SetFailMode { bridge: s("br0"), fail_mode: None }),
            ("get-fail-mode br0", Command::GetFailMode { bridge: s("br0") }),
            (
                "get interface p ofport ofport_request",
                Command::GetInterface {
                    interface: s("p"),
                    columns: vec![InterfaceColumn::Ofport, InterfaceColumn::OfportRequest],
                    if_exists: false,
                },
            ),
            (
                "--if-exists get bridge br0 datapath_type fail_mode",
                Command::GetBridge {
                    bridge: s("br0"),
                    columns: vec![BridgeColumn::DatapathType, BridgeColumn::FailMode],
                    if_exists: true,
                },
            ),
            (
                "--may-exist add-zone-tp netdev zone=6 udp_single=2 udp_first=1 udp_single=3 tcp_syn_sent2=0",
                Command::AddZoneTp {
                    datapath: s("netdev"),
                    zone: 6,
                    timeouts: [(Timeout::UdpSingle, 3), (Timeout::UdpFirst, 1), (Timeout::TcpSynSent2, 0)]
                        .into(),
                    may_exist: true,
                },
            ),
            (
                "--if-exists del-zone-tp system zone=65535",
                Command::DelZoneTp { datapath: s("system"), zone: 65535, if_exists: true },
            ),
            ("list-zone-tp system", Command::ListZoneTp { datapath: s("system") }),
            (
                "set-zone-limit netdev 5 10",
                Command::SetZoneLimit { datapath: s("netdev"), zone: Some(5), limit: 10 },
            ),
            (
                "set-zone-limit netdev default 4294967295",
                Command::SetZoneLimit { datapath: s("netdev"), zone: None, limit: u32::MAX },
            ),
            (
                "del-zone-limit netdev zone=5",
                Command::DelZoneLimit { datapath: s("netdev"), zone: Some(5), if_exists: false },
            ),
            ("list-zone-limits netdev", Command::ListZoneLimits { datapath: s("netdev") }),
        ] {
            assert_eq!(commands(line), std::slice::from_ref(&wanted), "{line}");
            let sent = serde_json::to_string(&wanted).unwrap();
            assert_eq!(serde_json::from_str::<Command>(&sent).unwrap(), wanted, "{sent}");
        }
    }

    #[test]
    fn a_transaction_with_options_everywhere() {
        let line = "--no-wait --may-exist -t5 --db unix:x add-br br0 -- --may-exist add-port br0 p -- -- \
                    set interface p ofport_request=3 --";
        let Ok(Invocation::Run { timeout, commands }) = parse(&words(line)) else { panic!("{line}") };
        assert_eq!(timeout, Some(5));
        assert_eq!(
            commands,
            [
                Command::AddBr { bridge: "br0".into(), may_exist: true },
                Command::AddPort { bridge: "br0".into(), port: "p".into(), may_exist: true },
                Command::SetInterface { interface: "p".into(), ofport_request: Some(3), if_exists: false },
            ]
        );
        assert_eq!(parse(&words("--timeout=5 show")), parse(&words("-t 5 --db=x show")));
        assert_eq!(parse(&words("show -h")), Err(UsageError::TooManyArguments { command: "show", max: 0 }));
        assert_eq!(parse(&words("--no-wait -h foo")), Ok(Invocation::Help));
        assert_eq!(parse(&words("--version")), Ok(Invocation::Version));
    }

    #[test]
    fn errors_in_the_words_of_ovs() {
        for (line, wanted) in [
            ("", "missing command name (use --help for help)"),
            ("--may-exist", "missing command name (use --help for help)"),
            ("foo", "unknown command 'foo'; use --help for help"),
            ("add-br br0 -- foo", "unknown command 'foo'; use --help for help"),
            ("add-br", "'add-br' command requires at least 1 arguments"),
            ("add-port br0", "'add-port' command requires at least 2 arguments"),
            ("set interface p", "'set' command requires at least 3 arguments"),
            ("list-br x", "'list-br' command takes at most 0 arguments"),
            ("--foo add-br a", "unrecognized option '--foo'"),
            ("-zz", "invalid option -- 'z'"),
            ("--if-exists add-br a", "'add-br' command has no '--if-exists' option"),
            ("show -- --foo show", "'show' command has no '--foo' option"),
            ("--may-exist=3 add-br a", "option '--may-exist' doesn't allow an argument"),
            ("-t 0 show", "value 0 on -t or --timeout is invalid"),
            ("--timeout=x show", "value x on -t or --timeout is invalid"),
            ("--timeout", "option '--timeout' requires an argument"),
            ("add-port br0 p tag=3", "Port does not contain a column whose name matches \"tag\""),
            ("set foo p a=b", "unknown table \"foo\""),
            ("set i p ofport_request=1", "multiple table names match \"i\""),
            ("set q p a=b", "multiple table names match \"q\""),
            ("set ssl p a=b", "unknown table \"ssl\""),
            ("get int p ofp", "Interface contains more than one column whose name matches \"ofp\""),
            ("set br b f=secure", "Bridge contains more than one column whose name matches \"f\""),
            ("set br b flood=1", "Bridge does not contain a column whose name matches \"flood\""),
            (
                "set interface p type=internal",
                "Interface does not contain a column whose name matches \"type\"",
            ),
            (
                "set interface p external_ids:iface-id=x",
                "Interface does not contain a column whose name matches \"external_ids\"",
            ),
            ("set bridge b foo=1", "Bridge does not contain a column whose name matches \"foo\""),
            ("set interface p ofport=1", "cannot modify read-only column ofport in table Interface"),
            (
                "set interface p ofport_request",
                "ofport_request: argument does not end in \"=\" followed by a value.",
            ),
            ("set interface p ofport_request=x", "\"x\" is not a valid integer or range"),
            (
                "set interface p ofport_request=65280",
                "constraint violation: 65280 is not in the valid range 1 to 65279 (inclusive)",
            ),
            (
                "set interface p ofport_request=-1",
                "constraint violation: -1 is not in the valid range 1 to 65279 (inclusive)",
            ),
            (
                "set interface p ofport_request:a=1",
                "cannot specify key to set for non-map column ofport_request",
            ),
            ("get interface p ofport:a", "cannot specify key to get for non-map column ofport"),
            ("get interface p foo", "Interface does not contain a column whose name matches \"foo\""),
            (
                "set bridge b datapath_type=dummy",
                "constraint violation: dummy is not one of the allowed values ([netdev, system, tc, xdp])",
            ),
            (
                "set bridge b fail_mode=open",
                "constraint violation: open is not one of the allowed values ([secure, standalone])",
            ),
            ("set-fail-mode b open", "fail-mode must be \"standalone\" or \"secure\""),
            ("add-zone-tp netdev zone=2", "'add-zone-tp' command requires at least 3 arguments"),
            ("add-zone-tp netdev zone=x udp_first=1", "\"x\" is not a valid integer or range"),
            (
                "add-zone-tp netdev zone=70000 udp_first=1",
                "constraint violation: 70000 is not in the valid range 0 to 65535 (inclusive)",
            ),
            (
                "add-zone-tp netdev zone=2 foo=1",
                "constraint violation: foo is not one of the allowed values ([icmp_first, icmp_reply, tcp_close, \
                 tcp_close_wait, tcp_established, tcp_fin_wait, tcp_last_ack, tcp_retransmit, tcp_syn_recv, \
                 tcp_syn_sent, tcp_syn_sent2, tcp_time_wait, tcp_unack, udp_first, udp_multiple, udp_single])",
            ),
            ("add-zone-tp netdev zone=2 udp_first=", "\"\" is not a valid integer or range"),
            (
                "add-zone-tp netdev zone=2 udp_first",
                "udp_first: argument does not end in \"=\" followed by a value.",
            ),
            (
                "add-zone-tp netdev zone=2 udp_first=4294967296",
                "constraint violation: 4294967296 is not in the valid range 0 to 4294967295 (inclusive)",
            ),
            ("del-zone-tp netdev", "'del-zone-tp' command requires at least 2 arguments"),
            ("list-zone-tp", "'list-zone-tp' command requires at least 1 arguments"),
            (
                "set-zone-limit netdev 5 -1",
                "constraint violation: -1 is not in the valid range 0 to 4294967295 (inclusive)",
            ),
        ] {
            assert_eq!(
                parse(&words(line)).map_err(|error| error.to_string()),
                Err(wanted.to_owned()),
                "{line}"
            );
        }
    }

    #[test]
    fn help_names_every_command() {
        let help = help();
        assert!(help.contains("\n  [--if-exists] del-port [BRIDGE] PORT\n"), "{help}");
        assert!(help.contains("\n  list-br\n"), "{help}");
    }
}
