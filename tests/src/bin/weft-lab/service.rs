//! `weft-lab service`, `weft-lab ask`, and the server that answers it.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use weft_tests::kube::{Port, Service};
use weft_tests::lab::{Lab, PROBE_PORT, ServiceRequest};
use weft_tests::probe::{self, Listeners, Question, Transport};

use crate::{Output, commands, show};

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceVerb {
    /// Write a Service over pods of the lab, and start a server in each pod that tells who it is.
    ///
    /// A Service of that name is replaced; it keeps the addresses and node ports that are not given.
    #[command(after_help = "Example:\n  weft-lab service add web --port 80 --type NodePort\n  \
weft-lab service add dns --port 53/udp --port 53 --pods node1-pod1,node2-pod1 --affinity 60\n  weft-lab ask node1-pod1 10.96.0.16:80")]
    Add(Box<Add>),
    /// Remove a Service and its slices.
    #[command(after_help = "Example:\n  weft-lab service rm web")]
    Rm {
        /// Its name, or `namespace/name`.
        service: Name,
    },
    /// Show the Services.
    #[command(after_help = "Example:\n  weft-lab service list --output json")]
    List,
}

/// What of a Service can be asked for.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Its name, or `namespace/name`; the namespace is `default` if not given.
    service: Name,
    /// A port that clients use: `80`, `53/udp`, `80/tcp`. Several may be given.
    #[arg(long, default_value = "80")]
    port: Vec<PortArg>,
    /// The port of the pods; their servers listen at the default.
    #[arg(long, default_value_t = PROBE_PORT)]
    target_port: u16,
    /// Its type.
    #[arg(long = "type", default_value = "ClusterIP")]
    kind: Kind,
    /// Its cluster IP, one of each family at most; a free one if not given.
    #[arg(long, value_delimiter = ',')]
    cluster_ip: Vec<IpAddr>,
    /// Its node port; a free one if not given. With several ports: in their order.
    #[arg(long, value_delimiter = ',')]
    node_port: Vec<u16>,
    /// The pods behind it: `all`, or names such as `node1-pod1`.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pods: Vec<String>,
    /// Lead a client to the same pod for so many seconds after its last connection.
    #[arg(long, value_name = "SECONDS")]
    affinity: Option<u32>,
    /// Whom cluster IPs lead to.
    #[arg(long, default_value = "Cluster")]
    internal_policy: Policy,
    /// Whom external addresses lead to.
    #[arg(long, default_value = "Cluster")]
    external_policy: Policy,
    /// Addresses that lead to it from outside.
    #[arg(long, value_delimiter = ',')]
    external_ip: Vec<IpAddr>,
    /// Addresses of its load balancer, of type LoadBalancer.
    #[arg(long, value_delimiter = ',')]
    lb_ip: Vec<IpAddr>,
    /// From where the load balancer may be used.
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    source_range: Vec<String>,
}

/// A type of Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(name = "ClusterIP")]
    ClusterIp,
    #[value(name = "NodePort")]
    NodePort,
    #[value(name = "LoadBalancer")]
    LoadBalancer,
}

/// A traffic policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    #[value(name = "Cluster")]
    Cluster,
    #[value(name = "Local")]
    Local,
}

/// `name` or `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    namespace: String,
    name: String,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        let letters = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !letters(namespace) || !letters(name) {
            return Err("want small letters, digits and dashes, as in web or shop/web".to_owned());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// A port and its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortArg(u16, Transport);

impl FromStr for PortArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, transport) = text.split_once('/').unwrap_or((text, "tcp"));
        let transport = Transport::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(transport));
        let number = number.parse::<u16>().ok().filter(|number| *number > 0);
        number.zip(transport).map(|(number, transport)| Self(number, transport)).ok_or_else(|| {
            "want a port from 1 to 65535, and its protocol if it is not TCP, as in 80 or 53/udp".to_owned()
        })
    }
}

/// A way to ask.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// `node1`, `node1-pod2`, or `outside` for a client on the underlay.
    place: String,
    /// The address and port, `10.96.0.16:80` or `[fd00:10:96::10]:80`.
    target: SocketAddr,
    /// How many times.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Over UDP.
    #[arg(long)]
    udp: bool,
    /// From this port.
    #[arg(long, default_value_t = 0)]
    source_port: u16,
}

