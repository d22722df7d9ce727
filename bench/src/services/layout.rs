//! The stand-in where there is no kube-proxy: its layout of nf_tables, loaded by nft(8). No daemon, no reading of the
//! cluster, no diffing: what kube-proxy needs beside is not in the figures, so they flatter it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_netlink::nft::TableFamily;
use weft_tests::netns::Netns;
use weft_tests::process::{self, ProcessId};
use weft_tests::tool;

use super::cluster::{Cluster, FLOW_PORT, cluster_ip, service_name};
use super::contenders::Contender;
use super::kernel::Frontends;

/// Elements of a command.
const AT_ONCE: usize = 1000;

/// nft and its file.
pub(crate) struct Layout {
    node: Netns,
    folder: PathBuf,
    process: Option<ProcessId>,
}

impl Layout {
    /// On a node, with its files in a folder that is there.
    pub(crate) fn new(node: &Netns, folder: PathBuf) -> Self {
        Self { node: node.clone(), folder, process: None }
    }
}

impl Contender for Layout {
    fn name(&self) -> &'static str {
        "kube-proxy's layout by nft"
    }

    fn provide(&mut self, cluster: &Cluster) -> Result<()> {
        let path = self.folder.join("layout.nft");
        std::fs::write(&path, layout(cluster)?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn publish(&self, number: u32, slice: &Value) -> Result<()> {
        let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let addresses: Vec<&str> = endpoints.iter().filter_map(|endpoint| endpoint["addresses"][0].as_str()).collect();
        let chain = chain(number);
        let script = format!("flush chain ip kube-proxy {chain}\n{}", rule(&chain, number, &addresses)?);
        let mut command = tool::command("nft");
        command.args(["-f", "-"]);
        let input = tool::Stdin::Bytes(script.as_bytes());
        let output = self.node.run(|| tool::run_with(&mut command, input))??;
        ensure!(output.exit == Some(0), "nft: {}", output.stderr.trim());
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let mut command = tool::command("nft");
        command.arg("-f").arg(self.folder.join("layout.nft"));
        self.process = Some(process::spawn(&self.node, &mut command, &self.folder.join("nft.log"))?);
        Ok(())
    }

    fn process(&self) -> Option<ProcessId> {
        self.process
    }

    fn frontends(&self) -> Frontends {
        Frontends { family: TableFamily::Ip, table: "kube-proxy", map: "service-ips" }
    }

    fn synced(&self) -> Result<bool> {
        Ok(self.process.is_some_and(|process| !process.alive()))
    }

    fn own_time(&self) -> Result<Option<Duration>> {
        Ok(None)
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn is_daemon(&self) -> bool {
        false
    }
}

/// One chain for each Service, whose rule holds its endpoints in a map without a name, and one element that leads there.
fn layout(cluster: &Cluster) -> Result<String> {
    let mut text = String::from(
        "table ip kube-proxy {\n\
         map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }\n\
         chain nat-prerouting { type nat hook prerouting priority -100; jump services; }\n\
         chain nat-output { type nat hook output priority -100; jump services; }\n}\n",
    );
    let numbers: Vec<u32> = (0..cluster.shape().services).collect();
    for number in &numbers {
        let chain = chain(*number);
        writeln!(text, "add chain ip kube-proxy {chain}")?;
        let addresses: Vec<String> = cluster.endpoints(*number).iter().map(ToString::to_string).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        text.push_str(&rule(&chain, *number, &addresses)?);
    }
    for numbers in numbers.chunks(AT_ONCE) {
        let element = |number: &u32| {
            let (protocol, port) = if *number == 0 { ("udp", FLOW_PORT) } else { ("tcp", 80) };
            format!("{} . {protocol} . {port} : goto {}", cluster_ip(*number), chain(*number))
        };
        let elements: Vec<String> = numbers.iter().map(element).collect();
        writeln!(text, "add element ip kube-proxy service-ips {{ {} }}", elements.join(", "))?;
    }
    Ok(text)
}

fn chain(number: u32) -> String {
    format!("service-{number:08X}-bench/{}/tcp/main", service_name(number))
}

fn rule(chain: &str, number: u32, addresses: &[&str]) -> Result<String> {
    let (protocol, port) = if number == 0 { ("udp", FLOW_PORT) } else { ("tcp", 8080) };
    let mut text = format!("add rule ip kube-proxy {chain} meta l4proto {protocol} dnat ip addr . port to ");
    write!(text, "numgen random mod {} map {{ ", addresses.len())?;
    for (i, address) in addresses.iter().enumerate() {
        write!(text, "{i} : {address} . {port}, ")?;
    }
    text.push_str("}\n");
    Ok(text)
}
