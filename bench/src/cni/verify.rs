//! That a contender has done what it was timed for: nobody is fast by leaving something out.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::probe;

use super::contenders::{BRIDGE, Contender, GATEWAY, INTERFACE, Pod, Verb};

/// How long the first echo may take: neighbour discovery, a bridge that learns.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks at the pod and at its port, with the tools of the machine.
///
/// # Errors
/// What is missing after an ADD, or left after a DEL.
pub(crate) fn verify(verb: Verb, contender: &Contender, pod: &Pod) -> Result<()> {
    let name = contender.name();
    if verb == Verb::Del {
        let left = pod.netns.objects("ip", &["link", "show"])?;
        ensure!(!left.iter().any(|link| link["ifname"] == INTERFACE), "{name}: DEL has left {INTERFACE}");
        return Ok(());
    }
    let routes = pod.netns.objects("ip", &["-4", "route", "show", "default"])?;
    ensure!(
        matches!(&*routes, [route] if route["gateway"] == GATEWAY.to_string() && route["dev"] == INTERFACE),
        "{name}: ADD has made no default route: {routes:?}"
    );
    let ports = contender.host().objects("ip", &["-d", "link", "show", "master", BRIDGE])?;
    let reflects = |port: &Value| port["linkinfo"]["info_slave_data"]["hairpin"] == true;
    ensure!(!ports.is_empty() && ports.iter().all(reflects), "{name}: ADD has left hairpin off: {ports:?}");
    let answer = probe::ping(&pod.netns, IpAddr::V4(GATEWAY), LIMIT)?;
    // All namespaces of a machine share one neighbour table: a large lab beside us fills it.
    ensure!(
        answer.is_some(),
        "{name}: after ADD the gateway {GATEWAY} does not answer (look into dmesg for \"neighbor table overflow\")"
    );
    Ok(())
}
