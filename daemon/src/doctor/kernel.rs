//! What the kernel can do: VXLAN, nf_tables, IPVS and its schedulers, connection tracking, bridge netfilter.

use super::check::Group;
use super::{Check, Told};
use crate::config::ProxyMode;

const GROUP: Group = Group("kernel");

/// From this part of its table on connection tracking is called full, in per cent.
const FULL: u64 = 80;

/// Whether there is a module, as far as can be seen without loading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    /// It is loaded, built in, or in use.
    Present,
    /// It can be loaded.
    Loadable,
    /// The list of modules does not have it.
    Absent,
    /// There is no list of modules to look into.
    Untold,
}

/// What is asked of the kernel.
#[derive(Debug, Clone)]
pub struct KernelFacts {
    /// The module of VXLAN devices; `None` if the overlay is made of others.
    pub vxlan: Option<Module>,
    /// What the rules need and the kernel lacks, if anything.
    pub nf_tables: Told<Option<String>>,
    /// Whether it has IPVS.
    pub ipvs: Told<bool>,
    /// The scheduler of Services that ask for none, and its module.
    pub scheduler: (String, Module),
    /// How many flows are tracked, and how many may be.
    pub conntrack: Told<(u64, Option<u64>)>,
    /// Whether bridged packets pass netfilter's hooks, by IPv4's setting; `None` without `br_netfilter`.
    pub bridge_netfilter: Told<Option<bool>>,
    /// How Services are served: by what the agent says, and without it how they are to be.
    pub proxy_mode: ProxyMode,
}

/// The checks.
#[must_use]
pub fn judge(facts: &KernelFacts) -> Vec<Check> {
    vec![
        vxlan(facts.vxlan),
        nf_tables(facts),
        ipvs(facts),
        scheduler(facts),
        conntrack(&facts.conntrack),
        bridge(facts),
    ]
}

fn vxlan(module: Option<Module>) -> Check {
    let Some(module) = module else { return GROUP.moot("vxlan", "the overlay is made of other devices") };
    match module {
        Module::Present => GROUP.good("vxlan", "there"),
        Module::Loadable => GROUP.good("vxlan", "loads by itself when it is needed"),
        Module::Absent => GROUP.problem(
            "vxlan",
            "the kernel has no VXLAN devices (CONFIG_VXLAN, module vxlan)",
            "install the package with the kernel's further modules (linux-modules-extra-$(uname -r), kernel-modules-extra), then modprobe vxlan",
        ),
        Module::Untold => GROUP.unknown("vxlan", "no VXLAN device is there, and /lib/modules cannot be looked into from here"),
    }
}

fn nf_tables(facts: &KernelFacts) -> Check {
    if facts.proxy_mode == ProxyMode::None {
        return GROUP.moot("nf_tables", "weft serves no Services; what masquerade needs, the agent's filter says");
    }
    match &facts.nf_tables {
        Ok(None) => GROUP.good("nf_tables", "has every part that the rules are made of"),
        Ok(Some(lacks)) => GROUP.problem(
            "nf_tables",
            lacks.clone(),
            "load the modules that are named (modprobe), or use a kernel that has them",
        ),
        Err(reason) => GROUP.unknown("nf_tables", reason.clone()),
    }
}

fn ipvs(facts: &KernelFacts) -> Check {
    match (&facts.ipvs, facts.proxy_mode) {
        (_, ProxyMode::None | ProxyMode::Nftables) => GROUP.moot("ip_vs", "Services are not served by IPVS"),
        (Ok(true), _) => GROUP.good("ip_vs", "there"),
        (Ok(false), ProxyMode::Auto) => {
            GROUP.good("ip_vs", "the kernel has none, so proxy-mode auto serves Services by nftables")
        }
        (Ok(false), ProxyMode::Ipvs) => GROUP.problem(
            "ip_vs",
            "proxy-mode is ipvs, and the kernel has no IPVS (CONFIG_IP_VS, module ip_vs)",
            "modprobe ip_vs; where there is no such module, proxy-mode: nftables",
        ),
        (Err(reason), _) => GROUP.unknown("ip_vs", reason.clone()),
    }
}

fn scheduler(facts: &KernelFacts) -> Check {
    let (name, module) = &facts.scheduler;
    let check = format!("ip_vs_{name}");
    if facts.ipvs != Ok(true) || matches!(facts.proxy_mode, ProxyMode::None | ProxyMode::Nftables) {
        return GROUP.moot(check, "IPVS is not used");
    }
    match module {
        Module::Present | Module::Loadable => GROUP.good(check, "there"),
        Module::Absent => GROUP.problem(
            check.as_str(),
            format!("ipvs-scheduler is {name}, and the kernel does not have it"),
            format!("modprobe {check}, or another ipvs-scheduler (rr is in every kernel with IPVS)"),
        ),
        Module::Untold => GROUP.unknown(check, "/lib/modules cannot be looked into from here"),
    }
}

