//! What is there already: ports, files, other clusters, other nodes that look the same. What an earlier run of weft's left is
//! no fault: it goes on from there.

use std::path::Path;

use crate::bootstrap::host::facts::{HostFacts, OwnRun};
use crate::bootstrap::host::report::Finding;
use crate::bootstrap::host::wanted::{Port, Wanted};
use crate::bootstrap::static_pods::Helper;

pub(super) fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(ports(facts, wanted));
    findings.extend(files(facts, wanted));
    findings.extend(data(facts, wanted));
    findings.extend(facts.others.iter().map(|other| {
        Finding::warning(
            "OtherCluster",
            format!("this machine has been a node of another kind: {other}"),
            "take that away first with its own uninstaller, if it still runs",
        )
    }));
    findings
}

fn ports(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let taken = wanted.ports().into_iter().filter_map(|Port { number: port, component, program, .. }| {
        let holder = facts.taken.get(&port)?;
        // A name is cut after 15 characters.
        let is_it =
            holder.name.as_deref().is_none_or(|name| program.starts_with(name) && name.len() >= program.len().min(15));
        if is_it && is_ours(component, &facts.own, wanted) {
            return None;
        }
        let who = match (&holder.name, holder.pid) {
            (Some(name), Some(pid)) => format!("by {name} (process {pid})"),
            _ => "by a process that cannot be told".to_owned(),
        };
        let fix = match holder.pid {
            Some(pid) if is_it => {
                format!("it is another cluster's {component}: weft reset or kubeadm reset, or end process {pid}")
            }
            Some(pid) => format!("end process {pid}, or have it listen elsewhere"),
            None => format!("ss -lntp 'sport = :{port}' tells whose it is; end that process"),
        };
        let knob = match component {
            "kube-apiserver" => "; or choose --apiserver-bind-port",
            _ if component == Helper::Balancer.name() => "; or choose another apiBalancerPort in a WeftConfiguration",
            _ => "",
        };
        Some(Finding::error(
            format!("Port-{port}"),
            format!("port {port} is taken {who}; {component} needs it"),
            fix + knob,
        ))
    });
    taken.collect()
}

/// Whether an earlier run of weft's has begun to start that component. Phases of a join begin with the same words.
fn is_ours(component: &str, own: &OwnRun, wanted: &Wanted) -> bool {
    let begun = |word: &str| own.phases.iter().any(|phase| phase.starts_with(word));
    match component {
        "kubelet" => begun("kubelet"),
        "etcd" => own.files.contains(&manifest(component, wanted)) || begun("etcd"),
        _ if component == Helper::Balancer.name() => begun("weft-helpers"),
        _ => own.files.contains(&manifest(component, wanted)) || begun("control-plane"),
    }
}

fn manifest(component: &str, wanted: &Wanted) -> std::path::PathBuf {
    wanted.paths.manifests().join(format!("{component}.yaml"))
}

/// Whether a file is an earlier run's. Static pods are told by their component; kubeconfigs and certificates, some of which
/// kubelet writes itself, by any phase after the checks.
fn is_our_file(path: &Path, own: &OwnRun, wanted: &Wanted) -> bool {
    let component = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let by_phase = if path.starts_with(wanted.paths.manifests()) {
        is_ours(component, own, wanted)
    } else {
        own.phases.iter().any(|phase| !phase.starts_with("preflight"))
    };
    by_phase || own.files.contains(path)
}

fn files(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let in_the_way =
        wanted.files().into_iter().filter(|path| facts.there.contains(path) && !is_our_file(path, &facts.own, wanted));
    let findings = in_the_way.map(|path| {
        Finding::error(
            format!("FileAvailable-{}", name_of(&path, &wanted.paths.root)),
            format!("{} is there, and weft has not made it", path.display()),
            "this machine belongs to a cluster already: weft reset (or kubeadm reset) takes it out",
        )
    });
    findings.collect()
}

fn data(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let path = wanted.etcd_data.as_ref()?;
    let own = is_ours("etcd", &facts.own, wanted);
    (facts.there.contains(path) && !own && !facts.own.files.contains(path)).then(|| {
        Finding::error(
            format!("DirAvailable-{}", name_of(path, &wanted.paths.root)),
            format!("{} holds something, and etcd would take it for its own data", path.display()),
            "move it away if it is worth keeping; weft reset empties it",
        )
    })
}

/// kubeadm makes a check's name of a path so.
fn name_of(path: &Path, root: &Path) -> String {
    let inner = path.strip_prefix(root).unwrap_or(path);
    format!("/{}", inner.display()).replace('/', "-")
}

/// What another node of the cluster says of itself (`status.nodeInfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The Node's name.
    pub name: String,
    /// `machineID`.
    pub machine_id: String,
    /// `systemUUID`.
    pub system_uuid: String,
}

