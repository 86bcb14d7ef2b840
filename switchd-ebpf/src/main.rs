//! The BPF entry points. What they do is in the library; how the kernel is asked for it, in `bpf`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's attributes generate public items")]

mod bpf;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// A port's frames, as they come in.
#[xdp(frags)]
pub fn switch_xdp(ctx: XdpContext) -> u32 {
    bpf::xdp::action(bpf::xdp::process(&ctx))
}

/// The same behind XDP, or instead of it.
#[classifier]
pub fn switch_tcx(ctx: TcContext) -> i32 {
    bpf::tc::process(ctx.skb.skb)
}

/// Removes connections for the daemon.
#[xdp]
pub fn reap(_ctx: XdpContext) -> u32 {
    bpf::reap::run();
    xdp_action::XDP_DROP
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No panic survives to the linked program: bpf-linker would refuse the call.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
