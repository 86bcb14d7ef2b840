//! The OpenFlow wire codec: bytes to [`Message`]s and back, for switch and client alike.
//!
//! Messages do not know about versions; [`decode`] and [`encode`] do. OpenFlow 1.0 with Nicira's extensions
//! is what both speak now, and a peer that speaks only others is turned away with OFPHFC_INCOMPATIBLE.
//! Everything on the wire is big-endian and every length is checked: no input makes the decoder panic.

mod actions;
mod buf;
mod ct;
mod ct_flush;
mod error;
mod flow_mod;
mod framer;
mod hello;
mod message;
mod nicira_actions;
mod nxm;
mod ofp_match;
mod packet;
mod ports;
mod stats;
mod v10;

pub use error::{DecodeError, EncodeError, ErrorCode};
pub use framer::{FrameError, Framer};
pub use message::*;

use buf::Put;

use crate::action::Action;
use crate::flow::{Match, fits_openflow10};

/// The eight bytes that every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version's number (1 is OpenFlow 1.0).
    pub version: u8,
    /// The type, OFPT_*.
    pub kind: u8,
    /// The length of the message, header included.
    pub length: u16,
    /// The transaction id.
    pub xid: Xid,
}

impl Header {
    /// How long a header is.
    pub const LEN: usize = 8;

    /// The header of a message; none if it has fewer than eight bytes.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<{ Self::LEN }>()?;
        let [version, kind, l0, l1, x0, x1, x2, x3] = *header;
        Some(Self {
            version,
            kind,
            length: u16::from_be_bytes([l0, l1]),
            xid: u32::from_be_bytes([x0, x1, x2, x3]),
        })
    }
}

/// Decodes one whole message, as [`Framer`] gives it. A HELLO, and an error that answers one, may be of any
/// version.
///
/// # Errors
/// [`DecodeError`], for [`error_reply`].
pub fn decode(protocol: Protocol, bytes: &[u8]) -> Result<(Xid, Message), DecodeError> {
    let header = Header::parse(bytes).ok_or(ErrorCode::BadLen)?;
    if usize::from(header.length) != bytes.len() {
        return Err(ErrorCode::BadLen.into());
    }
    let body = &bytes[Header::LEN..];
    let message = match header.kind {
        v10::HELLO => Message::Hello(hello::take(header.version, body)),
        v10::ERROR => Message::Error(v10::take_error(body)?),
        _ if header.version != protocol.version.number() => return Err(ErrorCode::BadVersion.into()),
        kind => match protocol.version {
            Version::V10 => v10::take(protocol, kind, body)?,
        },
    };
    Ok((header.xid, message))
}

/// Encodes a message: one on the wire, or several where a statistics reply needs them.
///
/// # Errors
/// [`EncodeError`] when it is longer than OpenFlow allows, or when the version cannot say it.
pub fn encode(protocol: Protocol, xid: Xid, message: &Message) -> Result<Vec<u8>, EncodeError> {
    match (message, protocol.version) {
        (Message::Hello(versions), _) => Ok(hello::encode(xid, *versions)),
        (_, Version::V10) => v10::encode(protocol, xid, message),
    }
}

/// The OFPT_ERROR that answers a message: of its version, with its transaction id, `code`, and the message
/// itself as far as there is room (OpenFlow asks for 64 bytes; a client can only name the whole).
/// Empty for an error about an error, which is not answered.
#[must_use]
pub fn error_reply(code: ErrorCode, offender: &[u8]) -> Vec<u8> {
    let header = Header::parse(offender);
    if header.is_some_and(|header| header.kind == v10::ERROR) {
        return Vec::new();
    }
    let version = header.map_or(Version::V10.number(), |header| header.version);
    v10::encode_error(version, header.map_or(0, |header| header.xid), code, offender)
}

/// The OFPT_ERROR that turns away a peer whose HELLO has no version in common, in the highest version that
/// it knows, so that it can read it.
#[must_use]
pub fn hello_failed(xid: Xid, peer: VersionSet) -> Vec<u8> {
    let text = format!(
        "We support version 0x{:02x}, you support version 0x{:02x}, no common versions.",
        VersionSet::SUPPORTED.highest(),
        peer.highest()
    );
    v10::encode_error(peer.highest(), xid, ErrorCode::HelloIncompatible, text.as_bytes())
}

/// How to write a flow-mod or a flow request: as OpenFlow 1.0's own message where that can say the match and
/// what is asked of cookies, else with Nicira's.
#[must_use]
pub fn flow_format(matching: &Match, cookie_mask: u64) -> FlowFormat {
    if cookie_mask == 0 && fits_openflow10(matching) { FlowFormat::OpenFlow10 } else { FlowFormat::Nxm }
}

/// The length of actions in a message, in bytes.
///
/// # Errors
/// [`EncodeError`] when the version cannot say them.
pub fn actions_len(protocol: Protocol, actions: &[Action]) -> Result<usize, EncodeError> {
    let Protocol { version: Version::V10, .. } = protocol;
    let mut out = Vec::new();
    actions::put(&mut out, actions)?;
    Ok(out.len())
}

/// One message: header, then what `body` writes.
fn frame<E: From<EncodeError>>(
    version: u8,
    kind: u8,
    xid: Xid,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut out = Vec::new();
    out.u8(version);
    out.u8(kind);
    out.u16(0);
    out.u32(xid);
    body(&mut out)?;
    let len = u16::try_from(out.len()).map_err(|_| EncodeError::TooLong)?;
    out[2..4].copy_from_slice(&len.to_be_bytes());
    Ok(out)
}
