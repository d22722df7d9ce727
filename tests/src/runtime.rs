//! A container runtime in small: reads the conflist file on disk and calls the plugins as libcni does (cni.md 1.2, 1.7):
//! `name` and `cniVersion` forced from the list, `prevResult` along the chain, `runtimeConfig` by declared capability,
//! a cache of results for DEL.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::netns::Netns;
use crate::tool::{self, Output, Stdin};

/// What separates the runtimes in the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// libcni up to 1.1 (containerd 1.6 and 1.7): takes `cniVersion` as it is and knows no 1.1.0.
    Classic,
    /// libcni from 1.2 on: takes the newest of `cniVersions` that it knows; STATUS and GC from 1.1.0.
    Current,
}

impl Generation {
    fn versions(self) -> &'static [&'static str] {
        const ALL: [&str; 7] = ["1.1.0", "1.0.0", "0.4.0", "0.3.1", "0.3.0", "0.2.0", "0.1.0"];
        if self == Self::Current { &ALL } else { ALL.split_at(1).1 }
    }
}

/// One interface of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`; empty when the runtime has lost it.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// What the runtime offers by capability, e.g. `{"portMappings": […]}`.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// `eth0` of a container, with the arguments that Kubernetes runtimes pass.
    #[must_use]
    pub fn eth0(container: &str, netns: &Netns) -> Self {
        Self {
            container: container.to_owned(),
            netns: netns.path(),
            interface: "eth0".to_owned(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}"),
            capabilities: Map::new(),
        }
    }
}

/// A runtime on one node.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The node: plugins run in its namespace.
    pub host: Netns,
    /// Where conflists are; the first by name counts.
    pub conf_dir: PathBuf,
    /// `CNI_PATH`.
    pub bin_dirs: Vec<PathBuf>,
    /// Where results are kept between ADD and DEL.
    pub cache_dir: PathBuf,
    /// How new its libcni is.
    pub generation: Generation,
}

/// A loaded conflist.
struct List {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
    /// As it was read.
    text: Vec<u8>,
}

impl Runtime {
    /// Adds an attachment to the network and returns the last plugin's result.
    ///
    /// # Errors
    /// When there is no conflist, or a plugin refuses; the error holds the plugin's answer.
    pub fn add(&self, attachment: &Attachment) -> Result<Value> {
        let list = self.load()?;
        let mut previous = None;
        for plugin in &list.plugins {
            let answer = self.invoke("ADD", &list, plugin, attachment, previous.as_ref(), &[])?;
            previous = Some(tool::parse_json(&answer).context("ADD succeeded with")?);
        }
        let result = previous.context("the conflist holds no plugin")?;
        fs::create_dir_all(&self.cache_dir)?;
        let kept = json!({"kind": "cniCacheV1", "containerId": attachment.container, "ifName": attachment.interface,
            "networkName": list.name, "netns": attachment.netns, "config": STANDARD.encode(&list.text),
            "capabilityArgs": attachment.capabilities, "result": result});
        fs::write(self.cache(&list, attachment), kept.to_string())?;
        Ok(result)
    }

