//! Preparation of the machine: swap off, kernel settings, modules; with `--fix` containerd's configuration and firewalld; and
//! mirrors of registries. What is done is planned from the same facts that the checks judge, and undone by reset.

use std::fs;

use super::checks::{Repair, open_ports};
use super::containerd::{CONFIG, mend::mend, mirrors};
use super::facts::{HostFacts, ModuleState};
use super::hand::{Hand, HostError, Outcome, io_error};
use super::lines;
use super::wanted::{SwapPolicy, Wanted};
use crate::bootstrap::journal::Change;

/// Files of weft's, under the root.
const SYSCTL_FILE: &str = "etc/sysctl.d/90-weft.conf";
const MODULES_FILE: &str = "etc/modules-load.d/weft.conf";
const HOSTS_FILE: &str = "etc/hosts";

/// The block of this node's own name in the file of hosts.
const HOSTS_BLOCK: &str = "node-name";

/// Modules of weft's data plane and of containers; those that a kernel has built in, or does not have, are no fault.
/// `br_netfilter` is not among them: weft does not need it.
pub(super) const MODULES: [&str; 8] =
    ["overlay", "nf_conntrack", "nf_tables", "vxlan", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh"];

/// What was done, for a person: one line a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What was changed.
    pub changes: Vec<String>,
    /// What could not be done, and may be done without.
    pub warnings: Vec<String>,
    /// Whether containerd has to be started anew to see its configuration, and nobody could do it.
    pub restart_runtime: bool,
    /// Whether containerd was started anew: what it said before does not hold any more.
    pub runtime_restarted: bool,
}

impl Prepared {
    fn note(&mut self, outcome: Outcome, words: impl Into<String>) {
        if outcome != Outcome::Kept {
            self.changes.push(words.into());
        }
    }
}

/// Makes the machine ready. A second call finds its work done.
///
/// # Errors
/// The first change that could not be made; those before it are in the journal.
pub fn prepare(
    hand: &mut Hand<'_>,
    facts: &HostFacts,
    wanted: &Wanted,
    image_mirrors: &[mirrors::Mirror],
) -> Result<Prepared, HostError> {
    let mut prepared = Prepared::default();
    if wanted.prepare {
        if wanted.swap == SwapPolicy::Disable {
            swap_off(hand, facts, &mut prepared)?;
        }
        // Modules first: some settings come with them.
        load_modules(hand, facts, &mut prepared)?;
        set_sysctls(hand, wanted, &mut prepared)?;
        name_host(hand, facts, wanted, &mut prepared)?;
    }
    write_mirrors(hand, image_mirrors, &mut prepared)?;
    if wanted.fix {
        mend_containerd(hand, facts, wanted, !image_mirrors.is_empty(), &mut prepared)?;
        open_firewall(hand, facts, wanted, &mut prepared)?;
    } else if !image_mirrors.is_empty() && Repair::of(facts, wanted, true).0.config_path {
        prepared.warnings.push(format!(
            "containerd does not look for mirrors: set config_path = \"{}\" in /{CONFIG}, or --fix",
            super::containerd::CERTS_D
        ));
    }
    Ok(prepared)
}

/// Kubernetes' components look their host's name up, and where nobody answers they wait for seconds each time.
fn name_host(
    hand: &mut Hand<'_>,
    facts: &HostFacts,
    wanted: &Wanted,
    prepared: &mut Prepared,
) -> Result<(), HostError> {
    let (Err(_), Some(address)) = (&facts.resolved, wanted.address) else { return Ok(()) };
    let line = format!("{address} {}", wanted.node_name);
    let outcome = hand.block(&hand.paths().root.join(HOSTS_FILE), HOSTS_BLOCK, std::slice::from_ref(&line))?;
    prepared.note(outcome, format!("/{HOSTS_FILE} has \"{line}\""));
    Ok(())
}

