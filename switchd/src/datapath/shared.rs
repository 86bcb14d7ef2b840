//! Memory that the daemon shares with the kernel's side of the datapath.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

/// The elements of a map made with BPF_F_MMAPABLE, as memory of this process.
///
/// The kernel's side reads and writes the same memory at any time: elements are only ever accessed through
/// the raw pointers that [`Shared::at`] hands out, whole words by atomic accesses wherever both sides care.
pub struct Shared<T> {
    start: NonNull<T>,
    len: usize,
    bytes: usize,
}

// SAFETY: the memory is not tied to a thread, and is accessed through raw pointers alone.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Maps `len` elements of an array map. The kernel rounds elements up to multiples of 8 bytes, which all
    /// our types are, or 4-byte values, which [`Shared::stride`] accounts for.
    ///
    /// # Errors
    /// The kernel's, from `mmap`.
    pub fn map(fd: impl AsFd, len: u32) -> io::Result<Self> {
        let len = len as usize;
        let bytes = len * Self::stride();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        match NonNull::new(address.cast()) {
            Some(start) => Ok(Self { start, len, bytes }),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The distance between two elements.
    const fn stride() -> usize {
        size_of::<T>().next_multiple_of(8)
    }

    /// The address of an element; none past the end.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<NonNull<T>> {
        if index as usize >= self.len {
            return None;
        }
        // SAFETY: within the mapping, by the check above.
        Some(unsafe { self.start.byte_add(index as usize * Self::stride()) })
    }

    /// How many elements there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a map is never empty")]
    pub fn len(&self) -> u32 {
        self.len as u32
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no pointer into it outlives `self` but in unsafe code that says so.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