    /// Removes an attachment: the plugins in reverse, with the cached result if there is one.
    ///
    /// # Errors
    /// At the first plugin that refuses.
    pub fn del(&self, attachment: &Attachment) -> Result<()> {
        let list = self.load()?;
        let cache = self.cache(&list, attachment);
        let previous = self.cached(&list, attachment).filter(|_| at_least(&list.version, "0.4.0"));
        for plugin in list.plugins.iter().rev() {
            self.invoke("DEL", &list, plugin, attachment, previous.as_ref(), &[])?;
        }
        match fs::remove_file(&cache) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Checks an attachment. Versions before 0.4.0 know no CHECK: nothing happens.
    ///
    /// # Errors
    /// When the cache has no result of it, or a plugin objects.
    pub fn check(&self, attachment: &Attachment) -> Result<()> {
        let list = self.load()?;
        if !at_least(&list.version, "0.4.0") {
            return Ok(());
        }
        let previous = self.cached(&list, attachment).context("no cached result")?;
        for plugin in &list.plugins {
            self.invoke("CHECK", &list, plugin, attachment, Some(&previous), &[])?;
        }
        Ok(())
    }

    /// Asks the plugins whether the network is ready for pods. Versions before 1.1.0 know no STATUS.
    ///
    /// # Errors
    /// When there is no conflist, or a plugin says no.
    pub fn status(&self) -> Result<()> {
        self.for_network("STATUS", &[])
    }

    /// Has the plugins drop every attachment that is not in `valid`. Versions before 1.1.0 know no GC.
    ///
    /// # Errors
    /// At the first plugin that refuses.
    pub fn gc(&self, valid: &[Attachment]) -> Result<()> {
        let entries: Vec<Value> =
            valid.iter().map(|a| json!({"containerID": a.container, "ifname": a.interface})).collect();
        let entries = Value::Array(entries);
        self.for_network("GC", &[("cni.dev/valid-attachments", entries.clone()), ("cni.dev/attachments", entries)])
    }

    /// Brings up `lo` of a pod, by the network of its own that containerd has for it.
    ///
    /// # Errors
    /// When no plugin of that name is there, or it refuses.
    pub fn add_loopback(&self, attachment: &Attachment) -> Result<()> {
        let plugin = Map::from_iter([("type".to_owned(), json!("loopback"))]);
        let list = List { name: "cni-loopback".into(), version: "0.3.1".into(), plugins: Vec::new(), text: Vec::new() };
        let lo = Attachment { interface: "lo".into(), ..attachment.clone() };
        self.invoke("ADD", &list, &plugin, &lo, None, &[]).map(drop)
    }

    /// The name of the network that pods would join now.
    ///
    /// # Errors
    /// When there is no conflist.
    pub fn network(&self) -> Result<String> {
        self.load().map(|list| list.name)
    }

    fn for_network(&self, verb: &str, extra: &[(&str, Value)]) -> Result<()> {
        let list = self.load()?;
        if !at_least(&list.version, "1.1.0") {
            return Ok(());
        }
        let nobody = Attachment {
            container: String::new(),
            netns: PathBuf::new(),
            interface: String::new(),
            args: String::new(),
            capabilities: Map::new(),
        };
        for plugin in &list.plugins {
            self.invoke(verb, &list, plugin, &nobody, None, extra)?;
        }
        Ok(())
    }

    /// The first configuration by name, as containerd with `max_conf_num = 1` takes it.
    fn load(&self) -> Result<List> {
        let known = |path: &PathBuf| {
            path.extension()
                .is_some_and(|extension| extension == "conflist" || extension == "conf" || extension == "json")
        };
        let entries = fs::read_dir(&self.conf_dir).with_context(|| format!("no {}", self.conf_dir.display()))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(known).collect();
        paths.sort();
        let path = paths.first().with_context(|| format!("no network config found in {}", self.conf_dir.display()))?;
        let text = fs::read(path)?;
        let list = serde_json::from_slice(&text).with_context(|| format!("bad {}", path.display()))?;
        self.interpret(&list, text).with_context(|| format!("bad {}", path.display()))
    }

    fn interpret(&self, list: &Value, text: Vec<u8>) -> Result<List> {
        let name = list.get("name").and_then(Value::as_str).context("no name")?.to_owned();
        let plugins = match list.get("plugins") {
            Some(Value::Array(plugins)) => plugins.iter().filter_map(Value::as_object).cloned().collect(),
            Some(other) => bail!("plugins is no list: {other}"),
            None => list.as_object().cloned().into_iter().collect(),
        };
        let stated = list.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0");
        let offered: Vec<&str> = match list.get("cniVersions").and_then(Value::as_array) {
            Some(versions) if self.generation == Generation::Current => {
                versions.iter().filter_map(Value::as_str).chain([stated]).collect()
            }
            _ => vec![stated],
        };
        let version = self.generation.versions().iter().find(|known| offered.contains(known));
        let version = version.with_context(|| format!("this runtime knows none of {offered:?}"))?;
        Ok(List { name, version: (*version).to_owned(), plugins, text })
    }

    fn cache(&self, list: &List, attachment: &Attachment) -> PathBuf {
        self.cache_dir.join(format!("{}-{}-{}", list.name, attachment.container, attachment.interface))
    }

    /// The kept result. A cache that is missing or corrupt is no result, as with libcni on DEL.
    fn cached(&self, list: &List, attachment: &Attachment) -> Option<Value> {
        let kept: Value = serde_json::from_slice(&fs::read(self.cache(list, attachment)).ok()?).ok()?;
        kept.get("result").cloned()
    }

    fn invoke(
        &self,
        verb: &str,
        list: &List,
        plugin: &Map<String, Value>,
        attachment: &Attachment,
        previous: Option<&Value>,
        extra: &[(&str, Value)],
    ) -> Result<String> {
        let kind = plugin.get("type").and_then(Value::as_str).context("a plugin without type")?;
        let binary = self.find(kind)?;
        let mut config = plugin.clone();
        config.insert("name".into(), json!(list.name));
        config.insert("cniVersion".into(), json!(list.version));
        config.extend(previous.map(|result| ("prevResult".to_owned(), result.clone())));
        config.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let declared =
            |name: &str| plugin.get("capabilities").and_then(|all| all.get(name)) == Some(&Value::Bool(true));
        let offered: Map<String, Value> =
            attachment.capabilities.clone().into_iter().filter(|(name, _)| declared(name)).collect();
        if !offered.is_empty() {
            config.insert("runtimeConfig".into(), Value::Object(offered));
        }
        let output = self.execute(&binary, verb, attachment, &Value::Object(config))?;
        if output.exit != Some(0) {
            let (said, complained) = (output.stdout.trim(), output.stderr.trim());
            bail!("{kind} {verb} of {} ended with {:?}: {said} {complained}", attachment.container, output.exit);
        }
        Ok(output.stdout)
    }

    fn execute(&self, binary: &Path, verb: &str, attachment: &Attachment, config: &Value) -> Result<Output> {
        let path = std::env::join_paths(&self.bin_dirs)?;
        let mut command = tool::command(binary);
        // libcni sets all six, empty where they do not apply.
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &attachment.container)
            .env("CNI_NETNS", &attachment.netns)
            .env("CNI_IFNAME", &attachment.interface)
            .env("CNI_ARGS", &attachment.args)
            .env("CNI_PATH", path);
        self.host.run(|| tool::run_with(&mut command, Stdin::Bytes(config.to_string().as_bytes())))?
    }

