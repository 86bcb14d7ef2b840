//! What a command handler writes its answer into.

use std::{fmt, mem};

use tokio::sync::{mpsc, watch};

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
    end: watch::Receiver<bool>,
}

/// Where a reply comes out.
#[derive(Debug)]
pub(super) struct Outlet {
    /// Its text.
    pub chunks: mpsc::Receiver<String>,
    /// Asks for the end of an answer that has none of its own.
    pub end: watch::Sender<bool>,
}

impl Reply {
    /// A reply, and where it comes out.
    pub(super) fn channel() -> (Self, Outlet) {
        let (sender, chunks) = mpsc::channel(4);
        let (end, ended) = watch::channel(false);
        (Self { pending: String::new(), chunks: sender, end: ended }, Outlet { chunks, end })
    }

    /// Waits until an answer that has no end of its own has to end: the client sends nothing more, or the daemon
    /// stops. Other answers need not care, for a client may say no more and still listen.
    pub async fn unwanted(&mut self) {
        // Without a sender nobody reads the answer any more.
        let _ = self.end.wait_for(|end| *end).await;
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
