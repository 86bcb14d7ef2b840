//! The raw end of a cable: frames in and out of an interface, as they are on the wire.

use std::{
    io,
    mem::{self, MaybeUninit},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::sockopt,
};

/// More than any frame, jumbo and offloaded ones included.
const FRAME_MAX: usize = 1 << 16;
/// Two Ethernet addresses; an 802.1Q tag comes behind them.
const ADDRESSES: usize = 12;
/// Frames that one system call sends.
const BATCH: usize = 64;
/// Bytes that may wait to be received; each small frame that XDP has redirected counts as a page.
const RECEIVE_BUFFER: usize = 16 << 20;
/// How long a queue may stay full.
const PATIENCE: Duration = Duration::from_secs(10);

/// A packet socket on one interface that sends frames and receives those that arrive.
///
/// Frames that the interface sends, its own included, are not received.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens an interface of the calling thread's network namespace.
    pub fn open(interface: &str) -> Result<Self> {
        let index = if_nametoindex(interface).context("no such interface")?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a system call without pointers.
        let fd = check(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol))
        })?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a sockaddr_ll is plain data, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the address lives through the call, and the length is its own.
        check(unsafe { libc::bind(fd, ptr::from_ref(&address).cast(), size_of_val(&address) as u32) })?;
        nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        // The kernel takes an outer tag out of the frame and tells it in ancillary data.
        for option in [libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
            let on = 1i32;
            // SAFETY: the value lives through the call, and the length is its own.
            check(unsafe {
                libc::setsockopt(
                    fd,
                    libc::SOL_PACKET,
                    option,
                    ptr::from_ref(&on).cast(),
                    size_of_val(&on) as u32,
                )
            })?;
        }
        Ok(Self { socket })
    }

    /// Sends one frame, from the destination address on.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = nix::unistd::write(&self.socket, frame).context("send")?;
        if sent != frame.len() {
            bail!("only {sent} of {} bytes were sent", frame.len());
        }
        Ok(())
    }

    /// Sends many frames in few system calls, and waits where the queue is full.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> Result<()> {
        for batch in frames.chunks(BATCH) {
            let mut parts: Vec<_> = batch
                .iter()
                .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
                .collect();
            let mut messages: Vec<_> = parts
                .iter_mut()
                .map(|part| {
                    // SAFETY: an mmsghdr is plain data, for which all zeros is a value.
                    let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                    message.msg_hdr.msg_iov = part;
                    message.msg_hdr.msg_iovlen = 1;
                    message
                })
                .collect();
            self.send_messages(&mut messages)?;
        }
        Ok(())
    }

    fn send_messages(&self, mut messages: &mut [libc::mmsghdr]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !messages.is_empty() {
            // SAFETY: each message points to a part, which points to a frame, all of which outlive the call; the
            // kernel only reads the frames.
            let sent = check(unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0)
            });
            match sent {
                Ok(sent) => messages = &mut messages[sent.unsigned_abs() as usize..],
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) && Instant::now() < deadline => {
                    thread::yield_now();
                }
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(())
    }

    /// The next frame that arrives within `timeout`, its VLAN tag in place.
    pub fn recv(&self, timeout: Duration) -> Result<Option<Vec<u8>>> {
        let millis = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, millis)? == 0 { Ok(None) } else { self.receive().map(Some) }
    }

    /// All frames that arrive until none has come for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Result<Vec<Vec<u8>>> {
        std::iter::from_fn(|| self.recv(quiet).transpose()).collect()
    }

    /// Waits up to `timeout` for exactly this frame to come by; others are skipped.
    pub fn sees(&self, frame: &[u8], timeout: Duration) -> Result<bool> {
        let deadline = Instant::now() + timeout;
        while let Some(received) = self.recv(deadline.saturating_duration_since(Instant::now()))? {
            if received == frame {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut frame = vec![0; FRAME_MAX];
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        let mut control = MaybeUninit::<[libc::cmsghdr; 8]>::uninit();
        // SAFETY: a msghdr is plain data, for which all zeros is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message points to a buffer and a control area, each with its own length.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
        if let Some(tag) = vlan_tag(&message) {
            frame.splice(ADDRESSES..ADDRESSES, tag);
        }
        Ok(frame)
    }
}

/// The 802.1Q tag that the kernel took out of a received frame.
fn vlan_tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel has filled the control area of the message.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: this kind of control message holds a tpacket_auxdata, maybe unaligned.
    let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
    if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let ([p0, p1], [t0, t1]) = (data.tp_vlan_tpid.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
    Some([p0, p1, t0, t1])
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
