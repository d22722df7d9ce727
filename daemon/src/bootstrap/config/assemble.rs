//! From file, flags and facts to one configuration a command, looked at from all sides. Pure.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::check::{Check, cluster as cluster_rules, node as node_rules};
use super::documents::{Documents, Kind};
use super::facts::Facts;
use super::finding::{Finding, Weight};
use super::flags::{InitFlags, JoinFlags, NodeFlags, ResetFlags};
use super::layers::{Layers, Origin};
use super::secret::Secret;
use super::weft::KIND as WEFT;
use super::{defaults, detect, rules};
use crate::bootstrap::duration;
use crate::cluster::family::Family;

/// What a command has to go by, and what there is to say about it.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) layers: Layers,
    pub(super) findings: Vec<Finding>,
    /// By which address the node is reached.
    pub(super) address: IpAddr,
}

/// What an init goes by.
pub(super) fn init(documents: &Documents, flags: &InitFlags, facts: &Facts) -> Assembled {
    const INIT: &str = "InitConfiguration";
    const ENDPOINT: &str = "InitConfiguration.localAPIEndpoint";
    let mut layers = Layers::of(documents, &[Kind::Init, Kind::Cluster, Kind::Weft]);
    let mut findings = Vec::new();
    node_flags(&mut layers, INIT, Some(ENDPOINT), &flags.node, &mut findings);
    let key = flags.node.certificate_key.as_ref().map(|Secret(key)| key.as_str());
    layers.flag("--certificate-key", "InitConfiguration.certificateKey", key);
    cluster_flags(&mut layers, flags, &mut findings);
    let ttl = token_ttl(flags, &mut findings);

    let address = node(&mut layers, INIT, Some(ENDPOINT), true, facts, &mut findings);
    defaults::tokens(&mut layers, &facts.token, flags.token.as_ref(), ttl.as_deref());
    let family = defaults::family(&layers).unwrap_or(Family::of(address));
    defaults::cluster(&mut layers, family, &mut findings);
    skipped(&mut layers);
    endpoint(&mut layers);
    lower_case_names(&mut layers);

    let mut check = Check::new(&layers, &mut findings);
    cluster_rules::check(&mut check);
    node_rules::registration(&mut check, INIT);
    node_rules::tokens(&mut check);
    node_rules::certificate_key(&mut check, "InitConfiguration.certificateKey");
    node_rules::weft(&mut check);
    same_family(&layers, address, &mut findings);
    Assembled { layers, findings, address }
}

/// What a join goes by.
pub(super) fn join(documents: &Documents, flags: &JoinFlags, facts: &Facts) -> Assembled {
    const JOIN: &str = "JoinConfiguration";
    const CONTROL_PLANE: &str = "JoinConfiguration.controlPlane";
    const ENDPOINT: &str = "JoinConfiguration.controlPlane.localAPIEndpoint";
    let mut layers = Layers::of(documents, &[Kind::Join, Kind::Weft]);
    let mut findings = Vec::new();
    match flags.control_plane {
        Some(true) if layers.get(CONTROL_PLANE).is_none() => {
            layers.set(CONTROL_PLANE, json!({}), Origin::Flag("--control-plane"));
        }
        Some(false) => layers.remove(CONTROL_PLANE),
        Some(true) | None => {}
    }
    let endpoint = layers.get(CONTROL_PLANE).is_some().then_some(ENDPOINT);
    node_flags(&mut layers, JOIN, endpoint, &flags.node, &mut findings);
    if let Some(Secret(key)) = &flags.node.certificate_key {
        match endpoint {
            Some(_) => layers.flag("--certificate-key", &format!("{CONTROL_PLANE}.certificateKey"), Some(key.as_str())),
            None => findings.push(without_control_plane("--certificate-key")),
        }
    }
    discovery(&mut layers, flags);

    layers.default("JoinConfiguration.caCertPath", format!("{}/ca.crt", defaults::CERTIFICATES_DIR), "");
    let address = node(&mut layers, JOIN, endpoint, endpoint.is_some(), facts, &mut findings);

    let mut check = Check::new(&layers, &mut findings);
    node_rules::registration(&mut check, JOIN);
    node_rules::discovery(&mut check);
    node_rules::join(&mut check);
    node_rules::weft(&mut check);
    Assembled { layers, findings, address }
}

