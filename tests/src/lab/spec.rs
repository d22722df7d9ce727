//! What a lab shall be, and the names that follow from it.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::flannel_obstacle;
use crate::kube::{SERVICE_CIDR_V4, SERVICE_CIDR_V6};
use crate::scratch::unique_name;

/// Where the cluster's keys are in etcd.
pub const NETWORK_PREFIX: &str = "/coreos.com/network";
/// How many nodes fit into the underlay's /24 beside the gateway and the first ten addresses.
const MOST_NODES: u16 = 240;

/// What a lab shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The name that everything begins with: lower-case letters and digits.
    pub name: String,
    /// How many nodes.
    pub nodes: u16,
    /// How many pods on each node.
    pub pods: u16,
    /// How many of them flannel has: the last ones.
    #[serde(default)]
    pub flannel: u16,
    /// Whether the cluster network has both families.
    pub dual_stack: bool,
    /// The cluster network's configuration (net-conf.json), if it is not weft's default.
    pub network: Option<String>,
    /// Further arguments of every agent.
    pub agent_args: Vec<String>,
    /// Further environment of every agent.
    pub agent_env: Vec<(String, String)>,
}

impl Spec {
    /// A lab of that name with three nodes and two pods on each.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: 3,
            pods: 2,
            flannel: 0,
            dual_stack: false,
            network: None,
            agent_args: Vec::new(),
            agent_env: Vec::new(),
        }
    }

    /// A lab for one test: of a name of its own, with one pod on each node.
    #[must_use]
    pub fn test(nodes: u16) -> Self {
        Self { nodes, pods: 1, ..Self::named(unique_name()) }
    }

    /// The same with both families.
    #[must_use]
    pub fn dual_stack(mut self) -> Self {
        self.dual_stack = true;
        self
    }

    /// The same with so many nodes, the last ones, that flannel has.
    #[must_use]
    pub fn flannel(mut self, nodes: u16) -> Self {
        self.flannel = nodes;
        self
    }

    /// The same with a configuration of the cluster network.
    #[must_use]
    pub fn network(mut self, config: impl Into<String>) -> Self {
        self.network = Some(config.into());
        self
    }

    /// The same with further arguments of every agent.
    #[must_use]
    pub fn agent_args(mut self, args: &[&str]) -> Self {
        self.agent_args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// The same with a further environment variable of every agent.
    #[must_use]
    pub fn agent_env(mut self, name: &str, value: &str) -> Self {
        self.agent_env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with agents that serve Services of the lab's Service network, in that mode (`nftables`, `ipvs`, `auto`).
    #[must_use]
    pub fn services(self, mode: &str) -> Self {
        let both = format!("{SERVICE_CIDR_V4},{SERVICE_CIDR_V6}");
        let networks = if self.dual_stack { both.as_str() } else { SERVICE_CIDR_V4 };
        self.agent_args(&["--proxy-mode", mode, "--service-cidr", networks])
    }

    /// What is written to etcd before the first agent starts; nothing if the agents shall do that.
    pub(super) fn network_config(&self) -> Option<String> {
        const BOTH: &str =
            r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:244::/48","Backend":{"Type":"vxlan"}}"#;
        // flannel waits until there is one. By nf_tables: the compatibility layer of iptables wants modules that a machine may not
        // have.
        const FLANNEL: &str = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
        let own = || match (self.dual_stack, self.flannel) {
            (true, _) => Some(BOTH),
            (false, 0) => None,
            (false, _) => Some(FLANNEL),
        };
        self.network.clone().or_else(|| own().map(str::to_owned))
    }

    /// Refuses what cannot be built.
    pub(super) fn check(&self) -> Result<()> {
        check_name(&self.name)?;
        if self.nodes > MOST_NODES {
            bail!("{} nodes do not fit into the underlay: at most {MOST_NODES}", self.nodes);
        }
        if self.flannel > self.nodes || self.flannel > 0 && self.dual_stack {
            bail!("{} nodes of flannel's: at most {}, and none with both families", self.flannel, self.nodes);
        }
        match flannel_obstacle().filter(|_| self.flannel > 0) {
            Some(obstacle) => bail!(obstacle),
            None => Ok(()),
        }
    }
}

/// A dash would make the names of lab `a` and of lab `a-b` look alike; namespaces have to fit into a file name.
pub(super) fn check_name(name: &str) -> Result<()> {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !letters || name.is_empty() || name.len() > 32 {
        bail!("bad lab name `{name}`: want 1 to 32 lower-case letters and digits");
    }
    Ok(())
}

/// Whether a namespace belongs to the lab: `<lab>-underlay`, `<lab>-ext`, `<lab>-node7`,
/// `<lab>-node7-pod1`.
pub(super) fn is_of_lab(lab: &str, namespace: &str) -> bool {
    let Some(rest) = namespace.strip_prefix(lab).and_then(|rest| rest.strip_prefix('-')) else { return false };
    let numbered = |word: &str, kind: &str| {
        word.strip_prefix(kind).is_some_and(|n| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match rest.split_once('-') {
        None => rest == "underlay" || rest == "ext" || numbered(rest, "node"),
        Some((node, pod)) => numbered(node, "node") && numbered(pod, "pod"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_knows_its_own_namespaces_only() {
        for own in ["a-underlay", "a-ext", "a-node1", "a-node12-pod3"] {
            assert!(is_of_lab("a", own), "{own}");
        }
        for other in ["a", "a-", "a-b-node1", "ab-node1", "a-node", "a-node1-pod", "a-nodes", "a-node1-pod1-x"] {
            assert!(!is_of_lab("a", other), "{other}");
        }
    }

    #[test]
    fn names_with_dashes_are_refused() {
        assert!(check_name("lab2").is_ok());
        for bad in ["", "a-b", "A", "../x", &"x".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(Spec { nodes: 241, ..Spec::named("a") }.check().is_err());
        assert!(Spec::named("a").flannel(4).check().is_err());
        assert!(Spec::named("a").dual_stack().flannel(1).check().is_err());
    }
}
