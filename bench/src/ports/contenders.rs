//! The lists that are measured.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weft_tests::binaries;

use crate::chain::{BRIDGE, Chain, Plugin};
use crate::machine::Machine;

/// What the lists are called.
pub(crate) const NAMES: [&str; 2] = ["weft-cni", "bridge + portmap"];

/// One pod after the other: as on a node whose agent masquerades.
pub(crate) fn serial(machine: &Machine, peers: &Path) -> Result<[Chain; 2]> {
    both(machine, peers, "serial", false)
}

/// All at once: as where the plugins masquerade, too, which is what users of bridge without flannel have.
pub(crate) fn burst(machine: &Machine, peers: &Path) -> Result<[Chain; 2]> {
    both(machine, peers, "burst", true)
}

fn both(machine: &Machine, peers: &Path, purpose: &str, masquerade: bool) -> Result<[Chain; 2]> {
    let folder = machine.path(purpose);
    let (state, data) = (folder.join("weft"), folder.join("host-local"));
    let weft = json!({
        "type": "weft-cni", "stateDir": state, "subnetFile": folder.join("subnet.env"),
        "capabilities": {"portMappings": true},
    });
    let weft = Plugin { path: binaries::find("weft-cni")?, conf: merged(weft, masquerade) };
    let mut bridge = merged(json!({"type": "bridge"}), masquerade);
    bridge["ipam"]["dataDir"] = json!(data);
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let peer = |name: &str, conf| Ok::<_, anyhow::Error>(Plugin { path: debian(peers, name)?, conf });
    let debian = vec![peer("bridge", bridge)?, peer("portmap", portmap)?];
    Ok([Chain::new(NAMES[0], vec![weft])?, Chain::new(NAMES[1], debian)?])
}

/// What both bridges are told.
fn merged(mut conf: Value, masquerade: bool) -> Value {
    conf["bridge"] = BRIDGE.into();
    conf["isDefaultGateway"] = true.into();
    conf["hairpinMode"] = true.into();
    conf["ipMasq"] = masquerade.into();
    conf["ipam"] = json!({"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]]});
    conf
}

fn debian(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is missing: apt-get install containernetworking-plugins", path.display());
    Ok(path)
}
