//! The messages of the unixctl protocol.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request: `{"id":0,"method":"version","params":[]}`. Other members are refused, as in OVS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the client and returned in the reply.
    pub id: Value,
    /// The command's name.
    pub method: String,
    /// The command's arguments. The protocol wants strings; anything else is kept here so that the server
    /// can name the command in its error.
    pub params: Vec<Value>,
}

impl Request {
    /// A request for a command with its arguments.
    #[must_use]
    pub fn new(method: &str, args: &[String]) -> Self {
        let params = args.iter().cloned().map(Value::String).collect();
        Self { id: Value::from(0), method: method.to_owned(), params }
    }
}
