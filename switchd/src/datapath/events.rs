//! What happens to connections, as the datapath tells it: one ring that is read once, and any number of listeners.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{MapData, RingBuf};
use switchd_ebpf::layout::{Config, Event};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::task::{self, AbortHandle};

use super::shared::Shared;

/// Events that are kept for a listener that does not keep up.
const BACKLOG: usize = 8192;

/// Events that are taken out of the ring before others get their turn.
const BATCH: usize = 512;

/// What happens to connections. The datapath writes to the ring only while somebody listens.
pub struct Events {
    config: Arc<Shared<Config>>,
    ring: Mutex<RingBuf<MapData>>,
    reader: Mutex<Option<Reader>>,
}

/// What passes the ring's content on while there are listeners.
struct Reader {
    sender: broadcast::Sender<Event>,
    task: AbortHandle,
}

/// What a listener is told.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are events")]
pub enum Notice {
    /// Something has happened to a connection.
    Event(Event),
    /// So many events have been lost: the ring was full, or the listener too slow.
    Lost(u64),
}

/// Somebody who listens.
pub struct Listener {
    events: Arc<Events>,
    receiver: broadcast::Receiver<Event>,
    /// Events that had found no room in the ring when that was last asked for.
    overrun: u64,
    /// What is to be told once it has been told what was lost before.
    next: Option<Event>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>, config: Arc<Shared<Config>>) -> Self {
        Self { config, ring: Mutex::new(ring), reader: Mutex::new(None) }
    }

    /// Begins to listen: what happens from now on will be told. To be called within the runtime that is to read the
    /// ring.
    ///
    /// # Errors
    /// The ring cannot be waited for.
    pub fn listen(self: &Arc<Self>) -> io::Result<Listener> {
        let mut reader = lock(&self.reader);
        let receiver = match &*reader {
            Some(reader) => reader.sender.subscribe(),
            None => {
                let ring = self.clear()?;
                let (sender, receiver) = broadcast::channel(BACKLOG);
                let task = Handle::current().spawn(read(Arc::clone(self), ring, sender.clone()));
                *reader = Some(Reader { sender, task: task.abort_handle() });
                self.want(true);
                receiver
            }
        };
        Ok(Listener { events: Arc::clone(self), receiver, overrun: self.overrun(), next: None })
    }

    /// Throws away what nobody has listened to; the ring, to wait for.
    fn clear(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let mut ring = lock(&self.ring);
        while ring.next().is_some() {}
        let _runtime = Handle::current().enter();
        let ring = ring.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is the result's own, which closes it after it has been deregistered.
        unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(Into::into)
    }

    /// Takes what is in the ring, or a part of it.
    fn take(&self) -> Vec<Event> {
        let mut ring = lock(&self.ring);
        let next = || ring.next().map(|item| decode(&item));
        std::iter::from_fn(next).take(BATCH).flatten().collect()
    }

    /// Tells the datapath whether somebody listens.
    fn want(&self, events: bool) {
        if let Some(config) = self.config.at(0).map(NonNull::as_ptr) {
            // SAFETY: within the mapping; both sides access the word whole.
            unsafe { AtomicU32::from_ptr(&raw mut (*config).events) }.store(events.into(), Ordering::Release);
        }
    }

    /// Events that have found no room in the ring so far.
    fn overrun(&self) -> u64 {
        self.config.at(0).map_or(0, |config| {
            // SAFETY: within the mapping; both sides access the word whole.
            let lost = unsafe { AtomicU64::from_ptr(&raw mut (*config.as_ptr()).events_lost) };
            lost.load(Ordering::Relaxed)
        })
    }
}

/// Passes events on, until it is aborted.
async fn read(events: Arc<Events>, ring: AsyncFd<OwnedFd>, sender: broadcast::Sender<Event>) {
    while let Ok(mut ready) = ring.readable().await {
        loop {
            let batch = events.take();
            if batch.is_empty() {
                break;
            }
            for event in batch {
                // Without a listener the task is about to be aborted.
                let _ = sender.send(event);
            }
            task::yield_now().await;
        }
        ready.clear_ready();
    }
}

/// An event as it lies in the ring.
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: there are as many bytes, and any are valid.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

impl Listener {
    /// Waits for what happens next.
    pub async fn next(&mut self) -> Notice {
        if let Some(event) = self.next.take() {
            return Notice::Event(event);
        }
        match self.receiver.recv().await {
            Ok(event) => self.tell(event),
            Err(RecvError::Lagged(count)) => Notice::Lost(count),
            // The sender is there for as long as there is a listener.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// What has happened already, if anything has.
    pub fn try_next(&mut self) -> Option<Notice> {
        if let Some(event) = self.next.take() {
            return Some(Notice::Event(event));
        }
        match self.receiver.try_recv() {
            Ok(event) => Some(self.tell(event)),
            Err(TryRecvError::Lagged(count)) => Some(Notice::Lost(count)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// Tells of an event, but first of those that had found no room before it.
    fn tell(&mut self, event: Event) -> Notice {
        let overrun = self.events.overrun();
        let lost = overrun.wrapping_sub(std::mem::replace(&mut self.overrun, overrun));
        if lost == 0 {
            return Notice::Event(event);
        }
        self.next = Some(event);
        Notice::Lost(lost)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut reader = lock(&self.events.reader);
        // The receiver of `self` is still counted.
        if let Some(Reader { sender, task }) = &*reader
            && sender.receiver_count() == 1
        {
            task.abort();
            *reader = None;
            self.events.want(false);
        }
    }
}
