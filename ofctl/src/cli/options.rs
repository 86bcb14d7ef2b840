//! The command line: options in any place, then a command and its arguments.

use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use super::{CliError, commands, show};

/// OpenFlow switch management utility
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, override_usage = "ofctl [OPTIONS] COMMAND [ARG...]")]
pub struct Options {
    /// Match flows exactly, priority included
    #[arg(long)]
    pub strict: bool,

    /// Show port names instead of numbers (the default on a terminal)
    #[arg(long, overrides_with = "no_names")]
    names: bool,

    /// Show port numbers
    #[arg(long, overrides_with = "names")]
    no_names: bool,

    /// Show flows with their statistics (the default)
    #[arg(long, overrides_with = "no_stats")]
    stats: bool,

    /// Show flows without statistics
    #[arg(long, overrides_with = "stats")]
    no_stats: bool,

    /// Set allowed OpenFlow versions: OpenFlow10 is the only one
    #[arg(short = 'O', long, value_name = "VERSIONS", value_parser = versions)]
    protocols: Option<()>,

    /// Give up after so many seconds
    #[arg(short, long, value_name = "SECS")]
    timeout: Option<String>,

    /// Display version information
    #[arg(short = 'V', long, action = ArgAction::SetTrue)]
    pub version: bool,

    /// What to do; list-commands names the commands
    #[arg(hide = true)]
    pub command: Option<String>,

    /// The command's arguments
    #[arg(hide = true)]
    pub arguments: Vec<String>,
}

impl Options {
    /// Whether ports go by name.
    pub fn names(&self, terminal: bool) -> bool {
        self.names || terminal && !self.no_names
    }

    /// Whether flows are shown with statistics.
    pub fn stats(&self) -> bool {
        !self.no_stats
    }

    /// How long a command may take.
    pub fn timeout(&self) -> Result<Option<Duration>, CliError> {
        self.timeout
            .as_ref()
            .map(|text| match text.parse() {
                Ok(seconds @ 1u32..) => Ok(Duration::from_secs(seconds.into())),
                _ => Err(CliError::Timeout(text.clone())),
            })
            .transpose()
    }
}

/// Checks the list of versions, which has to have the one that there is.
fn versions(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 6] =
        ["OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"];
    let mut versions = text.split(',').map(str::trim);
    if let Some(unknown) =
        versions.clone().find(|version| !KNOWN.iter().any(|known| known.eq_ignore_ascii_case(version)))
    {
        return Err(format!("Unknown OpenFlow version: \"{unknown}\""));
    }
    if versions.any(|version| version.eq_ignore_ascii_case(KNOWN[0])) {
        Ok(())
    } else {
        Err(format!("{text}: only OpenFlow10 is supported"))
    }
}

/// Reads the command line. `None`: help was asked for and given.
pub fn parse(program: &str, arguments: Vec<String>) -> Result<Option<Options>, CliError> {
    let usage = format!("{program} [OPTIONS] COMMAND [ARG...]");
    let command =
        Options::command().override_usage(usage).after_help(format!("Commands:\n{}", commands::list()));
    match command.try_get_matches_from(arguments).and_then(|found| Options::from_arg_matches(&found)) {
        Ok(options) => Ok(Some(options)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            show(&error.to_string())?;
            Ok(None)
        }
        Err(error) => Err(CliError::Usage(explain(&error))),
    }
}

/// One line about a bad command line, in the words of getopt.
fn explain(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let option = context(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::UnknownArgument => format!("unrecognized option '{option}'"),
        ErrorKind::ValueValidation => std::error::Error::source(error).map_or(option, ToString::to_string),
        ErrorKind::InvalidValue => {
            let name = option.split(' ').next().unwrap_or_default();
            format!("option '{name}' requires an argument")
        }
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}
