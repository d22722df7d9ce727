//! Whether kube-proxy serves this node: it says so, and what it serves by is there.

use std::net::SocketAddr;

use super::agent;
use super::daemons::KUBE_PROXY;
use super::kernel::{self, KUBE_PROXY_TABLES, Kernel};
use super::virtual_servers::DEVICE;
use crate::status::fetch::from_own_node;

/// Where it answers unless told otherwise (`healthzBindAddress`).
pub const HEALTHZ: &str = "127.0.0.1:10256";
/// The chain that all of its iptables rules begin in.
const SERVICES: &str = "KUBE-SERVICES";

/// Asks kube-proxy and the kernel; says why it does not serve yet.
///
/// # Errors
/// That, in words.
pub fn serves(healthz: SocketAddr) -> Result<(), String> {
    let answer = agent::fetch(healthz, "/healthz").map(|(status, _)| status).map_err(|error| error.to_string());
    judge(from_own_node(healthz), answer, traces().map_err(|error| error.to_string()))
}

/// What it serves by, as far as this can be seen: tables of iptables-legacy cannot, so that they count.
fn traces() -> Result<Vec<String>, weft_netlink::Error> {
    let mut kernel = Kernel::open()?;
    let mut found: Vec<String> =
        kernel.tables_named(&KUBE_PROXY_TABLES)?.iter().map(|table| format!("table {table}")).collect();
    for table in kernel.iptables()? {
        if table.chains.iter().any(|info| info.chain.name == SERVICES) {
            found.push(format!("chain {SERVICES} of table {}", table.table));
        }
    }
    found.extend(kernel::device()?.0.map(|_| DEVICE.to_owned()));
    found.extend(kernel::legacy_tables().into_iter().filter(|table| table.ends_with(" nat")));
    Ok(found)
}

fn judge(healthz: SocketAddr, answer: Result<u16, String>, traces: Result<Vec<String>, String>) -> Result<(), String> {
    match answer {
        Ok(200) => {}
        Ok(status) => return Err(format!("http://{healthz}/healthz says {status}")),
        Err(error) => return Err(format!("http://{healthz}/healthz: {error}")),
    }
    match traces {
        Ok(traces) if traces.is_empty() => {
            Err(format!("there is no chain {SERVICES}, table {KUBE_PROXY} or device {DEVICE}"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_serves_when_it_says_so_and_its_rules_are_there() {
        let healthz = HEALTHZ.parse().unwrap();
        let traces = || Ok(vec![DEVICE.to_owned()]);
        assert_eq!(judge(healthz, Ok(200), traces()), Ok(()));
        assert!(judge(healthz, Ok(503), traces()).unwrap_err().ends_with("says 503"));
        assert!(judge(healthz, Err("refused".to_owned()), traces()).unwrap_err().contains("refused"));
        assert!(judge(healthz, Ok(200), Ok(Vec::new())).unwrap_err().contains("KUBE-SERVICES"));
        assert!(judge(healthz, Ok(200), Err("no".to_owned())).is_err());
    }
}
