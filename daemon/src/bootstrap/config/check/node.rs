//! The rules of a node, of the tokens, of the way to a cluster, and of weft's own options.

use serde_json::Value;

use super::{Check, field, list};
use crate::bootstrap::config::finding::Weight;
use crate::bootstrap::config::rules::{
    host_port, is_ca_hash, is_certificate_key, is_subdomain, is_token, is_token_group,
};

const TOKEN: &str = "a bootstrap token, [a-z0-9]{6}.[a-z0-9]{16} (`weft token generate` makes one)";
const KEY: &str = "64 hexadecimal digits (`weft certs certificate-key` makes some)";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UNMOUNT_FLAGS: [&str; 4] = ["MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW"];

/// How a node is registered.
pub(in super::super) fn registration(check: &mut Check<'_>, kind: &str) {
    let path = |field: &str| format!("{kind}.nodeRegistration.{field}");
    let name = "a name of lower-case letters, digits, dashes and dots, at most 253 (--node-name)";
    check.text(&path("name"), is_subdomain, name);
    socket(check, &path("criSocket"));
    check.fields(&path("kubeletExtraArgs"), &["name"]);
    check.fields(&path("taints"), &["key", "effect"]);
    for (index, taint) in list(check.layers, &path("taints")).iter().enumerate() {
        if let Some(effect) = taint.get("effect").and_then(Value::as_str)
            && !EFFECTS.contains(&effect)
        {
            check.wrong(&path(&format!("taints[{index}].effect")), effect, &EFFECTS.join(", "));
        }
    }
    ignored(check, &path("ignorePreflightErrors"));
}

/// A socket with its scheme.
pub(in super::super) fn socket(check: &mut Check<'_>, path: &str) {
    check.text(path, |text| text.starts_with("unix:///"), "a socket such as unix:///run/containerd/containerd.sock");
}

/// `all` says it all.
pub(in super::super) fn ignored(check: &mut Check<'_>, path: &str) {
    let names: Vec<&str> = list(check.layers, path).iter().filter_map(Value::as_str).collect();
    if names.len() > 1 && names.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        check.wrong(path, &names.join(","), "either all or single checks");
    }
}

/// The key that certificates are uploaded or downloaded with.
pub(in super::super) fn certificate_key(check: &mut Check<'_>, path: &str) {
    check.secret(path, is_certificate_key, KEY);
}

/// The tokens of an init.
pub(in super::super) fn tokens(check: &mut Check<'_>) {
    const TOKENS: &str = "InitConfiguration.bootstrapTokens";
    for (index, token) in list(check.layers, TOKENS).iter().enumerate() {
        let path = format!("{TOKENS}[{index}]");
        if !token.get("token").and_then(Value::as_str).is_some_and(is_token) {
            let message = format!("{}.token is missing or malformed; expected {TOKEN}", field(&path));
            check.say(Weight::Wrong, &path, message);
        }
        let words = |name: &str| -> Vec<&str> {
            token.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
        };
        for usage in words("usages") {
            if !matches!(usage, "signing" | "authentication") {
                check.wrong(&format!("{path}.usages"), usage, "signing or authentication");
            }
        }
        let groups = words("groups");
        if !groups.is_empty() && !words("usages").contains(&"authentication") {
            check.wrong(&format!("{path}.groups"), &groups.join(","), "no groups without the usage authentication");
        }
        for group in groups.into_iter().filter(|group| !is_token_group(group)) {
            let expected = "system:bootstrappers: and then lower-case letters, digits, dashes and colons";
            check.wrong(&format!("{path}.groups"), group, expected);
        }
        if token.get("ttl").is_some() && token.get("expires").is_some() {
            check.say(Weight::Wrong, &path, format!("{} has both ttl and expires; expected one", field(&path)));
        }
        if let Some(expires) = token.get("expires").and_then(Value::as_str)
            && expires.parse::<jiff::Timestamp>().is_err()
        {
            check.wrong(&format!("{path}.expires"), expires, "a time such as 2030-01-31T12:00:00Z");
        }
    }
}

