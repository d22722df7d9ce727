//! What the kernel can do, asked by doing it: `CONFIG_` lists are missing in containers and small kernels, and tell nothing of
//! what is forbidden.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weft_netlink::ipvs;
use weft_netlink::sysctl::Sysctl;

use crate::bootstrap::host::facts::{Cgroups, Feature, ModuleState, Told};
use crate::service::nft::{NftError, preflight};

/// Settings that are judged.
const SYSCTLS: [&str; 3] = ["net/ipv4/ip_forward", "net/ipv6/conf/default/forwarding", "net/ipv6/conf/all/forwarding"];

pub(super) fn sysctls(root: &Path) -> BTreeMap<String, Option<String>> {
    let sysctl = Sysctl::at(root.join("proc/sys"));
    SYSCTLS.map(|key| (key.to_owned(), sysctl.read(key).ok().flatten())).into()
}

pub(super) fn features() -> Vec<Feature> {
    let namespaces = [
        ("network namespaces", CloneFlags::CLONE_NEWNET),
        ("mount namespaces", CloneFlags::CLONE_NEWNS),
        ("UTS namespaces", CloneFlags::CLONE_NEWUTS),
        ("IPC namespaces", CloneFlags::CLONE_NEWIPC),
    ];
    let namespaces = namespaces.into_iter().map(|(name, flag)| Feature {
        name,
        needed: true,
        works: apart(move || works(unshare(flag))),
    });
    // A thread cannot have a PID namespace of its own, so that one is not tried.
    let pids = Feature { name: "PID namespaces", needed: true, works: Ok(Path::new("/proc/self/ns/pid").exists()) };
    let rest = [
        Feature { name: "overlay file system", needed: true, works: apart(overlay) },
        Feature { name: "nf_tables as Services need it", needed: true, works: nft() },
        Feature { name: "IPVS", needed: false, works: ipvs() },
    ];
    namespaces.chain([pids]).chain(rest).collect()
}

/// Runs it in a thread of its own, whose namespaces end with it.
fn apart(work: impl FnOnce() -> Told<bool> + Send + 'static) -> Told<bool> {
    let thread = std::thread::Builder::new().name("probe".into()).spawn(work).map_err(|error| error.to_string())?;
    thread.join().unwrap_or_else(|_| Err("the attempt has failed".to_owned()))
}

/// What the kernel does not know it calls invalid or not there; all else says nothing of it.
fn works(tried: nix::Result<()>) -> Told<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENODEV) => Ok(false),
        Err(errno) => Err(errno.desc().to_owned()),
    }
}

/// Mounts one over two tmpfs directories that nobody else sees.
fn overlay() -> Told<bool> {
    const BASE: &str = "/tmp";
    let tell = |errno: Errno| errno.desc().to_owned();
    unshare(CloneFlags::CLONE_NEWNS).map_err(tell)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(tell)?;
    mount(Some("tmpfs"), BASE, Some("tmpfs"), MsFlags::empty(), none).map_err(tell)?;
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(Path::new(BASE).join(name)).map_err(|error| error.to_string())?;
    }
    let options = format!("lowerdir={BASE}/lower,upperdir={BASE}/upper,workdir={BASE}/work");
    let target = format!("{BASE}/merged");
    works(mount(Some("overlay"), target.as_str(), Some("overlay"), MsFlags::empty(), Some(options.as_str())))
}

fn nft() -> Told<bool> {
    match preflight(false) {
        Ok(()) => Ok(true),
        Err(NftError::Lacks(_)) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn ipvs() -> Told<bool> {
    match ipvs::Socket::open() {
        Ok(_) => Ok(true),
        Err(weft_netlink::Error::Unsupported { .. }) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// Looks for a module in `/sys/module`, and in the lists of this kernel's modules.
pub(super) fn module(root: &Path, name: &str) -> ModuleState {
    if root.join("sys/module").join(name).exists() {
        return ModuleState::Present;
    }
    let Ok(uname) = nix::sys::utsname::uname() else { return ModuleState::Absent };
    let folder = root.join("lib/modules").join(uname.release());
    // Files write either sign; the kernel takes both for one.
    let is_named = |line: &str| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().replace('-', "_") == name
    };
    let lists = |list: &str| fs::read_to_string(folder.join(list)).unwrap_or_default().lines().any(is_named);
    match (lists("modules.builtin"), lists("modules.dep")) {
        (true, _) => ModuleState::Present,
        (false, true) => ModuleState::Loadable,
        (false, false) => ModuleState::Absent,
    }
}

/// kubelet takes it for v2 if that is what is mounted at the top.
pub(super) fn cgroups(root: &Path) -> Cgroups {
    let top = root.join("sys/fs/cgroup");
    if let Ok(text) = fs::read_to_string(top.join("cgroup.controllers")) {
        return Cgroups::V2(text.split_whitespace().map(str::to_owned).collect());
    }
    let text = fs::read_to_string(root.join("proc/cgroups")).unwrap_or_default();
    let names: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        // Each controller's hierarchy is a directory, or a link to one that it shares.
        .filter(|name| top.join(name).exists())
        .map(str::to_owned)
        .collect();
    if names.is_empty() { Cgroups::None } else { Cgroups::V1(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_kernel_can_do_is_tried_and_leaves_nothing() {
        if !nix::unistd::geteuid().is_root() {
            return weft_tests::skip::record("needs root");
        }
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let found = features();
        let works = |name: &str| found.iter().find(|feature| feature.name == name).unwrap().works.clone();
        for name in ["network namespaces", "mount namespaces", "PID namespaces"] {
            assert_eq!(works(name), Ok(true), "{name}");
        }
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn cgroups_and_modules_are_read_from_another_root() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(cgroups(root.path()), Cgroups::None);
        put("proc/cgroups", "#subsys_name\thierarchy\ncpu\t3\nmemory\t4\n");
        put("sys/fs/cgroup/cpu/tasks", "");
        assert_eq!(cgroups(root.path()), Cgroups::V1(["cpu".to_owned()].into()));
        put("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
        assert_eq!(cgroups(root.path()), Cgroups::V2(["cpu", "memory"].map(str::to_owned).into()));

        let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
        put(&format!("lib/modules/{release}/modules.builtin"), "kernel/net/netfilter/nf-conntrack.ko\n");
        put(&format!("lib/modules/{release}/modules.dep"), "kernel/net/ip_vs.ko.xz: kernel/net/x.ko\n");
        put("sys/module/overlay/x", "");
        let states = ["nf_conntrack", "ip_vs", "overlay", "vxlan"].map(|name| module(root.path(), name));
        let expected = [ModuleState::Present, ModuleState::Loadable, ModuleState::Present, ModuleState::Absent];
        assert_eq!(states, expected);
    }
}
