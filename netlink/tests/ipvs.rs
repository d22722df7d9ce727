//! What weft learns of a kernel's IPVS before it uses it. What IPVS does is in `guest_ipvs`, as few kernels that build
//! weft have it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::path::Path;

use weft_netlink::Error;
use weft_netlink::ipvs::Socket;

#[test]
fn a_kernel_without_ipvs_says_so() {
    let opened = Socket::open();
    // The module, if there is one, was loaded by the question, and has this file.
    if Path::new("/proc/net/ip_vs").exists() {
        assert_eq!(opened.unwrap().info().unwrap().version, (1, 2, 1));
        return;
    }
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert_eq!(error.to_string(), "this kernel has no IPVS: module ip_vs is neither loaded nor can it be");
}
