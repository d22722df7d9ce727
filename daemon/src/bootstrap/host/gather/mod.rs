//! Brings the facts that the checks judge. Nothing of the machine is changed: what is tried is tried in a namespace of a
//! thread's own, or in a file without a name.

mod disk;
mod kernel;
mod network;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use jiff::Timestamp;

use super::containerd;
use super::facts::{HostFacts, Identity, OwnRun, RuntimeFacts, RuntimeTold, SwapArea, Told};
use super::lines;
use super::prepare::MODULES;
use super::tools::Tools;
use super::wanted::Wanted;
use crate::bootstrap::journal::{Change, Entry, Stage};

/// Sockets of container runtimes that kubeadm looks for, under the root (`constants_unix.go`).
const SOCKETS: [&str; 3] = ["run/containerd/containerd.sock", "run/crio/crio.sock", "run/cri-dockerd.sock"];

/// What other ways of running Kubernetes leave, under the root.
const OTHERS: [(&str, &str); 4] = [
    ("k3s", "etc/rancher/k3s"),
    ("RKE2", "etc/rancher/rke2"),
    ("k0s", "var/lib/k0s"),
    ("MicroK8s", "var/snap/microk8s"),
];

/// Gathers all facts. `told` is what the runtime itself says (the room of CRI asks it); `entries` are the journal's.
pub fn facts(wanted: &Wanted, told: RuntimeTold, entries: &[Entry], tools: &dyn Tools) -> HostFacts {
    let root = &wanted.paths.root;
    let has_firewalld = root.join("run/firewalld.pid").exists() || network::has_firewalld();
    HostFacts {
        uid: nix::unistd::geteuid().as_raw(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_kib: memory(root),
        swaps: swaps(root),
        fstab_swaps: read(&root.join("etc/fstab"))
            .map_or(0, |text| text.lines().filter(|line| lines::is_swap(line)).count()),
        sysctls: kernel::sysctls(root),
        resolved: resolve(&wanted.node_name),
        taken: ports::taken(root, &wanted.ports()),
        there: there(wanted),
        own: own(entries),
        programs: ["losetup", "mount", "cp", "kubelet"].map(|name| (name, program(root, name))).into(),
        kernel: nix::sys::utsname::uname()
            .map(|uname| uname.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        features: kernel::features(),
        modules: MODULES.map(|name| (name, kernel::module(root, name))).into(),
        cgroups: kernel::cgroups(root),
        // As sd_booted(3) tells it.
        systemd: root.join("run/systemd/system").is_dir(),
        runtime: runtime(root, told),
        kubelet: kubelet(root, tools),
        kubelet_unit: unit(root, tools),
        disks: disk::room(wanted),
        // One that etcd works on already is not to be slowed down.
        fsync: wanted.etcd_data.as_deref().filter(|path| !holds(path)).and_then(disk::fsync),
        firewalld: has_firewalld,
        firewalld_open: if has_firewalld { open(tools) } else { BTreeSet::new() },
        selinux: read(&root.join("sys/fs/selinux/enforce")).ok().map(|text| text.trim() == "1"),
        now: Timestamp::now(),
        identity: Identity {
            machine_id: word(&root.join("etc/machine-id")),
            product_uuid: word(&root.join("sys/class/dmi/id/product_uuid")),
        },
        addresses: network::addresses(),
        routes: network::routes(),
        others: others(root),
        proxies: proxies(std::env::vars()),
    }
}

fn read(path: &Path) -> Told<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn word(path: &Path) -> Option<String> {
    read(path).ok().map(|text| text.trim().to_owned())
}

fn memory(root: &Path) -> Told<u64> {
    let path = root.join("proc/meminfo");
    let text = read(&path)?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.ok_or_else(|| format!("{} has no MemTotal", path.display()))
}

/// The entries of /proc/swaps under that root. A kernel without swap does not have the file.
pub(super) fn swaps(root: &Path) -> Told<Vec<SwapArea>> {
    let path = root.join("proc/swaps");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let areas = text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let (device, kind) = (words.next()?, words.next()?);
        let priority = words.last().and_then(|word| word.parse().ok());
        Some(SwapArea { device: unescape(device), kind: kind.to_owned(), priority })
    });
    Ok(areas.collect())
}

