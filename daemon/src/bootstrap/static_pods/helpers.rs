//! weft's own static pods: helpers that must run where no API answers, and that no DaemonSet may be (one of them signs with
//! the cluster's authority).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::volumes::Volumes;
use super::write::{FILE_MODE, prepare_directory};
use crate::bootstrap::converge::{self, FileError, Outcome};
use crate::bootstrap::kubeconfig::kubelet_certificate;
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::stable_name;
use crate::bootstrap::yaml;

/// weft in its image.
const PROGRAM: &str = "/weft";
/// How often the certificates are looked at.
const RENEWAL_EVERY: &str = "1h";
/// Seconds between two looks whether a renewal has failed. Each starts a process, and nothing else is told by it; but whenever
/// kubelet starts it waits up to this time before the first, and the pod is not Ready so long.
const RENEWAL_PROBE: u64 = 60;

/// A helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// The node-local balancer of the API, on each node.
    Balancer,
    /// The renewal of certificates, on control-plane nodes.
    CertRenewal,
}

impl Helper {
    /// Name of the pod, its container and its file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Balancer => "weft-api-balancer",
            Self::CertRenewal => "weft-cert-renewal",
        }
    }
}

/// What the helpers depend on.
#[derive(Debug, Clone, Copy)]
pub struct HelperFacts<'a> {
    /// weft's image.
    pub image: &'a str,
    /// Where things lie; the pods see them without [`Paths::root`].
    pub paths: &'a Paths,
    /// Where the balancer listens.
    pub listen: &'a [SocketAddr],
}

/// A helper's pod.
///
/// The balancer sees the cluster's authority without its key, kubelet's own certificate, and its lists. The renewal sees what
/// it renews and the manifests that it has kubelet restart; it asks components over the host's network what they show, and
/// needs neither the runtime's socket nor the API.
#[must_use]
pub fn helper_pod(helper: Helper, facts: &HelperFacts<'_>) -> Value {
    let paths = facts.paths;
    let seen = |path: &Path| on_host(path, paths);
    let mut command = vec![PROGRAM.to_owned()];
    let mut container = json!({});
    let volumes = match helper {
        Helper::Balancer => {
            let (state, authority) = (seen(&stable_name::directory(paths)), seen(&paths.pki.join("ca.crt")));
            let certificate = kubelet_certificate(paths);
            command.push("balancer".to_owned());
            command.extend(facts.listen.iter().map(|address| format!("--listen={address}")));
            command.push(format!("--state={state}"));
            command.push(format!("--authority={authority}"));
            command.push(format!("--certificate={}", seen(&certificate)));
            let folder = certificate.parent().map(seen).unwrap_or_default();
            Volumes::default()
                .directory("state", &state, false)
                .directory("kubelet-pki", &folder, true)
                .present_file("authority", &authority)
        }
        Helper::CertRenewal => {
            let (kubernetes, pki) = (seen(&paths.kubernetes), seen(&paths.pki));
            let places = [format!("--kubeconfig-dir={kubernetes}"), format!("--cert-dir={pki}")];
            command.extend(["certs", "renew", "all", "--if-due"].map(str::to_owned));
            command.push(format!("--every={RENEWAL_EVERY}"));
            command.extend(places.clone());
            let look = [PROGRAM, "certs", "check", "--fail-if-overdue"].map(str::to_owned);
            let look: Vec<String> = look.into_iter().chain(places).collect();
            container["readinessProbe"] = json!({
                "exec": {"command": look}, "periodSeconds": RENEWAL_PROBE, "timeoutSeconds": 30, "failureThreshold": 1,
            });
            let volumes = Volumes::default().directory("kubernetes", &kubernetes, false);
            if paths.pki.starts_with(&paths.kubernetes) { volumes } else { volumes.directory("pki", &pki, false) }
        }
    };
    let name = helper.name();
    let own = json!({
        "name": name, "image": facts.image, "imagePullPolicy": "IfNotPresent", "command": command,
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        // Root, as the files are root's, where the image says nobody; of root's powers none is needed.
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsUser": 0, "runAsGroup": 0,
        },
        "volumeMounts": volumes.mounts(),
    });
    if let (Value::Object(container), Value::Object(own)) = (&mut container, own) {
        container.extend(own);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "containers": [container],
            // The host's own resolver: the cluster's may not be there, and asks the API itself.
            "dnsPolicy": "Default",
            "enableServiceLinks": false,
            "hostNetwork": true,
            "priority": 2_000_001_000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 5,
            "volumes": volumes.volumes(),
        },
        "status": {},
    })
}

