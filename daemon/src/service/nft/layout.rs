//! Names and shapes of all sets and chains that Services live in.
//!
//! What differs from Service to Service is in elements of a few named sets. Verdict maps are small on purpose: whenever one
//! of them changes, the kernel walks every path through all chains, so that a map with an element for each Service that
//! leads to another such map costs the product of both.

use weft_netlink::nft::{Field, Set};

use crate::cluster::Family;

/// Which way a frontend leads, the lowest bits of the number that a frontend has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Entrance {
    /// A cluster IP: everybody to all backends.
    Cluster = 0,
    /// A cluster IP with the internal policy Local.
    Local = 1,
    /// An external frontend: everybody is masqueraded and goes to all backends.
    External = 2,
    /// An external frontend with the external policy Local.
    ExternalLocal = 3,
}

impl Entrance {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Cluster, Self::Local, Self::External, Self::ExternalLocal];
    /// The bits of a frontend's number that hold it. The others are the id of the Service's port.
    pub(super) const MASK: u32 = 7;

    /// Its number.
    #[must_use]
    pub(super) const fn number(self) -> u32 {
        self as u32
    }

    /// The chain for frontends that are addresses and ports.
    #[must_use]
    pub(super) const fn chain(self) -> &'static str {
        match self {
            Self::Cluster => "svc-cluster",
            Self::Local => "svc-local",
            Self::External => "svc-ext",
            Self::ExternalLocal => "svc-ext-local",
        }
    }

    /// The chain for frontends that are node ports.
    #[must_use]
    pub(super) const fn port_chain(self) -> &'static str {
        match self {
            Self::Cluster => "svc-port-cluster",
            Self::Local => "svc-port-local",
            Self::External => "svc-port-ext",
            Self::ExternalLocal => "svc-port-ext-local",
        }
    }
}

/// The bit that tells a port's list of local backends from its list of all backends.
pub(super) const LOCAL_LIST: u32 = 1;

/// A (client, Service) pair takes one element. Beyond that, new clients are balanced without being remembered. The kernel
/// makes the table at once: 2 MiB each.
const AFFINITY_SIZE: u32 = 1 << 17;

/// A named set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum SetId {
    /// Cluster IPs with a port.
    ClusterIps(Family),
    /// Which packets load balancers with source ranges are asked about.
    Restricted(Family),
    /// From where they may come.
    Allowed(Family),
    /// Pods of this node that may be led to themselves.
    Hairpin(Family),
    /// List and index to backend, of lists whose clients do not stay.
    Backends(Family),
    /// Tag and list to backend, of lists whose clients stay.
    Tagged(Family),
    /// List and index to tag, of lists whose clients stay.
    Tags,
    /// Client and id to tag, written by rules.
    Affinity(Family),
    /// List to class.
    Sizes,
    /// Ids of those whom nobody serves anywhere.
    NoEndpoints,
    /// Frontend to id and entrance.
    Frontends(Family),
    /// Node port to id and entrance.
    NodePorts,
    /// ipvs mode: cluster IPs that nobody may serve here.
    Blocked(Family),
    /// ipvs mode: cluster IPs that IPVS serves.
    Doors(Family),
    /// Addresses that take node ports.
    NodePortIps(Family),
    /// The service networks.
    ServiceCidrs(Family),
    /// Class to its chain.
    Balancers,
    /// Entrance to its chain.
    Entrances,
    /// Entrance of a node port to its chain.
    PortEntrances,
}

