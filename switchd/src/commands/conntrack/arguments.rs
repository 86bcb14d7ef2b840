//! What the commands' arguments have in common.

use ofctl::syntax::parse_ct_flush;

use super::super::{invalid, is_datapath};
use crate::control::CommandError;
use crate::datapath::Selection;

/// The words that say which connections are meant begin with one of these.
const SELECTING: [&str; 5] = ["zone=", "mark=", "labels=", "ct_", "icmp_"];

/// What a command that shows connections was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// `-m`: ids, status, and the state of each side.
    pub more: bool,
    /// `-s`: counters, timeouts, and when connections were made.
    pub statistics: bool,
    /// `--json`.
    pub json: bool,
    /// Which connections.
    pub selection: Selection,
}

impl Arguments {
    /// Reads `[-m] [-s] [--json] [dp] [zone=N] [mark=X[/M]] [labels=X[/M]] [ct-orig-tuple [ct-reply-tuple]]`.
    pub fn parse(args: &[String]) -> Result<Self, CommandError> {
        let mut arguments = Self::default();
        let mut rest = Vec::new();
        for arg in args {
            match arg.as_str() {
                "-m" | "--more" => arguments.more = true,
                "-s" | "--statistics" => arguments.statistics = true,
                "--json" => arguments.json = true,
                other => rest.push(option(other)?),
            }
        }
        let words = without_datapath(&rest);
        // OVS takes what it cannot read for a datapath's name.
        if words.iter().any(|word| !word.is_empty() && !SELECTING.iter().any(|key| word.starts_with(key))) {
            return Err(invalid("datapath not found"));
        }
        let flush = parse_ct_flush(words).map_err(|error| match error {
            ofctl::syntax::CtFlushError::Zone => invalid("datapath not found"),
            error => invalid(&error.to_string()),
        })?;
        arguments.selection = Selection::new(flush);
        Ok(arguments)
    }
}

/// The argument, unless it is an option.
pub(super) fn option(arg: &str) -> Result<&str, CommandError> {
    if arg.starts_with('-') {
        return Err(CommandError::new(format!("Unrecognized option {arg}")));
    }
    Ok(arg)
}

/// The arguments without options, of which there may be none.
pub(super) fn words(args: &[String]) -> Result<Vec<&str>, CommandError> {
    args.iter().map(|arg| option(arg)).collect()
}

/// The arguments after the datapath's name, which may be left out.
pub(super) fn without_datapath<'a, 'b>(args: &'a [&'b str]) -> &'a [&'b str] {
    match args {
        [first, rest @ ..] if is_datapath(first) => rest,
        _ => args,
    }
}

/// Checks the arguments of a command that takes a datapath and nothing else.
pub(super) fn only_datapath(args: &[String]) -> Result<(), CommandError> {
    match without_datapath(&words(args)?) {
        [] => Ok(()),
        _ => Err(invalid("datapath not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Arguments::parse(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn options_and_words_in_any_order() {
        let all = parse("-s netdev@ovs-netdev zone=5 -m mark=1 --json ct_nw_proto=6").unwrap();
        assert!(all.more && all.statistics && all.json);
        assert_eq!(Ok(all), parse("-m -s --json mark=1 zone=5 ct_nw_proto=6"));
        assert_eq!(parse("system@ovs-system"), Ok(Arguments::default()));
    }

    #[test]
    fn errors_in_the_words_of_ovs() {
        let not_found = "ovs-vswitchd: datapath not found (Invalid argument)";
        for (line, wanted) in [
            ("foo", not_found),
            ("zone=foo", not_found),
            ("zone=65536", not_found),
            ("foo=1", not_found),
            ("zone=5 netdev@ovs-netdev", not_found),
            ("--foo", "Unrecognized option --foo"),
            ("mark=x", "ovs-vswitchd: failed to parse mark (Invalid argument)"),
            ("ct_nw_src=x", "ovs-vswitchd: failed to parse field ct_nw_src (Invalid argument)"),
            ("ct_foo=1", "ovs-vswitchd: invalid conntrack tuple field: ct_foo (Invalid argument)"),
        ] {
            assert_eq!(parse(line), Err(wanted.to_owned()), "{line}");
        }
    }
}