/// What a reset goes by.
pub(super) fn reset(documents: &Documents, flags: &ResetFlags, facts: &Facts) -> (Layers, Vec<Finding>) {
    const RESET: &str = "ResetConfiguration";
    let path = |field: &str| format!("{RESET}.{field}");
    let mut layers = Layers::of(documents, &[Kind::Reset]);
    let mut findings = Vec::new();
    layers.flag("--cert-dir", &path("certificatesDir"), flags.cert_dir.as_deref().map(text));
    layers.flag("--cleanup-tmp-dir", &path("cleanupTmpDir"), flags.cleanup_tmp_dir);
    layers.flag("--cri-socket", &path("criSocket"), flags.cri_socket.as_deref());
    layers.flag("--dry-run", &path("dryRun"), flags.dry_run);
    layers.flag("--force", &path("force"), flags.force);
    layers.flags("--ignore-preflight-errors", &path("ignorePreflightErrors"), &flags.ignore_preflight_errors);
    layers.flags("--skip-phases", &path("skipPhases"), &flags.skip_phases);
    layers.default(&path("certificatesDir"), defaults::CERTIFICATES_DIR, "");
    detect::cri_socket(&mut layers, &path("criSocket"), facts, &mut findings);
    defaults::timeouts(&mut layers, RESET);
    node_rules::reset(&mut Check::new(&layers, &mut findings));
    (layers, findings)
}

/// Flags that init and join have in common.
fn node_flags(layers: &mut Layers, kind: &str, endpoint: Option<&str>, flags: &NodeFlags, findings: &mut Vec<Finding>) {
    let advertise = flags.apiserver_advertise_address.map(|address| address.to_string());
    match endpoint {
        Some(endpoint) => {
            layers.flag("--apiserver-advertise-address", &format!("{endpoint}.advertiseAddress"), advertise);
            layers.flag("--apiserver-bind-port", &format!("{endpoint}.bindPort"), flags.apiserver_bind_port);
        }
        None => {
            let given = advertise.map(|_| "--apiserver-advertise-address");
            let port = flags.apiserver_bind_port.map(|_| "--apiserver-bind-port");
            findings.extend(given.into_iter().chain(port).map(without_control_plane));
        }
    }
    let registration = |field: &str| format!("{kind}.nodeRegistration.{field}");
    layers.flag("--node-name", &registration("name"), flags.node_name.as_deref());
    layers.flag("--cri-socket", &registration("criSocket"), flags.cri_socket.as_deref());
    let ignored = registration("ignorePreflightErrors");
    layers.flags("--ignore-preflight-errors", &ignored, &flags.ignore_preflight_errors);
    layers.flag("--dry-run", &format!("{kind}.dryRun"), flags.dry_run);
    layers.flag("--patches", &format!("{kind}.patches.directory"), flags.patches.as_deref().map(text));
    layers.flags("--skip-phases", &format!("{kind}.skipPhases"), &flags.skip_phases);

    let weft = |field: &str| format!("{WEFT}.{field}");
    // Whoever gives one of the two on the command line does not mean the other, which the file may have.
    if flags.node_ip.is_some() {
        layers.remove(&weft("interface"));
    } else if flags.iface.is_some() {
        layers.remove(&weft("nodeIP"));
    }
    layers.flag("--node-ip", &weft("nodeIP"), flags.node_ip.map(|address| address.to_string()));
    layers.flag("--iface", &weft("interface"), flags.iface.as_deref());
    layers.flags("--image-mirror", &weft("imageMirrors"), &flags.image_mirror);
    let images: Vec<String> = flags.images.iter().map(|path| text(path)).collect();
    layers.flags("--images", &weft("images"), &images);
    layers.flag("--kubernetes-bin", &weft("kubernetesBin"), flags.kubernetes_bin.as_deref().map(text));
    layers.flag("--swap", &weft("swap"), flags.swap.map(super::weft::Swap::name));
    layers.flag("--wait", &weft("wait"), flags.wait);
    layers.flag("--fix", &weft("fix"), flags.fix);
    layers.flag("--prepare-host", &weft("prepareHost"), flags.prepare_host);
}

