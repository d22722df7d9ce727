//! Every netfilter hook priority that weft uses, in one place.
//!
//! At each hook the chains run from the smallest number to the largest. The kernel's own places are those of
//! `enum nf_ip_hook_priorities` (linux/netfilter_ipv4.h), the same for IPv6; weft's own choices are given relative to
//! them, each with its reason.

/// Before connection tracking: the only place for `notrack`.
pub const RAW: i32 = -300;

/// Where the kernel finds a packet's connection. Address translation must come after it.
pub const CONNTRACK: i32 = -200;

/// Where marks are usually set.
pub const MANGLE: i32 = -150;

/// Where destinations are usually rewritten (at output, IPVS follows at -99).
pub const DSTNAT: i32 = -100;

/// Where packets are usually judged.
pub const FILTER: i32 = 0;

/// Where sources are usually rewritten.
pub const SRCNAT: i32 = 100;

/// weft: host ports of pods. Before [`DSTNAT`], as only the first translation of a connection counts: a pod's host port
/// wins over a Service that names the same address and port, because the pod was told that it has the port.
pub const HOST_PORT_DNAT: i32 = DSTNAT - 5;

/// weft: the masquerade of pods that leave the cluster network. Before [`SRCNAT`], as only the first translation of a
/// connection counts: pods are masqueraded by weft's rule, with fully random ports, and not by a coarser one of another
/// tool. What weft leaves alone, a later chain may still translate.
pub const POD_MASQUERADE: i32 = SRCNAT - 10;

/// weft: the masquerade of connections through host ports. It stands in the plugin's table, the other in the agent's, and
/// two tables need two numbers for their order to be certain. This one is first: it is the narrower.
pub const HOST_PORT_MASQUERADE: i32 = POD_MASQUERADE - 5;

/// weft: the acceptance of forwarded pod traffic. In the usual place: an acceptance counts for its own chain alone, so
/// that being earlier would win nothing.
pub const FORWARD_ACCEPT: i32 = FILTER;

/// weft: what is judged before any translation, by the address that the client used: source ranges of load balancers, and
/// in ipvs mode which service addresses have a door. Before [`HOST_PORT_DNAT`], and far before IPVS.
pub const SERVICE_FIREWALL: i32 = DSTNAT - 10;

/// weft: where Services are translated. The usual place, behind [`HOST_PORT_DNAT`].
pub const SERVICE_DNAT: i32 = DSTNAT;

/// weft: what becomes of packets to Services that nobody serves.
pub const SERVICE_FILTER: i32 = FILTER;

/// weft: the masquerade that Services need. Before [`POD_MASQUERADE`], which would return at our mark or give a client's
/// connection another treatment, and behind [`HOST_PORT_MASQUERADE`], as a host port wins over a Service.
pub const SERVICE_MASQUERADE: i32 = SRCNAT - 12;
