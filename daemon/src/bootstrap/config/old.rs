//! What older versions, and the tutorials of their time, say, in the terms of today.

use serde_json::{Map, Value};

use super::documents::{Document, Documents, Kind};
use super::finding::Weight;
use super::shape::Version;
use super::tree::Position;

/// The master's taint of before 1.24, and what it is called since.
const OLD_TAINT: &str = "node-role.kubernetes.io/master";
/// Taint of the nodes of the control plane.
pub(super) const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";
/// Registries of the images of Kubernetes that nothing new comes to.
const OLD_REPOSITORIES: [&str; 3] = ["k8s.gcr.io", "gcr.io/google_containers", "gcr.io/google-containers"];
const REPOSITORY: &str = "registry.k8s.io";
/// kubelet's flags that it no longer knows, and would not start with (Kubernetes 1.24 and 1.27).
const OLD_KUBELET_FLAGS: [&str; 7] = [
    "network-plugin",
    "cni-conf-dir",
    "cni-bin-dir",
    "cni-cache-dir",
    "container-runtime",
    "docker-endpoint",
    "image-pull-progress-deadline",
];

/// Rewrites what has another place or another name now, and notes it.
pub(super) fn modernize(documents: &mut Documents) {
    let mut notes = Vec::new();
    let mut timeouts = Vec::new();
    for (kind, document) in &mut documents.found {
        let mut old = Old { document, notes: &mut notes };
        match kind {
            Kind::Init => old.registration(),
            Kind::Join => {
                old.registration();
                let timeout = old.take("discovery", "timeout");
                timeouts.extend(timeout.map(|(value, at)| (Kind::Join, "discovery", value, at)));
            }
            Kind::Cluster => {
                let timeout = old.take("apiServer", "timeoutForControlPlane");
                let field = "controlPlaneComponentHealthCheck";
                timeouts.extend(timeout.map(|(value, at)| (Kind::Init, field, value, at)));
                old.cluster();
            }
            Kind::Reset | Kind::Upgrade | Kind::Kubelet | Kind::KubeProxy | Kind::Weft => {}
        }
    }
    for (kind, field, value, at) in timeouts {
        // Without the other documents of an init or a join, a file of the cluster alone is still one.
        let document = documents.entry(kind, at);
        document.positions.entry(format!("timeouts.{field}")).or_insert(at);
        if let Value::Object(timeouts) = document.value.entry("timeouts").or_insert_with(|| Map::new().into()) {
            timeouts.entry(field).or_insert(value);
        }
    }
    for (at, message) in notes {
        documents.find(Weight::Note, at, message);
    }
    proxy(documents);
}

/// kube-proxy's mode as weft's.
fn proxy(documents: &mut Documents) {
    let Some(document) = documents.found.get(&Kind::KubeProxy) else { return };
    let at = document.positions.get("").copied().unwrap_or(document.at);
    let mode = document.value.get("mode").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ours = match mode.as_str() {
        "ipvs" => "ipvs",
        "iptables" | "nftables" => "nftables",
        "" => {
            let message = "weft is in kube-proxy's place, and goes by this KubeProxyConfiguration where it can";
            return documents.find(Weight::Note, Some(at), message.to_owned());
        }
        other => {
            let message = format!("KubeProxyConfiguration.mode is {other:?}; expected ipvs, nftables or iptables");
            return documents.find(Weight::Wrong, Some(at), message);
        }
    };
    let is_new = !documents.found.contains_key(&Kind::Weft);
    let weft = documents.entry(Kind::Weft, at);
    weft.is_implied |= is_new;
    let message = match weft.value.get("proxyMode") {
        Some(given) => {
            format!("weft is in kube-proxy's place: WeftConfiguration.proxyMode, {given}, counts, not mode {mode:?}")
        }
        None => {
            weft.value.insert("proxyMode".to_owned(), ours.into());
            weft.positions.insert("proxyMode".to_owned(), at);
            format!("weft is in kube-proxy's place: mode {mode:?} becomes weft's proxyMode {ours:?}")
        }
    };
    documents.find(Weight::Note, Some(at), message);
}

