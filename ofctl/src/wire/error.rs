//! OpenFlow error codes, and why bytes or messages do not convert.

use std::fmt;

/// OpenFlow's number for Nicira (Open vSwitch) extensions.
pub(super) const NICIRA: u32 = 0x2320;

macro_rules! error_codes {
    ($($name:ident = $text:literal => $wire:expr;)*) => {
        /// What an OFPT_ERROR says, by the names that Open vSwitch uses across OpenFlow versions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "each is the OpenFlow error of that name")]
        pub enum ErrorCode {
            $($name,)*
            /// A code that this implementation has no name for.
            Unknown { vendor: u32, kind: u16, code: u16 },
        }

        impl ErrorCode {
            /// Every code that has a name.
            pub const NAMED: &'static [Self] = &[$(Self::$name),*];

            /// Vendor (0: OpenFlow itself), type and code in OpenFlow 1.0; none: it cannot be said there.
            #[must_use]
            pub fn wire10(self) -> Option<(u32, u16, u16)> {
                match self {
                    $(Self::$name => $wire,)*
                    Self::Unknown { vendor, kind, code } => Some((vendor, kind, code)),
                }
            }
        }

        impl fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($text),)*
                    Self::Unknown { vendor: 0, kind, code } => write!(f, "type {kind}, code {code}"),
                    Self::Unknown { vendor, kind, code } => {
                        write!(f, "vendor 0x{vendor:x}, type {kind}, code {code}")
                    }
                }
            }
        }
    };
}

/// OpenFlow's own error.
const fn of(kind: u16, code: u16) -> Option<(u32, u16, u16)> {
    Some((0, kind, code))
}

/// A Nicira extension, which OpenFlow 1.0 carries inside a vendor error.
const fn nx(kind: u16, code: u16) -> Option<(u32, u16, u16)> {
    Some((NICIRA, kind, code))
}

