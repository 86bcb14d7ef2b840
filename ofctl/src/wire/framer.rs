//! Cuts a byte stream into messages.

use super::Header;

/// Collects bytes as they come and hands out whole messages.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Where the first message not yet handed out begins.
    start: usize,
}

/// The stream is no OpenFlow, and there is no way to find the next message in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("received too-short ofp_header ({0} bytes)")]
pub struct FrameError(pub u16);

impl Framer {
    /// A framer at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        // Compacting here rather than per message keeps a burst of small messages linear.
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it has come.
    ///
    /// # Errors
    /// [`FrameError`] when a header's length is less than its own eight bytes: the connection is of no more use.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.bytes[self.start..];
        let Some(header) = Header::parse(rest) else { return Ok(None) };
        let length = usize::from(header.length);
        if length < Header::LEN {
            return Err(FrameError(header.length));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        self.start += length;
        Ok(Some(message))
    }

    /// Whether a part of a message is waiting for the rest of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }
}
