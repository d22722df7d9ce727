//! Host ports of running pods: out of portmap's hands into weft's table, before its chains go.
//!
//! The table is the plugin's, and so is the code that writes it. There is no record of such a pod: its elements name the
//! interface and the container, by which the plugin's DEL and GC find and remove them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use weft_cni::formats::attachment::Attachment;
use weft_cni::formats::host_local::{self, Owner};
use weft_cni::wiring::ports::{Claim, PortTable, open_loopback};
use weft_netlink::{Error, Link, LinkKind, RouteSocket};

use super::cache::{self, Inherited};

/// How often ports may be taken by others who are gone at once.
const ATTEMPTS: u32 = 16;

/// Pods of portmap's that live, and files of which nothing can be said.
#[derive(Debug, Default)]
pub struct Survey {
    /// The pods.
    pub pods: Vec<Attachment>,
    /// What is wrong with files of the cache.
    pub problems: Vec<String>,
}

/// Looks for pods with host ports that another plugin made for a network and that live: host-local has their address, and
/// their interface is there.
///
/// # Errors
/// If the cache is there and cannot be listed, or the kernel does not list its links.
pub fn survey(cache_dir: &Path, data_dir: &Path, network: &str) -> anyhow::Result<Survey> {
    let mut survey = Survey::default();
    let entries = match fs::read_dir(cache_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(survey),
        entries => entries?,
    };
    let links = RouteSocket::open()?.links()?;
    let (store, of_network) = (host_local::directory(data_dir, network), format!("{network}-"));
    for entry in entries {
        let path = entry?.path();
        // Gone since it was listed: the pod is, too.
        let Ok(bytes) = fs::read(&path) else { continue };
        match cache::read(&bytes, network) {
            Ok(Some(found)) => survey.pods.extend(alive(found, &links, &store)),
            Ok(None) => {}
            // A file is named after its network first; others' are theirs to read.
            Err(_) if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&of_network)) => {}
            Err(error) => survey.problems.push(format!("{}: {error}", path.display())),
        }
    }
    survey.pods.sort_by(|a, b| a.identity.cmp(&b.identity));
    Ok(survey)
}

/// The containers that have an address of host-local's.
///
/// # Errors
/// If its directory is there and cannot be listed. A file that names nobody is nobody's: whoever writes it has nothing else
/// yet.
pub fn reserved(data_dir: &Path, network: &str) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(host_local::directory(data_dir, network)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().and_then(host_local::address_of).is_none() {
            continue;
        }
        match fs::read(entry.path()) {
            Ok(bytes) => found.extend(Owner::parse(&bytes).map(|owner| owner.container)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The pod with its interface and its bridge, if it lives.
fn alive(found: Inherited, links: &[Link], store: &Path) -> Option<Attachment> {
    let Inherited { mut attachment, on_host } = found;
    let identity = &attachment.identity;
    let is_reserved = |ip: IpAddr| {
        let owner = fs::read(store.join(ip.to_string())).ok().and_then(|bytes| Owner::parse(&bytes));
        owner.is_some_and(|owner| owner.is(&identity.container, &identity.interface))
    };
    if attachment.ips.is_empty() || !attachment.ips.iter().all(|ip| is_reserved(ip.address.ip())) {
        return None;
    }
    let named = |name: &str| links.iter().find(|link| link.name == name);
    let is_its = |(name, mac): &&(String, Option<String>)| {
        // A name may be another's by now; the MAC address was made for this one.
        named(name).is_some_and(|link| link.kind == LinkKind::Veth && link.mac.map(|mac| mac.to_string()) == *mac)
    };
    let veth = on_host.iter().find(is_its)?.0.clone();
    let bridge =
        on_host.iter().find(|(name, _)| named(name).is_some_and(|link| link.kind == LinkKind::Bridge))?.0.clone();
    (attachment.host_interface, attachment.bridge) = (veth, bridge);
    Some(attachment)
}

/// Those of the pods whose ports weft's table does not have.
///
/// # Errors
/// What the kernel says.
pub fn missing(pods: &[Attachment]) -> Result<Vec<&Attachment>, Error> {
    let mut table = PortTable::default();
    let mut missing = Vec::new();
    for pod in pods {
        if table.missing(pod)?.is_some() {
            missing.push(pod);
        }
    }
    Ok(missing)
}

/// Makes a pod's host ports lead to it by weft's table.
///
/// # Errors
/// Why they do not, in words.
pub fn take(pod: &Attachment) -> Result<(), String> {
    take_over(pod).map_err(|error| format!("host ports of container {}: {error}", pod.identity.container))
}

fn take_over(pod: &Attachment) -> Result<(), String> {
    let words = |error: Error| error.to_string();
    let (mut table, mut route) = (PortTable::default(), RouteSocket::open().map_err(words)?);
    open_loopback(pod).map_err(words)?;
    let mut making = false;
    for _ in 0..ATTEMPTS {
        let rivals = match table.claim(pod, making).map_err(words)? {
            // Clients that the kernel leads to whoever had the port before.
            Claim::Made => return table.forget_earlier_flows(pod, &mut route).map_err(words),
            Claim::NoTable => {
                making = true;
                continue;
            }
            Claim::Taken(rivals) => rivals,
        };
        for rival in &rivals {
            let is_own = rival.interface() == pod.host_interface;
            if !is_own && route.link(rival.interface()).map_err(words)?.is_some() {
                let (port, owner) = (rival.disputed(pod), rival.container());
                return Err(format!("{port} is in use by container {owner}; delete one of the two pods"));
            }
            table.evict(rival).map_err(words)?;
        }
    }
    Err("the table kept changing; run it again".to_owned())
}

/// Removes from weft's table what leads to pods that are gone, and says which containers are left in it.
///
/// # Errors
/// What the kernel says.
pub fn sweep() -> Result<BTreeSet<String>, Error> {
    let mut table = PortTable::default();
    let links: BTreeSet<String> = RouteSocket::open()?.links()?.into_iter().map(|link| link.name).collect();
    for stray in table.strays(|interface| links.contains(interface))? {
        table.disown(&stray)?;
    }
    Ok(table.strays(|_| false)?.iter().map(|left| left.container().to_owned()).collect())
}