fn conntrack(count: &Told<(u64, Option<u64>)>) -> Check {
    match count {
        Ok((flows, Some(limit))) if *limit > 0 && flows * 100 >= limit * FULL => GROUP.problem(
            "conntrack",
            format!("{flows} of {limit} connections are tracked; beyond that new ones are dropped"),
            format!(
                "sysctl -w net.netfilter.nf_conntrack_max={} (and conntrack-max-per-core, conntrack-min of weft)",
                limit * 2
            ),
        ),
        Ok((flows, Some(limit))) => GROUP.good("conntrack", format!("{flows} of {limit} connections are tracked")),
        Ok((flows, None)) => GROUP.good("conntrack", format!("{flows} connections are tracked")),
        Err(reason) => GROUP.unknown("conntrack", reason.clone()),
    }
}

/// Services and masquerade work with and without (ARCHITECTURE.md); who filters pods by rules of his own needs it.
fn bridge(facts: &KernelFacts) -> Check {
    match &facts.bridge_netfilter {
        Ok(Some(true)) => GROUP.good("br_netfilter", "packets between pods of this node pass the rules of iptables"),
        Ok(Some(false)) => GROUP.good(
            "br_netfilter",
            "there and off: packets between pods of this node pass no rules of iptables; weft does not need it",
        ),
        Ok(None) => GROUP.good("br_netfilter", "not there; weft does not need it"),
        Err(reason) => GROUP.unknown("br_netfilter", reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn healthy() -> KernelFacts {
        KernelFacts {
            vxlan: Some(Module::Present),
            nf_tables: Ok(None),
            ipvs: Ok(true),
            scheduler: ("rr".into(), Module::Loadable),
            conntrack: Ok((5, Some(1000))),
            bridge_netfilter: Ok(Some(true)),
            proxy_mode: ProxyMode::Auto,
        }
    }

    fn outcome(facts: &KernelFacts, name: &str) -> Outcome {
        judge(facts).into_iter().find(|check| check.name == name).unwrap().outcome
    }

    #[test]
    fn a_kernel_that_has_everything_is_good() {
        assert!(judge(&healthy()).iter().all(|check| check.outcome == Outcome::Good));
        let without = KernelFacts { ipvs: Ok(false), bridge_netfilter: Ok(None), ..healthy() };
        assert!(judge(&without).iter().all(|check| matches!(check.outcome, Outcome::Good | Outcome::Moot)));
    }

    #[test]
    fn a_node_that_serves_nothing_needs_nothing() {
        let facts = KernelFacts {
            nf_tables: Ok(Some("CONFIG_NFT_NUMGEN".into())),
            ipvs: Ok(false),
            proxy_mode: ProxyMode::None,
            ..healthy()
        };
        for name in ["nf_tables", "ip_vs", "ip_vs_rr"] {
            assert_eq!(outcome(&facts, name), Outcome::Moot, "{name}");
        }
        let nft = KernelFacts { proxy_mode: ProxyMode::Nftables, ..facts };
        assert_eq!(outcome(&nft, "nf_tables"), Outcome::Problem);
    }

    #[test]
    fn what_is_missing_is_a_problem_and_what_cannot_be_asked_is_unknown() {
        let facts = KernelFacts {
            vxlan: Some(Module::Absent),
            nf_tables: Ok(Some("CONFIG_NFT_FIB_INET (module nft_fib_inet)".into())),
            ipvs: Ok(false),
            conntrack: Ok((800, Some(1000))),
            proxy_mode: ProxyMode::Ipvs,
            ..healthy()
        };
        for name in ["vxlan", "nf_tables", "ip_vs", "conntrack"] {
            assert_eq!(outcome(&facts, name), Outcome::Problem, "{name}");
        }
        assert_eq!(
            outcome(&KernelFacts { scheduler: ("mh".into(), Module::Absent), ..healthy() }, "ip_vs_mh"),
            Outcome::Problem
        );
        let dark = KernelFacts {
            vxlan: Some(Module::Untold),
            nf_tables: Err("no permission".into()),
            ipvs: Err("no permission".into()),
            conntrack: Err("no permission".into()),
            bridge_netfilter: Err("no permission".into()),
            ..healthy()
        };
        for name in ["vxlan", "nf_tables", "ip_vs", "conntrack", "br_netfilter"] {
            assert_eq!(outcome(&dark, name), Outcome::Unknown, "{name}");
        }
    }
}
