//! A private machine: its namespace, its folders, its pods, and calls of the plugin on it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{Conf, Outcome, Uplink};
use crate::binaries;
use crate::netns::{Netns, OwnedNetns};
use crate::scratch::{Scratch, unique_name};
use crate::tool::{self, Stdin};

/// A machine with nothing on it.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: OwnedNetns,
    /// Its folder.
    pub scratch: Scratch,
    plugin: PathBuf,
    pods: AtomicU32,
}

/// A container without network.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: OwnedNetns,
    /// Its container ID.
    pub id: String,
}

/// One call of the plugin, to be changed before it is made.
#[derive(Debug, Clone)]
pub struct Call {
    vars: Vec<(OsString, OsString)>,
    stdin: Option<Vec<u8>>,
    wrapper: Vec<OsString>,
    program: PathBuf,
}

impl Call {
    /// The same with an environment variable set, or taken away if empty.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.vars.retain(|(known, _)| known != name);
        if !value.as_ref().is_empty() {
            self.vars.push((name.into(), value.as_ref().to_owned()));
        }
        self
    }

    /// The same with other bytes on stdin.
    #[must_use]
    pub fn with_stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The same with a stdin that never ends.
    #[must_use]
    pub fn with_open_stdin(mut self) -> Self {
        self.stdin = None;
        self
    }

    /// The same, started by another program (`env --ignore-signal=…`, `strace …`).
    #[must_use]
    pub fn under(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }

    /// The same with another binary, e.g. the same one under another name.
    #[must_use]
    pub fn by(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// As a command, whose environment holds nothing else.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([self.program.as_os_str()]);
        let mut command = tool::command(words.next().unwrap_or_default());
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(self.vars.iter().cloned());
        command
    }
}

impl Host {
    /// A new machine with the plugin under test.
    ///
    /// # Panics
    /// When the plugin has not been built, or without root.
    #[must_use]
    pub fn new() -> Self {
        let plugin = binaries::find("weft-cni").unwrap_or_else(|error| panic!("{error:#}"));
        let netns = OwnedNetns::new(unique_name());
        Self { netns, scratch: Scratch::new(), plugin, pods: AtomicU32::new(0) }
    }

    /// The plugin.
    #[must_use]
    pub fn plugin(&self) -> &Path {
        &self.plugin
    }

