//! Serving the control socket.

use std::error::Error;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use appctl::codec::Decoder;
use appctl::message::Request;
use appctl::reply::ReplyEncoder;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::{task, time};
use tracing::{debug, warn};

use super::registry::{Handler, Registry};
use super::reply::{CommandError, Reply};
use crate::daemon::shutdown::Shutdown;

/// How many clients are served at once; further ones are turned away.
const MAX_CONNECTIONS: u32 = 64;

/// How long a request may be, in bytes.
const MAX_REQUEST: usize = 1 << 20;

/// How long running commands may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The control socket, listening.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    registry: Arc<Registry>,
}

impl Server {
    /// Starts to listen at `path`, where nobody may listen yet, with these commands and `list-commands`.
    ///
    /// # Errors
    /// The socket's.
    pub fn bind(path: &Path, mut registry: Registry) -> io::Result<Self> {
        registry.register_list_commands();
        let listener = UnixListener::bind(path)?;
        Ok(Self { listener, path: path.to_owned(), registry: Arc::new(registry) })
    }

    /// Serves until everything else has stopped, so that `exit` is answered last. Takes the socket away and
    /// gives commands that still run a moment to end.
    pub async fn run(self, shutdown: Shutdown) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.finished() => break,
            };
            match accepted {
                Ok((stream, _)) => self.serve(stream, &slots, shutdown.clone()),
                Err(error) => {
                    warn!(%error, "cannot accept a control connection");
                    // Out of file descriptors, most likely: that lasts, so do not spin.
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "cannot remove the control socket");
        }
        if time::timeout(DRAIN, slots.acquire_many(MAX_CONNECTIONS)).await.is_err() {
            warn!("commands still run; their clients are left without an answer");
        }
    }

    fn serve(&self, stream: UnixStream, slots: &Arc<Semaphore>, shutdown: Shutdown) {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            warn!("more than {MAX_CONNECTIONS} control connections; one is turned away");
            return;
        };
        let mut connection = Connection { stream, registry: Arc::clone(&self.registry) };
        task::spawn(async move {
            if let Err(error) = connection.serve(&shutdown).await {
                warn!(%error, "control connection closed");
            }
            drop(slot);
        });
    }
}

/// One client.
struct Connection {
    stream: UnixStream,
    registry: Arc<Registry>,
}

impl Connection {
    /// Answers requests one after the other, until the client leaves or everything has stopped.
    async fn serve(&mut self, shutdown: &Shutdown) -> io::Result<()> {
        let mut decoder = Decoder::new(MAX_REQUEST);
        let mut bytes = [0; 4096];
        loop {
            while let Some(request) = decoder.next_message().map_err(invalid_data)? {
                self.answer(request, shutdown).await?;
            }
            let count = tokio::select! {
                count = self.stream.read(&mut bytes) => count?,
                () = shutdown.finished() => return Ok(()),
            };
            if count == 0 {
                return Ok(());
            }
            decoder.push(&bytes[..count]);
        }
    }

