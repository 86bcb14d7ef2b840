//! The commands that the control socket offers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::Value;

use super::reply::{CommandError, Reply};

/// Carries out a command: gets the arguments without the command's name. It runs on a thread where it may
/// block; for async work, [`tokio::runtime::Handle::current`] is there.
pub type Handler = dyn Fn(&[String], &mut Reply) -> Result<(), CommandError> + Send + Sync;

struct Command {
    usage: &'static str,
    arity: RangeInclusive<usize>,
    handler: Arc<Handler>,
}

/// Commands by name.
#[derive(Default)]
pub struct Registry {
    commands: BTreeMap<&'static str, Command>,
}

impl Registry {
    /// Adds a command: its name, the arguments as `list-commands` shows them, how many there may be
    /// (`0..=usize::MAX` for any number), and what carries it out. A second command of the same name replaces the
    /// first.
    pub fn register(
        &mut self,
        name: &'static str,
        usage: &'static str,
        arity: RangeInclusive<usize>,
        handler: impl Fn(&[String], &mut Reply) -> Result<(), CommandError> + Send + Sync + 'static,
    ) {
        self.commands.insert(name, Command { usage, arity, handler: Arc::new(handler) });
    }

    /// Adds `list-commands`, which lists all that have been added before, and itself.
    pub(super) fn register_list_commands(&mut self) {
        const NAME: &str = "list-commands";
        let mut commands: BTreeMap<_, _> = self.commands.iter().map(|(name, c)| (*name, c.usage)).collect();
        commands.insert(NAME, "");
        self.register(NAME, "", 0..=0, move |_, reply| {
            writeln!(reply, "The available commands are:")?;
            for (name, usage) in &commands {
                writeln!(reply, "  {name:<23} {usage}")?;
            }
            Ok(())
        });
    }

    /// The handler of a command and its arguments as strings, when both are right.
    ///
    /// # Errors
    /// OVS's words for an unknown command, too few or too many arguments, or one that is no string.
    pub(super) fn resolve(
        &self,
        name: &str,
        params: Vec<Value>,
    ) -> Result<(Arc<Handler>, Vec<String>), CommandError> {
        let Some(command) = self.commands.get(name) else {
            return Err(CommandError::Refused(format!(
                "\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
            )));
        };
        let wrong = |what: String| CommandError::Refused(format!("\"{name}\" command {what}"));
        let (min, max) = (*command.arity.start(), *command.arity.end());
        if params.len() < min {
            return Err(wrong(format!("requires at least {min} arguments")));
        }
        if params.len() > max {
            return Err(wrong(format!("takes at most {max} arguments")));
        }
        let args = params.into_iter().map(|param| match param {
            Value::String(arg) => Ok(arg),
            _ => Err(wrong("has non-string argument".to_owned())),
        });
        Ok((Arc::clone(&command.handler), args.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn wrong_calls_are_refused_in_the_words_of_ovs() {
        let mut registry = Registry::default();
        registry.register("fdb/show", "bridge", 1..=2, |_, _| Ok(()));
        let resolve = |name: &str, params: Value| {
            let Value::Array(params) = params else { panic!("no array") };
            registry.resolve(name, params).map(|(_, args)| args).map_err(|error| error.to_string())
        };
        assert_eq!(resolve("fdb/show", json!(["br0"])), Ok(vec!["br0".to_owned()]));
        assert_eq!(
            resolve("fdb/show", json!([])),
            Err("\"fdb/show\" command requires at least 1 arguments".to_owned())
        );
        assert_eq!(
            resolve("fdb/show", json!([1, 2, 3])),
            Err("\"fdb/show\" command takes at most 2 arguments".to_owned())
        );
        assert_eq!(
            resolve("fdb/show", json!(["br0", 1])),
            Err("\"fdb/show\" command has non-string argument".to_owned())
        );
        assert_eq!(
            resolve("foo/bar", json!([])),
            Err("\"foo/bar\" is not a valid command (use \"list-commands\" to see a list of valid commands)"
                .to_owned())
        );
    }
}