/// How a cluster is found.
pub(in super::super) fn discovery(check: &mut Check<'_>) {
    const DISCOVERY: &str = "JoinConfiguration.discovery";
    let path = |field: &str| format!("{DISCOVERY}.{field}");
    let layers = check.layers;
    match (layers.get(&path("bootstrapToken")).is_some(), layers.get(&path("file")).is_some()) {
        (false, false) => {
            let message = "discovery has neither bootstrapToken nor file; expected one, or the line that `weft token create \
                           --print-join-command` prints";
            check.say(Weight::Wrong, DISCOVERY, message.to_owned());
        }
        (true, true) => {
            let message = "discovery has both bootstrapToken and file; expected one of them";
            check.say(Weight::Wrong, DISCOVERY, message.to_owned());
        }
        (true, false) => by_token(check, &path("bootstrapToken")),
        (false, true) => {
            let expected = "an absolute path, or an https:// URL";
            let rule = |text: &str| text.starts_with("https://") || !text.contains("://");
            check.text(&path("file.kubeConfigPath"), rule, expected);
            check.required(&path("file.kubeConfigPath"), expected);
        }
    }
    check.secret(&path("tlsBootstrapToken"), is_token, TOKEN);
}

fn by_token(check: &mut Check<'_>, path: &str) {
    let below = |field: &str| format!("{path}.{field}");
    check.required(&below("token"), TOKEN);
    check.secret(&below("token"), is_token, TOKEN);
    let endpoint = "host:port of an API server";
    check.required(&below("apiServerEndpoint"), endpoint);
    let rule = |text: &str| text.split(',').all(|one| matches!(host_port(one.trim()), Some((_, Some(_)))));
    check.text(&below("apiServerEndpoint"), rule, endpoint);
    check.texts(&below("caCertHashes"), is_ca_hash, "sha256: and 64 hexadecimal digits");
    let skips = check.layers.get(&below("unsafeSkipCAVerification")) == Some(&Value::Bool(true));
    if list(check.layers, &below("caCertHashes")).is_empty() && !skips {
        let message = format!(
            "{} is empty; expected the hash of the cluster's certificate authority (--discovery-token-ca-cert-hash), or \
             --discovery-token-unsafe-skip-ca-verification to believe whatever answers",
            field(&below("caCertHashes"))
        );
        check.say(Weight::Wrong, path, message);
    }
}

/// The rules of a joining node beyond its registration and discovery.
pub(in super::super) fn join(check: &mut Check<'_>) {
    let path = "JoinConfiguration.caCertPath";
    check.text(path, |text| text.starts_with('/') && text.ends_with(".crt"), "an absolute path that ends in .crt");
    certificate_key(check, "JoinConfiguration.controlPlane.certificateKey");
}

/// The rules of a reset.
pub(in super::super) fn reset(check: &mut Check<'_>) {
    socket(check, "ResetConfiguration.criSocket");
    check.absolute("ResetConfiguration.certificatesDir");
    let expected = UNMOUNT_FLAGS.join(", ");
    check.texts("ResetConfiguration.unmountFlags", |flag| UNMOUNT_FLAGS.contains(&flag), &expected);
    ignored(check, "ResetConfiguration.ignorePreflightErrors");
}

/// weft's own options.
pub(in super::super) fn weft(check: &mut Check<'_>) {
    let path = |field: &str| format!("{}.{field}", crate::bootstrap::config::weft::KIND);
    let rule = |text: &str| {
        let mirror = text.split_once('=').map_or(text, |(_, mirror)| mirror);
        let mirror = mirror.split_once("://").map_or(mirror, |(_, rest)| rest);
        let host = mirror.split('/').next().unwrap_or_default();
        host_port(host).is_some()
    };
    check.texts(&path("imageMirrors"), rule, "host[:port][/path] or registry=host[:port][/path]");
    if check.layers.get(&path("nodeIP")).is_some() && check.layers.get(&path("interface")).is_some() {
        let message = "both nodeIP and interface are given; expected one of them".to_owned();
        check.say(Weight::Wrong, &path("interface"), message);
    }
    let port = path("apiBalancerPort");
    if check.layers.get(&port).and_then(Value::as_u64) == Some(0) {
        check.say(Weight::Wrong, &port, "apiBalancerPort is 0; expected 1 to 65535".to_owned());
    }
    // The API server listens on all addresses, those of the loopback device too.
    let number = |path: &str| check.layers.get(path).and_then(Value::as_u64);
    let own =
        ["InitConfiguration", "JoinConfiguration.controlPlane"].map(|kind| format!("{kind}.localAPIEndpoint.bindPort"));
    let clash = own.iter().find_map(|path| number(path)).filter(|own| number(&port) == Some(*own));
    if let Some(own) = clash.filter(|_| check.layers.get(&path("apiBalancer")) == Some(&Value::Bool(true))) {
        let message = format!("apiBalancerPort is {own}, which is the API server's; expected another one");
        check.say(Weight::Wrong, &port, message);
    }
}

impl Check<'_> {
    fn required(&mut self, path: &str, expected: &str) {
        if self.layers.text(path).is_none() {
            self.say(Weight::Wrong, path, format!("{} is missing; expected {expected}", field(path)));
        }
    }
}
