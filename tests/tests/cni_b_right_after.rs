//! Connections to a pod in the moment after its ADD, to bridges that have no other port. A file of its own, so that nothing
//! else runs beside it: an answer that takes more than 0.9 s counts as a lost packet.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use weft_tests::cni::{Host, Pod, VERSIONS};
use weft_tests::probe;

#[test]
fn t043_a_thousand_connections_right_after_add_all_get_through() {
    let host = Host::new();
    let pods: Vec<Pod> = (0..4).map(|_| host.pod()).collect();
    // Listening before there is an interface: whatever comes back comes from the pod.
    let listeners: Vec<TcpListener> =
        pods.iter().map(|pod| pod.netns.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap()).collect();
    for round in 0..250 {
        let conf = host.conf(VERSIONS[round % 4]);
        for (pod, listener) in pods.iter().zip(&listeners) {
            let address = host.add(&conf, pod).result().ip();
            let target = SocketAddr::new(address, 8080);
            let accepted = probe::refused_or_accepted(&host.netns, target, Duration::from_millis(900));
            assert!(accepted.unwrap_or_else(|error| panic!("round {round}: {error:#}")));
            let _ = listener.accept().unwrap();
            host.del(&conf, pod).done();
        }
    }
    host.assert_nothing_left();
}