impl SetId {
    /// All sets. Elements are written in this order: a frontend stands behind what it leads to.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let both = |make: fn(Family) -> Self| Family::ALL.map(make);
        both(Self::ClusterIps)
            .into_iter()
            .chain(both(Self::Restricted))
            .chain(both(Self::Allowed))
            .chain(both(Self::Hairpin))
            .chain(both(Self::Backends))
            .chain(both(Self::Tagged))
            .chain(both(Self::Affinity))
            .chain([Self::Tags, Self::Sizes, Self::NoEndpoints])
            .chain(both(Self::Frontends))
            .chain([Self::NodePorts])
            .chain(both(Self::Blocked))
            .chain(both(Self::Doors))
            .chain(both(Self::NodePortIps))
            .chain(both(Self::ServiceCidrs))
            .chain([Self::Balancers, Self::Entrances, Self::PortEntrances])
    }

    /// Its name.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        const fn of(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
            match family {
                Family::V4 => v4,
                Family::V6 => v6,
            }
        }
        match self {
            Self::ClusterIps(family) => of(family, "svc-cluster-ips4", "svc-cluster-ips6"),
            Self::Restricted(family) => of(family, "svc-restricted4", "svc-restricted6"),
            Self::Allowed(family) => of(family, "svc-allowed4", "svc-allowed6"),
            Self::Hairpin(family) => of(family, "svc-hairpin4", "svc-hairpin6"),
            Self::Backends(family) => of(family, "svc-backends4", "svc-backends6"),
            Self::Tagged(family) => of(family, "svc-tagged4", "svc-tagged6"),
            Self::Tags => "svc-tags",
            Self::Affinity(family) => of(family, "svc-affinity4", "svc-affinity6"),
            Self::Sizes => "svc-sizes",
            Self::NoEndpoints => "svc-no-endpoints",
            Self::Frontends(family) => of(family, "svc-frontends4", "svc-frontends6"),
            Self::NodePorts => "svc-nodeports",
            Self::Blocked(family) => of(family, "svc-blocked4", "svc-blocked6"),
            Self::Doors(family) => of(family, "svc-virtual4", "svc-virtual6"),
            Self::NodePortIps(family) => of(family, "svc-nodeport-ips4", "svc-nodeport-ips6"),
            Self::ServiceCidrs(family) => of(family, "svc-service-cidrs4", "svc-service-cidrs6"),
            Self::Balancers => "svc-balancers",
            Self::Entrances => "svc-entrances",
            Self::PortEntrances => "svc-port-entrances",
        }
    }

    /// Its shape.
    #[must_use]
    pub(super) fn definition(self) -> Set {
        let set = |key: &[Field]| Set::new(self.name(), key);
        let frontend = |family| [address(family), Field::Protocol, Field::Port];
        match self {
            Self::ClusterIps(family) => set(&[address(family)]),
            Self::Restricted(family) | Self::Blocked(family) | Self::Doors(family) => set(&frontend(family)),
            Self::Allowed(family) => set(&[address(family), Field::Protocol, Field::Port, address(family)]).intervals(),
            Self::Hairpin(family) => set(&[address(family), address(family)]),
            Self::Backends(family) | Self::Tagged(family) => {
                set(&[Field::Mark, Field::Mark]).values([address(family), Field::Port])
            }
            Self::Tags => set(&[Field::Mark, Field::Mark]).values([Field::Mark, Field::Mark]),
            Self::Affinity(family) => {
                let clients = set(&[address(family), Field::Mark]).values([Field::Mark, Field::Mark]);
                clients.dynamic().timeouts().size(AFFINITY_SIZE)
            }
            Self::Sizes => set(&[Field::Mark]).values([Field::Mark, Field::Mark, Field::Mark]),
            Self::NoEndpoints => set(&[Field::Mark]),
            Self::Frontends(family) => set(&frontend(family)).values([Field::Mark, Field::Mark]),
            Self::NodePorts => set(&[Field::Nfproto, Field::Protocol, Field::Port]).values([Field::Mark, Field::Mark]),
            Self::NodePortIps(family) | Self::ServiceCidrs(family) => set(&[address(family)]).intervals(),
            Self::Balancers => set(&[Field::Mark, Field::Mark]).verdicts(),
            Self::Entrances | Self::PortEntrances => set(&[Field::Mark]).verdicts(),
        }
    }

    /// Whether rules write its elements, so that nobody else has a say in them.
    #[must_use]
    pub(super) const fn is_written_by_rules(self) -> bool {
        matches!(self, Self::Affinity(_))
    }
}

/// The field that holds an address of the family.
fn address(family: Family) -> Field {
    match family {
        Family::V4 => Field::Ipv4,
        Family::V6 => Field::Ipv6,
    }
}

/// `NFPROTO_*` of the family (linux/netfilter.h).
pub(super) const fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
