//! Chains in tables of iptables-legacy, which only its own tools see: the command that removes them. Pure.

use sha2::{Digest, Sha512};

use super::rules::{FLANNEL_FORWARD, FLANNEL_MASQUERADE, KUBE_PROXY_CHAINS, KUBE_PROXY_PARTS};

/// The longest name that the plugins give a chain.
const CHAIN_NAME: usize = 28;

/// The command that cleans them, for both families. Beside kube-proxy's and flannel's chains, those of portmap go that
/// belong to these containers of a network.
#[must_use]
pub fn command(network: &str, containers: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let whole = KUBE_PROXY_CHAINS.into_iter().chain([FLANNEL_MASQUERADE, FLANNEL_FORWARD]).map(str::to_owned);
    let parts = KUBE_PROXY_PARTS.into_iter().map(|prefix| format!("{prefix}[^ ]*"));
    let of_portmap = containers.into_iter().map(|container| portmap_chain(network, container.as_ref()));
    let names: Vec<String> = whole.chain(parts).chain(of_portmap).collect();
    let pattern = format!("(^:|-[Ajg] )({})( |$)", names.join("|"));
    format!("for i in iptables ip6tables; do $i-legacy-save | grep -vE '{pattern}' | $i-legacy-restore; done")
}

/// portmap's chain of a container: its name is made of a hash (containernetworking/plugins, `pkg/utils`).
fn portmap_chain(network: &str, container: &str) -> String {
    let mut hash = Sha512::new();
    hash.update(network);
    hash.update(container);
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("CNI-DN-{digits}");
    name.get(..CHAIN_NAME).unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chain_that_is_known_is_in_the_command_and_no_neighbour_is() {
        let told = command("cbr0", ["web"]);
        for name in ["KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER"] {
            assert!(told.contains(&format!("|{name}|")), "{name}: {told}");
        }
        assert!(told.contains("KUBE-XLB-[^ ]*") && told.contains(&portmap_chain("cbr0", "web")), "{told}");
        assert!(!told.contains("CNI-HOSTPORT") && !told.contains("KUBE-FIREWALL"));
        assert_eq!(command("cbr0", [""; 0]).matches("CNI-").count(), 0);
    }

    #[test]
    fn portmaps_chains_are_known_by_name() {
        assert_eq!(portmap_chain("cbr0", "web"), "CNI-DN-47d194b1b0906d04fddc1");
    }
}
