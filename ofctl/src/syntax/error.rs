//! What can be wrong with a flow text. The words are OVS's wherever OVS has an error for the case.

use thiserror::Error;

use crate::action::CheckError;
use crate::flow::MissingPrerequisite;

/// Why a flow text was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ParseError {
    #[error("must specify an action")]
    MissingAction,
    #[error("unknown keyword {0}")]
    UnknownKeyword(String),
    #[error("field {0} missing value")]
    MissingValue(String),
    #[error("{key} takes no value: {value}")]
    NeedlessValue { key: String, value: String },
    #[error("{0}: missing closing parenthesis")]
    Unbalanced(String),
    #[error("{0}: trailing text")]
    TrailingText(String),
    #[error("invalid {name} \"{text}\"")]
    InvalidNumber { name: &'static str, text: String },
    #[error("invalid numeric format {0}")]
    InvalidNumericFormat(String),
    #[error("unknown table \"{0}\"")]
    UnknownTable(String),
    #[error("flow additions cannot use a cookie mask")]
    CookieMaskInAdd,
    #[error("cannot set cookie (to match on a cookie, specify a mask, e.g. cookie=0x12/-1)")]
    CookieWithoutMask,
    #[error("{0} is not a valid OpenFlow port")]
    InvalidOutPort(String),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Subfield(#[from] SubfieldError),
    #[error(transparent)]
    Prerequisite(#[from] MissingPrerequisite),
    #[error(transparent)]
    Action(#[from] ActionError),
    #[error(transparent)]
    Inconsistent(#[from] CheckError),
}

/// Why the value of a field was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ValueError {
    #[error("{text}: bad syntax for {field} {part}")]
    BadSyntax { text: String, field: &'static str, part: &'static str },
    #[error("{text}: value too large for {bytes}-byte field {field}")]
    TooLarge { text: String, bytes: usize, field: &'static str },
    #[error("{text} is not a valid value for field {field}")]
    NotValid { text: String, field: &'static str },
    #[error("{text}: invalid mask for field {field}")]
    InvalidMask { text: String, field: &'static str },
    #[error("{0}: invalid Ethernet address")]
    Ethernet(String),
    #[error("{0}: invalid IP address")]
    Ipv4(String),
    #[error("{0}: IPv4 network prefix bits not between 0 and 32, inclusive")]
    Ipv4Prefix(String),
    #[error("{0}: invalid IPv6 address")]
    Ipv6(String),
    #[error("{0}: IPv6 network prefix bits not between 0 and 128, inclusive")]
    Ipv6Prefix(String),
    #[error("{text}: invalid or unknown port for {field}")]
    Port { text: String, field: &'static str },
    #[error("{text}: port value out of range for {field}")]
    PortRange { text: String, field: &'static str },
    #[error("{text}: unknown {kind} flag(s)")]
    UnknownFlag { text: String, kind: &'static str },
    #[error("{flag}: Each {kind} flag can be specified only once")]
    FlagTwice { flag: String, kind: &'static str },
    // OVS leaves the parenthesis open, too.
    #[error(
        "{0}: unknown fragment type (valid types are \"no\", \"yes\", \"first\", \"later\", \"not_later\""
    )]
    Frag(String),
}

/// Why a `field[a..b]` was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum SubfieldError {
    #[error("{text}: unknown field `{field}'")]
    UnknownField { text: String, field: String },
    #[error("{0}: syntax error expecting [] or [<bit>] or [<start>..<end>]")]
    Syntax(String),
    #[error("{text}: starting bit {start} is after ending bit {end}")]
    Reversed { text: String, start: u32, end: u32 },
    #[error("{text}: ending bit {end} is not valid because field is only {width} bits wide")]
    BeyondField { text: String, end: u32, width: u8 },
    #[error("{text}: value {value} does not fit into {bits} bits")]
    DoesNotFit { text: String, value: String, bits: u8 },
    #[error("{text}: cannot parse integer value: {value}")]
    NotAnInteger { text: String, value: String },
}

/// Why an action was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ActionError {
    #[error("unknown action {0}")]
    Unknown(String),
    #[error("\"{action}\" takes no argument: {argument}")]
    NeedlessArgument { action: String, argument: String },
    #[error("\"drop\" must not be accompanied by any other action or instruction")]
    DropAccompanied,
    #[error("{0}: output to unknown port")]
    OutputPort(String),
    #[error("{0}: resubmit to unknown port")]
    ResubmitPort(String),
    #[error("{0}: resubmit to unknown table")]
    ResubmitTable(String),
    #[error("{0}: unknown parameter")]
    ResubmitParameter(String),
    #[error("at least one \"in_port\" or \"table\" must be specified on resubmit")]
    ResubmitNothing,
    #[error("unknown key \"{0}\" parsing controller action")]
    ControllerKey(String),
    #[error("invalid {name} \"{text}\"")]
    InvalidNumber { name: &'static str, text: String },
    #[error("{text}: not a valid {name}")]
    NotValid { name: &'static str, text: String },
    #[error("invalid mac address {0}")]
    Mac(String),
    #[error("{0}: could not convert to IP address")]
    Ip(String),
    #[error("unknown table \"{0}\"")]
    UnknownTable(String),
    #[error("missing required numeric argument")]
    MissingNumber,
    #[error("invalid numeric format {0}")]
    InvalidNumericFormat(String),
    #[error("{0}: missing `->'")]
    MissingArrow(String),
    #[error("{0}: missing `->' following source")]
    MissingArrowAfterSource(String),
    #[error("{0}: missing field name following `->'")]
    MissingFieldName(String),
    #[error("{0} is not a valid OXM field name")]
    UnknownField(String),
    #[error("{0} is read-only")]
    ReadOnly(&'static str),
    #[error("cannot set CT fields outside of ct action")]
    CtFieldOutsideCt,
    #[error("{0}: cannot parse integer value")]
    NotAnInteger(String),
    #[error("{text}: source field is {src} bits wide but destination is {dst} bits wide")]
    WidthsDiffer { text: String, src: u8, dst: u8 },
    #[error("bad hex digit in `note' argument")]
    NoteDigit,
    #[error(
        "invalid instruction ordering: {first} must appear before {second}, for OpenFlow 1.1+ compatibility"
    )]
    Ordering { first: &'static str, second: &'static str },
    #[error("duplicate {0} instruction not allowed, for OpenFlow 1.1+ compatibility")]
    Duplicate(&'static str),
    #[error("{0} instruction not allowed here")]
    NotAllowedHere(&'static str),
    #[error("{0}: missing closing parenthesis")]
    Unbalanced(String),
    #[error("{0}: trailing text")]
    TrailingText(String),
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Subfield(#[from] SubfieldError),
    #[error(transparent)]
    Ct(#[from] CtError),
}

/// Why an argument of `ct` was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum CtError {
    #[error("invalid argument to \"ct\" action: `{0}'")]
    Argument(String),
    #[error("unknown table {0}")]
    UnknownTable(String),
    #[error("invalid table {0:#x}")]
    InvalidTable(u8),
    #[error("\"force\" flag requires \"commit\" flag.")]
    ForceWithoutCommit,
    #[error("invalid conntrack helper \"{0}\"")]
    Helper(String),
    #[error("ct action doesn't support nested modification of {0}")]
    NestedModification(&'static str),
    #[error("ct action doesn't support nested action {0}")]
    NestedAction(&'static str),
    #[error("May only specify one of \"src\" or \"dst\".")]
    NatBothDirections,
    #[error("Flags allowed only with \"src\" or \"dst\".")]
    NatFlagsWithoutDirection,
    #[error("Both \"hash\" and \"random\" are not allowed.")]
    NatHashAndRandom,
    #[error("invalid key \"{0}\" in \"nat\" argument")]
    NatKey(String),
    #[error("invalid nat range \"{0}\"")]
    NatRange(String),
    #[error("garbage ({garbage}) after nat range \"{range}\" (pos: {position})")]
    NatGarbage { garbage: String, range: String, position: usize },
}
