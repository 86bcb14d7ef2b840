//! A blocking OpenFlow client over a Unix socket, as the tool needs it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::flow::FlowMod;
use crate::wire::{
    self, DecodeError, EncodeError, ErrorMessage, FlowFormat, FrameError, Framer, Message, Protocol,
    StatsBody, StatsReply, StatsRequest, VersionSet, Xid,
};

/// Where the daemon puts its sockets when nothing says otherwise.
const DEFAULT_RUN_DIR: &str = "/var/run/openvswitch";

/// The directory of the daemon's sockets: `$SWITCHD_RUNDIR`, else `$OVS_RUNDIR`, else OVS's own.
#[must_use]
pub fn run_dir() -> PathBuf {
    ["SWITCHD_RUNDIR", "OVS_RUNDIR"]
        .into_iter()
        .find_map(|name| std::env::var_os(name).filter(|dir| !dir.is_empty()))
        .map_or_else(|| DEFAULT_RUN_DIR.into(), PathBuf::from)
}

/// Why the switch cannot be talked to, or does not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No such target.
    #[error("{0} is not a bridge or a socket")]
    NotASwitch(String),
    /// Nobody answers there.
    #[error("{} ({})", connecting(.target), Reason(.error))]
    Connect {
        /// What the user named.
        target: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The peer speaks no version that this client does.
    #[error(
        "{target}: version negotiation failed (we support version 0x01, peer supports version {peer:#04x})"
    )]
    Version {
        /// What the user named.
        target: String,
        /// The highest version of the peer.
        peer: u8,
    },
    /// The connection broke.
    #[error("talking to {target} ({})", Reason(.error))]
    Io {
        /// What the user named.
        target: String,
        /// The system's reason.
        error: io::Error,
    },
    /// What comes is no OpenFlow.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message that the switch should not send.
    #[error("bad reply from the switch: {0}")]
    Decode(#[from] DecodeError),
    /// A message of ours that cannot be sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An answer to something else.
    #[error("unexpected reply from the switch")]
    UnexpectedReply,
    /// The switch refused.
    #[error("{}", .1.code)]
    Refused(Xid, ErrorMessage),
}

/// What fails, in OVS's words: one for a name that was looked up, one for an explicit socket.
fn connecting(target: &str) -> String {
    if target.starts_with("unix:") {
        format!("connecting to {target}")
    } else {
        format!("{target}: failed to connect to socket")
    }
}

/// An I/O error in the words of the system alone, as C programs print it.
struct Reason<'a>(&'a io::Error);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.kind() {
            io::ErrorKind::UnexpectedEof => f.write_str("End of file"),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => f.write_str("Connection timed out"),
            _ => {
                let text = self.0.to_string();
                f.write_str(text.split(" (os error").next().unwrap_or(&text))
            }
        }
    }
}

/// A switch that connections can be made to. Transaction ids count on from one connection to the next.
#[derive(Debug)]
pub struct Switch {
    target: String,
    path: PathBuf,
    deadline: Option<Instant>,
    last_xid: Cell<Xid>,
}

