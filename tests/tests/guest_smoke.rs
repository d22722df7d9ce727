//! That a guest is what tests in guests rely on. Runs in guests only: `tests/guest.sh -p weft-tests --features guest`.

use std::fs;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use weft_tests::guest::kernel::series;
use weft_tests::tool::call;
use weft_tests::wait;

#[test]
fn the_kernel_is_the_one_that_was_asked_for() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(series(release.trim()), std::env::var("WEFT_GUEST_KERNEL").unwrap(), "{release}");
}

#[test]
fn the_kernel_loads_what_is_asked_of_it() {
    call("ip", &["link", "add", "smoke-dummy", "type", "dummy"]).unwrap();
    call("ip", &["link", "add", "smoke-wg", "type", "wireguard"]).unwrap();
    for name in ["smoke-dummy", "smoke-wg"] {
        call("ip", &["link", "delete", name]).unwrap();
    }
}

#[test]
fn ip_vs_has_its_schedulers() {
    for name in ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"] {
        call("modprobe", &[&format!("ip_vs_{name}")]).unwrap();
    }
    assert!(fs::read_to_string("/proc/net/ip_vs").unwrap().starts_with("IP Virtual Server"));
}

#[test]
fn sctp_is_spoken_over_both_families() {
    for (domain, address) in [(Domain::IPV4, "127.0.0.1:0"), (Domain::IPV6, "[::1]:0")] {
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::SCTP)).unwrap();
        let address: std::net::SocketAddr = address.parse().unwrap();
        // The address of ::1 is tentative for a moment after lo came up.
        wait::until_ok(Duration::from_secs(5), "an SCTP socket to bind", || socket.bind(&address.into())).unwrap();
        socket.listen(1).unwrap();
        let client = Socket::new(domain, Type::STREAM, Some(Protocol::SCTP)).unwrap();
        client.connect(&socket.local_addr().unwrap()).unwrap();
    }
}

#[test]
fn nf_tables_translates_addresses() {
    let rules = "table inet smoke { chain nat { type nat hook output priority -100; ip daddr 192.0.2.1 dnat to 127.0.0.1; \
                 numgen inc mod 2 0 counter; fib daddr type local counter; }; }";
    call("nft", &[rules]).unwrap();
    assert!(call("nft", &["list", "table", "inet", "smoke"]).unwrap().contains("dnat ip to 127.0.0.1"));
    call("nft", &["delete", "table", "inet", "smoke"]).unwrap();
}
