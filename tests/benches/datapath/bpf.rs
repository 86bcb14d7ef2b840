//! The few commands of bpf(2) that a measurement needs.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use crate::assembler::Instruction;

/// A command's part of `union bpf_attr`: `repr(C)`, whole words, plain data.
trait Command {
    const NUMBER: libc::c_int;
    const NAME: &'static str;

    /// Issues the command; what it returns is a descriptor, or zero.
    fn issue(&mut self) -> Result<libc::c_int> {
        let size = size_of_val(self);
        // SAFETY: the structures below are what the kernel reads for their command, and the buffers that they
        // point to outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_bpf, Self::NUMBER, std::ptr::from_mut(self), size) };
        if result < 0 {
            return Err(io::Error::last_os_error()).context(Self::NAME);
        }
        Ok(result as libc::c_int)
    }

    fn open(&mut self) -> Result<OwnedFd> {
        let fd = self.issue()?;
        // SAFETY: the kernel has just made the descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

macro_rules! command {
    ($name:ident = $number:literal $text:literal { $($field:ident: $type:ty),+ $(,)? }) => {
        #[repr(C)]
        #[derive(Default)]
        struct $name { $($field: $type),+ }
        impl Command for $name {
            const NUMBER: libc::c_int = $number;
            const NAME: &'static str = $text;
        }
    };
}

command!(MapCreate = 0 "BPF_MAP_CREATE" { kind: u32, key_size: u32, value_size: u32, max_entries: u32 });
command!(MapLookup = 1 "BPF_MAP_LOOKUP_ELEM" { fd: u32, pad: u32, key: u64, value: u64, flags: u64 });
command!(MapUpdate = 2 "BPF_MAP_UPDATE_ELEM" { fd: u32, pad: u32, key: u64, value: u64, flags: u64 });
command!(ProgLoad = 5 "BPF_PROG_LOAD" {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u64; 2],
    ifindex: u32,
    attach_type: u32,
});
command!(ProgTestRun = 10 "BPF_PROG_TEST_RUN" {
    fd: u32,
    verdict: u32,
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
});
command!(ProgGetFdById = 13 "BPF_PROG_GET_FD_BY_ID" { id: u32, next_id: u32, flags: u32 });
command!(LinkCreate = 28 "BPF_LINK_CREATE" { fd: u32, ifindex: u32, attach_type: u32, flags: u32 });

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).addr() as u64
}

/// A map with 32-bit keys.
pub struct Map(OwnedFd);

/// Kinds of maps.
#[derive(Clone, Copy)]
pub enum MapKind {
    /// BPF_MAP_TYPE_ARRAY of 64-bit words.
    Array,
    /// BPF_MAP_TYPE_PROG_ARRAY.
    Programs,
    /// BPF_MAP_TYPE_DEVMAP.
    Devices,
}

impl Map {
    /// Makes a map of one element.
    pub fn new(kind: MapKind) -> Result<Self> {
        let (kind, value_size) = match kind {
            MapKind::Array => (2, 8),
            MapKind::Programs => (3, 4),
            MapKind::Devices => (14, 4),
        };
        MapCreate { kind, key_size: 4, value_size, max_entries: 1 }.open().map(Self)
    }

    /// A program array that holds one program.
    pub fn of_program(program: &Program) -> Result<Self> {
        let map = Self::new(MapKind::Programs)?;
        map.set_u32(raw(&program.0))?;
        Ok(map)
    }

    /// A device map that holds one device of the present network namespace.
    pub fn of_device(ifindex: u32) -> Result<Self> {
        let map = Self::new(MapKind::Devices)?;
        map.set_u32(ifindex)?;
        Ok(map)
    }

    /// The number that instructions know it by.
    pub fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    fn set_u32(&self, value: u32) -> Result<()> {
        let key = 0_u32;
        MapUpdate { fd: raw(&self.0), key: address(&key), value: address(&value), ..Default::default() }
            .issue()
            .map(drop)
    }

