//! A store as very many ADDs leave it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use ipnetwork::{IpNetwork, Ipv4Network};
use weft_cni::formats::attachment::{self, AssignedIp, Attachment, Identity, RECORDS, Sandbox, State, Status};
use weft_cni::formats::host_port::HostPorts;

use super::PREFIX;
use crate::chain::{BRIDGE, GATEWAY, NETWORK};

/// Writes so many records, for the highest addresses of the subnet: the plugin gives the lowest first. It makes the pool of
/// them.
pub(super) fn make(state_dir: &Path, count: u16) -> Result<()> {
    let folder = attachment::directory(state_dir, NETWORK).join(RECORDS);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let broadcast = u32::from(Ipv4Network::new(GATEWAY, PREFIX)?.broadcast());
    for number in 1..=u32::from(count) {
        let record = record(number, Ipv4Addr::from(broadcast - number))?;
        let path = folder.join(record.identity.key());
        fs::write(&path, record.encode()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn record(number: u32, ip: Ipv4Addr) -> Result<Attachment> {
    let identity = Identity {
        network: NETWORK.to_owned(),
        container: format!("elsewhere-{number}"),
        interface: "eth0".to_owned(),
    };
    Ok(Attachment {
        status: Status { state: State::Committed, host_index: 1_000_000 + number, container_index: 2 },
        pid: 1,
        created: 0,
        sandbox: Sandbox { path: format!("/run/netns/{number}"), device: 4, inode: number.into() },
        host_interface: identity.host_interface(),
        host_mac: "0a:58:00:00:00:01".to_owned(),
        container_mac: "0a:58:00:00:00:02".to_owned(),
        bridge: BRIDGE.to_owned(),
        mtu: None,
        ips: vec![AssignedIp { address: IpNetwork::new(ip.into(), PREFIX)?, gateway: Some(GATEWAY.into()) }],
        routes: Vec::new(),
        pod: None,
        host_ports: HostPorts::default(),
        limits: None,
        identity,
    })
}
