//! OFPT_HELLO: the same in every version, so that the two ends can find one.

use super::buf::{Put, Reader, padding};
use super::error::ErrorCode;
use super::message::{VersionSet, Xid};
use super::v10;

/// OFPHET_VERSIONBITMAP.
const VERSION_BITMAP: u16 = 1;
/// Type and length of an element.
const ELEMENT_HEADER: usize = 4;

/// The message: its version is the highest, and the bitmap is there when it says more than that.
pub(super) fn encode(xid: Xid, versions: VersionSet) -> Vec<u8> {
    let highest = versions.highest();
    let mut out = Vec::new();
    let bitmap = versions != up_to(highest);
    out.u8(highest);
    out.u8(v10::HELLO);
    out.u16(if bitmap { 16 } else { 8 });
    out.u32(xid);
    if bitmap {
        out.u16(VERSION_BITMAP);
        out.u16(8);
        out.u32(versions.0);
    }
    out
}

/// Reads the elements. Those that make no sense count for nothing, and without a bitmap the sender speaks
/// every version up to the header's: a HELLO is never malformed.
pub(super) fn take(version: u8, body: &[u8]) -> VersionSet {
    let mut reader = Reader::new(body, ErrorCode::BadLen);
    while let (Ok(kind), Ok(len)) = (reader.u16(), reader.u16()) {
        let Some(len) = usize::from(len).checked_sub(ELEMENT_HEADER) else { break };
        let Ok(mut element) = reader.sub(len) else { break };
        if kind == VERSION_BITMAP
            && let Ok(bitmap) = element.u32()
            && bitmap != 0
        {
            return VersionSet(bitmap);
        }
        if reader.skip(padding(ELEMENT_HEADER + len)).is_err() {
            break;
        }
    }
    up_to(version)
}

/// Versions 1 to `highest`.
fn up_to(highest: u8) -> VersionSet {
    let bits = u32::MAX.checked_shl(u32::from(highest) + 1).map_or(u32::MAX, |above| !above);
    VersionSet(bits & !1)
}