fn swap_off(hand: &mut Hand<'_>, facts: &HostFacts, prepared: &mut Prepared) -> Result<(), HostError> {
    for area in facts.swaps.iter().flatten() {
        let device = area.device.as_str();
        // The kernel gives areas without a priority negative ones, which cannot be asked for.
        let priority = area.priority.filter(|priority| *priority >= 0);
        let change = Change::SwapOff { device: device.to_owned(), priority };
        let fix = "is there memory enough to take it in? Or keep it with --swap=tolerate";
        hand.tool(change, "swapoff", &[device], fix)?;
        prepared.changes.push(format!("swap on {device} is off"));
        // fstab knows nothing of swap on compressed memory: a generator of systemd's makes its unit.
        if let Some(name) = device.strip_prefix("/dev/").filter(|name| name.starts_with("zram") && facts.systemd) {
            let unit = format!("dev-{name}.swap");
            let fix = "keep its generator from making it, or use --swap=tolerate";
            hand.tool(Change::UnitMasked { unit: unit.clone() }, "systemctl", &["mask", &unit], fix)?;
            prepared.changes.push(format!("{unit} is masked"));
        }
    }
    // Last: where the kernel keeps its swap, whoever chooses --swap=tolerate then has it at the next start as well. Killed before,
    // the next run comes here all the same.
    let outcome = hand.comment(&hand.paths().root.join("etc/fstab"), lines::is_swap)?;
    prepared.note(outcome, "swap lines of /etc/fstab are comments now");
    Ok(())
}

