//! `weft export`: pods' addresses as host-local would have recorded them, for a node that goes back to flannel.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use weft_cni::formats::attachment::{Attachment, Identity, State};
use weft_cni::formats::conflist::STATE_DIR;
use weft_cni::formats::files::{Durability, write_atomically};
use weft_cni::formats::host_local;
use weft_cni::ipam::handover::Refused;
use weft_cni::ipam::store::Store;
use weft_netlink::RouteSocket;

/// Write what flannel's and the host-local plugin have to know of the pods that weft has attached, then exit.
///
/// For the way back: without it, they would give the addresses of running pods a second time. Writes for each live pod its
/// reservation in host-local's store, and flannel's note, without which nothing of the pod would be deleted; until the next
/// boot, weft's plugin then makes such a reservation with each new pod, too. Run it before the other network's conflist comes.
/// Exit code 1 if an address is another container's there: the pod is named, and all others are exported. Host ports and
/// limits of traffic cannot be handed over: it names the pods that have some.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft export\n  rm /etc/cni/net.d/10-weft.conflist")]
pub(super) struct ExportArgs {
    /// Directory in which the CNI plugin records its attachments
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    cni_state_dir: PathBuf,

    /// host-local's directory, with a directory for each network
    #[arg(long, value_name = "DIR", default_value = host_local::DATA_DIR)]
    data_dir: PathBuf,

    /// Directory of flannel's notes
    #[arg(long, value_name = "DIR", default_value = host_local::FLANNEL_DIR)]
    flannel_dir: PathBuf,
}

/// Where the others look.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) data_dir: PathBuf,
    pub(super) flannel_dir: PathBuf,
}

/// What became of an export, in attachments.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) live: usize,
    pub(super) refused: usize,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let destination = Destination { data_dir: args.data_dir.clone(), flannel_dir: args.flannel_dir.clone() };
    let Exported { live, refused } = all(&args.cni_state_dir, &destination)?;
    println!("exported {} of {live} attachments to {}", live - refused, args.data_dir.display());
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Exports all live attachments, has the plugin do so from now on, and says what cannot be handed over.
pub(super) fn all(state_dir: &Path, destination: &Destination) -> anyhow::Result<Exported> {
    let links: HashSet<(u32, String)> =
        RouteSocket::open()?.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    let lives = |found: &Attachment| {
        // One that is being made has its address already.
        found.status.state == State::Pending || links.contains(&(found.status.host_index, found.host_interface.clone()))
    };
    let mut live = Vec::new();
    let mut refused = Vec::new();
    for network in networks(state_dir)? {
        let store = Store::new(state_dir, &destination.data_dir, &network);
        refused.extend(store.hand_over(lives)?);
        store.visit(|record| {
            live.extend(record.content.ok().filter(lives));
            Ok(())
        })?;
    }
    refused.iter().for_each(|refused| eprintln!("weft export: {}", refusal(refused)));
    let mut kept: HashSet<&Identity> = refused.iter().map(|refused| &refused.attachment.identity).collect();
    for attachment in &live {
        if let Err(error) = note(attachment, destination) {
            eprintln!("weft export: {error:#}");
            kept.insert(&attachment.identity);
        }
    }
    if let Some(reminder) = reminder(&live) {
        println!("{reminder}");
    }
    Ok(Exported { live: live.len(), refused: kept.len() })
}

/// Which pod it is whose address another one has, too.
fn refusal(Refused { ip, attachment, owner }: &Refused) -> String {
    let name = name_of(attachment);
    format!(
        "{ip} of {name} is container {}'s in host-local's store; delete {name} and run this again (container {})",
        owner.container, attachment.identity.container
    )
}

fn name_of(attachment: &Attachment) -> String {
    attachment.pod.clone().unwrap_or_else(|| attachment.identity.container.clone())
}

/// What the other plugins will leave behind: they know nothing of host ports and limits.
fn reminder(live: &[Attachment]) -> Option<String> {
    let names = |wanted: fn(&Attachment) -> bool| -> Vec<String> {
        live.iter().filter(|found| wanted(found)).map(name_of).collect()
    };
    let with_ports = names(|found| !found.host_ports.is_empty());
    let with_limits = names(|found| found.limits.is_some());
    if with_ports.is_empty() && with_limits.is_empty() {
        return None;
    }
    let mut lines = vec![
        "not handed over, as the other plugins cannot remove it; let weft delete these pods first if you can:"
            .to_owned(),
    ];
    if !with_ports.is_empty() {
        let ports = with_ports.join(", ");
        lines.push(format!(
            "  host ports of {ports}: once they are gone, `weft migrate back` (or `nft delete table inet weft-cni`), or the \
             ports stay theirs"
        ));
    }
    if !with_limits.is_empty() {
        lines.push(format!("  limits of traffic of {}: their ifb devices (wifb...) stay", with_limits.join(", ")));
    }
    Some(lines.join("\n"))
}

/// The networks that the plugin has served.
fn networks(state_dir: &Path) -> anyhow::Result<Vec<String>> {
    let context = || format!("cannot list {}", state_dir.display());
    let entries = match fs::read_dir(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(context)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.with_context(context)?.file_name().into_string();
        // The lock of `weft lease` lies there, too.
        found.extend(name.ok().filter(|name| state_dir.join(name).is_dir()));
    }
    Ok(found)
}

/// flannel's note of a container, without which its plugin deletes nothing of it.
fn note(attachment: &Attachment, destination: &Destination) -> anyhow::Result<()> {
    let path = destination.flannel_dir.join(&attachment.identity.container);
    write(&path, &host_local::flannel_delegate(attachment, &destination.data_dir))
}

/// Durable: the other network's plugins expect of these files that they are there when the node is.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    write_atomically(path, text.as_bytes(), host_local::MODE, Durability::Durable)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_handed_over_is_named() {
        let mut pods: Vec<Attachment> = ["plain", "web"]
            .into_iter()
            .map(|name| {
                let text = format!(
                    r#"{{"network":"cbr0","container":"{name}","interface":"eth0","pid":1,"created":1,
                        "sandbox":{{"path":"","device":1,"inode":1}},"hostInterface":"veth0","hostMac":"","containerMac":"",
                        "bridge":"cni0","ips":[],"pod":"default/{name}"}}"#
                );
                serde_json::from_str(&text).unwrap()
            })
            .collect();
        assert_eq!(reminder(&pods), None);
        let mapping =
            r#"{"mappings":[{"hostPort":80,"containerPort":80,"protocol":"tcp"}],"snat":true,"masqAll":false}"#;
        pods[1].host_ports = serde_json::from_str(mapping).unwrap();
        let told = reminder(&pods).unwrap();
        assert!(told.contains("default/web") && !told.contains("default/plain"), "{told}");
    }
}
