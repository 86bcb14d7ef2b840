//! Atomic words in shared memory.
//!
//! BPF's `compare_exchange` and `fetch_add` exist as instructions (cpu v3), but `core::sync::atomic` does not
//! offer them on that target; there the compiler's intrinsics stand in. Both are sequentially consistent.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering};

/// Replaces `old` by `new`, and returns what was there: `old`, if it worked.
///
/// # Safety
/// `word` must be valid, aligned, and accessed by everyone else atomically.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    return unsafe {
        core::intrinsics::atomic_cxchg::<
            u64,
            { core::intrinsics::AtomicOrdering::SeqCst },
            { core::intrinsics::AtomicOrdering::SeqCst },
        >(word, old, new)
        .0
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    match unsafe { AtomicU64::from_ptr(word) }.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
    {
        Ok(found) | Err(found) => found,
    }
}

/// Adds, and returns what was there before.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    return unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(word, value)
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe { AtomicU64::from_ptr(word) }.fetch_add(value, Ordering::SeqCst)
}

/// Sets bits, and returns what was there before.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn fetch_or(word: *mut u64, bits: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller's promise.
    return unsafe {
        core::intrinsics::atomic_or::<u64, u64, { core::intrinsics::AtomicOrdering::SeqCst }>(word, bits)
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe { AtomicU64::from_ptr(word) }.fetch_or(bits, Ordering::SeqCst)
}

/// Reads a word that others change.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
#[must_use]
pub unsafe fn load(word: *const u64) -> u64 {
    // SAFETY: the caller's promise; an aligned word is read whole on every target.
    unsafe { core::ptr::read_volatile(word) }
}

/// As [`load`], ahead of whatever is read after it: who sees what was [published](publish) sees what was written before.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
#[must_use]
pub unsafe fn acquire(word: *const u64) -> u64 {
    // x86 reads in order as well.
    #[cfg(all(target_arch = "bpf", bpf_target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    return unsafe {
        let value = load(word);
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Acquire);
        value
    };
    #[cfg(all(target_arch = "bpf", not(bpf_target_arch = "x86_64")))]
    // SAFETY: the caller's promise. Nothing else is a barrier on every kernel; it changes nothing.
    return unsafe { fetch_add(word.cast_mut(), 0) };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe { AtomicU64::from_ptr(word.cast_mut()) }.load(Ordering::Acquire)
}

/// Writes a word behind a barrier: what was written before is seen by whoever sees `value`.
///
/// # Safety
/// As for [`compare_exchange`].
#[inline(always)]
pub unsafe fn publish(word: *mut u64, value: u64) {
    // x86 makes stores visible in their order (Intel SDM vol. 3, 11.2.2), so that a plain one does, which the compiler
    // does not move either.
    #[cfg(all(target_arch = "bpf", bpf_target_arch = "x86_64"))]
    // SAFETY: the caller's promise; an aligned word is written whole.
    unsafe {
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
        core::ptr::write_volatile(word, value);
    };
    #[cfg(all(target_arch = "bpf", not(bpf_target_arch = "x86_64")))]
    // SAFETY: the caller's promise.
    unsafe {
        core::intrinsics::atomic_xchg::<u64, { core::intrinsics::AtomicOrdering::SeqCst }>(word, value)
    };
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe { AtomicU64::from_ptr(word) }.store(value, Ordering::SeqCst);
}
