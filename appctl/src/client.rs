//! A blocking client of the control socket.

use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::message::Request;
use crate::reply::{ReplyError, read_reply};
use crate::{pidfile, rundir};

/// The daemon that the tools talk to unless told otherwise: OVS's name for it.
pub const DEFAULT_TARGET: &str = "ovs-vswitchd";

/// Why a command was not carried out. The texts are `ovs-appctl`'s.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The target has no valid pid file.
    #[error("cannot read pidfile \"{}\" ({})", path.display(), strerror(source))]
    PidFile {
        /// The pid file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody listens on the control socket.
    #[error("cannot connect to \"{}\" ({})", path.display(), strerror(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke, or the other side does not speak the protocol.
    #[error("{target}: transaction error ({})", strerror(source))]
    Transaction {
        /// The target, as the user named it.
        target: String,
        /// What happened.
        source: io::Error,
    },
    /// The result could not be written.
    #[error("cannot write the result ({})", strerror(.0))]
    Output(#[source] io::Error),
    /// The server answered with an error: its text, which ends in a line break.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a daemon's control socket.
#[derive(Debug)]
pub struct Client {
    target: String,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a control socket, given by its absolute path or by the name of the program that serves it
    /// in the run directory.
    ///
    /// # Errors
    /// [`ClientError::PidFile`] and [`ClientError::Connect`].
    pub fn connect(target: &str) -> Result<Self, ClientError> {
        let path = socket_path(target)?;
        let stream = UnixStream::connect(&path).map_err(|source| ClientError::Connect { path, source })?;
        Ok(Self { target: target.to_owned(), stream: BufReader::with_capacity(1 << 16, stream) })
    }

    /// Has a command carried out, and copies its result to `out` while it arrives.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the server says no, [`ClientError::Transaction`] and
    /// [`ClientError::Output`] when it could not be heard to the end. A part of the result may have been
    /// written.
    pub fn call(&mut self, method: &str, args: &[String], out: &mut impl Write) -> Result<(), ClientError> {
        let mut out = BufWriter::with_capacity(1 << 16, out);
        self.send(&Request::new(method, args)).map_err(|source| self.broken(source))?;
        let error = read_reply(&mut self.stream, &mut out).map_err(|error| match error {
            ReplyError::Input(source) => self.broken(source),
            ReplyError::Malformed => self.broken(Errno::EPROTO.into()),
            ReplyError::Output(source) => ClientError::Output(source),
        })?;
        out.flush().map_err(ClientError::Output)?;
        error.map_or(Ok(()), |text| Err(ClientError::Refused(text)))
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.get_mut().write_all(&serde_json::to_vec(request)?)
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Transaction { target: self.target.clone(), source }
    }
}

/// Where a target listens.
fn socket_path(target: &str) -> Result<PathBuf, ClientError> {
    if Path::new(target).is_absolute() {
        return Ok(target.into());
    }
    let rundir = rundir::rundir();
    let path = rundir.join(format!("{target}.pid"));
    match pidfile::read(&path) {
        Ok(pid) => Ok(rundir.join(format!("{target}.{pid}.ctl"))),
        Err(source) => Err(ClientError::PidFile { path, source }),
    }
}

/// An error in the C library's words, as OVS's messages have it; the standard library adds a number.
#[must_use]
pub fn strerror(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "End of file".to_owned(),
        None => error.to_string(),
    }
}

/// The name that a tool was called by, for its messages.
#[must_use]
pub fn program_name(fallback: &str) -> String {
    let path = std::env::args_os().next().map(PathBuf::from);
    let name = path.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    name.unwrap_or(fallback).to_owned()
}
