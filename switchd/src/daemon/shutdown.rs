//! The one signal that everything listens to when the daemon ends.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task;
use tracing::info;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Everything is to undo what it did, and to stop.
    Requested,
    /// All has been undone; only answers to `exit` are left to send.
    Finished,
}

/// A handle on the daemon's end: clones share it.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<Phase>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }
}

impl Shutdown {
    /// Asks for the end.
    pub fn request(&self) {
        self.advance(Phase::Requested);
    }

    /// Says that all has been undone.
    pub fn finish(&self) {
        self.advance(Phase::Finished);
    }

    /// Waits until the end has been asked for.
    pub async fn requested(&self) {
        self.reached(Phase::Requested).await;
    }

    /// Waits until all has been undone.
    pub async fn finished(&self) {
        self.reached(Phase::Finished).await;
    }

    /// Asks for the end when SIGTERM or SIGINT comes, or SIGHUP, as when a terminal is closed.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = self.clone();
        task::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => "SIGHUP",
            };
            info!("{name}: shutting down");
            shutdown.request();
        });
        Ok(())
    }

    fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let forward = *phase < to;
            if forward {
                *phase = to;
            }
            forward
        });
    }

    async fn reached(&self, wanted: Phase) {
        // The sender is `self`, so the channel cannot be closed.
        let _ = self.0.subscribe().wait_for(|phase| *phase >= wanted).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, timeout};

    use super::*;

    #[tokio::test]
    async fn the_end_only_comes_nearer() {
        let shutdown = Shutdown::default();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(timeout(Duration::from_millis(10), shutdown.requested()).await.is_err());
        shutdown.request();
        waiting.await.unwrap();
        assert!(timeout(Duration::from_millis(10), shutdown.finished()).await.is_err());
        shutdown.finish();
        shutdown.request();
        shutdown.finished().await;
        shutdown.requested().await;
    }
}