/// Writes a helper's pod, unless the file is so already; kubelet starts it within a second. The balancer's list of servers has
/// to be there before.
///
/// # Errors
/// The file system refuses.
pub fn write_helper(paths: &Paths, helper: Helper, pod: &Value) -> Result<Outcome, FileError> {
    prepare_directory(paths)?;
    converge::put(&helper_file(paths, helper), yaml::to_string(pod).as_bytes(), FILE_MODE)
}

/// The file of a helper's pod.
#[must_use]
pub fn helper_file(paths: &Paths, helper: Helper) -> PathBuf {
    paths.manifests().join(format!("{}.yaml", helper.name()))
}

/// A path as kubelet sees it: without the directory that a test or `--rootfs` puts everything under.
fn on_host(path: &Path, paths: &Paths) -> String {
    let inner = path.strip_prefix(&paths.root).map_or_else(|_| path.to_owned(), |inner| Path::new("/").join(inner));
    inner.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(helper: Helper, paths: &Paths) -> Value {
        let listen = ["127.0.0.1:7443", "[::1]:7443"].map(|text| text.parse().unwrap());
        helper_pod(helper, &HelperFacts { image: "example/weft:1", paths, listen: &listen })
    }

    fn mounted(pod: &Value) -> Vec<(String, bool)> {
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        let mut mounted: Vec<_> = mounts
            .iter()
            .map(|mount| (mount["mountPath"].as_str().unwrap().to_owned(), mount["readOnly"] == true))
            .collect();
        mounted.sort();
        mounted
    }

    #[test]
    fn p0_18_the_balancer_sees_no_key_but_kubelets() {
        let root = tempfile::tempdir().unwrap();
        let pod = pod(Helper::Balancer, &Paths::under(root.path()));
        let command: Vec<String> = serde_json::from_value(pod["spec"]["containers"][0]["command"].clone()).unwrap();
        assert_eq!(
            command,
            [
                "/weft",
                "balancer",
                "--listen=127.0.0.1:7443",
                "--listen=[::1]:7443",
                "--state=/var/lib/weft/balancer",
                "--authority=/etc/kubernetes/pki/ca.crt",
                "--certificate=/var/lib/kubelet/pki/kubelet-client-current.pem",
            ]
        );
        let wanted =
            [("/etc/kubernetes/pki/ca.crt", true), ("/var/lib/kubelet/pki", true), ("/var/lib/weft/balancer", false)];
        assert_eq!(mounted(&pod), wanted.map(|(path, read_only)| (path.to_owned(), read_only)));
        // kubelet would make a missing one, which then looks like an authority.
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let authority = volumes.iter().find(|volume| volume["name"] == "authority").unwrap();
        assert_eq!(authority["hostPath"]["type"], "File");
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
        assert_eq!(container["securityContext"]["runAsUser"], 0, "whatever the image says");
        assert!(pod["spec"]["hostNetwork"] == true && container.get("readinessProbe").is_none());
    }

    #[test]
    fn p0_14_the_renewal_has_what_it_renews_wherever_that_is() {
        let mut paths = Paths::under("/");
        let usual = pod(Helper::CertRenewal, &paths);
        assert_eq!(mounted(&usual), [("/etc/kubernetes".to_owned(), false)]);
        let probe = &usual["spec"]["containers"][0]["readinessProbe"]["exec"]["command"];
        assert_eq!(probe[3], "--fail-if-overdue");
        paths.pki = "/srv/pki".into();
        let elsewhere = pod(Helper::CertRenewal, &paths);
        assert_eq!(mounted(&elsewhere), ["/etc/kubernetes", "/srv/pki"].map(|path| (path.to_owned(), false)));
        let command = elsewhere["spec"]["containers"][0]["command"].to_string();
        assert!(command.contains("--cert-dir=/srv/pki") && command.contains("--every=1h"), "{command}");
    }
}