    /// The word of an array.
    pub fn word(&self) -> Result<u64> {
        let (key, mut value) = (0_u32, 0_u64);
        let value_address = std::ptr::from_mut(&mut value).expose_provenance() as u64;
        MapLookup { fd: raw(&self.0), key: address(&key), value: value_address, ..Default::default() }
            .issue()?;
        Ok(value)
    }
}

/// Where a program can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Native XDP.
    Xdp,
    /// tcx, ingress.
    Tcx,
}

impl Hook {
    const fn attach_type(self) -> u32 {
        match self {
            Self::Xdp => 37,
            Self::Tcx => 46,
        }
    }
}

/// A program in the kernel.
pub struct Program(OwnedFd);

/// A program's attachment, ended on drop.
#[must_use]
pub struct Link(#[expect(dead_code, reason = "held for its drop")] OwnedFd);

/// BPF_F_XDP_HAS_FRAGS: only such programs may tail call one another.
const HAS_FRAGS: u32 = 1 << 5;
/// XDP_FLAGS_DRV_MODE: no fallback to the generic hook.
const NATIVE: u32 = 1 << 2;
/// BPF_F_TEST_XDP_LIVE_FRAMES: frames are real, and go where the program sends them.
const LIVE_FRAMES: u32 = 1 << 1;
/// How often a program is given to the verifier.
const LOAD_ATTEMPTS: usize = 5;

impl Program {
    /// Loads a program.
    pub fn load(hook: Hook, code: &[Instruction]) -> Result<Self> {
        let (kind, flags) = match hook {
            Hook::Xdp => (6, HAS_FRAGS),
            Hook::Tcx => (3, 0),
        };
        let mut command = ProgLoad {
            kind,
            instructions: code.len() as u32,
            code: address(code.first().context("a program without instructions")?),
            license: c"Dual MIT/GPL".as_ptr().addr() as u64,
            flags,
            attach_type: hook.attach_type(),
            ..Default::default()
        };
        // The verifier gives up when the thread is wanted elsewhere, and is to be asked again.
        for _ in 1..LOAD_ATTEMPTS {
            match command.open() {
                Err(error) if is_kind(&error, io::ErrorKind::WouldBlock) => {}
                other => return other.map(Self),
            }
        }
        command.open().map(Self)
    }

    /// A program that somebody else has loaded.
    pub fn by_id(id: u32) -> Result<Self> {
        ProgGetFdById { id, ..Default::default() }.open().map(Self)
    }

    /// Attaches it to a device of the present network namespace.
    pub fn attach(&self, hook: Hook, ifindex: u32) -> Result<Link> {
        let flags = if hook == Hook::Xdp { NATIVE } else { 0 };
        LinkCreate { fd: raw(&self.0), ifindex, attach_type: hook.attach_type(), flags }.open().map(Link)
    }

    /// Runs it `repeat` times over a frame that has come in at a device with native XDP. Returns the last
    /// verdict, and how long a run took on average, in nanoseconds, by the kernel's own clock: the call itself
    /// is not in it.
    pub fn test_run(&self, frame: &[u8], ifindex: Option<u32>, repeat: u32) -> Result<(u32, u32)> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, ifindex.unwrap_or(0), 0, 0];
        let mut run = ProgTestRun {
            fd: raw(&self.0),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr().addr() as u64,
            repeat,
            context_size_in: size_of_val(&context) as u32,
            context_in: address(&context),
            ..Default::default()
        };
        run.issue()?;
        Ok((run.verdict, run.duration))
    }

    /// Runs it over live frames until a signal arrives.
    pub fn generate(&self, frame: &[u8]) -> Result<()> {
        let mut run = ProgTestRun {
            fd: raw(&self.0),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr().addr() as u64,
            repeat: u32::MAX,
            flags: LIVE_FRAMES,
            batch_size: 64,
            ..Default::default()
        };
        match run.issue() {
            Err(error) if is_kind(&error, io::ErrorKind::Interrupted) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn is_kind(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == kind)
}
