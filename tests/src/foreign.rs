//! Somebody else's XDP program on an interface.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x2_0000_00b7, 0x95];

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// A program that lets everything pass; on its interface until dropped.
#[derive(Debug)]
pub struct XdpProgram {
    _link: OwnedFd,
}

impl XdpProgram {
    /// Attaches one to an interface of the calling thread's network namespace.
    pub fn attach(interface: &str) -> Result<Self> {
        let ifindex = if_nametoindex(interface).context("no such interface")?;
        let load = ProgLoad {
            kind: BPF_PROG_TYPE_XDP,
            instructions: PASS.len() as u32,
            code: PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        };
        let program = bpf(BPF_PROG_LOAD, &load).context("BPF_PROG_LOAD")?;
        let create = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            ifindex,
            attach_type: BPF_XDP,
            flags: 0,
        };
        let link = bpf(BPF_LINK_CREATE, &create).context("BPF_LINK_CREATE")?;
        Ok(Self { _link: link })
    }
}

/// A command of bpf(2) that returns a descriptor.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the structures above begin as the kernel's do, which takes what is left out for zero, and what
    // they point to is constant.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
