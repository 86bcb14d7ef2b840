//! One peer: HELLO, framing, dispatch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ofctl::flow::{Command, FlowMod};
use ofctl::wire::{
    self, AsyncConfig, FlowFormat, FlowRemoved, FrameError, Framer, Message, Protocol, Version, VersionSet,
    Xid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::timeout;
use tracing::{debug, info};

use super::server::Shared;
use super::{Backend, error_code};

/// How much is read at once, and how much is written at once where there is more.
pub(super) const BUFFER: usize = 64 * 1024;

/// How long a peer may take to say HELLO.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a peer may leave its answers unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a connection ends, other than by the peer's wish.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the bridge is gone")]
    NoBridge,
    #[error("no HELLO came within {HELLO_TIMEOUT:?}")]
    NoHello,
    #[error("the first message is no HELLO")]
    NotHello,
    #[error("version negotiation failed (we support version 0x01, peer supports version 0x{0:02x})")]
    Version(u8),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer did not read for {WRITE_TIMEOUT:?}")]
    Stuck,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection and what its peer has set on it.
pub(super) struct Connection<B> {
    pub shared: Arc<Shared<B>>,
    stream: UnixStream,
    framer: Framer,
    /// Answers that are not written yet.
    out: Vec<u8>,
    pub protocol: Protocol,
    /// How flow-removed messages write matches.
    pub format: FlowFormat,
    /// Bytes of a packet that the peer wants on a table miss; 0: nothing unasked.
    pub miss_send_len: u16,
    pub wanted: AsyncConfig,
    removed: broadcast::Receiver<Arc<FlowRemoved>>,
}

impl<B: Backend> Connection<B> {
    pub fn new(shared: Arc<Shared<B>>, stream: UnixStream) -> Self {
        Self {
            removed: shared.removed.subscribe(),
            shared,
            stream,
            framer: Framer::new(),
            out: Vec::new(),
            protocol: Protocol::default(),
            format: FlowFormat::default(),
            miss_send_len: 0,
            wanted: AsyncConfig { packet_in: [!0; 2], port_status: [!0; 2], flow_removed: [!0; 2] },
        }
    }

    /// Serves the peer until one of the two ends it.
    pub async fn run(mut self) {
        let bridge = self.shared.bridge.0;
        let Err(end) = self.serve().await;
        match end {
            End::Closed => debug!(bridge, "OpenFlow connection: {end}"),
            _ => info!(bridge, "OpenFlow connection: {end}"),
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        timeout(HELLO_TIMEOUT, self.negotiate()).await.map_err(|_| End::NoHello)??;
        loop {
            self.answer().await?;
            self.flush().await?;
            // In Open vSwitch too, a peer that wants no packets (miss_send_len 0) is told nothing unasked.
            let wants_events = self.miss_send_len != 0;
            let mut buffer = [0; BUFFER / 4];
            tokio::select! {
                read = self.stream.read(&mut buffer) => match read? {
                    0 => return Err(End::Closed),
                    length => self.framer.push(&buffer[..length]),
                },
                event = self.removed.recv(), if wants_events => match event {
                    Ok(removed) => self.flow_removed(&removed),
                    Err(RecvError::Lagged(lost)) => debug!(lost, "the peer is too slow for flow-removed messages"),
                    Err(RecvError::Closed) => return Err(End::NoBridge),
                },
            }
        }
    }

    /// Exchanges HELLOs and settles the version.
    async fn negotiate(&mut self) -> Result<(), End> {
        self.send(0, &Message::Hello(VersionSet::SUPPORTED));
        self.flush().await?;
        let (xid, peer) = loop {
            if let Some(message) = self.framer.next_message()? {
                match wire::decode(self.protocol, message) {
                    Ok((xid, Message::Hello(versions))) => break (xid, versions),
                    _ => return Err(End::NotHello),
                }
            }
            self.read().await?;
        };
        match peer.negotiate() {
            Some(version) => {
                self.protocol.version = version;
                Ok(())
            }
            None => {
                self.out.extend(wire::hello_failed(xid, peer));
                self.flush().await?;
                Err(End::Version(peer.highest()))
            }
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer).await? {
            0 => Err(End::Closed),
            length => {
                self.framer.push(&buffer[..length]);
                Ok(())
            }
        }
    }

    /// Answers the messages that have come whole. Flow-mods that come in a row are applied together: to make a
    /// change visible to packets costs more than to stage it.
    async fn answer(&mut self) -> Result<(), End> {
        let mut flow_mods = FlowMods::default();
        loop {
            let message = match self.framer.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => return self.apply(&mut flow_mods),
                Err(error) => {
                    self.apply(&mut flow_mods)?;
                    return Err(error.into());
                }
            };
            match wire::decode(self.protocol, message) {
                Ok((_, Message::FlowMod(_, mut flow_mod))) => {
                    // OpenFlow 1.0 has no such flag: there every add restarts the counters.
                    flow_mod.flags.reset_counts |=
                        self.protocol.version == Version::V10 && flow_mod.command == Command::Add;
                    flow_mods.mods.push(flow_mod);
                    flow_mods.messages.push(message.to_vec());
                }
                decoded => {
                    let message = message.to_vec();
                    self.apply(&mut flow_mods)?;
                    let result = match decoded {
                        Ok((xid, request)) => self.request(xid, request).await?,
                        Err(error) => Err(error.code),
                    };
                    if let Err(code) = result {
                        debug!(bridge = self.shared.bridge.0, "sending {code} error reply");
                        self.out.extend(wire::error_reply(code, &message));
                    }
                    self.make_room().await?;
                }
            }
        }
    }

    fn apply(&mut self, flow_mods: &mut FlowMods) -> Result<(), End> {
        let FlowMods { mods, messages } = std::mem::take(flow_mods);
        if mods.is_empty() {
            return Ok(());
        }
        let backend = &self.shared.backend;
        let now = backend.now();
        let applied = backend
            .with_tables(self.shared.bridge, |tables, rules| tables.apply(rules, &mods, now))
            .ok_or(End::NoBridge)?;
        for (result, message) in applied.results.iter().zip(messages) {
            if let Err(error) = result {
                let code = error_code(error);
                info!(bridge = self.shared.bridge.0, "sending {code} error reply to a flow-mod: {error}");
                self.out.extend(wire::error_reply(code, &message));
            }
        }
        self.shared.report(applied.removed);
        Ok(())
    }

    fn flow_removed(&mut self, removed: &FlowRemoved) {
        if self.wanted.flow_removed[0] & (1 << removed.reason as u32) != 0 {
            self.send(0, &Message::FlowRemoved(self.format, removed.clone()));
        }
    }

    /// Puts a message where [`flush`](Self::flush) finds it.
    pub fn send(&mut self, xid: Xid, message: &Message) {
        match wire::encode(self.protocol, xid, message) {
            Ok(bytes) => self.out.extend(bytes),
            Err(error) => info!(bridge = self.shared.bridge.0, "cannot send a message: {error}"),
        }
    }

    /// Writes out the answers if they have become many.
    pub async fn make_room(&mut self) -> Result<(), End> {
        if self.out.len() < BUFFER { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<(), End> {
        if !self.out.is_empty() {
            timeout(WRITE_TIMEOUT, self.stream.write_all(&self.out)).await.map_err(|_| End::Stuck)??;
            self.out.clear();
            // A dump's last part may have been large, and most connections wait for long.
            self.out.shrink_to(BUFFER);
        }
        Ok(())
    }
}

/// Flow-mods that came in a row, and the messages that they came in, for error replies.
#[derive(Default)]
struct FlowMods {
    mods: Vec<FlowMod>,
    messages: Vec<Vec<u8>>,
}
