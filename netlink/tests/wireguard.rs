//! What weft learns of a kernel's WireGuard before it uses it. What WireGuard does is in `guest_wireguard`, as few kernels that
//! build weft have it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::path::Path;

use weft_netlink::Error;
use weft_netlink::wireguard::Socket;

#[test]
fn a_kernel_without_wireguard_says_so() {
    let opened = Socket::open();
    // Built in or loaded, by the question if need be, it is there.
    if Path::new("/sys/module/wireguard").exists() {
        opened.unwrap();
        return;
    }
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert_eq!(error.to_string(), "this kernel has no WireGuard: module wireguard is neither loaded nor can it be");
}