    fn find(&self, kind: &str) -> Result<PathBuf> {
        let found = self.bin_dirs.iter().map(|folder| folder.join(kind)).find(|path| path.is_file());
        found.with_context(|| format!("failed to find plugin {kind:?} in path {:?}", self.bin_dirs))
    }
}

/// Compares versions of the specification, which are all one-digit triples.
fn at_least(version: &str, wanted: &str) -> bool {
    version >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::probe;
    use crate::scratch::{Scratch, unique_name};
    use std::time::Duration;

    fn runtime(host: &Netns, scratch: &Scratch, conflist: &Value) -> Runtime {
        fs::create_dir_all(scratch.join("net.d")).unwrap();
        fs::write(scratch.join("net.d/10-test.conflist"), conflist.to_string()).unwrap();
        Runtime {
            host: host.clone(),
            conf_dir: scratch.join("net.d"),
            bin_dirs: vec!["/usr/lib/cni".into()],
            cache_dir: scratch.join("results"),
            generation: Generation::Current,
        }
    }

    #[test]
    fn the_newest_common_version_is_taken_by_current_runtimes_only() {
        let (host, scratch) = (Netns::named("nowhere"), Scratch::new());
        let list =
            json!({"name": "n", "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "plugins": []});
        let mut runtime = runtime(&host, &scratch, &list);
        assert_eq!(runtime.load().unwrap().version, "1.1.0");
        runtime.generation = Generation::Classic;
        assert_eq!(runtime.load().unwrap().version, "1.0.0");
        fs::write(scratch.join("net.d/05-new.conflist"), json!({"name": "n", "cniVersion": "1.1.0"}).to_string())
            .unwrap();
        assert!(runtime.load().is_err());
    }

    #[test]
    fn the_reference_plugins_see_what_libcni_would_show_them() {
        if !Path::new("/usr/lib/cni/bridge").is_file() {
            crate::skip!("no containernetworking-plugins on this machine");
        }
        let (host, scratch) = (OwnedNetns::new(unique_name()), Scratch::new());
        let data = scratch.join("ipam");
        let runtime = runtime(
            &host,
            &scratch,
            &json!({"name": "ref", "cniVersion": "0.4.0", "plugins": [
                {"type": "bridge", "bridge": "br0", "isDefaultGateway": true,
                 "ipam": {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": data}},
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ]}),
        );
        let pod = OwnedNetns::bare(unique_name());
        let attachment = Attachment::eth0("c1", &pod);
        runtime.add_loopback(&attachment).unwrap();
        let result = runtime.add(&attachment).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
        runtime.check(&attachment).unwrap();
        for (from, to) in [(&*host, "10.9.0.2"), (&*pod, "10.9.0.1"), (&*pod, "127.0.0.1")] {
            assert!(probe::ping(from, to.parse().unwrap(), Duration::from_secs(2)).unwrap().is_some(), "{to}");
        }
        runtime.del(&attachment).unwrap();
        assert_eq!(fs::read_dir(scratch.join("results")).unwrap().count(), 0);
        assert!(!data.join("ref/10.9.0.2").exists());
    }
}
