//! Memory that the daemon shares with the kernel's side of the datapath.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

/// The elements of an array that the programs use, as memory of this process.
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
    /// Maps the memory of an array map that was made with BPF_F_MMAPABLE, as `len` elements.
    ///
    /// # Errors
    /// The kernel's, from `mmap`.
    pub fn map(fd: impl AsFd, len: u32) -> io::Result<Self> {
        let len = len as usize;
        let bytes = len * size_of::<T>();
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

    /// The address of an element; none past the end.
    #[must_use]
    pub fn at(&self, index: u32) -> Option<NonNull<T>> {
        if index as usize >= self.len {
            return None;
        }
        // SAFETY: within the mapping, by the check above.
        Some(unsafe { self.start.add(index as usize) })
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

/// An array of which each CPU has a stretch of its own.
pub struct PerCpu<T> {
    all: Shared<T>,
    stretch: u32,
}

impl<T> PerCpu<T> {
    /// Stretches of `stretch` elements.
    pub fn new(all: Shared<T>, stretch: u32) -> Self {
        Self { all, stretch }
    }

    /// The addresses of an element of each CPU's stretch; none past the end.
    pub fn at(&self, index: u32) -> impl Iterator<Item = NonNull<T>> {
        let stretches = (0..self.all.len()).step_by(self.stretch as usize);
        stretches.filter(move |_| index < self.stretch).filter_map(move |start| self.all.at(start + index))
    }

    /// How many elements a stretch has.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a stretch is never empty")]
    pub fn len(&self) -> u32 {
        self.stretch
    }
}
