//! The commands and how many arguments each takes.

use super::{CliError, Context, flows, show, switch};

/// A command.
struct Command {
    name: &'static str,
    usage: &'static str,
    min: usize,
    max: usize,
    run: fn(&Context, &[String]) -> Result<(), CliError>,
}

const fn command(
    name: &'static str,
    usage: &'static str,
    (min, max): (usize, usize),
    run: fn(&Context, &[String]) -> Result<(), CliError>,
) -> Command {
    Command { name, usage, min, max, run }
}

const COMMANDS: &[Command] = &[
    command("show", "switch", (1, 1), switch::show),
    command("dump-desc", "switch", (1, 1), switch::dump_desc),
    command("dump-tables", "switch", (1, 1), switch::dump_tables),
    command("dump-flows", "switch [flow]", (1, 2), flows::dump_flows),
    command("dump-aggregate", "switch [flow]", (1, 2), flows::dump_aggregate),
    command("dump-ports", "switch [port]", (1, 2), switch::dump_ports),
    command("dump-ports-desc", "switch", (1, 1), switch::dump_ports_desc),
    command("add-flow", "switch flow", (2, 2), flows::add_flow),
    command("add-flows", "switch file", (2, 2), flows::add_flows),
    command("mod-flows", "switch flow", (2, 2), flows::mod_flows),
    command("del-flows", "switch [flow]", (1, 2), flows::del_flows),
    command("get-frags", "switch", (1, 1), switch::get_frags),
    command("set-frags", "switch mode", (2, 2), switch::set_frags),
    command("ct-flush-zone", "switch zone", (2, 2), switch::ct_flush_zone),
    command(
        "ct-flush",
        "switch [zone=N] [mark=X[/M]] [labels=X[/M]] [ct-orig-tuple [ct-reply-tuple]]",
        (1, 6),
        switch::ct_flush,
    ),
    command("parse-flow", "flow", (1, 1), flows::parse_flow),
    command("list-commands", "", (0, 0), list_commands),
];

/// Runs the command of that name.
pub fn run(context: &Context, name: &str, arguments: &[String]) -> Result<(), CliError> {
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        return Err(CliError::UnknownCommand(name.into()));
    };
    if arguments.len() < command.min {
        return Err(CliError::TooFewArguments { command: command.name, min: command.min });
    }
    if arguments.len() > command.max {
        return Err(CliError::TooManyArguments { command: command.name, max: command.max });
    }
    (command.run)(context, arguments)
}

/// A line for each command.
pub fn list() -> String {
    COMMANDS.iter().map(|command| format!("  {:<23} {}\n", command.name, command.usage)).collect()
}

fn list_commands(_: &Context, _: &[String]) -> Result<(), CliError> {
    show(&format!("The available commands are:\n{}", list()))
}