    /// The folder where the plugin keeps its state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// The folder of host-local's reservations, which is not there unless a test writes it.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.join("networks")
    }

    /// The subnet file of this machine, which is not there unless a test writes it.
    #[must_use]
    pub fn subnet_file(&self) -> PathBuf {
        self.scratch.join("subnet.env")
    }

    /// A configuration of this machine: bridge `cni0`, default gateway, 10.88.0.0/24.
    #[must_use]
    pub fn conf(&self, version: &str) -> Conf {
        Conf::raw(json!({
            "cniVersion": version, "name": "net", "type": "weft-cni", "bridge": "cni0", "isDefaultGateway": true,
            "stateDir": self.state_dir(), "subnetFile": self.subnet_file(),
            "ipam": {"type": "host-local", "dataDir": self.data_dir(), "ranges": [[{"subnet": "10.88.0.0/24"}]]},
        }))
    }

    /// A new container with a namespace of its own.
    #[must_use]
    pub fn pod(&self) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        Pod { netns: OwnedNetns::bare(format!("{}-p{number}", self.netns.name())), id: format!("pod{number}") }
    }

    /// A call that can still be changed.
    #[must_use]
    pub fn call(&self, verb: &str, conf: &Conf, pod: &Pod, ifname: &str) -> Call {
        self.bare_call(verb, conf)
            .with("CNI_CONTAINERID", &pod.id)
            .with("CNI_NETNS", pod.netns.path())
            .with("CNI_IFNAME", ifname)
    }

    /// A call that names no container.
    #[must_use]
    pub fn bare_call(&self, verb: &str, conf: &Conf) -> Call {
        let call =
            Call { vars: Vec::new(), stdin: Some(conf.bytes()), wrapper: Vec::new(), program: self.plugin.clone() };
        call.with("CNI_COMMAND", verb).with("CNI_PATH", "/nowhere")
    }

    /// Makes a call.
    ///
    /// # Panics
    /// When the plugin cannot be started.
    #[must_use]
    pub fn make(&self, call: &Call) -> Outcome {
        let mut command = call.command();
        let stdin = call.stdin.as_deref().map_or(Stdin::HeldOpen, Stdin::Bytes);
        let output = self.netns.run(|| tool::run_with(&mut command, stdin)).and_then(|output| output);
        let output = output.unwrap_or_else(|error| panic!("{error:#}"));
        let words = call.vars.iter().map(|(name, value)| format!("{}={}", name.display(), value.display()));
        let input =
            call.stdin.as_deref().map(|bytes| String::from_utf8_lossy(bytes.get(..2000).unwrap_or(bytes)).into_owned());
        Outcome { output, what: format!("{} < {}", words.collect::<Vec<_>>().join(" "), input.unwrap_or_default()) }
    }

    /// ADD of `eth0`.
    #[must_use]
    pub fn add(&self, conf: &Conf, pod: &Pod) -> Outcome {
        self.make(&self.call("ADD", conf, pod, "eth0"))
    }

    /// DEL of `eth0`, without a previous result, as after a crash of the runtime.
    #[must_use]
    pub fn del(&self, conf: &Conf, pod: &Pod) -> Outcome {
        self.make(&self.call("DEL", conf, pod, "eth0"))
    }

    /// CHECK of `eth0` against what ADD returned.
    #[must_use]
    pub fn check(&self, conf: &Conf, pod: &Pod, previous: &Value) -> Outcome {
        self.make(&self.call("CHECK", &conf.clone().with("prevResult", previous.clone()), pod, "eth0"))
    }

    /// GC that keeps the given containers' `eth0`.
    #[must_use]
    pub fn gc(&self, conf: &Conf, valid: &[&Pod]) -> Outcome {
        let list: Vec<Value> = valid.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect();
        self.make(&self.bare_call("GC", &conf.clone().with("cni.dev/valid-attachments", list)))
    }

    /// STATUS.
    #[must_use]
    pub fn status(&self, conf: &Conf) -> Outcome {
        self.make(&self.bare_call("STATUS", conf))
    }

    /// The links of the machine, as `ip -d -j link` shows them.
    ///
    /// # Panics
    /// When `ip` fails.
    #[must_use]
    pub fn links(&self) -> Vec<Value> {
        links(&self.netns, &[])
    }

    /// One link of the machine.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == name)
    }

    /// The names of the machine's veth ends, but for that to a client outside.
    #[must_use]
    pub fn veths(&self) -> Vec<String> {
        let found = links(&self.netns, &["type", "veth"]);
        let names = found.iter().filter_map(|link| link["ifname"].as_str());
        names.filter(|name| *name != Uplink::LINK).map(str::to_owned).collect()
    }

    /// The records of attachments in the state folder.
    #[must_use]
    pub fn records(&self) -> Vec<PathBuf> {
        let networks = files(&self.state_dir());
        networks.iter().flat_map(|network| files(&network.join("att"))).collect()
    }

    /// That neither a veth nor a record is left. The kernel may take a moment to unlist a device whose namespace went.
    ///
    /// # Panics
    /// When something is left.
    pub fn assert_nothing_left(&self) {
        self.assert_attachments(0);
    }

    /// That there are as many veths and records as attachments.
    ///
    /// # Panics
    /// When there are not.
    pub fn assert_attachments(&self, count: usize) {
        let waited = crate::wait::until_ok(std::time::Duration::from_secs(5), "only live attachments", || {
            let (veths, records) = (self.veths(), self.records());
            if veths.len() == count && records.len() == count {
                Ok(())
            } else {
                Err(format!("want {count}, have veths {veths:?}, records {records:?}"))
            }
        });
        waited.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The elements of a map or set in the plugin's table, as nft shows them; none where there is no table.
    ///
    /// # Panics
    /// When nft's answer cannot be understood.
    #[must_use]
    pub fn nft_elements(&self, set: &str) -> Vec<Value> {
        let all = match self.netns.json("nft", &["list", "table", "inet", "weft-cni"]) {
            Ok(all) => all,
            Err(error) if format!("{error:#}").contains("No such file") => return Vec::new(),
            Err(error) => panic!("{error:#}"),
        };
        let objects = all["nftables"].as_array().cloned().unwrap_or_default();
        let found = objects.iter().find_map(|object| {
            [&object["map"], &object["set"]].into_iter().find(|found| found["name"] == set).cloned()
        });
        let found = found.unwrap_or_else(|| panic!("no {set} in {all}"));
        found["elem"].as_array().cloned().unwrap_or_default()
    }

    /// That the maps and sets of the plugin's table are empty.
    ///
    /// # Panics
    /// When one is not.
    pub fn assert_no_ports(&self) {
        for kind in ["address-ports", "ports", "own", "home", "masquerade-all"] {
            for family in ["4", "6"] {
                assert_eq!(self.nft_elements(&format!("{kind}{family}")), Vec::<Value>::new(), "{kind}{family}");
            }
        }
    }

    /// That no call has changed the machine: no link but `lo`, no record.
    ///
    /// # Panics
    /// When something is there.
    pub fn assert_untouched(&self) {
        let names: Vec<Value> = self.links().iter().map(|link| link["ifname"].clone()).filter(|n| n != "lo").collect();
        assert!(names.is_empty() && self.records().is_empty(), "touched: {names:?}, records {:?}", self.records());
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Pod {
    /// A link inside, as `ip -d -j link` shows it.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<Value> {
        links(&self.netns, &[]).into_iter().find(|link| link["ifname"] == name)
    }

    /// The addresses of a link inside, with prefix length, without link-local ones.
    ///
    /// # Panics
    /// When `ip` fails.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<String> {
        addresses(&self.netns, name)
    }

    /// The routes inside, of one family (`-4`, `-6`), of all tables but `local`.
    ///
    /// # Panics
    /// When `ip` fails.
    #[must_use]
    pub fn routes(&self, family: &str) -> Vec<Value> {
        let all = self.netns.objects("ip", &[family, "route", "show", "table", "all"]);
        let all = all.unwrap_or_else(|error| panic!("{error:#}"));
        all.into_iter().filter(|route| route["table"] != "local").collect()
    }
}

/// The addresses of a link, with prefix length, without link-local ones.
///
/// # Panics
/// When `ip` fails for another reason than that there is no such link.
#[must_use]
pub fn addresses(netns: &Netns, link: &str) -> Vec<String> {
    let listed = netns.objects("ip", &["addr", "show"]).unwrap_or_else(|error| panic!("{error:#}"));
    let ours = listed.iter().filter(|entry| entry["ifname"] == link);
    let infos = ours.flat_map(|entry| entry["addr_info"].as_array().cloned().unwrap_or_default());
    let global = infos.filter(|info| info["scope"] != "link");
    global.map(|info| format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"])).collect()
}

fn links(netns: &Netns, filter: &[&str]) -> Vec<Value> {
    let words: Vec<&str> = ["-d", "link", "show"].iter().chain(filter).copied().collect();
    netns.objects("ip", &words).unwrap_or_else(|error| panic!("{error:#}"))
}

/// The entries of a folder; none if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}