    async fn answer(&mut self, request: Request, shutdown: &Shutdown) -> io::Result<()> {
        if request.id.is_null() {
            return Err(invalid_data("a request without an id"));
        }
        debug!(method = request.method, params = ?request.params, "command");
        let mut encoder = ReplyEncoder::new(request.id);
        let outcome = match self.registry.resolve(&request.method, request.params) {
            Ok((handler, args)) => self.run(handler, args, &mut encoder, shutdown).await?,
            Err(error) => Err(error),
        };
        let error = match outcome {
            Ok(()) => None,
            Err(CommandError::Refused(text)) => Some(text),
            // Nobody is there to read the rest.
            Err(CommandError::ClientGone(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let mut bytes = Vec::new();
        encoder.finish(error.as_deref(), &mut bytes)?;
        self.stream.write_all(&bytes).await
    }

    /// Runs a handler on a blocking thread and passes on what it writes while it writes it.
    async fn run(
        &mut self,
        handler: Arc<Handler>,
        args: Vec<String>,
        encoder: &mut ReplyEncoder,
        shutdown: &Shutdown,
    ) -> io::Result<Result<(), CommandError>> {
        let (mut reply, mut outlet) = Reply::channel();
        let worker = task::spawn_blocking(move || {
            let outcome = handler(&args, &mut reply);
            (outcome, reply.into_pending())
        });
        // When the client is gone this returns, the outlet is dropped, and the handler's next write fails.
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::select! {
                chunk = outlet.chunks.recv() => chunk,
                () = ended(&self.stream, shutdown), if !*outlet.end.borrow() => {
                    outlet.end.send_replace(true);
                    continue;
                }
            };
            let Some(chunk) = chunk else { break };
            encoder.result(&chunk, &mut bytes)?;
            self.stream.write_all(&bytes).await?;
            bytes.clear();
        }
        let (outcome, rest) = worker.await.map_err(io::Error::other)?;
        if outcome.is_ok() {
            encoder.result(&rest, &mut bytes)?;
            self.stream.write_all(&bytes).await?;
        }
        Ok(outcome)
    }
}

/// Waits until the client sends nothing more, or the daemon stops.
async fn ended(stream: &UnixStream, shutdown: &Shutdown) {
    tokio::select! {
        () = sends_no_more(stream) => {}
        () = shutdown.requested() => {}
    }
}

/// Waits until the client sends nothing more. Of one that has sent its next request already, this is not found out.
async fn sends_no_more(stream: &UnixStream) {
    while stream.ready(Interest::READABLE).await.is_ok() {
        let peek = || Ok(recv(stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)?);
        match stream.try_io(Interest::READABLE, peek) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => return std::future::pending().await,
        }
    }
}

fn invalid_data(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use appctl::client::{Client, ClientError};

    use super::*;

    /// A server for these commands, which ends with the runtime; its socket.
    fn serve(registry: Registry) -> String {
        serve_until(registry, &Shutdown::default())
    }

    fn serve_until(registry: Registry, shutdown: &Shutdown) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("switchd-server-{}-{count}.ctl", std::process::id()));
        let server = Server::bind(&path, registry).unwrap();
        task::spawn(server.run(shutdown.clone()));
        path.to_str().unwrap().to_owned()
    }

    fn call(socket: &str, method: &str, out: &mut (impl io::Write + ?Sized)) -> Result<(), ClientError> {
        Client::connect(socket)?.call(method, &[], &mut { out })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn long_answers_arrive_whole() {
        let mut registry = Registry::default();
        registry.register("count", "", 0..=0, |_, reply| {
            Ok((0..200_000).try_for_each(|number| writeln!(reply, "\"{number}\""))?)
        });
        let socket = serve(registry);
        let mut out = Vec::new();
        task::block_in_place(|| call(&socket, "count", &mut out).unwrap());
        fs::remove_file(socket).unwrap();
        let wanted: String = (0..200_000).map(|number| format!("\"{number}\"\n")).collect();
        assert!(out == wanted.as_bytes(), "{} of {} bytes", out.len(), wanted.len());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_replaces_a_short_answer_and_follows_a_long_one() {
        let mut registry = Registry::default();
        registry.register("short", "", 0..=0, |_, reply| {
            writeln!(reply, "some")?;
            Err(CommandError::new("no more"))
        });
        registry.register("long", "", 0..=0, |_, reply| {
            writeln!(reply, "some")?;
            reply.flush()?;
            Err(CommandError::new("no more"))
        });
        let socket = serve(registry);
        for (method, wanted) in [("short", ""), ("long", "some\n")] {
            let mut out = Vec::new();
            let error = task::block_in_place(|| call(&socket, method, &mut out).unwrap_err());
            assert!(matches!(error, ClientError::Refused(text) if text == "no more\n"), "{method}");
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{method}");
        }
        fs::remove_file(socket).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_handler_learns_that_its_client_is_gone() {
        let (ended, end) = mpsc::channel();
        let mut registry = Registry::default();
        registry.register("forever", "", 0..=0, move |_, reply| {
            loop {
                if let Err(error) = writeln!(reply, "on and on") {
                    let _ = ended.send(());
                    return Err(error.into());
                }
            }
        });
        let socket = serve(registry);
        let gone = task::block_in_place(|| {
            // It takes what a full pipe takes, and then fails.
            let error = call(&socket, "forever", &mut [0; 100_000].as_mut_slice()).unwrap_err();
            assert!(matches!(error, ClientError::Output(_)), "{error}");
            end.recv_timeout(Duration::from_secs(20))
        });
        fs::remove_file(socket).unwrap();
        gone.unwrap();
    }

    /// Has a command without an end run; tells when it ends.
    async fn endless(shutdown: &Shutdown) -> (UnixStream, mpsc::Receiver<()>) {
        let (ended, end) = mpsc::channel();
        let mut registry = Registry::default();
        registry.register("watch", "", 0..=0, move |_, reply| {
            writeln!(reply, "now")?;
            reply.flush()?;
            tokio::runtime::Handle::current().block_on(reply.unwanted());
            let _ = ended.send(());
            Ok(())
        });
        let socket = serve_until(registry, shutdown);
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        fs::remove_file(socket).unwrap();
        stream.write_all(br#"{"id":0,"method":"watch","params":[]}"#).await.unwrap();
        let mut begun = [0; br#"{"id":0,"result":"now\n"#.len()];
        stream.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, br#"{"id":0,"result":"now\n"#);
        assert!(end.try_recv().is_err());
        (stream, end)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_endless_answer_ends_with_its_client() {
        let (stream, end) = endless(&Shutdown::default()).await;
        drop(stream);
        task::block_in_place(|| end.recv_timeout(Duration::from_secs(20))).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_endless_answer_ends_with_the_daemon() {
        let shutdown = Shutdown::default();
        let (mut stream, end) = endless(&shutdown).await;
        shutdown.request();
        task::block_in_place(|| end.recv_timeout(Duration::from_secs(20))).unwrap();
        let mut rest = [0; br#"","error":null}"#.len()];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, br#"","error":null}"#);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn clients_over_the_limit_are_turned_away() {
        let socket = serve(Registry::default());
        let mut clients = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            clients.push(UnixStream::connect(&socket).await.unwrap());
        }
        let mut one_more = UnixStream::connect(&socket).await.unwrap();
        let read = time::timeout(Duration::from_secs(20), one_more.read(&mut [0; 1])).await;
        assert_eq!(read.unwrap().unwrap(), 0);

        drop(clients);
        let listed = async {
            let mut out = Vec::new();
            while task::block_in_place(|| call(&socket, "list-commands", &mut out)).is_err() {
                time::sleep(Duration::from_millis(10)).await;
            }
            out
        };
        let out = time::timeout(Duration::from_secs(20), listed).await.unwrap();
        assert_eq!(out, b"The available commands are:\n  list-commands           \n");
        fs::remove_file(socket).unwrap();
    }
}
