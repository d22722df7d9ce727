//! Guests: virtual machines with a distribution's own kernel, for what the kernel of this machine does not have.
//!
//! `weft-guest PROGRAM ARGS...` behaves as the program itself would, but for the kernel that it runs on. So it serves as
//! cargo's runner, and tests in a guest are named, counted and filtered as all others (`tests/guest.sh`).
//!
//! ```text
//!   weft-guest (host)                          guest, all in memory
//!   kernel    finds image and modules    ┌──▶  kernel
//!   programs  follows the libraries      │     /init = weft-guest again, with process number 1
//!   initramfs packs it all ──────────────┘     init   mounts, brings lo up, starts PROGRAM, says how it ended
//!   machine   runs QEMU   ◀── second serial port: the program's output, then the marks of `protocol`
//!                         ◀── first serial port: what the kernel says, kept for the failure's message
//! ```
//!
//! QEMU emulates (TCG): there is no need for `/dev/kvm`, nor for root. The guest has no network but its own loopback.

pub mod init;
pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod programs;
pub mod protocol;
