//! Throughput by iperf3, latency by datagrams that come back.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::process::{self, ProcessId};
use weft_tests::tool::{self, Stdin};
use weft_tests::{probe, wait};

use super::networks::Network;

/// Where what has to come back is sent.
const ECHO_PORT: u16 = 7;
/// The size of it, in bytes: that of a small question.
const SIZE: usize = 64;
/// How long anything may take that should come at once.
const LIMIT: Duration = Duration::from_secs(5);

/// That the pods reach each other, by their own addresses.
///
/// # Errors
/// When they do not.
pub(crate) fn verify(network: &dyn Network) -> Result<()> {
    let [one, other] = network.pods();
    ensure!(probe::ping(one.netns, other.address, LIMIT)?.is_some(), "there is no way");
    let seen = probe::udp_echo(one.netns, other.netns, other.address)?;
    ensure!(seen == one.address, "{} arrives as {seen}", one.address);
    Ok(())
}

/// Starts what takes in the transfers of a network; it ends with the pod.
///
/// # Errors
/// When there is no iperf3.
pub(crate) fn serve(network: &dyn Network, log: &Path) -> Result<ProcessId> {
    let [_, server] = network.pods();
    let mut command = tool::command("iperf3");
    process::spawn(server.netns, command.args(["--server", "--bind", &server.address.to_string()]), log)
}

/// What one TCP connection transfers, in bits a second, as its receiver counts.
///
/// # Errors
/// When iperf3 fails.
pub(crate) fn throughput(network: &dyn Network, seconds: u16) -> Result<f64> {
    let [client, server] = network.pods();
    let (address, seconds) = (server.address.to_string(), seconds.to_string());
    let arguments = ["--client", &address, "--time", &seconds, "--json"];
    // The server may not listen yet.
    let answer = wait::until_ok(LIMIT * 4, "iperf3 to transfer something", || {
        let output = client.netns.run(|| tool::run_with(tool::command("iperf3").args(arguments), Stdin::Bytes(b"")));
        let output = output.and_then(|output| output).map_err(|error| error.to_string())?;
        if output.exit == Some(0) { Ok(output.stdout) } else { Err(output.stdout) }
    })?;
    let value: Value = serde_json::from_str(&answer)?;
    let rate = value.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    rate.with_context(|| format!("iperf3 says nothing of what was received: {answer}"))
}

/// How long datagrams take to the other pod and back, one after the other.
///
/// # Errors
/// When one is lost.
pub(crate) fn trips(network: &dyn Network, count: u32) -> Result<Vec<Duration>> {
    let [client, server] = network.pods();
    let echo = SocketAddr::from((server.address, ECHO_PORT));
    let server = server.netns.run(|| UdpSocket::bind(echo))?.context("cannot bind the server")?;
    let local = IpAddr::from([0; 4]);
    let client = client.netns.run(|| UdpSocket::bind((local, 0)))?.context("cannot bind the client")?;
    client.connect(echo)?;
    client.set_read_timeout(Some(LIMIT))?;
    server.set_read_timeout(Some(LIMIT))?;
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || -> Result<()> {
            let mut buffer = [0; SIZE];
            for _ in 0..count {
                let (length, from) = server.recv_from(&mut buffer).context("the server waits in vain")?;
                server.send_to(buffer.get(..length).unwrap_or_default(), from)?;
            }
            Ok(())
        });
        let mut times = Vec::new();
        let mut buffer = [0; SIZE];
        for _ in 0..count {
            let begin = Instant::now();
            client.send(&[0x77; SIZE])?;
            client.recv(&mut buffer).context("a datagram has not come back")?;
            times.push(begin.elapsed());
        }
        serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(times)
    })
}
