//! Chains.

use super::Name;
use super::table::TableFamily;
use crate::codec::Attributes;
use crate::codec::Writer;

const NFTA_CHAIN_HANDLE: u16 = 2;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_HOOK_DEV: u16 = 3;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// Judges packets.
    Filter,
    /// Sees the first packet of each connection and sets up its address translation.
    Nat,
    /// Has a packet routed anew when it changed its mark or addresses (output hook only).
    Route,
}

impl ChainKind {
    const ALL: [(Self, &'static str); 3] = [(Self::Filter, "filter"), (Self::Nat, "nat"), (Self::Route, "route")];

    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// Where on a packet's way a base chain stands (`enum nf_inet_hooks`, `enum nf_dev_hooks`, linux/netfilter.h;
/// `NF_ARP_IN`, `NF_ARP_OUT`, linux/netfilter_arp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Before routing, whatever comes in.
    Prerouting,
    /// For this machine.
    Input,
    /// Through this machine.
    Forward,
    /// From this machine.
    Output,
    /// After routing, whatever goes out.
    Postrouting,
    /// At a device, before everything else. Needs a device.
    Ingress,
    /// At a device, after everything else (netdev tables, Linux 5.16). Needs a device.
    Egress,
}

impl Hook {
    const ALL: [Self; 7] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting, Self::Ingress, Self::Egress];

    fn number(self, family: TableFamily) -> u32 {
        match (self, family) {
            (Self::Prerouting, _) | (Self::Ingress, TableFamily::Netdev) | (Self::Input, TableFamily::Arp) => 0,
            (Self::Input, _) | (Self::Egress, TableFamily::Netdev) | (Self::Output, TableFamily::Arp) => 1,
            (Self::Forward, _) => 2,
            (Self::Output, _) => 3,
            (Self::Postrouting, _) => 4,
            (Self::Ingress, _) => 5,
            (Self::Egress, _) => 6,
        }
    }

    fn from_number(number: u32, family: TableFamily) -> Option<Self> {
        let is_of_family = |hook: &Self| match family {
            TableFamily::Netdev => matches!(hook, Self::Ingress | Self::Egress),
            TableFamily::Arp => matches!(hook, Self::Input | Self::Output),
            _ => true,
        };
        Self::ALL.into_iter().find(|hook| hook.number(family) == number && is_of_family(hook))
    }
}

/// What becomes of a packet that reaches the end of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It is gone.
    Drop,
}

/// How a base chain is attached to the packets' way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// What it may do.
    pub kind: ChainKind,
    /// Where it stands.
    pub hook: Hook,
    /// Its place among the chains at that hook, the smallest first; see [`crate::priority`].
    pub priority: i32,
    /// What becomes of packets that no rule judged.
    pub policy: Policy,
    /// The device, for the hooks that need one.
    pub device: Option<String>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name, unique in the table.
    pub name: Name,
    /// Where packets enter it; `None` for a chain that rules jump to.
    pub base: Option<BaseChain>,
}

impl Chain {
    /// A chain that rules jump to.
    pub fn regular(name: impl Into<Name>) -> Self {
        Self { name: name.into(), base: None }
    }

    /// A chain that packets enter at a hook, with policy accept.
    pub fn base(name: impl Into<Name>, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        let base = BaseChain { kind, hook, priority, policy: Policy::Accept, device: None };
        Self { name: name.into(), base: Some(base) }
    }

    /// The base chain with another policy; a regular chain has none, and stays as it is.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        if let Some(base) = &mut self.base {
            base.policy = policy;
        }
        self
    }

    /// The base chain bound to a device; a regular chain stays as it is.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        if let Some(base) = &mut self.base {
            base.device = Some(device.into());
        }
        self
    }

    /// Writes name, hook and policy.
    pub(super) fn write(&self, family: TableFamily, w: &mut Writer) {
        w.string(NFTA_CHAIN_NAME, &self.name);
        let Some(base) = &self.base else { return };
        w.nest(NFTA_CHAIN_HOOK, |w| {
            w.be32(NFTA_HOOK_HOOKNUM, base.hook.number(family));
            w.be32(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
            if let Some(device) = &base.device {
                w.string(NFTA_HOOK_DEV, device);
            }
        });
        w.string(NFTA_CHAIN_TYPE, base.kind.name());
        w.be32(NFTA_CHAIN_POLICY, if base.policy == Policy::Accept { NF_ACCEPT } else { NF_DROP });
    }
}

/// A chain as the kernel holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    /// The chain.
    pub chain: Chain,
    /// The kernel's number for it.
    pub handle: u64,
}

impl ChainInfo {
    pub(super) fn read(family: TableFamily, attributes: Attributes<'_>) -> Result<Self, String> {
        let name = attributes.string(NFTA_CHAIN_NAME).ok_or("a chain without a name")?;
        let base =
            attributes.nest(NFTA_CHAIN_HOOK).map(|hook| read_base(family, &name, attributes, hook)).transpose()?;
        let handle = attributes.be64(NFTA_CHAIN_HANDLE).unwrap_or_default();
        Ok(Self { chain: Chain { name: name.into(), base }, handle })
    }
}

fn read_base(
    family: TableFamily,
    name: &str,
    attributes: Attributes<'_>,
    hook: Attributes<'_>,
) -> Result<BaseChain, String> {
    let kind = attributes.string(NFTA_CHAIN_TYPE).unwrap_or_default();
    let (kind, _) = ChainKind::ALL
        .into_iter()
        .find(|(_, known)| *known == kind)
        .ok_or_else(|| format!("chain {name} is of the unknown type {kind:?}"))?;
    let number = hook.be32(NFTA_HOOK_HOOKNUM).ok_or_else(|| format!("chain {name} has no hook number"))?;
    Ok(BaseChain {
        kind,
        hook: Hook::from_number(number, family).ok_or_else(|| format!("chain {name} has the unknown hook {number}"))?,
        priority: hook.be32(NFTA_HOOK_PRIORITY).unwrap_or_default().cast_signed(),
        policy: if attributes.be32(NFTA_CHAIN_POLICY) == Some(NF_DROP) { Policy::Drop } else { Policy::Accept },
        device: hook.string(NFTA_HOOK_DEV),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_is_read_back_as_it_was_written() {
        for hook in Hook::ALL {
            let family = if hook == Hook::Egress { TableFamily::Netdev } else { TableFamily::Inet };
            assert_eq!(Hook::from_number(hook.number(family), family), Some(hook));
        }
        assert_eq!(Hook::from_number(0, TableFamily::Netdev), Some(Hook::Ingress));
    }
}
