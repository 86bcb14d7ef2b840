//! Runs of the kernel's programs over given frames, for tests (BPF_PROG_TEST_RUN).
//!
//! The program, the maps and the counters are the real ones; only the device driver is not there: what it would
//! be told to do with the frame is returned, and not done. (The tcx program sends copies itself; those go out.)
//!
//! The call is made here and not by aya, which offers it only through a program's owner: several threads could
//! not run one program at once.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::PoisonError;

use aya::programs::ProgramFd;

use super::Datapath;

/// Room for what a program adds to a frame: its note, and a VLAN tag.
const ROOM: usize = 64;
/// Size of `struct xdp_md`, in words of 32 bits (`include/uapi/linux/bpf.h`).
const XDP_MD_WORDS: usize = 6;
/// The part of `struct __sk_buff` up to its `ifindex`. The kernel takes a context that is cut short.
const SK_BUFF_WORDS: usize = 11;
/// `BPF_PROG_TEST_RUN`.
const COMMAND: libc::c_int = 10;

/// A loaded program to be run by itself, from several threads at once if need be.
pub struct TestRun {
    program: ProgramFd,
    hook: Hook,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    Xdp,
    Tcx,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The program's return value: an XDP or a tc action.
    pub action: u32,
    /// The frame as the program left it, without metadata.
    pub frame: Vec<u8>,
}

/// The part of `union bpf_attr` that the command takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: i32,
    action: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

impl Datapath {
    /// The XDP program of ports.
    ///
    /// # Errors
    /// The kernel's.
    pub fn xdp(&self) -> io::Result<TestRun> {
        self.handle("switch_xdp", Hook::Xdp)
    }

    /// The tcx program of ports.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcx(&self) -> io::Result<TestRun> {
        self.handle("switch_tcx", Hook::Tcx)
    }

    fn handle(&self, name: &str, hook: Hook) -> io::Result<TestRun> {
        let programs = self.ports.programs.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
        let program = programs.program(name).ok_or(io::ErrorKind::NotFound)?;
        let program = program.fd().map_err(io::Error::other)?.try_clone()?;
        Ok(TestRun { program, hook })
    }
}

impl TestRun {
    /// Runs the program once on a frame (at least 14 bytes) that comes in on the device `ifindex` of the calling
    /// thread's network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&self, frame: &[u8], ifindex: u32) -> io::Result<Ran> {
        let mut out = vec![0; frame.len() + ROOM];
        let mut context = [0u32; XDP_MD_WORDS];
        let mut attributes = Attributes {
            data_out: out.as_mut_ptr() as u64,
            data_size_out: out.len() as u32,
            repeat: 1,
            ..Attributes::default()
        };
        if self.hook == Hook::Xdp {
            attributes.context_out = context.as_mut_ptr() as u64;
            attributes.context_size_out = size_of_val(&context) as u32;
        }
        self.call(&mut attributes, frame, ifindex)?;
        // Metadata is returned in front of the frame; the context's first word is where the frame begins.
        let frame = out.get(context[0] as usize..attributes.data_size_out as usize);
        Ok(Ran { action: attributes.action, frame: frame.unwrap_or_default().to_vec() })
    }

    /// Runs the program `times` times on one copy of a frame, in one call. What the program changes in the frame,
    /// the next run finds changed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn repeat(&self, frame: &[u8], ifindex: u32, times: u32) -> io::Result<()> {
        let mut attributes = Attributes { repeat: times, ..Attributes::default() };
        self.call(&mut attributes, frame, ifindex)
    }

    /// Makes the call; the frame and the context are filled in here.
    fn call(&self, attributes: &mut Attributes, frame: &[u8], ifindex: u32) -> io::Result<()> {
        let context: Vec<u32> = match self.hook {
            // Data, its end, metadata, and the device. The kernel wants offsets here.
            Hook::Xdp => vec![0, frame.len() as u32, 0, ifindex, 0, 0],
            Hook::Tcx => [0; SK_BUFF_WORDS - 1].into_iter().chain([ifindex]).collect(),
        };
        attributes.program = self.program.as_fd().as_raw_fd();
        attributes.data_in = frame.as_ptr() as u64;
        attributes.data_size_in = frame.len() as u32;
        attributes.context_in = context.as_ptr() as u64;
        attributes.context_size_in = size_of_val(context.as_slice()) as u32;
        let size = size_of::<Attributes>();
        // SAFETY: the attributes have the layout that the command takes, and the addresses and sizes in them are
        // those of buffers that live until it returns.
        let result = unsafe { libc::syscall(libc::SYS_bpf, COMMAND, std::ptr::from_mut(attributes), size) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