fn cluster_flags(layers: &mut Layers, flags: &InitFlags, findings: &mut Vec<Finding>) {
    let path = |field: &str| format!("ClusterConfiguration.{field}");
    layers.flags("--apiserver-cert-extra-sans", &path("apiServer.certSANs"), &flags.apiserver_cert_extra_sans);
    layers.flag("--cert-dir", &path("certificatesDir"), flags.cert_dir.as_deref().map(text));
    let endpoint = flags.control_plane_endpoint.as_deref();
    layers.flag("--control-plane-endpoint", &path("controlPlaneEndpoint"), endpoint);
    layers.flag("--image-repository", &path("imageRepository"), flags.image_repository.as_deref());
    layers.flag("--kubernetes-version", &path("kubernetesVersion"), flags.kubernetes_version.as_deref());
    layers.flag("--pod-network-cidr", &path("networking.podSubnet"), flags.pod_network_cidr.as_deref());
    layers.flag("--service-cidr", &path("networking.serviceSubnet"), flags.service_cidr.as_deref());
    layers.flag("--service-dns-domain", &path("networking.dnsDomain"), flags.service_dns_domain.as_deref());
    layers.flag("--encryption-algorithm", &path("encryptionAlgorithm"), flags.encryption_algorithm.as_deref());
    layers.flag("--proxy-mode", &format!("{WEFT}.proxyMode"), flags.proxy_mode.map(super::weft::ProxyMode::name));
    layers.flag("--backend", &format!("{WEFT}.backend"), flags.backend.as_deref());
    let mut gates = Map::new();
    for gate in &flags.feature_gates {
        match gate.split_once('=').map(|(name, value)| (name, value.parse::<bool>())) {
            Some((name, Ok(value))) => drop(gates.insert(name.to_owned(), value.into())),
            Some((_, Err(_))) | None => {
                findings.push(wrong_flag("--feature-gates", gate, "name=true or name=false"));
            }
        }
    }
    layers.flag("--feature-gates", &path("featureGates"), (!gates.is_empty()).then_some(Value::Object(gates)));
}

fn token_ttl(flags: &InitFlags, findings: &mut Vec<Finding>) -> Option<String> {
    let given = flags.token_ttl.as_deref()?;
    let found = duration::parse(given);
    if found.is_none() {
        findings.push(wrong_flag("--token-ttl", given, duration::EXPECTED));
    }
    found.map(duration::print)
}

/// How the cluster is found: whichever way a flag speaks of takes the place of the file's.
fn discovery(layers: &mut Layers, flags: &JoinFlags) {
    let path = |field: &str| format!("JoinConfiguration.discovery.{field}");
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|Secret(text)| text.clone());
    let by_token = flags.endpoint.is_some() || flags.discovery_token.is_some();
    match (&flags.discovery_file, by_token) {
        (Some(_), false) => layers.remove(&path("bootstrapToken")),
        (None, true) => layers.remove(&path("file")),
        (Some(_), true) | (None, false) => {}
    }
    layers.flag("--discovery-file", &path("file.kubeConfigPath"), flags.discovery_file.as_deref());
    layers.flag("ENDPOINT", &path("bootstrapToken.apiServerEndpoint"), flags.endpoint.as_deref());
    let hashes = path("bootstrapToken.caCertHashes");
    layers.flags("--discovery-token-ca-cert-hash", &hashes, &flags.discovery_token_ca_cert_hash);
    let skips = flags.discovery_token_unsafe_skip_ca_verification;
    let skip = path("bootstrapToken.unsafeSkipCAVerification");
    layers.flag("--discovery-token-unsafe-skip-ca-verification", &skip, skips);
    let (token, tls) = (path("bootstrapToken.token"), path("tlsBootstrapToken"));
    if flags.discovery_file.is_none() {
        layers.flag("--token", &token, secret(&flags.token));
    }
    layers.flag("--discovery-token", &token, secret(&flags.discovery_token));
    layers.flag("--token", &tls, secret(&flags.token));
    layers.flag("--tls-bootstrap-token", &tls, secret(&flags.tls_bootstrap_token));
    if let Some(token) = layers.text(&token).map(str::to_owned) {
        layers.default(&tls, token, "the token that the cluster is found by");
    }
    let file = path("file.kubeConfigPath");
    if let Some(local) = layers.text(&file).and_then(|url| url.strip_prefix("file://")).map(str::to_owned) {
        layers.refine(&file, local);
    }
}

