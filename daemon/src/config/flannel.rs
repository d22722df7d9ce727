//! flannel's flags and variables: which of weft's keys each of them means.
//!
//! The one table of them. Those that are called as the key are in it, too, as their variables begin with `FLANNELD_`. Flags are
//! understood with one dash, as Go has them, and with two.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;

use super::error::ConfigError;
use super::keys::find;
use super::load::Origin;
use super::value::Scalar;

/// What a flag of flannel's means.
#[derive(Debug, Clone, Copy)]
enum Means {
    /// A key, with the same values.
    Key(&'static str),
    /// `source`: kube, or etcd.
    Source,
    /// The address, or the port, of `healthz-bind`.
    Health,
    /// Nothing, and why.
    Nothing(&'static str),
}

/// A flag of flannel's.
#[derive(Debug)]
pub(super) struct Flag {
    /// Its name.
    pub(super) name: &'static str,
    means: Means,
    /// Whether it may stand alone, meaning `true`.
    pub(super) is_switch: bool,
}

impl Flag {
    const fn key(name: &'static str, key: &'static str) -> Self {
        Self { name, means: Means::Key(key), is_switch: false }
    }

    const fn same(name: &'static str) -> Self {
        Self::key(name, name)
    }

    const fn nothing(name: &'static str, why: &'static str) -> Self {
        Self { name, means: Means::Nothing(why), is_switch: false }
    }

    /// Its environment variable: `FLANNELD_IP_MASQ`.
    pub(super) fn variable(&self) -> String {
        format!("FLANNELD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether weft has no key of this name.
    pub(super) fn is_foreign(&self) -> bool {
        find(self.name).is_none()
    }
}

const HEALTH_IP: &str = "healthz-ip";
const HEALTH_PORT: &str = "healthz-port";
const LOGGING: &str = "log-level says what is logged";

/// All flags of flanneld 0.28 but `version`, which every command of weft's has.
pub(super) const FLAGS: &[Flag] = &[
    Flag::same("etcd-endpoints"),
    Flag::same("etcd-prefix"),
    Flag::same("etcd-keyfile"),
    Flag::same("etcd-certfile"),
    Flag::same("etcd-cafile"),
    Flag::same("etcd-username"),
    Flag::same("etcd-password"),
    Flag::same("iface"),
    Flag::same("iface-regex"),
    Flag::same("iface-can-reach"),
    Flag::same("subnet-file"),
    Flag::same("public-ip"),
    Flag::same("public-ipv6"),
    Flag::same("subnet-lease-renew-margin"),
    Flag::same("ip-masq"),
    Flag::same("ip-masq-fully-random-disable"),
    Flag { name: "kube-subnet-mgr", means: Means::Source, is_switch: true },
    Flag::key("kube-api-url", "kube-api-server"),
    Flag::key("kubeconfig-file", "kubeconfig"),
    Flag::same("kube-annotation-prefix"),
    Flag::same("net-config-path"),
    Flag::same("set-node-network-unavailable"),
    Flag::nothing(
        "iptables-resync",
        "rules are compared as often as repair-interval says, and when somebody changes them",
    ),
    Flag::same("iptables-forward-rules"),
    Flag::same("ip-blackhole-route"),
    Flag { name: HEALTH_IP, means: Means::Health, is_switch: false },
    Flag { name: HEALTH_PORT, means: Means::Health, is_switch: false },
    Flag::nothing("v", LOGGING),
    Flag::nothing("vmodule", LOGGING),
    Flag::nothing("log_backtrace_at", LOGGING),
];

/// What flags or variables of flannel's come to.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Texts by weft's key, and where they came from.
    pub(super) texts: BTreeMap<&'static str, (Vec<String>, Origin)>,
    /// What was given and means nothing.
    pub(super) warnings: Vec<String>,
    /// The two parts of `healthz-bind`.
    health: BTreeMap<&'static str, (String, Origin)>,
}

impl Layer {
    /// Puts the parts of `healthz-bind` together: one may come from here, the other from the layer below.
    pub(super) fn join_health(&mut self, below: &mut Self) {
        let mut parts = std::mem::take(&mut below.health);
        let layer = if self.health.is_empty() { below } else { &mut *self };
        parts.append(&mut std::mem::take(&mut layer.health));
        layer.bind_health(parts);
    }

    fn bind_health(&mut self, mut health: BTreeMap<&'static str, (String, Origin)>) {
        match (health.remove(HEALTH_IP), health.remove(HEALTH_PORT)) {
            (_, Some((port, origin))) if port == "0" => {
                self.warnings.push(format!("{origin} has no effect: healthz-bind is always served"));
            }
            (None, None) => {}
            (ip, port) => {
                let ip = ip.unwrap_or_else(|| ("0.0.0.0".to_owned(), Origin::Default));
                let (port, origin) = port.unwrap_or_else(|| ("8081".to_owned(), ip.1));
                let bind = match ip.0.parse::<IpAddr>() {
                    Ok(IpAddr::V6(v6)) => format!("[{v6}]:{port}"),
                    _ => format!("{}:{port}", ip.0),
                };
                self.texts.insert("healthz-bind", (vec![bind], origin));
            }
        }
    }
}

/// Reads those of flannel's flags or variables that were given.
///
/// # Errors
/// [`ConfigError::Value`] for a switch that is neither on nor off.
pub(super) fn layer(given: impl Fn(&Flag) -> Option<(Vec<String>, Origin)>) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    for flag in FLAGS {
        let Some((texts, origin)) = given(flag) else { continue };
        match flag.means {
            Means::Key(key) => {
                layer.texts.insert(key, (texts, origin));
            }
            Means::Source => {
                let value = texts.last().map(String::as_str).unwrap_or_default();
                let source = match <bool as Scalar>::read(value) {
                    Some(true) => "kube",
                    Some(false) => "etcd",
                    None => return Err(wrong(flag, value, origin, <bool as Scalar>::EXPECTED)),
                };
                layer.texts.insert("source", (vec![source.to_owned()], origin));
            }
            Means::Health => {
                layer.health.insert(flag.name, (texts.concat(), origin));
            }
            Means::Nothing(why) => layer.warnings.push(format!("{origin} has no effect: {why}")),
        }
    }
    Ok(layer)
}

fn wrong(flag: &Flag, value: &str, origin: Origin, expected: &str) -> ConfigError {
    ConfigError::Value { key: flag.name.to_owned(), value: value.to_owned(), origin, expected: expected.to_owned() }
}

/// The words of `weft agent` as clap takes them: Go has its flags with one dash as well as with two, and so have the users'
/// manifests and units. Words of other commands, and what is no flag of the agent's, stay as they are.
#[must_use]
pub fn with_two_dashes(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let is_agents =
        |command: &&[&str]| words.iter().skip(1).zip(*command).filter(|(a, b)| a == b).count() == command.len();
    let Some(command) = [&["agent"][..], &["config", "effective", "agent"]].iter().copied().find(is_agents) else {
        return words;
    };
    for word in words.iter_mut().skip(1 + command.len()).take_while(|word| *word != "--") {
        let Some(flag) = word.to_str().and_then(|word| word.strip_prefix('-')).filter(|rest| !rest.starts_with('-'))
        else {
            continue;
        };
        let name = flag.split('=').next().unwrap_or_default();
        if find(name).is_some() || FLAGS.iter().any(|flag| flag.name == name) {
            *word = format!("--{flag}").into();
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, &str)]) -> Result<Layer, ConfigError> {
        let given: BTreeMap<&str, &str> = given.iter().copied().collect();
        layer(|flag| given.get(flag.name).map(|text| (vec![(*text).to_owned()], Origin::Environment(flag.variable()))))
    }

    #[test]
    fn each_flag_means_a_key_that_there_is_or_says_why_not() {
        for (i, flag) in FLAGS.iter().enumerate() {
            assert!(FLAGS[i + 1..].iter().all(|other| other.name != flag.name), "{} twice", flag.name);
            match flag.means {
                Means::Key(key) => assert!(find(key).is_some(), "{key}"),
                // One that weft has a key for would mean that key.
                Means::Source | Means::Health | Means::Nothing(_) => assert!(flag.is_foreign(), "{}", flag.name),
            }
        }
    }

    #[test]
    fn flags_of_another_name_come_to_weft_s_keys() {
        let text = |layer: &Layer, key: &str| layer.texts.get(key).map(|(texts, _)| texts.concat());
        let layer = of(&[("kube-subnet-mgr", "1"), ("kube-api-url", "https://192.0.2.1"), ("iptables-resync", "5")]);
        let layer = layer.unwrap();
        assert_eq!(text(&layer, "source").as_deref(), Some("kube"));
        assert_eq!(text(&layer, "kube-api-server").as_deref(), Some("https://192.0.2.1"));
        assert!(matches!(&layer.warnings[..], [one] if one.contains("FLANNELD_IPTABLES_RESYNC has no effect: ")));
        let bind_of = |above: &[(&str, &str)], below: &[(&str, &str)]| {
            let (mut above, mut below) = (of(above).unwrap(), of(below).unwrap());
            above.join_health(&mut below);
            text(&above, "healthz-bind").or_else(|| text(&below, "healthz-bind"))
        };
        let bind = |given: &[(&str, &str)]| bind_of(given, &[]);
        let split = bind_of(&[("healthz-port", "8090")], &[("healthz-ip", "127.0.0.1"), ("healthz-port", "1")]);
        assert_eq!(split.as_deref(), Some("127.0.0.1:8090"));
        assert_eq!(bind_of(&[], &[("healthz-port", "8090")]).as_deref(), Some("0.0.0.0:8090"));
        assert_eq!(bind(&[("healthz-port", "8090")]).as_deref(), Some("0.0.0.0:8090"));
        assert_eq!(bind(&[("healthz-port", "8090"), ("healthz-ip", "::1")]).as_deref(), Some("[::1]:8090"));
        assert_eq!(bind(&[("healthz-ip", "127.0.0.1")]).as_deref(), Some("127.0.0.1:8081"));
        assert_eq!(bind(&[("healthz-ip", "127.0.0.1"), ("healthz-port", "0")]), None);
        let error = of(&[("kube-subnet-mgr", "yes")]).unwrap_err().to_string();
        assert!(error.contains("kube-subnet-mgr") && error.contains("true or false"), "{error}");
    }

    #[test]
    fn one_dash_is_as_good_as_two_for_the_agents_flags_alone() {
        let words = |line: &str| {
            let words = with_two_dashes(line.split(' ').map(OsString::from));
            words.join(&OsString::from(" ")).into_string().unwrap()
        };
        assert_eq!(
            words("weft agent -iface=eth0 -ip-masq --kube-subnet-mgr -v 3 -h -bridge br0"),
            "weft agent --iface=eth0 --ip-masq --kube-subnet-mgr --v 3 -h --bridge br0"
        );
        assert_eq!(words("weft config effective agent -v=3"), "weft config effective agent --v=3");
        assert_eq!(words("weft agent -unknown -- -iface"), "weft agent -unknown -- -iface");
        assert_eq!(words("weft status -o json"), "weft status -o json");
    }
}
