//! `kubeadm-flags.env`: the flags of kubelet's that are no part of its configuration (kubeadm `phases/kubelet/flags.go`).

use std::net::IpAddr;

use crate::bootstrap::config::model::Taint;
use crate::bootstrap::resolved::Node;
use crate::bootstrap::static_pods::command_line;

/// The variable that the unit's drop-in reads.
const VARIABLE: &str = "KUBELET_KUBEADM_ARGS";

/// What the node is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has a part of the control plane; its taints are put on by the API.
    ControlPlane,
    /// It registers with its taints.
    Worker,
}

/// A flag of kubelet's cannot be handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nodeRegistration.kubeletExtraArgs: {flag:?} holds a blank, a line feed or a quotation mark, at which kubelet's unit \
         would cut it; put the value into a KubeletConfiguration document instead"
)]
pub struct FlagError {
    /// The whole flag.
    pub flag: String,
}

/// The flags of this node's kubelet: its name if that is not the host's, a worker's taints, its addresses,
/// then the configuration's own. Without `addresses` kubelet finds its own; a second one is of the other family.
///
/// # Errors
/// [`FlagError`] for a value that a line of words cannot hold.
pub fn flags(node: &Node, role: Role, addresses: &[IpAddr]) -> Result<Vec<String>, FlagError> {
    let mut defaults = Vec::new();
    if node.name != node.hostname {
        defaults.push(("hostname-override", node.name.clone()));
    }
    if role == Role::Worker && !node.taints.is_empty() {
        defaults.push(("register-with-taints", node.taints.iter().map(taint).collect::<Vec<_>>().join(",")));
    }
    if !addresses.is_empty() {
        defaults.push(("node-ip", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")));
    }
    let flags = command_line(defaults, &node.registration.kubelet_extra_args);
    match flags
        .iter()
        .find(|flag| flag.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'\\$`".contains(c)))
    {
        Some(flag) => Err(FlagError { flag: flag.clone() }),
        None => Ok(flags),
    }
}

/// The file: one line, which systemd and a shell read alike.
///
/// # Errors
/// As [`flags`].
pub fn environment_file(node: &Node, role: Role, addresses: &[IpAddr]) -> Result<String, FlagError> {
    Ok(format!("{VARIABLE}=\"{}\"\n", flags(node, role, addresses)?.join(" ")))
}

/// The words of such a variable in such a file, whoever wrote it; none if it is not there.
#[must_use]
pub fn words(file: &str, variable: &str) -> Vec<String> {
    let value = |line: &str| line.trim().strip_prefix(variable)?.strip_prefix('=').map(str::to_owned);
    let value = file.lines().filter_map(value).next_back().unwrap_or_default();
    value.trim_matches(['"', '\'']).split_whitespace().map(Into::into).collect()
}

/// The words of kubeadm's variable.
#[must_use]
pub fn kubeadm_words(file: &str) -> Vec<String> {
    words(file, VARIABLE)
}

/// `key=value:effect`, as kubelet takes it.
fn taint(taint: &Taint) -> String {
    format!("{}={}:{}", taint.key, taint.value, taint.effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::config::model::Arg;
    use crate::bootstrap::static_pods::golden::node;

    fn named(name: &str) -> Node {
        Node { name: name.into(), hostname: "host".into(), ..node() }
    }

    #[test]
    fn i11_the_name_is_given_only_if_it_is_not_the_hosts() {
        let file = environment_file(&named("n1"), Role::ControlPlane, &[]).unwrap();
        assert_eq!(file, "KUBELET_KUBEADM_ARGS=\"--hostname-override=n1\"\n");
        assert_eq!(environment_file(&named("host"), Role::ControlPlane, &[]).unwrap(), "KUBELET_KUBEADM_ARGS=\"\"\n");
        let mut node = named("n1");
        node.registration.kubelet_extra_args = vec![Arg { name: "hostname-override".into(), value: "other".into() }];
        assert_eq!(flags(&node, Role::Worker, &[]).unwrap(), ["--hostname-override=other"]);
    }

    #[test]
    fn i12_a_worker_registers_with_its_taints_and_a_control_plane_does_not() {
        let mut node = named("host");
        node.taints = vec![
            Taint { key: "a".into(), value: "b".into(), effect: "NoSchedule".into() },
            Taint { key: "c".into(), value: String::new(), effect: "NoExecute".into() },
        ];
        let addresses = ["2001:db8::1", "192.0.2.1"].map(|text| text.parse().unwrap());
        let worker = flags(&node, Role::Worker, &addresses).unwrap();
        assert_eq!(worker, ["--node-ip=2001:db8::1,192.0.2.1", "--register-with-taints=a=b:NoSchedule,c=:NoExecute"]);
        assert!(flags(&node, Role::ControlPlane, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_value_that_would_be_cut_is_refused() {
        for value in ["a b", "a\nb", "a\"b", "$HOME"] {
            let mut node = named("host");
            node.registration.kubelet_extra_args = vec![Arg { name: "x".into(), value: value.into() }];
            let error = flags(&node, Role::Worker, &[]).unwrap_err().to_string();
            assert!(error.contains("kubeletExtraArgs") && error.contains("--x="), "{error}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = environment_file(&named("n1"), Role::Worker, &["192.0.2.1".parse().unwrap()]).unwrap();
        assert_eq!(kubeadm_words(&file), ["--hostname-override=n1", "--node-ip=192.0.2.1"]);
        assert_eq!(words("# x\nKUBELET_EXTRA_ARGS='--v=2'\n", "KUBELET_EXTRA_ARGS"), ["--v=2"]);
        assert!(kubeadm_words("").is_empty());
    }
}
