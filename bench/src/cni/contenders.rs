//! Who is measured, and how each is called.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::binaries;
use weft_tests::cni::Conf;
use weft_tests::netns::Netns;
use weft_tests::scratch::unique_name;

use crate::call::Call;
use crate::machine::Machine;

/// The bridge of every contender, each in a namespace of its own.
pub(crate) const BRIDGE: &str = "cni0";
/// What all of them make.
pub(crate) const INTERFACE: &str = "eth0";
/// The address of each bridge, the first of the subnet.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Numbers of pods from here on are for those that are measured, which come one after the other. Below, each pod keeps its
/// address.
pub(crate) const FIRST_MEASURED: u16 = 204;
/// As many addresses are left for those in the smallest subnet, a /24.
const MEASURED_ADDRESSES: u16 = 50;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Attach a pod.
    Add,
    /// Detach it.
    Del,
}

/// A program on a machine of its own.
#[derive(Debug)]
pub(crate) struct Contender {
    name: &'static str,
    /// All that it takes, first what the runtime starts.
    binaries: Vec<PathBuf>,
    host: Netns,
    how: How,
}

/// How it is told what to do.
#[derive(Debug)]
enum How {
    /// As the CNI specification has it.
    Plugin { conf: Conf, path: PathBuf },
    /// By arguments; these are the index of its bridge and the prefix length of its subnet.
    Floor { bridge: u64, prefix: u8 },
}

/// A pod without network.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    number: u16,
}

/// The contenders: weft-cni, the peer, the floor. [`super::report`] knows them by this order. `prefix` is the prefix
/// length of their subnets.
pub(crate) fn all(machine: &Machine, peers: &Path, prefix: u8) -> Result<[Contender; 3]> {
    let peer = |name: &str| {
        let path = peers.join(name);
        ensure!(path.is_file(), "{} is missing: apt-get install containernetworking-plugins", path.display());
        Ok(path)
    };
    let host = || Netns::ensure_machine(unique_name()).context("cannot make a namespace");
    let weft = Contender {
        name: "weft-cni",
        binaries: vec![binaries::find("weft-cni")?],
        host: host()?,
        how: How::Plugin {
            conf: conf("weft-cni", prefix)
                .with("stateDir", text(&machine.path("weft"))?)
                .with("subnetFile", text(&machine.path("subnet.env"))?),
            path: binaries::folder(),
        },
    };
    let debian = Contender {
        name: "bridge + host-local",
        binaries: vec![peer("bridge")?, peer("host-local")?],
        host: host()?,
        how: How::Plugin {
            conf: conf("bridge", prefix).with_ipam("dataDir", text(&machine.path("host-local"))?),
            path: peers.to_owned(),
        },
    };
    let floor = host()?;
    let bridge = make_bridge(&floor, prefix)?;
    let floor = Contender {
        name: "floor",
        binaries: vec![binaries::find("cni-floor")?],
        host: floor,
        how: How::Floor { bridge, prefix },
    };
    Ok([weft, debian, floor])
}

/// The same for both plugins: what kubelet's runtime gives them on a node of a flannel cluster, without host ports.
fn conf(kind: &str, prefix: u8) -> Conf {
    let subnet = format!("{}/{prefix}", Ipv4Addr::from_bits(GATEWAY.to_bits() - 1));
    Conf::raw(json!({
        "cniVersion": "1.0.0", "name": "bench", "type": kind, "bridge": BRIDGE,
        "isDefaultGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]},
    }))
}

/// The floor finds a bridge as it is from the second pod on.
fn make_bridge(host: &Netns, prefix: u8) -> Result<u64> {
    host.tool("ip", &["link", "add", BRIDGE, "up", "type", "bridge"])?;
    host.tool("ip", &["address", "add", &format!("{GATEWAY}/{prefix}"), "dev", BRIDGE])?;
    host.sysctl("net/ipv4/ip_forward", "1")?;
    let links = host.objects("ip", &["link", "show", "dev", BRIDGE])?;
    let index = links.first().and_then(|link| link["ifindex"].as_u64());
    index.context("a bridge without an index")
}

impl Contender {
    /// What it is called in the report.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its machine.
    pub(crate) fn host(&self) -> &Netns {
        &self.host
    }

    /// Its binaries and their sizes in bytes.
    pub(crate) fn sizes(&self) -> Result<Vec<(String, u64)>> {
        let size = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, path.metadata()?.len()))
        };
        self.binaries.iter().map(size).collect()
    }

    /// A new pod. `number` differs between all pods of this contender that live at a time.
    pub(crate) fn pod(&self, kind: &str, number: u16) -> Result<Pod> {
        let netns = Netns::ensure(format!("{}-{kind}{number}", self.host.name()))?;
        Ok(Pod { netns, number })
    }

    /// The call that attaches or detaches a pod, to be made from [`Contender::host`].
    pub(crate) fn call(&self, verb: Verb, pod: &Pod) -> Call {
        let call = Call::new(self.binaries.first().map_or(Path::new(""), PathBuf::as_path));
        match &self.how {
            How::Plugin { conf, path } => call
                .variable("CNI_COMMAND", if verb == Verb::Add { "ADD" } else { "DEL" })
                .variable("CNI_CONTAINERID", pod.netns.name())
                .variable("CNI_NETNS", pod.netns.path())
                .variable("CNI_IFNAME", INTERFACE)
                .variable("CNI_PATH", path)
                .variable("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .input(&conf.bytes()),
            How::Floor { bridge, prefix } => {
                // As long as weft-cni's, so that requests can be compared.
                let host_interface = format!("veth{:011x}", pod.number);
                match verb {
                    Verb::Add => call
                        .argument("add")
                        .argument(pod.netns.path())
                        .argument(host_interface)
                        .argument(bridge.to_string())
                        .argument(address(pod.number).to_string())
                        .argument(prefix.to_string())
                        .argument(GATEWAY.to_string()),
                    Verb::Del => call.argument("del").argument(host_interface),
                }
            }
        }
    }
}

/// The address that the floor is told to give; the others find one themselves.
fn address(number: u16) -> Ipv4Addr {
    let place = if number < FIRST_MEASURED { number } else { FIRST_MEASURED + number % MEASURED_ADDRESSES };
    Ipv4Addr::from_bits(GATEWAY.to_bits() + u32::from(place))
}

fn text(path: &Path) -> Result<Value> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_of_the_floor_has_an_address_of_a_24() {
        let addresses: Vec<[u8; 4]> = (1..1000).map(|number| address(number).octets()).collect();
        assert!(addresses.iter().all(|octets| octets[2] == 0 && (2..255).contains(&octets[3])));
        let standing: std::collections::BTreeSet<_> = addresses.iter().take(usize::from(FIRST_MEASURED) - 1).collect();
        assert_eq!(standing.len(), usize::from(FIRST_MEASURED) - 1);
        assert!(addresses.iter().skip(usize::from(FIRST_MEASURED) - 1).all(|address| !standing.contains(address)));
    }
}
