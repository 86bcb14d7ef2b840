//! What a command handler writes its answer into.

use std::{fmt, mem};

use tokio::sync::mpsc;

/// How much text is gathered before it is sent.
const CHUNK: usize = 32 << 10;

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The text for the user; without a line break at its end.
    #[error("{0}")]
    Refused(String),
    /// The client has gone away, so nothing more need be written.
    #[error("the client has closed the connection")]
    ClientGone(#[from] fmt::Error),
}

impl CommandError {
    /// An error for the user.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self::Refused(text.into())
    }
}

/// The answer to a command, while it is being written.
///
/// Writing blocks while the client is slow, and fails once it is gone. It must be used from a blocking
/// thread, as handlers are.
#[derive(Debug)]
pub struct Reply {
    pending: String,
    chunks: mpsc::Sender<String>,
}

impl Reply {
    /// A reply whose text comes out of the receiver, in chunks.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<String>) {
        let (chunks, receiver) = mpsc::channel(4);
        (Self { pending: String::new(), chunks }, receiver)
    }

    /// Sends what has been written so far, for answers that are read live.
    ///
    /// # Errors
    /// The client is gone.
    pub fn flush(&mut self) -> fmt::Result {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.chunks.blocking_send(mem::take(&mut self.pending)).map_err(|_| fmt::Error)
    }

    /// What has not been sent yet. It is kept back so that an error of a command with a short answer replaces
    /// the answer.
    pub(super) fn into_pending(self) -> String {
        self.pending
    }
}

impl fmt::Write for Reply {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.pending.push_str(text);
        if self.pending.len() < CHUNK { Ok(()) } else { self.flush() }
    }
}
