//! Restarting a static pod for its certificates, and waiting until it shows the new ones.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::certificate::Certificate;
use super::probe::served;
use super::restart::{RestartError, restart};
use super::store::Store;
use crate::bootstrap::resolved::Paths;

/// How often it is looked whether a component is back.
const LOOK: Duration = Duration::from_millis(250);
/// How long one look may take.
const ONE_LOOK: Duration = Duration::from_secs(2);
/// By this name kube-apiserver shows a certificate that it makes at each start.
const LOOPBACK: &str = "apiserver-loopback-client";
/// A name that no component knows: each shows its usual certificate.
const ANY: &str = "localhost";

/// What came of a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollout {
    /// This node has no such static pod.
    NotHere,
    /// It did not answer before either: it will read the new certificates when it starts.
    NotRunning,
    /// It has started again and shows the certificate with this serial number.
    Serving {
        /// Big-endian.
        serial: Vec<u8>,
    },
}

/// The restart did not succeed, or was not seen to.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The manifest.
    #[error(transparent)]
    Restart(#[from] RestartError),
    /// Time is up.
    #[error("{component} at {address} has not come back with its new certificate within {} s: {last}; `crictl ps -a --name {component}` and `crictl logs` tell why", .limit.as_secs())]
    Late {
        /// The component.
        component: String,
        /// Where it should answer.
        address: SocketAddr,
        /// How long was waited.
        limit: Duration,
        /// What was seen last.
        last: String,
    },
}