error_codes! {
    HelloIncompatible = "OFPHFC_INCOMPATIBLE" => of(0, 0);
    HelloEperm = "OFPHFC_EPERM" => of(0, 1);
    BadVersion = "OFPBRC_BAD_VERSION" => of(1, 0);
    BadType = "OFPBRC_BAD_TYPE" => of(1, 1);
    BadStat = "OFPBRC_BAD_STAT" => of(1, 2);
    BadVendor = "OFPBRC_BAD_VENDOR" => of(1, 3);
    BadSubtype = "OFPBRC_BAD_SUBTYPE" => of(1, 4);
    RequestEperm = "OFPBRC_EPERM" => of(1, 5);
    BadLen = "OFPBRC_BAD_LEN" => of(1, 6);
    BufferEmpty = "OFPBRC_BUFFER_EMPTY" => of(1, 7);
    BufferUnknown = "OFPBRC_BUFFER_UNKNOWN" => of(1, 8);
    BadTableId = "OFPBRC_BAD_TABLE_ID" => nx(1, 512);
    BadPort = "OFPBRC_BAD_PORT" => nx(1, 514);
    MustBeZero = "NXBRC_MUST_BE_ZERO" => nx(1, 515);
    BadReason = "NXBRC_BAD_REASON" => nx(1, 516);
    Unencodable = "NXBRC_UNENCODABLE_ERROR" => nx(1, 521);
    NxmInvalid = "NXBRC_NXM_INVALID" => nx(1, 256);
    ActionBadType = "OFPBAC_BAD_TYPE" => of(2, 0);
    ActionBadLen = "OFPBAC_BAD_LEN" => of(2, 1);
    ActionBadVendor = "OFPBAC_BAD_VENDOR" => of(2, 2);
    ActionBadVendorType = "OFPBAC_BAD_VENDOR_TYPE" => of(2, 3);
    ActionBadOutPort = "OFPBAC_BAD_OUT_PORT" => of(2, 4);
    ActionBadArgument = "OFPBAC_BAD_ARGUMENT" => of(2, 5);
    ActionEperm = "OFPBAC_EPERM" => of(2, 6);
    ActionTooMany = "OFPBAC_TOO_MANY" => of(2, 7);
    ActionBadQueue = "OFPBAC_BAD_QUEUE" => of(2, 8);
    ActionBadOutGroup = "OFPBAC_BAD_OUT_GROUP" => nx(2, 9);
    ActionMatchInconsistent = "OFPBAC_MATCH_INCONSISTENT" => nx(1, 522);
    ActionBadSetType = "OFPBAC_BAD_SET_TYPE" => nx(1, 523);
    ActionBadSetLen = "OFPBAC_BAD_SET_LEN" => nx(1, 524);
    ActionBadSetArgument = "OFPBAC_BAD_SET_ARGUMENT" => nx(1, 525);
    ActionUnsupportedOrder = "OFPBAC_UNSUPPORTED_ORDER" => None;
    ActionMustBeZero = "NXBAC_MUST_BE_ZERO" => nx(2, 256);
    InstructionBadTableId = "OFPBIC_BAD_TABLE_ID" => None;
    MatchBadWildcards = "OFPBMC_BAD_WILDCARDS" => nx(1, 262);
    MatchBadField = "OFPBMC_BAD_FIELD" => nx(0, 263);
    MatchBadLen = "OFPBMC_BAD_LEN" => None;
    MatchBadValue = "OFPBMC_BAD_VALUE" => nx(1, 258);
    MatchBadMask = "OFPBMC_BAD_MASK" => nx(1, 259);
    MatchBadPrereq = "OFPBMC_BAD_PREREQ" => nx(1, 260);
    MatchDupField = "OFPBMC_DUP_FIELD" => nx(1, 261);
    FlowModTableFull = "OFPFMFC_TABLE_FULL" => of(3, 0);
    FlowModOverlap = "OFPFMFC_OVERLAP" => of(3, 1);
    FlowModEperm = "OFPFMFC_EPERM" => of(3, 2);
    FlowModBadEmergTimeout = "OFPFMFC_BAD_EMERG_TIMEOUT" => of(3, 3);
    FlowModBadCommand = "OFPFMFC_BAD_COMMAND" => of(3, 4);
    FlowModUnsupported = "OFPFMFC_UNSUPPORTED" => of(3, 5);
    FlowModBadFlags = "OFPFMFC_BAD_FLAGS" => nx(3, 258);
    FlowModHardware = "NXFMFC_HARDWARE" => nx(5, 256);
    FlowModBadTableId = "NXFMFC_BAD_TABLE_ID" => nx(5, 257);
    PortModBadPort = "OFPPMFC_BAD_PORT" => of(4, 0);
    PortModBadHwAddr = "OFPPMFC_BAD_HW_ADDR" => of(4, 1);
    PropertyBadType = "OFPBPC_BAD_TYPE" => nx(13, 2);
    PropertyBadLen = "OFPBPC_BAD_LEN" => nx(13, 3);
    PropertyBadValue = "OFPBPC_BAD_VALUE" => nx(13, 4);
    QueueOpBadPort = "OFPQOFC_BAD_PORT" => of(5, 0);
    QueueOpBadQueue = "OFPQOFC_BAD_QUEUE" => of(5, 1);
    QueueOpEperm = "OFPQOFC_EPERM" => of(5, 2);
}

impl ErrorCode {
    /// The code of an OpenFlow 1.0 error message.
    #[must_use]
    pub fn from_wire10(vendor: u32, kind: u16, code: u16) -> Self {
        Self::NAMED
            .iter()
            .copied()
            .find(|named| named.wire10() == Some((vendor, kind, code)))
            .unwrap_or(Self::Unknown { vendor, kind, code })
    }
}

/// A message that does not decode. Its sender gets [`code`](Self::code) in an OFPT_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct DecodeError {
    /// What is wrong.
    pub code: ErrorCode,
}

impl From<ErrorCode> for DecodeError {
    fn from(code: ErrorCode) -> Self {
        Self { code }
    }
}

/// A message that has no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Longer than the 65,535 bytes that a message (or an action) may have.
    #[error("message is too long for OpenFlow")]
    TooLong,
    /// OpenFlow 1.0 cannot say that.
    #[error("{0} needs OpenFlow 1.1 or later")]
    Unsupported(&'static str),
}
