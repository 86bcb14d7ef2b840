//! A bridge's socket, and its clock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ofctl::wire::FlowRemoved;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::Backend;
use super::connection::Connection;
use crate::rules::BridgeId;

/// How many peers one bridge serves at a time.
const MAX_CONNECTIONS: usize = 128;

/// How many flow-removed messages wait for a peer that does not read; older ones are lost to it.
const MAX_EVENTS: usize = 1024;

/// How often timeouts are looked at.
const TICK: Duration = Duration::from_millis(500);

/// What the connections of a bridge share.
pub(super) struct Shared<B> {
    pub backend: Arc<B>,
    pub bridge: BridgeId,
    /// Flows that went, for the connections that want to know.
    pub removed: broadcast::Sender<Arc<FlowRemoved>>,
}

impl<B: Backend> Shared<B> {
    /// Tells those who want to know that flows went.
    pub fn report(&self, removed: Vec<FlowRemoved>) {
        for flow in removed {
            // It fails when nobody listens, which is no loss.
            let _ = self.removed.send(Arc::new(flow));
        }
    }
}

/// A bridge's OpenFlow server. It stops, and its socket goes, when this is dropped.
#[derive(Debug)]
pub struct BridgeServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl BridgeServer {
    /// Listens at `path` and serves a bridge there, timeouts of its flows included. A socket that an earlier
    /// process left at `path` is replaced.
    ///
    /// # Errors
    /// The socket cannot be made.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start<B: Backend>(backend: Arc<B>, bridge: BridgeId, path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let (removed, _) = broadcast::channel(MAX_EVENTS);
        let shared = Arc::new(Shared { backend, bridge, removed });
        let task = tokio::spawn(serve(listener, shared));
        Ok(Self { path: path.to_owned(), task })
    }
}

impl Drop for BridgeServer {
    fn drop(&mut self) {
        // The task owns the set of its connections' tasks: they end with it.
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!(path = %self.path.display(), %error, "cannot remove the OpenFlow socket");
        }
    }
}

async fn serve<B: Backend>(listener: UnixListener, shared: Arc<Shared<B>>) {
    let mut connections = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= MAX_CONNECTIONS => {
                    info!(bridge = shared.bridge.0, "refused an OpenFlow connection: there are {MAX_CONNECTIONS}");
                }
                Ok((stream, _)) => {
                    connections.spawn(Connection::new(Arc::clone(&shared), stream).run());
                }
                Err(error) => {
                    // Most likely out of file descriptors. Trying again at once would only burn time.
                    warn!(%error, "cannot accept an OpenFlow connection");
                    tokio::time::sleep(TICK).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = tick.tick() => {
                let now = shared.backend.now();
                let Some(removed) = shared.backend.with_tables(shared.bridge, |tables, rules| tables.expire(rules, now))
                else { return };
                shared.report(removed);
            }
        }
    }
}