struct Old<'a> {
    document: &'a mut Document,
    notes: &'a mut Vec<(Option<Position>, String)>,
}

impl Old<'_> {
    fn note(&mut self, path: &str, message: String) {
        let at = self.document.positions.get(path).copied().unwrap_or(self.document.at);
        self.notes.push((Some(at), message));
    }

    fn object(&mut self, name: &str) -> Option<&mut Map<String, Value>> {
        self.document.value.get_mut(name)?.as_object_mut()
    }

    /// Takes a field out of a mapping.
    fn take(&mut self, object: &str, field: &str) -> Option<(Value, Position)> {
        let at = self.document.positions.get(&format!("{object}.{field}")).copied().unwrap_or(self.document.at);
        let taken = self.object(object)?.remove(field)?;
        Some((taken, at))
    }

    fn registration(&mut self) {
        const REGISTRATION: &str = "nodeRegistration";
        let path = |field: &str| format!("{REGISTRATION}.{field}");
        let Some(registration) = self.object(REGISTRATION) else { return };
        let mut notes = Vec::new();
        if let Some(socket) = registration.get("criSocket").and_then(Value::as_str).map(str::to_owned) {
            if socket.ends_with("/dockershim.sock") {
                registration.remove("criSocket");
                let message = format!(
                    "nodeRegistration.criSocket {socket} is dockershim's, which went with Kubernetes 1.24; the container \
                     runtime that is there is taken"
                );
                notes.push((path("criSocket"), message));
            } else if socket.starts_with('/') {
                registration.insert("criSocket".to_owned(), format!("unix://{socket}").into());
                notes.push((path("criSocket"), format!("nodeRegistration.criSocket {socket} becomes unix://{socket}")));
            }
        }
        for taint in registration.get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
            if taint.get("key").and_then(Value::as_str) == Some(OLD_TAINT)
                && let Some(taint) = taint.as_object_mut()
            {
                taint.insert("key".to_owned(), CONTROL_PLANE_TAINT.into());
                notes.push((path("taints"), format!("the taint {OLD_TAINT} is called {CONTROL_PLANE_TAINT} now")));
            }
        }
        if let Some(flags) = registration.get_mut("kubeletExtraArgs").and_then(Value::as_array_mut) {
            flags.retain(|flag| {
                let name = flag.get("name").and_then(Value::as_str).unwrap_or_default();
                let gone = OLD_KUBELET_FLAGS.contains(&name);
                if gone {
                    let message = format!("kubelet has no flag {name} any more, and would not start; it is left out");
                    notes.push((path("kubeletExtraArgs"), message));
                }
                !gone
            });
        }
        notes.into_iter().for_each(|(path, message)| self.note(&path, message));
    }

    fn cluster(&mut self) {
        let repositories = [None, Some("dns")];
        for object in repositories {
            let fields = match object {
                None => Some(&mut self.document.value),
                Some(name) => self.object(name),
            };
            let Some(given) = fields.and_then(|fields| fields.get_mut("imageRepository")) else { continue };
            let old = given.as_str().and_then(|given| OLD_REPOSITORIES.into_iter().find(|old| *old == given));
            if let Some(old) = old {
                *given = REPOSITORY.into();
                let path = object.map_or_else(String::new, |object| format!("{object}.")) + "imageRepository";
                self.note(&path, format!("{path} {old} has been frozen; {REPOSITORY} is taken"));
            }
        }
        if let Some((kind, _)) = self.take("dns", "type")
            && kind != "CoreDNS"
        {
            self.note("dns.type", format!("dns.type is {kind}; the cluster gets CoreDNS, there is no other any more"));
        }
        if self.document.value.remove("useHyperKubeImage") == Some(Value::Bool(true)) {
            self.note("useHyperKubeImage", "useHyperKubeImage is ignored: there is no such image any more".to_owned());
        }
        if self.document.version < Version::V1Beta4 && self.document.value.remove("featureGates").is_some() {
            self.note("featureGates", "featureGates of that time have gone, and are left out".to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