/// Nodes of the cluster that this machine cannot be told apart from: clones of one image. For join, once the cluster answers.
#[must_use]
pub fn duplicates(facts: &HostFacts, own_name: &str, others: &[NodeIdentity]) -> Vec<Finding> {
    let identity = &facts.identity;
    let same = |mine: &Option<String>, theirs: &str| {
        mine.as_ref().is_some_and(|mine| !mine.is_empty() && mine.eq_ignore_ascii_case(theirs))
    };
    let others = others.iter().filter(|other| other.name != own_name);
    let findings = others.filter_map(|other| {
        if same(&identity.machine_id, &other.machine_id) {
            return Some(Finding::warning(
                "MachineID",
                format!("this machine has the same /etc/machine-id as node {}", other.name),
                "rm /etc/machine-id && systemd-machine-id-setup, then reboot",
            ));
        }
        same(&identity.product_uuid, &other.system_uuid).then(|| {
            Finding::warning(
                "ProductUUID",
                format!("this machine has the same product_uuid as node {}", other.name),
                "give the virtual machine an identity of its own",
            )
        })
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{WORKER, facts, init, names, report};
    use super::*;
    use crate::bootstrap::host::facts::{Holder, Identity};

    fn holder(name: &str) -> Holder {
        Holder { pid: Some(77), name: Some(name.into()) }
    }

    #[test]
    fn p01_everything_is_told_in_one_run() {
        let mut machine = facts();
        machine.swaps = Ok(vec![crate::bootstrap::host::facts::SwapArea {
            device: "/swap".into(),
            kind: "file".into(),
            priority: None,
        }]);
        machine.sysctls.insert("net/ipv4/ip_forward".into(), Some("0".into()));
        machine.taken.insert(6443, holder("nginx"));
        let found = report(&machine, &Wanted { prepare: false, ..init() });
        assert_eq!(names(&found), ["Swap", "FileContent--proc-sys-net-ipv4-ip_forward", "Port-6443"]);
        let port = found.get("Port-6443").unwrap();
        assert!(port.cause.contains("nginx (process 77)") && port.fix.contains("--apiserver-bind-port"), "{port:?}");
    }

    #[test]
    fn p0_7_ports_and_files_of_an_earlier_run_are_no_fault() {
        let wanted = init();
        let mut machine = facts();
        for Port { number, program, .. } in wanted.ports() {
            machine.taken.insert(number, holder(&program[..program.len().min(15)]));
        }
        machine.there.extend(wanted.files());
        machine.there.extend(wanted.etcd_data.clone());
        let foreign = report(&machine, &wanted);
        assert_eq!(foreign.errors, wanted.ports().len() + wanted.files().len() + 1, "{foreign}");
        assert!(foreign.get("FileAvailable--etc-kubernetes-manifests-etcd.yaml").is_some());
        assert!(foreign.get("DirAvailable--var-lib-etcd").is_some());

        machine.own.files.extend(wanted.files());
        machine.own.phases.extend(["etcd/local", "control-plane", "weft-helpers", "kubelet-start"].map(str::to_owned));
        let own = report(&machine, &wanted);
        assert!(own.is_passed(), "{own}");
        // Ours or not, somebody else holds the port.
        machine.taken.insert(6443, holder("nginx"));
        assert_eq!(names(&report(&machine, &wanted)), ["Port-6443"]);
    }

    #[test]
    fn p0_18_the_balancers_port_is_asked_for_where_there_is_to_be_one() {
        let mut machine = facts();
        machine.taken.insert(7443, holder("haproxy"));
        let found = report(&machine, &init());
        assert_eq!(names(&found), ["Port-7443"]);
        let port = found.get("Port-7443").unwrap();
        assert!(port.cause.contains("by haproxy (process 77); weft-api-balancer needs it"), "{port:?}");
        assert!(port.fix.contains("end process 77") && port.fix.contains("apiBalancerPort"), "{port:?}");
        for wanted in [
            Wanted { api_balancer_port: None, ..init() },
            Wanted { api_balancer_port: Some(7444), ..init() },
            Wanted { has_stable_name: false, ..init() },
        ] {
            assert!(report(&machine, &wanted).is_passed());
        }
        let worker = Wanted { role: WORKER, etcd_data: None, ..init() };
        assert_eq!(names(&report(&machine, &worker)), ["Port-7443"]);

        // Another node's weft, until this one has begun to start its own.
        machine.taken.insert(7443, holder("weft"));
        let found = report(&machine, &worker);
        assert!(found.get("Port-7443").unwrap().fix.contains("another cluster's weft-api-balancer"), "{found}");
        machine.own.phases.insert("weft-helpers".to_owned());
        assert!(report(&machine, &worker).is_passed());
    }

    #[test]
    fn a_worker_asks_for_its_own_files_only() {
        let wanted = Wanted { role: WORKER, etcd_data: None, ..init() };
        let mut machine = facts();
        machine.there.extend(["/etc/kubernetes/kubelet.conf".into(), "/etc/kubernetes/pki/ca.crt".into()]);
        machine.taken.insert(6443, holder("haproxy"));
        let begun = HostFacts {
            own: OwnRun { phases: ["kubelet-start".to_owned()].into(), ..OwnRun::default() },
            ..machine.clone()
        };
        assert!(report(&begun, &wanted).is_passed(), "a join that was begun goes on");
        let found = report(&machine, &wanted);
        let expected = ["FileAvailable--etc-kubernetes-kubelet.conf", "FileAvailable--etc-kubernetes-pki-ca.crt"];
        assert_eq!(names(&found), expected);
    }

    #[test]
    fn clones_of_one_image_are_told() {
        let machine = HostFacts {
            identity: Identity { machine_id: Some("1f".into()), product_uuid: Some("AB-1".into()) },
            ..facts()
        };
        let other = |name: &str, machine_id: &str, system_uuid: &str| NodeIdentity {
            name: name.into(),
            machine_id: machine_id.into(),
            system_uuid: system_uuid.into(),
        };
        let others = [other("n1", "1f", "x"), other("n2", "1f", "x"), other("n3", "2", "ab-1"), other("n4", "3", "y")];
        let found = duplicates(&machine, "n1", &others);
        let names: Vec<&str> = found.iter().map(|finding| finding.name.as_str()).collect();
        assert_eq!(names, ["MachineID", "ProductUUID"]);
        assert!(found[0].cause.contains("n2"), "the node itself, joined again, is none of them");
    }
}
