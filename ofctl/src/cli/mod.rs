//! The `ovs-ofctl` style tool: commands, texts and exit codes are those of OVS.

mod commands;
mod flows;
mod format;
mod options;
mod refusal;
mod switch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ofctl::client::{ClientError, Switch};
use ofctl::port::PortMap;
use ofctl::syntax::{CtFlushError, ParseError};
use ofctl::wire::{EncodeError, Message};
use options::Options;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("missing command name; use --help for help")]
    MissingCommand,
    #[error("unknown command '{0}'; use --help for help")]
    UnknownCommand(String),
    #[error("'{command}' command requires at least {min} arguments")]
    TooFewArguments { command: &'static str, min: usize },
    #[error("'{command}' command takes at most {max} arguments")]
    TooManyArguments { command: &'static str, max: usize },
    #[error("value {0} on -t or --timeout is invalid")]
    Timeout(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Flow(#[from] ParseError),
    #[error("{file}:{line}: {error}")]
    Line { file: String, line: usize, error: ParseError },
    #[error("{file}: open failed ({reason})")]
    Open { file: String, reason: String },
    #[error("{target}: unknown port `{port}'")]
    UnknownPort { target: String, port: String },
    #[error("{0}: unknown fragment handling mode")]
    UnknownFragments(String),
    #[error(
        "{target}: setting fragment handling mode failed (this switch probably doesn't support mode \"{mode}\")"
    )]
    Fragments { target: String, mode: String },
    #[error("invalid zone_id \"{0}\"")]
    Zone(String),
    #[error("Failed to parse {}", ct_flush_error(.0))]
    CtFlush(CtFlushError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The switch's refusal, as it is to be shown in the place of a message of our own.
    #[error("{0}")]
    Refused(String),
    #[error("write: {0}")]
    Write(#[from] io::Error),
}

/// What could not be parsed, as `ct-flush` says it.
fn ct_flush_error(error: &CtFlushError) -> String {
    match error {
        CtFlushError::Zone => "zone".to_owned(),
        CtFlushError::Mark => "mark".to_owned(),
        CtFlushError::Labels => "labels".to_owned(),
        CtFlushError::Tuple(error) => format!("ct-tuple: {error}"),
    }
}

/// What the options ask of every command.
struct Context {
    options: Options,
    timeout: Option<Duration>,
    terminal: bool,
}

impl Context {
    fn switch(&self, target: &str) -> Result<Switch, CliError> {
        Ok(Switch::new(target, self.timeout)?)
    }

    fn names(&self) -> bool {
        self.options.names(self.terminal)
    }
}

/// The names of the switch's ports, over a connection of its own.
fn port_names(switch: &Switch) -> Result<PortMap, CliError> {
    match switch.connect()?.request(&Message::FeaturesRequest)? {
        (_, Message::FeaturesReply(features)) => {
            Ok(features.ports.into_iter().map(|port| (port.number, port.name)).collect())
        }
        _ => Err(ClientError::UnexpectedReply.into()),
    }
}

/// Writes to the standard output; a reader that has gone is no error.
fn show(text: &str) -> Result<(), CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs the tool under the name by which it was called.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let program = arguments
        .first()
        .and_then(|path| Path::new(path).file_name())
        .map_or_else(|| "ofctl".into(), |name| name.to_string_lossy().into_owned());
    match run(&program, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Refused(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: &str, arguments: Vec<String>) -> Result<(), CliError> {
    let Some(options) = options::parse(program, arguments)? else { return Ok(()) };
    if options.version {
        return show(&format!("{program} {}\nOpenFlow versions 0x1:0x1\n", env!("CARGO_PKG_VERSION")));
    }
    let timeout = options.timeout()?;
    let context = Context { options, timeout, terminal: io::stdout().is_terminal() };
    let name = context.options.command.as_deref().ok_or(CliError::MissingCommand)?;
    commands::run(&context, name, &context.options.arguments)
}
