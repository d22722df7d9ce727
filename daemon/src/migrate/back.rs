//! A node goes back: flannel's conflist first, and weft's rules when the others serve.
//!
//! The export of the attachments has been made by then (`weft export`). Kernel settings stay as they are, since whoever
//! runs the node next wants most of them, too. Devices stay: flannel takes them over as weft did.

use std::path::PathBuf;

use weft_cni::formats::conflist::BRIDGE_ALIAS;
use weft_netlink::nft::{Batch, Socket};
use weft_netlink::{LinkChange, RouteSocket};

use super::conflists;
use super::kernel;
use super::ports;
use super::report::Report;
use crate::filter::{agent_table, forward, plugin_table};
use crate::node::{NODE_RECORD, Owned};
use crate::publish::Places;
use crate::service::cleanup_ipvs;
use crate::service::ipvs::forget_record;

/// What is known of the node.
#[derive(Debug, Clone)]
pub struct BackOptions {
    /// Where the agent put its files.
    pub places: Places,
    /// Name of the CNI network.
    pub network: String,
    /// Name of the bridge that pods are on.
    pub bridge: String,
    /// The agent's run directory.
    pub run_dir: PathBuf,
}

/// Makes new pods the others' again: their conflist in the place of weft's.
pub fn give_pods_back(options: &BackOptions, report: &mut Report) {
    const STEP: &str = "conflist";
    let directory = &options.places.cni_conf_dir;
    let files = match conflists::list(directory, &options.network) {
        Ok(files) => files,
        Err(error) => return report.failed(STEP, &format!("cannot list {}: {error}", directory.display())),
    };
    for name in conflists::saved(&files) {
        let restored = conflists::restore(directory, name);
        let words = match restored {
            Ok(false) => format!("{name} is there anew; the one aside removed"),
            _ => format!("{name} back in its place"),
        };
        report.outcome(STEP, restored.map(drop), &words);
    }
    let has_successor = conflists::list(directory, &options.network)
        .is_ok_and(|files| files.iter().any(|file| file.predecessor && !file.saved));
    if !files.iter().any(|file| file.ours) {
        return report.nothing(STEP, "weft's is gone");
    }
    if !has_successor {
        let words = "there is none to take the place of weft's; flannel's pod installs its own when it starts";
        return report.failed(STEP, words);
    }
    let ours = options.places.conflist();
    let removed = std::fs::remove_file(&ours).map_err(|error| format!("cannot remove {}: {error}", ours.display()));
    report.outcome(STEP, removed, &format!("{} removed", ours.display()));
}

/// Takes out of the kernel what weft has there for Services and masquerade. Whoever serves them now has his own.
pub fn remove_rules(options: &BackOptions, report: &mut Report) {
    // In ipvs mode kube-proxy found weft's virtual servers and keeps them as its own: to delete them would end its service.
    let its_own = kernel::device().is_ok_and(|(device, _)| device.is_some());
    if its_own && let Err(error) = forget_record(&options.run_dir) {
        return report.failed("virtual servers", &format!("cannot forget which are weft's: {error}"));
    }
    match cleanup_ipvs(&options.run_dir) {
        Ok(()) if its_own => report.done("virtual servers", "they are kube-proxy's now; weft's route to them is gone"),
        Ok(()) => report.done("virtual servers", "those of weft's and their route are gone"),
        Err(errors) => errors.iter().for_each(|error| report.failed("virtual servers", &error.to_string())),
    }
    let removed = remove_table(&agent_table());
    report.outcome("rules", removed, &format!("table {} is gone", agent_table()));
    report.outcome("FORWARD", forward::withdraw(), "no rule of weft's is left in it");
}

/// Host ports of pods that weft made lead to them for as long as they run.
pub fn let_ports_run_out(report: &mut Report) {
    const STEP: &str = "host ports";
    match ports::sweep() {
        Ok(left) if left.is_empty() => {
            report.outcome(STEP, remove_table(&plugin_table()), &format!("table {} is gone", plugin_table()));
        }
        Ok(left) => {
            let listed: Vec<String> = left.into_iter().collect();
            let words = format!(
                "those of {} stay while they run, as portmap cannot delete them; run this again when these are gone, before \
                 their addresses are given to others",
                listed.join(", ")
            );
            report.note(STEP, &words);
        }
        Err(error) => report.failed(STEP, &error.to_string()),
    }
}

/// Forgets that devices and the key in its file are weft's, so that no later `weft cleanup` takes them from flannel.
pub fn release_devices(options: &BackOptions, report: &mut Report) {
    const STEP: &str = "devices";
    let released = (|| -> anyhow::Result<()> {
        let mut owned = Owned::load(&options.run_dir, NODE_RECORD)?;
        let devices: Vec<String> = owned.devices().map(str::to_owned).collect();
        for device in &devices {
            owned.release_device(device)?;
        }
        owned.release_files()?;
        let mut socket = RouteSocket::open()?;
        let bridge = socket.link(options.bridge.as_str())?;
        if let Some(bridge) = bridge.filter(|bridge| bridge.alias.as_deref() == Some(BRIDGE_ALIAS)) {
            socket.one(LinkChange::new(bridge.index).alias("").request())?;
        }
        Ok(())
    })();
    report.outcome(STEP, released, &format!("{} and the overlay are flannel's, in place", options.bridge));
}

fn remove_table(table: &weft_netlink::nft::Table) -> Result<(), weft_netlink::Error> {
    let mut batch = Batch::new();
    batch.remove_table(table);
    Ok(Socket::open()?.commit(batch)?)
}