fn load_modules(hand: &mut Hand<'_>, facts: &HostFacts, prepared: &mut Prepared) -> Result<(), HostError> {
    let loadable = facts.modules.iter().filter(|(_, state)| **state == ModuleState::Loadable).map(|(name, _)| *name);
    for module in loadable {
        let change = Change::ModuleLoaded { name: module.to_owned() };
        match hand.tool(change, "modprobe", &[module], "weft goes without") {
            Ok(_) => prepared.changes.push(format!("module {module} is loaded")),
            // What is really needed the checks have tried by using it.
            Err(error @ HostError::Tool { .. }) => prepared.warnings.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    // A module that is loaded today has to be loaded at the next start as well; one built in does no harm there.
    let names =
        MODULES.iter().filter(|name| facts.modules.get(*name).is_some_and(|state| *state != ModuleState::Absent));
    let text: String = names.map(|name| format!("{name}\n")).collect();
    if text.is_empty() {
        return Ok(());
    }
    let text = format!("# Written by weft; weft reset removes it.\n{text}");
    let outcome = hand.file(&hand.paths().root.join(MODULES_FILE), text.as_bytes(), 0o644)?;
    prepared.note(outcome, format!("/{MODULES_FILE} loads modules at each start"));
    Ok(())
}

/// What kubeadm demands, and what weft's data plane sets itself. Everything else is the agent's.
fn settings(wanted: &Wanted) -> Vec<(&'static str, &'static str)> {
    let (v4, v6) = wanted.families();
    let mut settings = Vec::new();
    if v4 {
        settings.push(("net/ipv4/ip_forward", "1"));
    }
    if v6 {
        // `default` alone would leave links that are there already.
        settings.extend([("net/ipv6/conf/default/forwarding", "1"), ("net/ipv6/conf/all/forwarding", "1")]);
    }
    settings
}

fn set_sysctls(hand: &mut Hand<'_>, wanted: &Wanted, prepared: &mut Prepared) -> Result<(), HostError> {
    let settings = settings(wanted);
    let mut text = "# Written by weft; weft reset removes it.\n".to_owned();
    for (key, value) in &settings {
        let outcome = hand.sysctl(key, value)?;
        let name = key.replace('/', ".");
        prepared.note(outcome, format!("{name} = {value}"));
        text.push_str(&format!("{name} = {value}\n"));
    }
    if settings.is_empty() {
        return Ok(());
    }
    let outcome = hand.file(&hand.paths().root.join(SYSCTL_FILE), text.as_bytes(), 0o644)?;
    prepared.note(outcome, format!("/{SYSCTL_FILE} sets them at each start"));
    Ok(())
}

fn write_mirrors(
    hand: &mut Hand<'_>,
    image_mirrors: &[mirrors::Mirror],
    prepared: &mut Prepared,
) -> Result<(), HostError> {
    let certs_d = hand.paths().root.join(super::containerd::CERTS_D.trim_start_matches('/'));
    for (path, text) in mirrors::files(&certs_d, image_mirrors) {
        let outcome = hand.file(&path, text.as_bytes(), 0o644)?;
        prepared.note(outcome, format!("{} names the mirrors", path.display()));
    }
    Ok(())
}

fn mend_containerd(
    hand: &mut Hand<'_>,
    facts: &HostFacts,
    wanted: &Wanted,
    with_mirrors: bool,
    prepared: &mut Prepared,
) -> Result<(), HostError> {
    let Repair(repair) = Repair::of(facts, wanted, with_mirrors);
    if repair.is_empty() {
        return Ok(());
    }
    let main = hand.paths().root.join(CONFIG);
    let mut files = vec![main.clone()];
    if let Some(Ok(found)) = &facts.runtime.containerd {
        files.extend(found.files.iter().filter(|file| **file != main).cloned());
    }
    let mut changed = false;
    for path in files {
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(io_error("read", &path))?,
        };
        let new = mend(&text, &repair, path == main);
        let Some(new) = new.map_err(|reason| HostError::Config { path: path.clone(), reason })? else { continue };
        let outcome = hand.file(&path, new.as_bytes(), 0o644)?;
        prepared.note(outcome, format!("{} is mended; its old content is beside it", path.display()));
        changed |= outcome != Outcome::Kept;
    }
    if !changed {
        return Ok(());
    }
    let restarted = facts.systemd
        && match hand.call("systemctl", &["restart", "containerd"], "start containerd anew by hand") {
            Ok(_) => true,
            Err(error) => {
                prepared.warnings.push(error.to_string());
                false
            }
        };
    prepared.runtime_restarted = restarted;
    prepared.restart_runtime = !restarted;
    Ok(())
}

fn open_firewall(
    hand: &mut Hand<'_>,
    facts: &HostFacts,
    wanted: &Wanted,
    prepared: &mut Prepared,
) -> Result<(), HostError> {
    if !facts.firewalld {
        return Ok(());
    }
    let fix = "open it by hand: firewall-cmd --permanent --add-port=… && firewall-cmd --reload";
    let ports = open_ports(wanted).into_iter().filter(|port| !facts.firewalld_open.contains(port));
    let ports = ports.map(|port| (None, format!("port={port}")));
    // Pods' own packets come with their own addresses.
    let pods = wanted.pod_subnets.iter().map(|subnet| (Some("trusted".to_owned()), format!("source={subnet}")));
    for (zone, rule) in ports.chain(pods.collect::<Vec<_>>()) {
        let zone_flag = zone.as_ref().map(|zone| format!("--zone={zone}"));
        let flag = |verb: &str| format!("--{verb}-{rule}");
        let with_zone = |words: &[&str]| -> Vec<String> {
            words.iter().map(|word| (*word).to_owned()).chain(zone_flag.clone()).collect()
        };
        let query = with_zone(&["--permanent", &flag("query")]);
        let query: Vec<&str> = query.iter().map(String::as_str).collect();
        if hand.call("firewall-cmd", &query, fix).is_ok() {
            continue;
        }
        let change = Change::FirewallOpened { rule: rule.clone(), zone: zone.clone() };
        for words in [with_zone(&["--permanent", &flag("add")]), with_zone(&[&flag("add")])] {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            hand.tool(change.clone(), "firewall-cmd", &words, fix)?;
        }
        prepared.changes.push(format!("firewalld lets {rule} through"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::checks::testing;
    use super::super::facts::{RuntimeTold, SwapArea};
    use super::super::tools::Said;
    use super::super::tools::testing::Recorder;
    use super::*;
    use crate::bootstrap::cri::CgroupDriver;
    use crate::bootstrap::journal::Journal;
    use crate::bootstrap::resolved::Paths;

    /// A root with a proc of its own.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/net/ipv4/ip_forward", "0\n"),
            ("proc/swaps", "Filename Type Size Used Priority\n/swapfile file 1024 0 5\n"),
            ("etc/fstab", "/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n"),
            ("etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn facts(root: &Path) -> HostFacts {
        let swaps = super::super::gather::swaps(root);
        let states = MODULES.map(|name| (name, ModuleState::Present));
        let mut facts = HostFacts { swaps, fstab_swaps: 1, modules: states.into(), ..testing::facts() };
        facts.modules.insert("ip_vs", ModuleState::Loadable);
        facts.modules.insert("ip_vs_sh", ModuleState::Absent);
        facts.runtime.told = RuntimeTold::NoCri;
        facts.runtime.containerd = super::super::containerd::read(&root.join(CONFIG), root);
        facts
    }

    fn wanted(root: &Path) -> Wanted {
        Wanted { paths: Paths::under(root), ..testing::init() }
    }

    /// swapoff takes the line out of the substituted /proc/swaps.
    fn tools(root: &Path) -> Recorder {
        let swaps = root.join("proc/swaps");
        Recorder::new(move |line| {
            if line.starts_with("swapoff ") {
                fs::write(&swaps, "Filename Type Size Used Priority\n")?;
            }
            Ok(Said { well: !line.contains("--query"), ..Said::default() })
        })
    }

    fn run(root: &Path, wanted: &Wanted, mirrors: &[mirrors::Mirror]) -> (Prepared, Vec<String>) {
        let mut journal = Journal::open(&wanted.paths).unwrap();
        let tools = tools(root);
        let mut hand = Hand::new(&wanted.paths, &mut journal, &tools);
        let prepared = prepare(&mut hand, &facts(root), wanted, mirrors).unwrap();
        (prepared, tools.calls.into_inner())
    }

    #[test]
    fn p04_p0_1_p0_11_swap_settings_and_modules_are_made_and_kept() {
        let root = root();
        let wanted = wanted(root.path());
        let (prepared, calls) = run(root.path(), &wanted, &[]);
        assert_eq!(calls, ["swapoff /swapfile", "modprobe ip_vs"]);
        assert!(prepared.changes.iter().any(|line| line == "net.ipv4.ip_forward = 1"), "{prepared:?}");
        let text = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(text("proc/sys/net/ipv4/ip_forward"), "1");
        assert!(text(SYSCTL_FILE).ends_with("net.ipv4.ip_forward = 1\n"));
        let modules = text(MODULES_FILE);
        assert!(modules.contains("ip_vs_rr\n") && !modules.contains("ip_vs_sh") && !modules.contains("br_netfilter"));
        assert!(text("etc/fstab").contains("# weft: off: /swapfile none swap"));
        assert_eq!(facts(root.path()).swaps, Ok(Vec::<SwapArea>::new()));

        let (again, calls) = run(root.path(), &wanted, &[]);
        assert_eq!(calls, ["modprobe ip_vs"], "the substituted facts still say that it is not loaded");
        assert_eq!(again.changes, ["module ip_vs is loaded"]);
    }

    #[test]
    fn p0_1_swap_on_compressed_memory_does_not_come_back() {
        let root = root();
        fs::write(
            root.path().join("proc/swaps"),
            "Filename Type Size Used Priority\n/dev/zram0 partition 1024 0 100\n",
        )
        .unwrap();
        let (_, calls) = run(root.path(), &wanted(root.path()), &[]);
        assert_eq!(calls[..2], ["swapoff /dev/zram0", "systemctl mask dev-zram0.swap"]);
    }

    #[test]
    fn p0_1_swap_that_the_kernel_keeps_stays_at_the_next_start_too() {
        let root = root();
        let wanted = wanted(root.path());
        let before = fs::read_to_string(root.path().join("etc/fstab")).unwrap();
        let mut journal = Journal::open(&wanted.paths).unwrap();
        let refusing = Recorder::new(|line| {
            Ok(Said { well: !line.starts_with("swapoff"), err: "Cannot allocate memory".into(), ..Said::default() })
        });
        let mut hand = Hand::new(&wanted.paths, &mut journal, &refusing);
        let refused = prepare(&mut hand, &facts(root.path()), &wanted, &[]).unwrap_err().to_string();
        assert!(refused.starts_with("swapoff /swapfile: Cannot allocate memory; "), "{refused}");
        assert!(refused.contains("--swap=tolerate"), "{refused}");
        assert_eq!(fs::read_to_string(root.path().join("etc/fstab")).unwrap(), before);
    }

    #[test]
    fn p0_1_swap_that_is_borne_is_not_touched() {
        let root = root();
        let wanted = Wanted { swap: SwapPolicy::Tolerate, ..wanted(root.path()) };
        let (_, calls) = run(root.path(), &wanted, &[]);
        assert!(!calls.iter().any(|call| call.starts_with("swapoff")), "{calls:?}");
        let found = super::super::checks::judge(&facts(root.path()), &wanted, &Default::default());
        assert!(found.kubelet.tolerate_swap);
    }

    #[test]
    fn p0_3_p0_4_with_fix_containerd_is_mended_and_without_nothing_of_it_touched() {
        let root = root();
        let mirrors = ["docker.io=https://m.example".parse().unwrap()];
        let wanted = wanted(root.path());
        let config = root.path().join(CONFIG);
        let (prepared, _) = run(root.path(), &wanted, &mirrors);
        assert_eq!(fs::read_to_string(&config).unwrap(), "disabled_plugins = [\"cri\"]\n");
        assert!(prepared.warnings[0].contains("config_path"), "{prepared:?}");
        assert!(root.path().join("etc/containerd/certs.d/docker.io/hosts.toml").exists());

        let wanted = Wanted { fix: true, ..wanted };
        let (prepared, calls) = run(root.path(), &wanted, &mirrors);
        let found = facts(root.path()).runtime.containerd.unwrap().unwrap();
        assert!(found.disabled.is_none() && found.config_path.is_some(), "{found:?}");
        assert!(calls.contains(&"systemctl restart containerd".to_owned()) && !prepared.restart_runtime);
        assert!(root.path().join("etc/containerd/config.toml.weft-saved").exists());
    }

    #[test]
    fn p0_2_with_fix_the_driver_is_systemds() {
        let root = root();
        let wanted = Wanted { fix: true, ..wanted(root.path()) };
        run(root.path(), &wanted, &[]);
        let found = facts(root.path()).runtime.containerd.unwrap().unwrap();
        assert_eq!(found.driver(), CgroupDriver::Systemd);
    }

    #[test]
    fn with_fix_firewalld_opens_what_is_needed() {
        let root = root();
        let wanted = Wanted { fix: true, prepare: false, ..wanted(root.path()) };
        let mut machine = facts(root.path());
        machine.firewalld = true;
        machine.firewalld_open = ["10250/tcp", "8472/udp", "2379-2380/tcp"].map(str::to_owned).into();
        let mut journal = Journal::open(&wanted.paths).unwrap();
        let tools = tools(root.path());
        prepare(&mut Hand::new(&wanted.paths, &mut journal, &tools), &machine, &wanted, &[]).unwrap();
        let calls = tools.calls.into_inner();
        let firewall: Vec<&String> = calls.iter().filter(|call| call.contains("--add")).collect();
        assert_eq!(
            firewall,
            [
                "firewall-cmd --permanent --add-port=6443/tcp",
                "firewall-cmd --add-port=6443/tcp",
                "firewall-cmd --permanent --add-source=10.244.0.0/16 --zone=trusted",
                "firewall-cmd --add-source=10.244.0.0/16 --zone=trusted"
            ]
        );
    }
}