/// A path as /proc writes it: blanks and backslashes are `\` with three octal digits (`mangle_path` of fs/seq_file.c).
pub(super) fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal =
            bytes.get(at + 1..at + 4).filter(|_| *byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 4;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A resolver without a server to ask takes ten seconds to say so; nobody waits for that.
const RESOLVE: Duration = Duration::from_millis(800);

fn resolve(name: &str) -> Told<Vec<std::net::IpAddr>> {
    let (sender, answer) = mpsc::channel();
    let asked = (name.to_owned(), 0u16);
    std::thread::spawn(move || {
        let found = asked.to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
        // Nobody hears it any more if it comes too late.
        let _ = sender.send(found.map_err(|error| error.to_string()));
    });
    let late = |_| Err(format!("no answer within {} ms", RESOLVE.as_millis()));
    answer.recv_timeout(RESOLVE).unwrap_or_else(late)
}

fn there(wanted: &Wanted) -> BTreeSet<PathBuf> {
    let files = wanted.files().into_iter().filter(|path| path.symlink_metadata().is_ok());
    files.chain(wanted.etcd_data.clone().filter(|path| holds(path))).collect()
}

/// Whether a directory has anything in it.
fn holds(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

/// What the journal says of an earlier run.
fn own(entries: &[Entry]) -> OwnRun {
    let mut own = OwnRun::default();
    for entry in entries.iter().filter(|entry| entry.stage != Stage::Undone) {
        match &entry.change {
            Change::FileMade { path, .. } | Change::DirectoryMade { path } => {
                own.files.insert(path.clone());
            }
            Change::Phase { name, .. } => {
                own.phases.insert(name.clone());
            }
            _ => {}
        }
    }
    own
}

/// Where a program is; under another root only there.
fn program(root: &Path, name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    // sudo may leave sbin out.
    let directories = path.split(':').chain(["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]);
    let files = directories.map(|directory| root.join(directory.trim_start_matches('/')).join(name));
    files.into_iter().find(|file| file.is_file())
}

fn kubelet(root: &Path, tools: &dyn Tools) -> Option<Told<String>> {
    let path = program(root, "kubelet")?;
    let said = tools.call(&path.to_string_lossy(), &["--version"]);
    Some(match said {
        Ok(said) if said.well => Ok(said.out.trim().trim_start_matches("Kubernetes ").to_owned()),
        Ok(said) => Err(said.why()),
        Err(error) => Err(error.to_string()),
    })
}

fn unit(root: &Path, tools: &dyn Tools) -> Option<String> {
    program(root, "systemctl")?;
    let said = tools.call("systemctl", &["is-enabled", "kubelet"]).ok()?;
    // It says so and ends with 1 if it is not.
    let state = said.out.trim();
    (!state.is_empty()).then(|| state.to_owned())
}

fn open(tools: &dyn Tools) -> BTreeSet<String> {
    let said = tools.call("firewall-cmd", &["--list-ports"]).ok().filter(|said| said.well);
    said.iter().flat_map(|said| said.out.split_whitespace()).map(str::to_owned).collect()
}

/// The known sockets of container runtimes that are there, without their scheme.
#[must_use]
pub fn sockets(root: &Path) -> Vec<String> {
    let there = SOCKETS.into_iter().filter(|socket| root.join(socket).exists());
    there.map(|socket| format!("/{socket}")).collect()
}

fn runtime(root: &Path, told: RuntimeTold) -> RuntimeFacts {
    RuntimeFacts { sockets: sockets(root), told, containerd: containerd::read(&root.join(containerd::CONFIG), root) }
}

fn others(root: &Path) -> Vec<String> {
    let there = OTHERS.into_iter().filter(|(_, path)| root.join(path).exists());
    there.map(|(name, path)| format!("{name} (/{path})")).collect()
}

fn proxies(environment: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let names = ["http_proxy", "https_proxy", "no_proxy"];
    let lower = environment.map(|(name, value)| (name.to_ascii_lowercase(), value));
    lower.filter(|(name, value)| names.contains(&name.as_str()) && !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::checks::{judge, testing};
    use super::super::tools::testing::Recorder;
    use super::*;
    use crate::bootstrap::resolved::Paths;

    #[test]
    fn p0_1_swap_is_seen_in_a_substituted_proc() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(swaps(root.path()), Ok(Vec::new()), "a kernel without swap has no such file");
        fs::create_dir(root.path().join("proc")).unwrap();
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda2                               partition\t8388604\t\t0\t\t-2\n\
                    /my\\040swap file 1 0 5\n";
        fs::write(root.path().join("proc/swaps"), text).unwrap();
        let found = swaps(root.path()).unwrap();
        assert_eq!(found[0], SwapArea { device: "/dev/sda2".into(), kind: "partition".into(), priority: Some(-2) });
        assert_eq!((found[1].device.as_str(), found[1].priority), ("/my swap", Some(5)));
    }

    #[test]
    fn paths_of_proc_are_read_back() {
        for (text, path) in
            [("/a\\040b", "/a b"), ("/a\\134b", "/a\\b"), ("/a\\", "/a\\"), ("/a\\04", "/a\\04"), ("", "")]
        {
            assert_eq!(unescape(text), path);
        }
    }

    #[test]
    fn facts_of_another_root_are_taken_from_there() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/meminfo", "MemTotal:        1048576 kB\nMemFree: 1 kB\n");
        put("etc/kubernetes/manifests/etcd.yaml", "");
        put("var/lib/etcd/member/x", "");
        put("etc/machine-id", "1f\n");
        put("etc/rancher/k3s/config.yaml", "");
        put("run/containerd/containerd.sock", "");
        let paths = Paths::under(root.path());
        let wanted = Wanted { etcd_data: Some(root.path().join("var/lib/etcd")), paths, ..testing::init() };
        let found = facts(&wanted, RuntimeTold::NotAsked, &[], &Recorder::willing());
        assert_eq!(found.memory_kib, Ok(1 << 20));
        assert_eq!(found.identity.machine_id.as_deref(), Some("1f"));
        assert_eq!(found.runtime.sockets, ["/run/containerd/containerd.sock"]);
        assert!(found.kubelet.is_none() && found.programs["mount"].is_none());
        let report = judge(&found, &wanted, &Default::default());
        for name in
            ["Mem", "FileAvailable--etc-kubernetes-manifests-etcd.yaml", "DirAvailable--var-lib-etcd", "OtherCluster"]
        {
            assert!(report.get(name).is_some(), "{name}: {report}");
        }
    }

    #[test]
    fn proxy_variables_are_taken_in_any_case() {
        let environment = [("HTTPS_PROXY", "p"), ("no_proxy", "x"), ("PATH", "/"), ("http_proxy", "")];
        let found = proxies(environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["https_proxy", "no_proxy"]);
    }
}