impl Switch {
    /// The switch that the user means by `target`: a socket's path, with or without `unix:` before it, or the
    /// name of a bridge of the daemon in [`run_dir`]. After `timeout` every answer is too late.
    ///
    /// # Errors
    /// [`ClientError::NotASwitch`].
    pub fn new(target: &str, timeout: Option<Duration>) -> Result<Self, ClientError> {
        let is_socket = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket());
        let path = match target.strip_prefix("unix:") {
            Some(path) => path.into(),
            None => [PathBuf::from(target), run_dir().join(format!("{target}.mgmt"))]
                .into_iter()
                .find(|path| is_socket(path))
                .ok_or_else(|| ClientError::NotASwitch(target.into()))?,
        };
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self { target: target.into(), path, deadline, last_xid: Cell::new(0) })
    }

    /// What the user named.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Connects and agrees on a version.
    ///
    /// # Errors
    /// [`ClientError`], when nobody answers or no version is common.
    pub fn connect(&self) -> Result<Connection<'_>, ClientError> {
        let stream = UnixStream::connect(&self.path)
            .map_err(|error| ClientError::Connect { target: self.target.clone(), error })?;
        let mut connection =
            Connection { switch: self, stream, framer: Framer::new(), protocol: Protocol::default() };
        connection.send(&Message::Hello(VersionSet::SUPPORTED))?;
        match connection.receive()? {
            (xid, Message::Hello(peer)) => match peer.negotiate() {
                Some(version) => connection.protocol.version = version,
                None => {
                    connection.write(&wire::hello_failed(xid, peer))?;
                    return Err(ClientError::Version { target: self.target.clone(), peer: peer.highest() });
                }
            },
            _ => return Err(ClientError::UnexpectedReply),
        }
        Ok(connection)
    }

    fn io_error(&self, error: io::Error) -> ClientError {
        ClientError::Io { target: self.target.clone(), error }
    }

    /// How long there still is.
    fn time_left(&self) -> Result<Option<Duration>, ClientError> {
        match self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(self.io_error(io::ErrorKind::TimedOut.into())),
            left => Ok(left),
        }
    }
}

/// How many bytes of flow-mods may wait for their barrier: few enough for the socket to hold them, so that the
/// switch can always write its refusals while nobody reads them yet.
const MAX_UNDER_WAY: usize = 32 * 1024;

/// A flow-mod that the switch refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which of those that were sent, from 0.
    pub flow: usize,
    /// The transaction id that it was sent with.
    pub xid: Xid,
    /// Why.
    pub error: ErrorMessage,
}

/// A connection to a switch.
#[derive(Debug)]
pub struct Connection<'a> {
    switch: &'a Switch,
    stream: UnixStream,
    framer: Framer,
    protocol: Protocol,
}

