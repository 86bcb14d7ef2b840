//! Why a flow-mod is refused.

use ofctl::action::CheckError;
use ofctl::flow::MissingPrerequisite;

use crate::rules::RuleError;

/// Why a flow-mod is refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The table belongs to the switch itself.
    #[error("table {0} is not open to flow-mods")]
    ReservedTable(u8),
    /// The actions take so many bytes that a dump could not show the flow.
    #[error("actions of {0} bytes are too many")]
    TooManyActions(usize),
    /// A flow of the same priority overlaps (only with `check_overlap`).
    #[error("a flow of priority {0} overlaps")]
    Overlap(u16),
    /// A field is matched without what gives it a meaning.
    #[error(transparent)]
    BadMatch(#[from] MissingPrerequisite),
    /// The actions do not fit the match, or each other.
    #[error(transparent)]
    BadActions(#[from] CheckError),
    /// The datapath's tables refuse.
    #[error(transparent)]
    Rules(#[from] RuleError),
}
