//! The load: live frames, sent as fast as one processor can.

use std::{
    fs::{self, File},
    os::unix::thread::JoinHandleExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    unistd::gettid,
};
use tests::netns::Netns;

use crate::{
    assembler::{self, Variation},
    bpf::{Hook, Map, MapKind, Program},
    cpu::{self, Pinned},
};

/// What is sent.
pub enum Frames {
    /// The same frame, which nothing on its way may change: it is used again as it comes back.
    Same(Vec<u8>),
    /// Frames that differ in their ports; see [`assembler::vary`].
    Varied(Vec<u8>, Variation),
}

/// A thread that sends live frames out of an interface until it is stopped. It stays in one system call, as
/// each takes its time to end.
pub struct Generator {
    thread: JoinHandle<Result<()>>,
    /// The directories of those who do the work.
    workers: [PathBuf; 2],
}

impl Generator {
    /// Starts to send.
    pub fn start(host: &Netns, interface: &str, frames: Frames) -> Result<Self> {
        // What ends the system call: a signal that does nothing else.
        let nothing = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, which is safe at any time.
        unsafe { sigaction(Signal::SIGUSR1, &nothing) }?;
        let cpu = cpu::last()?;
        let (ready, started) = mpsc::channel();
        let (namespace, interface) = (namespace(host)?, interface.to_owned());
        let thread = thread::spawn(move || {
            let _pinned = Pinned::to(cpu)?;
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            let send = Program::load(Hook::Xdp, &assembler::send_out_of(if_nametoindex(&*interface)?))?;
            let generate = |program: &Program, frame: &[u8]| {
                ready.send(gettid())?;
                program.generate(frame)
            };
            match frames {
                Frames::Same(frame) => generate(&send, &frame),
                Frames::Varied(frame, variation) => {
                    let (position, to_send) = (Map::new(MapKind::Array)?, Map::of_program(&send)?);
                    let vary = assembler::vary(position.fd(), to_send.fd(), variation);
                    let to_vary = Map::of_program(&Program::load(Hook::Xdp, &vary)?)?;
                    let restore = Program::load(Hook::Xdp, &assembler::restore(&frame, to_vary.fd()))?;
                    generate(&restore, &frame)
                }
            }
        });
        match started.recv() {
            Ok(id) => Ok(Self {
                thread,
                workers: [
                    format!("/proc/self/task/{id}").into(),
                    kernel_thread(&format!("ksoftirqd/{cpu}"))?,
                ],
            }),
            Err(_) => Err(joined(thread).err().unwrap_or_else(|| anyhow!("the load does not start"))),
        }
    }

    /// Processor time so far.
    pub fn nanoseconds(&self) -> Result<u64> {
        self.workers.iter().map(|worker| cpu::nanoseconds(worker)).sum()
    }

    /// Stops.
    pub fn stop(self) -> Result<()> {
        while !self.thread.is_finished() {
            // Again and again: one that comes before the system call is lost.
            // SAFETY: the thread has not been joined, so its handle is valid.
            unsafe { libc::pthread_kill(self.thread.as_pthread_t(), libc::SIGUSR1) };
            thread::sleep(Duration::from_millis(5));
        }
        joined(self.thread)
    }
}

extern "C" fn ignore(_: libc::c_int) {}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread has panicked"))?
}

fn namespace(host: &Netns) -> Result<File> {
    Ok(File::open(Path::new("/run/netns").join(host.name()))?)
}

/// Does something in a namespace, in a thread that ends with it.
pub fn inside<T: Send>(host: &Netns, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = namespace(host)?;
    let work = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        f()
    };
    thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("a thread has panicked"))?)
}

/// The directory of a thread of the kernel.
fn kernel_thread(name: &str) -> Result<PathBuf> {
    for entry in fs::read_dir("/proc")? {
        let dir = entry?.path();
        if fs::read_to_string(dir.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            return Ok(dir);
        }
    }
    Err(anyhow!("no {name}"))
}
