//! Arrays at addresses that the programs know.
//!
//! A look-up in an array map takes a dozen instructions, even where the kernel inlines it; the address of a global
//! variable is a constant. So the arrays that every packet needs are global variables to the compiler: of each it sees
//! the first element, in a section of its own, for which the loader makes a map of one value. Before the verifier sees
//! the programs, the daemon puts a map of the array's true size in the place of that. The verifier knows that size, and
//! accepts no access past it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// An array; its elements are all zero at first, and valid for any bit pattern.
#[repr(transparent)]
pub struct Memory<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: several CPUs, and the daemon, access the elements; who takes a reference to one says why it may.
unsafe impl<T> Sync for Memory<T> {}

impl<T> Memory<T> {
    pub const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    /// The first element.
    #[inline(always)]
    pub const fn first(&self) -> NonNull<T> {
        // SAFETY: the address of a variable.
        unsafe { NonNull::new_unchecked(self.0.get().cast()) }
    }

    /// An element, if there are so many.
    #[inline(always)]
    pub fn at(&self, index: u32, len: u32) -> Option<NonNull<T>> {
        let mut index = u64::from(index);
        // The compiler must compare the index itself: of what a copy is compared to, older verifiers conclude nothing
        // for the original.
        // SAFETY: changes nothing.
        unsafe { asm!("{0} = {0}", inout(reg) index, options(pure, nomem, nostack)) };
        if index >= u64::from(len) {
            return None;
        }
        let offset = index * size_of::<T>() as u64;
        let mut element = self.0.get().cast::<T>();
        // The compiler must not conclude that there is nothing behind the first element.
        // SAFETY: adds two numbers.
        unsafe { asm!("{0} += {1}", inout(reg) element, in(reg) offset, options(pure, nomem, nostack)) };
        // SAFETY: no map lies at address zero.
        Some(unsafe { NonNull::new_unchecked(element) })
    }

    /// The same, to be read.
    ///
    /// # Safety
    /// Nobody writes to the element while the reference lives, but to fields that are only read through raw pointers.
    #[inline(always)]
    pub unsafe fn get(&'static self, index: u32, len: u32) -> Option<&'static T> {
        // SAFETY: the element is there for as long as the program, and the caller's promise.
        self.at(index, len).map(|element| unsafe { element.as_ref() })
    }
}

/// An array of which each CPU has a stretch of its own.
#[repr(transparent)]
pub struct PerCpu<T>(Memory<T>);

impl<T> PerCpu<T> {
    pub const fn new() -> Self {
        Self(Memory::new())
    }

    /// An element of a CPU's stretch, of `stretch` elements.
    #[inline(always)]
    pub fn at(&self, cpu: u32, index: u32, stretch: u32, cpus: u32) -> Option<NonNull<T>> {
        self.0.at(cpu.wrapping_mul(stretch).wrapping_add(index), cpus.wrapping_mul(stretch))
    }
}