/// Has kubelet restart a static pod, and waits until the new one shows the certificate that is on the disk. Blocks.
///
/// # Errors
/// [`RolloutError`]: its manifest cannot be changed, or it does not come back within `limit`.
pub fn roll_out(component: &str, paths: &Paths, limit: Duration, now: Timestamp) -> Result<Rollout, RolloutError> {
    let place = place(component, paths);
    let before = place.and_then(|address| sign_of_life(component, address).ok());
    if !restart(component, paths, now)? {
        return Ok(Rollout::NotHere);
    }
    let (Some(address), Some(before)) = (place, before) else { return Ok(Rollout::NotRunning) };
    let begun = Instant::now();
    loop {
        let last = match is_back(component, address, paths, &before) {
            Ok(Ok(serial)) => return Ok(Rollout::Serving { serial }),
            Ok(Err(not_yet)) => not_yet.to_owned(),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= limit {
            return Err(RolloutError::Late { component: component.to_owned(), address, limit, last });
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a process of others starts, and nothing tells when; there is a limit")]
fn pause() {
    std::thread::sleep(LOOK);
}

/// The serial number of a certificate that changes with each start, where the component has one.
fn sign_of_life(component: &str, address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let name = if component == "kube-apiserver" { LOOPBACK } else { ANY };
    Ok(served(address, name, ONE_LOOK)?.serial().to_vec())
}

/// The serial number that a component shows, once it has started anew and shows what is on the disk; else what is not so yet.
fn is_back(
    component: &str,
    address: SocketAddr,
    paths: &Paths,
    before: &[u8],
) -> std::io::Result<Result<Vec<u8>, &'static str>> {
    let started = sign_of_life(component, address)? != before;
    let wanted = match component {
        "kube-apiserver" => on_disk("apiserver", paths),
        "etcd" => on_disk("etcd/server", paths),
        // These make their serving certificates themselves.
        _ => None,
    };
    // etcd reads its certificate for each connection: it may show the new one before it has been restarted.
    if !started && component != "etcd" {
        return Ok(Err("it has not been restarted yet"));
    }
    let shown = served(address, ANY, ONE_LOOK)?.serial().to_vec();
    match wanted {
        Some(wanted) if wanted.serial() != shown => Ok(Err("it still shows its old certificate")),
        _ => Ok(Ok(shown)),
    }
}

fn on_disk(file: &str, paths: &Paths) -> Option<Certificate> {
    Store(&paths.pki).find(file).ok()?.certificates.into_iter().next()
}

/// Where a component answers, by the flags in its manifest.
#[must_use]
pub fn place(component: &str, paths: &Paths) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(paths.manifests().join(format!("{component}.yaml"))).ok()?;
    let manifest: Value = serde_saphyr::from_str(&text).ok()?;
    let container = &manifest["spec"]["containers"][0];
    let words = ["command", "args"].into_iter().filter_map(|key| container[key].as_array()).flatten();
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    let flag = |name: &str| {
        let name = format!("--{name}=");
        words.iter().rev().find_map(|word| word.strip_prefix(name.as_str()))
    };
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let address = |name: &str| match flag(name).and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(address) if !address.is_unspecified() => address,
        _ => local,
    };
    let port = |default: u16| flag("secure-port").and_then(|text| text.parse().ok()).unwrap_or(default);
    match component {
        "kube-apiserver" => Some(SocketAddr::new(address("advertise-address"), port(6443))),
        "kube-controller-manager" => Some(SocketAddr::new(address("bind-address"), port(10257))),
        "kube-scheduler" => Some(SocketAddr::new(address("bind-address"), port(10259))),
        "etcd" => {
            let urls = flag("listen-client-urls").unwrap_or("https://127.0.0.1:2379");
            urls.split(',').find_map(|url| url.strip_prefix("https://")?.parse().ok())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;

    use super::*;
    use crate::bootstrap::pki::probe::tests::show;
    use crate::bootstrap::pki::renew::{RenewOptions, Renewal, renew};
    use crate::bootstrap::pki::samples::{cluster, node};
    use crate::bootstrap::pki::{Options, ensure_all};

    fn paths_with(component: &str, flags: &[&str]) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(paths.manifests()).unwrap();
        let flags: String = flags.iter().map(|flag| format!("    - {flag}\n")).collect();
        let text =
            format!("metadata:\n  name: {component}\nspec:\n  containers:\n  - command:\n    - {component}\n{flags}");
        std::fs::write(paths.manifests().join(format!("{component}.yaml")), text).unwrap();
        (root, paths)
    }

    #[test]
    fn a_component_is_found_by_its_flags() {
        let cases: [(&str, &[&str], &str); 5] = [
            ("kube-apiserver", &["--advertise-address=2001:db8::1", "--secure-port=8443"], "[2001:db8::1]:8443"),
            ("kube-controller-manager", &["--bind-address=0.0.0.0"], "127.0.0.1:10257"),
            ("kube-scheduler", &["--secure-port=1", "--secure-port=2"], "127.0.0.1:2"),
            ("etcd", &["--listen-client-urls=http://127.0.0.1:1,https://[::1]:2379"], "[::1]:2379"),
            ("etcd", &[], "127.0.0.1:2379"),
        ];
        for (component, flags, wanted) in cases {
            let (_root, paths) = paths_with(component, flags);
            assert_eq!(place(component, &paths).unwrap().to_string(), wanted, "{flags:?}");
        }
    }

    #[test]
    fn k14_what_does_not_run_is_not_waited_for() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_root, paths) = paths_with("kube-scheduler", &[&format!("--secure-port={port}")]);
        let limit = Duration::from_secs(60);
        assert_eq!(roll_out("kube-scheduler", &paths, limit, Timestamp::now()).unwrap(), Rollout::NotRunning);
        assert_eq!(roll_out("etcd", &paths, limit, Timestamp::now()).unwrap(), Rollout::NotHere);
    }

    /// A component and its kubelet: reads its certificate when its manifest has changed, and shows it to whoever comes, `times`.
    fn run_as(listener: &TcpListener, manifest: &Path, paths: &Paths, times: usize) {
        let mut started = String::new();
        let mut shown = None;
        for _ in 0..times {
            let stream = listener.accept().unwrap().0;
            let text = std::fs::read_to_string(manifest).unwrap();
            if text != started || shown.is_none() {
                started = text;
                let mut found = Store(&paths.pki).find("apiserver").unwrap();
                shown = Some((found.certificates.remove(0), found.key.unwrap().unwrap()));
            }
            let (certificate, key) = shown.as_ref().unwrap();
            show(stream, certificate, key);
        }
    }

    #[test]
    fn k12_a_renewed_certificate_is_shown_before_it_is_said_to_be() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let flags = ["--advertise-address=127.0.0.1", &format!("--secure-port={port}")];
        let (_root, paths) = paths_with("kube-apiserver", &flags);
        let now = Timestamp::now();
        ensure_all(&cluster(), &node(), &paths, &Options::default(), now).unwrap();
        let manifest = paths.manifests().join("kube-apiserver.yaml");
        std::thread::scope(|scope| {
            // Before the restart, after it whether it has been restarted, and what it shows.
            scope.spawn(|| run_as(&listener, &manifest, &paths, 4));
            let old = served((Ipv4Addr::LOCALHOST, port).into(), ANY, Duration::from_secs(20)).unwrap();
            let Renewal::Renewed { serial, .. } = renew("apiserver", &paths, RenewOptions::default(), now).unwrap()
            else {
                panic!("it is not renewed")
            };
            assert_ne!(old.serial(), serial);
            let rollout = roll_out("kube-apiserver", &paths, Duration::from_secs(60), now).unwrap();
            assert_eq!(rollout, Rollout::Serving { serial });
        });
    }

    #[test]
    fn a_component_that_does_not_come_back_is_told_with_where_to_look() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_root, paths) = paths_with("kube-scheduler", &[&format!("--secure-port={port}")]);
        ensure_all(&cluster(), &node(), &paths, &Options::default(), Timestamp::now()).unwrap();
        let manifest = paths.manifests().join("kube-scheduler.yaml");
        let error = std::thread::scope(|scope| {
            let first = scope.spawn(|| run_as(&listener, &manifest, &paths, 1));
            let error = roll_out("kube-scheduler", &paths, Duration::ZERO, Timestamp::now()).unwrap_err();
            first.join().unwrap();
            error.to_string()
        });
        assert!(error.contains("kube-scheduler at 127.0.0.1") && error.contains("crictl"), "{error}");
    }
}