/// Who answers in a pod.
#[derive(Debug, Args)]
pub(crate) struct ProbeServer {
    /// The name to answer with.
    #[arg(long)]
    who: String,
    /// The ports to listen at.
    #[arg(long, required = true)]
    port: Vec<u16>,
}

pub(crate) fn run(lab: &str, verb: ServiceVerb, output: Output) -> Result<ExitCode> {
    match verb {
        ServiceVerb::Add(add) => {
            let mut lab = Lab::open(lab)?;
            lab.serve_pods(&std::env::current_exe()?)?;
            let service = lab.add_service(&request(*add)?)?;
            services(&lab, &[service], output)
        }
        ServiceVerb::Rm { service } => {
            Lab::open(lab)?.remove_service(&service.namespace, &service.name)?;
            Ok(ExitCode::SUCCESS)
        }
        ServiceVerb::List => {
            let lab = Lab::open(lab)?;
            services(&lab, &lab.api()?.services()?, output)
        }
    }
}

fn services(lab: &Lab, services: &[Service], output: Output) -> Result<ExitCode> {
    let api = lab.api()?;
    let slices = services.iter().map(|service| api.slices(service.namespace(), service.name()));
    show::services(services, &slices.collect::<Result<Vec<_>>>()?, output)?;
    Ok(ExitCode::SUCCESS)
}

fn request(add: Add) -> Result<ServiceRequest> {
    if add.node_port.len() > add.port.len() {
        bail!("{} node ports for {} ports", add.node_port.len(), add.port.len());
    }
    if !add.node_port.is_empty() && add.kind == Kind::ClusterIp {
        bail!("a ClusterIP Service has no node port; want --type NodePort or LoadBalancer");
    }
    let one = add.port.len() == 1;
    let port = |(index, PortArg(number, transport)): (usize, &PortArg)| Port {
        // Only a Service of one port may leave its name out.
        name: if one { String::new() } else { format!("{}-{number}", transport.name().to_lowercase()) },
        transport: *transport,
        port: *number,
        target: add.target_port,
        node_port: add.node_port.get(index).copied(),
    };
    Ok(ServiceRequest {
        namespace: add.service.namespace,
        name: add.service.name,
        kind: add.kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
        ports: add.port.iter().enumerate().map(port).collect(),
        cluster_ips: add.cluster_ip,
        pods: if add.pods == ["all"] { Vec::new() } else { add.pods },
        affinity: add.affinity,
        internal_local: add.internal_policy == Policy::Local,
        external_local: add.external_policy == Policy::Local,
        external_ips: add.external_ip,
        load_balancer_ips: add.lb_ip,
        source_ranges: add.source_range,
    })
}

pub(crate) fn ask(lab: &str, ask: &Ask, output: Output) -> Result<ExitCode> {
    let netns = if ask.place == "outside" {
        Lab::open(lab)?.outside()?
    } else {
        let view = commands::look(lab)?;
        view.namespace(&ask.place).with_context(|| format!("there is no node or pod `{}`", ask.place))?
    };
    let transport = if ask.udp { Transport::Udp } else { Transport::Tcp };
    let question = Question { transport, source_port: ask.source_port, ..Question::new(ask.target) };
    // A fixed port can be used by one question at a time.
    let outcome = probe::ask(&netns, &question, ask.count, if ask.source_port == 0 { 4 } else { 1 })?;
    show::outcome(&outcome, output)?;
    Ok(commands::code(outcome.served() == outcome.asked()))
}

pub(crate) fn serve(server: &ProbeServer) -> Result<ExitCode> {
    let listeners = Listeners::bind(&server.who, &server.port)?;
    // Its end is the end of the process: nothing is ever sent over this pair.
    let (_open, silent) = UnixStream::pair()?;
    listeners.serve(std::os::fd::AsFd::as_fd(&silent))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports_are_what_kubernetes_would_take() {
        assert_eq!("web".parse(), Ok(Name { namespace: "default".into(), name: "web".into() }));
        assert_eq!("shop/web".parse(), Ok(Name { namespace: "shop".into(), name: "web".into() }));
        assert_eq!("53/UDP".parse(), Ok(PortArg(53, Transport::Udp)));
        for bad in ["Web", "a/b/c", "/", ""] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        for bad in ["0", "80/icmp", "65536", ""] {
            assert!(bad.parse::<PortArg>().is_err(), "{bad}");
        }
    }
}