impl Connection<'_> {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError`], [`Refused`](ClientError::Refused) among them.
    pub fn request(&mut self, message: &Message) -> Result<(Xid, Message), ClientError> {
        let xid = self.send(message)?;
        Ok((xid, self.reply_to(xid)?))
    }

    /// Sends a message that has no answer, and waits until the switch has done it.
    ///
    /// # Errors
    /// [`ClientError`], [`Refused`](ClientError::Refused) among them.
    pub fn command(&mut self, message: &Message) -> Result<(), ClientError> {
        self.send(message)?;
        match self.barrier()?.into_iter().next() {
            Some((xid, error)) => Err(ClientError::Refused(xid, error)),
            None => Ok(()),
        }
    }

    /// Waits until the switch has done all that it was sent. Gives what it refused of that.
    fn barrier(&mut self) -> Result<Vec<(Xid, ErrorMessage)>, ClientError> {
        let barrier = self.send(&Message::BarrierRequest)?;
        let mut refused = Vec::new();
        loop {
            match self.receive()? {
                (from, Message::Error(error)) if from == barrier => {
                    return Err(ClientError::Refused(from, error));
                }
                (from, Message::Error(error)) => refused.push((from, error)),
                (from, Message::BarrierReply) if from == barrier => return Ok(refused),
                // Something unasked, such as a port-status.
                _ => {}
            }
        }
    }

    /// Asks for matches in NXM, in what comes unasked too.
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub fn use_nxm(&mut self) -> Result<(), ClientError> {
        self.command(&Message::SetFlowFormat(FlowFormat::Nxm))
    }

    /// Sends flow-mods in the forms that their matches and tables need, many before each barrier: a round trip
    /// for each would take most of the time. After a refusal those under way are still done, but no more are sent.
    ///
    /// # Errors
    /// As [`command`](Self::command), but for refusals of flow-mods, which are given back; what was sent before
    /// stays done.
    pub fn flow_mods(&mut self, flows: &[FlowMod]) -> Result<Vec<Refusal>, ClientError> {
        let format = |flow: &FlowMod| wire::flow_format(&flow.matching, flow.cookie_mask);
        if flows.iter().any(|flow| format(flow) == FlowFormat::Nxm) {
            self.use_nxm()?;
        }
        if flows.iter().any(|flow| flow.table.is_some()) {
            self.command(&Message::FlowModTableId(true))?;
            self.protocol.flow_mod_table_id = true;
        }
        let mut rest = (0..).zip(flows).peekable();
        while rest.peek().is_some() {
            let (mut batch, mut under_way) = (Vec::new(), HashMap::new());
            while let Some((index, flow)) = rest.next_if(|_| batch.len() < MAX_UNDER_WAY) {
                let xid = self.next_xid();
                batch.extend(wire::encode(
                    self.protocol,
                    xid,
                    &Message::FlowMod(format(flow), flow.clone()),
                )?);
                under_way.insert(xid, index);
            }
            self.write(&batch)?;
            let refused = self.barrier()?.into_iter();
            let refusal = |(xid, error)| Some(Refusal { flow: *under_way.get(&xid)?, xid, error });
            let refusals: Vec<Refusal> = refused.filter_map(refusal).collect();
            if !refusals.is_empty() {
                return Ok(refusals);
            }
        }
        Ok(Vec::new())
    }

    /// Asks for statistics and gives each part of the reply to `each`.
    ///
    /// # Errors
    /// As [`request`](Self::request), and those of `each`.
    pub fn statistics<E: From<ClientError>>(
        &mut self,
        request: StatsRequest,
        mut each: impl FnMut(Xid, StatsReply) -> Result<(), E>,
    ) -> Result<(), E> {
        let xid = self.send(&Message::StatsRequest(request))?;
        loop {
            let Message::StatsReply(reply) = self.reply_to(xid)? else {
                return Err(ClientError::UnexpectedReply.into());
            };
            let more = reply.more;
            each(xid, reply)?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Asks for statistics that come in one part.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn statistic(&mut self, request: StatsRequest) -> Result<(Xid, StatsBody), ClientError> {
        match self.request(&Message::StatsRequest(request))? {
            (xid, Message::StatsReply(StatsReply { body, more: false })) => Ok((xid, body)),
            _ => Err(ClientError::UnexpectedReply),
        }
    }

    /// What the two ends have agreed on.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn reply_to(&mut self, xid: Xid) -> Result<Message, ClientError> {
        loop {
            match self.receive()? {
                (from, Message::Error(error)) if from == xid => return Err(ClientError::Refused(xid, error)),
                (from, reply) if from == xid => return Ok(reply),
                // Something unasked, such as a port-status.
                _ => {}
            }
        }
    }

    fn send(&mut self, message: &Message) -> Result<Xid, ClientError> {
        let xid = self.next_xid();
        let bytes = wire::encode(self.protocol, xid, message)?;
        self.write(&bytes)?;
        Ok(xid)
    }

    fn next_xid(&self) -> Xid {
        let xid = self.switch.last_xid.get().wrapping_add(1);
        self.switch.last_xid.set(xid);
        xid
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let left = self.switch.time_left()?;
        self.stream
            .set_write_timeout(left)
            .and_then(|()| self.stream.write_all(bytes))
            .map_err(|error| self.switch.io_error(error))
    }

    /// The next message; the switch's echo requests are answered on the way.
    fn receive(&mut self) -> Result<(Xid, Message), ClientError> {
        let mut chunk = [0; 16384];
        loop {
            if let Some(message) = self.framer.next_message()? {
                match wire::decode(self.protocol, message)? {
                    (xid, Message::EchoRequest(data)) => {
                        let reply = wire::encode(self.protocol, xid, &Message::EchoReply(data))?;
                        self.write(&reply)?;
                    }
                    received => return Ok(received),
                }
                continue;
            }
            let left = self.switch.time_left()?;
            let read = self.stream.set_read_timeout(left).and_then(|()| self.stream.read(&mut chunk));
            match read {
                Ok(0) => return Err(self.switch.io_error(io::ErrorKind::UnexpectedEof.into())),
                Ok(len) => self.framer.push(&chunk[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.switch.io_error(error)),
            }
        }
    }
}