/// The node's part, which is the same for init and join.
fn node(
    layers: &mut Layers,
    kind: &str,
    endpoint: Option<&str>,
    is_control_plane: bool,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> IpAddr {
    detect::name(layers, kind, facts, findings);
    detect::cri_socket(layers, &format!("{kind}.nodeRegistration.criSocket"), facts, findings);
    let family = defaults::family(layers);
    let address = detect::address(layers, endpoint, family, facts, findings);
    defaults::registration(layers, kind, is_control_plane);
    defaults::timeouts(layers, kind);
    defaults::weft(layers);
    address
}

/// A cluster whose CoreDNS is skipped does without, for kubeadm's upgrades as well.
fn skipped(layers: &mut Layers) {
    let phases = layers.get("InitConfiguration.skipPhases").and_then(Value::as_array);
    let skips = |name: &str| phases.is_some_and(|phases| phases.iter().any(|phase| phase == name));
    if skips("addon") || skips("addon/coredns") {
        let why = Origin::Default("the phase addon/coredns is skipped".to_owned());
        layers.set("ClusterConfiguration.dns.disabled", true.into(), why);
    }
}

/// An endpoint without port gets the API server's, so that another node with another port still dials the right one.
fn endpoint(layers: &mut Layers) {
    let path = "ClusterConfiguration.controlPlaneEndpoint";
    let Some((host, None)) = layers.text(path).and_then(rules::host_port) else { return };
    let port = layers.get("InitConfiguration.localAPIEndpoint.bindPort").and_then(Value::as_u64);
    let port = port.unwrap_or(defaults::API_PORT.into());
    let whole = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    layers.refine(path, whole);
}

/// Some load balancers' names come with capitals, which no certificate may have.
fn lower_case_names(layers: &mut Layers) {
    let path = "ClusterConfiguration.apiServer.certSANs";
    let Some(names) = layers.get(path).and_then(Value::as_array) else { return };
    let lower: Vec<Value> = names.iter().filter_map(Value::as_str).map(|name| name.to_lowercase().into()).collect();
    layers.refine(path, lower);
}

/// kube-apiserver does not start with an address of another family than its first Service range.
fn same_family(layers: &Layers, address: IpAddr, findings: &mut Vec<Finding>) {
    let path = "ClusterConfiguration.networking.serviceSubnet";
    let first = layers.text(path).and_then(rules::subnets).and_then(|ranges| ranges.first().copied());
    if let Some(first) = first
        && Family::of(first.ip()) != Family::of(address)
    {
        let message = format!(
            "networking.serviceSubnet begins with {first}, and the node's address is {address}; expected both of one family: \
             give the other address with --node-ip, or put the range of its family first"
        );
        findings.push(layers.finding(Weight::Wrong, path, message));
    }
}

fn without_control_plane(flag: &'static str) -> Finding {
    let message = "it is of no use without --control-plane, and is ignored".to_owned();
    Finding { weight: Weight::Note, place: flag.to_owned(), message }
}

fn wrong_flag(flag: &str, value: &str, expected: &str) -> Finding {
    Finding { weight: Weight::Wrong, place: flag.to_owned(), message: format!("{value:?}; expected {expected}") }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
