//! Services in the lab: what a user asks for, written to etcd as the Kubernetes objects that it is.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Lab, NETWORK_PREFIX, PodRecord};
use crate::kube::{Allocation, ApiStore, Endpoint, Port, Service, Taken, slices_of};
use crate::probe::{Answer, Dialogue, Question, Transport};
use crate::process::{self, ProcessId};
use crate::{tool, wait};

/// The port at which the pods of a lab tell who they are.
pub const PROBE_PORT: u16 = 8080;

/// A Service as it is asked for. What is `None` or empty is chosen, or left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRequest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `ClusterIP`, `NodePort` or `LoadBalancer`; empty is the first.
    pub kind: String,
    /// Its ports; node ports are added if the type has them.
    pub ports: Vec<Port>,
    /// Its cluster IPs, at most one of a family.
    pub cluster_ips: Vec<IpAddr>,
    /// The pods behind it, by name; all if empty.
    pub pods: Vec<String>,
    /// The seconds of affinity of clients to pods.
    pub affinity: Option<u32>,
    /// Whether cluster IPs lead to pods of the client's node only.
    pub internal_local: bool,
    /// Whether external addresses lead to pods of the node that they reach only.
    pub external_local: bool,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of its load balancer.
    pub load_balancer_ips: Vec<IpAddr>,
    /// From where the load balancer may be used.
    pub source_ranges: Vec<String>,
}

impl Lab {
    /// The Kubernetes objects in the lab's etcd.
    ///
    /// # Errors
    /// When the lab has no etcd yet.
    pub fn api(&self) -> Result<ApiStore<'_>> {
        Ok(ApiStore::new(self.etcd()?, NETWORK_PREFIX))
    }

    /// Writes a Service and its slices, over those of that name if there are any, which keep their addresses and ports.
    ///
    /// # Errors
    /// When an address or a pod that is asked for is not to be had, or etcd refuses.
    pub fn add_service(&self, request: &ServiceRequest) -> Result<Service> {
        let api = self.api()?;
        let mut others = api.services()?;
        let same = |known: &Service| (known.namespace(), known.name()) == (&*request.namespace, &*request.name);
        let before = others.iter().position(same).map(|index| others.swap_remove(index));
        let mut taken = Taken::by(&others);
        let service = self.build(request, before.as_ref(), &mut taken)?;
        let pods = self.chosen_pods(&request.pods)?;
        let endpoints: Vec<Endpoint> =
            pods.iter().flat_map(|(node, pod)| pod.ips.iter().map(move |ip| Endpoint::ready(*ip, node))).collect();
        // The slices first: a Service that nobody serves yet would refuse its first clients.
        for slice in slices_of(&service, &endpoints) {
            api.put(&slice)?;
        }
        api.put(service.json())?;
        Ok(service)
    }

    /// Removes a Service and its slices.
    ///
    /// # Errors
    /// When there is none of that name, or etcd refuses.
    pub fn remove_service(&self, namespace: &str, name: &str) -> Result<()> {
        let api = self.api()?;
        let all = api.services()?;
        let found = all.iter().find(|service| (service.namespace(), service.name()) == (namespace, name));
        let known = || {
            let names = all.iter().map(|service| format!("{}/{}", service.namespace(), service.name()));
            format!("there is no Service `{namespace}/{name}`; there are {}", names.collect::<Vec<_>>().join(", "))
        };
        api.delete(found.with_context(known)?.json())?;
        for slice in api.slices(namespace, name)? {
            api.delete(&slice)?;
        }
        Ok(())
    }

    fn build(&self, request: &ServiceRequest, before: Option<&Service>, taken: &mut Taken) -> Result<Service> {
        let kept = before.map(Service::cluster_ips).unwrap_or_default();
        let families: &[bool] = if self.spec().dual_stack { &[false, true] } else { &[false] };
        let mut ips = Vec::new();
        for v6 in families {
            let of_family = |ips: &[IpAddr]| ips.iter().find(|ip| ip.is_ipv6() == *v6).copied();
            let wanted = of_family(&request.cluster_ips).or_else(|| of_family(&kept));
            ips.push(taken.cluster_ip(*v6, wanted.into())?);
        }
        if let Some(odd) = request.cluster_ips.iter().find(|ip| !ips.contains(ip)) {
            bail!("{odd} is of no family of this lab, or the second of its family");
        }
        let kind = if request.kind.is_empty() { "ClusterIP" } else { &request.kind };
        let mut service = Service::new(&request.namespace, &request.name, &ips);
        if kind != "ClusterIP" {
            service = service.kind(kind);
        }
        let before: BTreeMap<(String, Transport), u16> = before
            .map(Service::ports)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| Some(((port.name, port.transport), port.node_port?)))
            .collect();
        for port in &request.ports {
            let mut port = port.clone();
            if kind != "ClusterIP" {
                let kept = || before.get(&(port.name.clone(), port.transport)).copied();
                let wanted: Allocation<u16> = port.node_port.or_else(kept).into();
                port.node_port = Some(taken.node_port(port.transport, wanted)?);
            }
            service = service.port(&port);
        }
        if let Some(seconds) = request.affinity {
            service = service.affinity(seconds);
        }
        if request.internal_local {
            service = service.internal_local();
        }
        if request.external_local {
            service = service.external_local();
        }
        if !request.external_ips.is_empty() {
            service = service.external_ips(&request.external_ips);
        }
        if !request.load_balancer_ips.is_empty() {
            service = service.load_balancer(&request.load_balancer_ips, "VIP");
        }
        if !request.source_ranges.is_empty() {
            service = service.with("/spec/loadBalancerSourceRanges", request.source_ranges.clone());
        }
        Ok(service)
    }

    /// Nodes' names and pods, of those names or all.
    fn chosen_pods(&self, names: &[String]) -> Result<Vec<(&str, &PodRecord)>> {
        let all: Vec<(&str, &PodRecord)> =
            self.nodes().iter().flat_map(|node| node.pods.iter().map(|pod| (node.name.as_str(), pod))).collect();
        if names.is_empty() {
            return Ok(all);
        }
        let find = |name: &String| {
            let found = all.iter().find(|(_, pod)| pod.name == *name).copied();
            found.with_context(|| format!("there is no pod `{name}`"))
        };
        names.iter().map(find).collect()
    }

    /// Starts a server in every pod that has none: `program probe-server`, which tells who it is.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn serve_pods(&mut self, program: &Path) -> Result<()> {
        for name in self.nodes().iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            let node = self.node_mut(&name)?;
            let folder = node.folder.clone();
            for pod in node.pods.iter_mut().filter(|pod| !pod.server.is_some_and(ProcessId::alive)) {
                let mut command = tool::command(program);
                command.args(["probe-server", "--who", &pod.name, "--port", &PROBE_PORT.to_string()]);
                let log = folder.join(format!("{}.log", pod.name));
                pod.server = Some(process::spawn(&pod.netns, &mut command, &log)?);
            }
            self.state.save()?;
        }
        for pod in self.nodes().iter().flat_map(|node| &node.pods) {
            await_server(pod)?;
        }
        Ok(())
    }
}

fn await_server(pod: &PodRecord) -> Result<()> {
    let question = Question::new(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), PROBE_PORT));
    wait::until_ok(Duration::from_secs(10), &format!("the server in {}", pod.name), || {
        let answer = pod.netns.run(|| Dialogue::open(&question).map_or_else(|answer| answer, |open| open.ask()));
        match answer {
            Ok(Answer::Served { by, .. }) if by == pod.name => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    Ok(())
}
