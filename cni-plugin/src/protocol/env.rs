//! The environment variables of a call.

use std::path::PathBuf;

use weft_netlink::MacAddr;

use super::error::{CniError, Code, Result};

/// What the runtime wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Look whether it is still attached as it was.
    Check,
    /// Forget everything that is not listed.
    Gc,
    /// Say whether containers could be attached now.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Verb {
    /// Its name in `CNI_COMMAND`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The verb in `CNI_COMMAND`; `None` if the variable is unset or empty.
    ///
    /// # Errors
    /// Code 4 if it is not a verb.
    pub fn from_env(variables: &impl Variables) -> Result<Option<Self>> {
        let Some(text) = text(variables, "CNI_COMMAND")? else { return Ok(None) };
        let all = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];
        all.into_iter()
            .find(|verb| verb.as_str() == text)
            .map(Some)
            .ok_or_else(|| CniError::new(Code::BadEnvironment, format!("unknown CNI_COMMAND: {text}")))
    }
}

/// Where variables come from.
pub trait Variables {
    /// The bytes of a variable; `None` if it is unset.
    fn get(&self, name: &str) -> Option<Vec<u8>>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnvironment;

impl Variables for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
    }
}

/// Which attachment a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_NETNS`; always there but on DEL.
    pub netns: Option<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the namespace may be the plugin's own.
    pub netns_override: bool,
}

impl Call {
    /// Reads what ADD, DEL and CHECK need.
    ///
    /// # Errors
    /// Code 4 with all missing variables in one message, or for the first bad one.
    pub fn from_env(verb: Verb, variables: &impl Variables) -> Result<Self> {
        let container = text(variables, "CNI_CONTAINERID")?;
        let interface = text(variables, "CNI_IFNAME")?;
        let netns = text(variables, "CNI_NETNS")?;
        let mut missing = Vec::new();
        missing.extend(container.is_none().then_some("CNI_CONTAINERID"));
        missing.extend((netns.is_none() && verb != Verb::Del).then_some("CNI_NETNS"));
        missing.extend(interface.is_none().then_some("CNI_IFNAME"));
        let (Some(container), Some(interface), true) = (container, interface, missing.is_empty()) else {
            let message = format!("required env variables [{}] missing", missing.join(","));
            return Err(CniError::new(Code::BadEnvironment, message));
        };
        if !is_identifier(&container) {
            let message = format!("invalid characters in containerID: CNI_CONTAINERID={container:?}");
            return Err(CniError::new(Code::BadEnvironment, message));
        }
        check_interface("CNI_IFNAME", &interface)?;
        let netns_override = text(variables, "CNI_NETNS_OVERRIDE")?.is_some_and(|value| is_true(&value));
        Ok(Self { container, interface, netns: netns.map(PathBuf::from), netns_override })
    }
}

/// What `CNI_ARGS` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    /// `IP`: addresses to give, each with an optional prefix length.
    pub ips: Vec<String>,
    /// `MAC`: the container interface's address.
    pub mac: Option<MacAddr>,
    /// `namespace/name` of the pod.
    pub pod: Option<String>,
}

impl Args {
    /// Reads `K=V;K=V`. The order does not matter: containerd's is random.
    ///
    /// # Errors
    /// Code 4 for a pair without exactly one `=`, an unknown key without `IgnoreUnknown=1`, or a bad value.
    pub fn from_env(variables: &impl Variables) -> Result<Self> {
        let mut args = Self::default();
        let Some(text) = text(variables, "CNI_ARGS")? else { return Ok(args) };
        let bad = |reason: String| CniError::new(Code::BadEnvironment, format!("CNI_ARGS: {reason}"));
        let (mut ignore_unknown, mut unknown) = (false, Vec::new());
        let (mut namespace, mut name) = (None, None);
        for pair in text.split(';') {
            let (key, value) = pair
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| bad(format!("invalid pair {pair:?}; expected KEY=VALUE")))?;
            match key {
                "IgnoreUnknown" => {
                    ignore_unknown = match value {
                        "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                        "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                        _ => return Err(bad(format!("IgnoreUnknown={value}; expected 1 or 0"))),
                    }
                }
                "IP" => args.ips = value.split(',').filter(|ip| !ip.is_empty()).map(str::to_owned).collect(),
                "MAC" => args.mac = Some(unicast_mac(value).map_err(|error| bad(format!("MAC={error}")))?),
                "K8S_POD_NAMESPACE" => namespace = Some(value),
                "K8S_POD_NAME" => name = Some(value),
                "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
                _ => unknown.push(pair),
            }
        }
        if !ignore_unknown && !unknown.is_empty() {
            return Err(bad(format!("unknown args {unknown:?}; IgnoreUnknown=1 would pass them over")));
        }
        args.pod = namespace.zip(name).map(|(namespace, name)| format!("{namespace}/{name}"));
        Ok(args)
    }
}

/// Reads the address of one interface.
///
/// # Errors
/// A sentence with the value and what was expected.
pub fn unicast_mac(text: &str) -> std::result::Result<MacAddr, String> {
    let mac: MacAddr = text.parse().map_err(|error| format!("{error}"))?;
    if mac.is_unicast() {
        Ok(mac)
    } else {
        Err(format!("{text} is a group address or zero; expected a unicast MAC address"))
    }
}

/// Whether a text is a container id or network name: `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Refuses what the kernel does not take for the name of a link (`dev_valid_name`).
///
/// # Errors
/// Code 4 naming the variable and its value.
fn check_interface(variable: &str, name: &str) -> Result<()> {
    if is_link_name(name) {
        return Ok(());
    }
    Err(CniError::new(
        Code::BadEnvironment,
        format!(
            "{variable}={name:?} is not an interface name; expected 1 to 15 bytes without /, :, % and blanks, not . or .."
        ),
    ))
}

/// Whether the kernel gives a link this name (`dev_valid_name`); of one with a `%` it would make another.
#[must_use]
pub fn is_link_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control())
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE")
}

/// A variable's text; empty is unset, as libcni always sets all of them.
fn text(variables: &impl Variables, name: &str) -> Result<Option<String>> {
    let Some(bytes) = variables.get(name).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let value = String::from_utf8_lossy(error.as_bytes()).into_owned();
        CniError::new(Code::BadEnvironment, format!("{name}={value:?} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    impl Variables for HashMap<&str, &[u8]> {
        fn get(&self, name: &str) -> Option<Vec<u8>> {
            HashMap::get(self, name).map(|bytes| bytes.to_vec())
        }
    }

    fn env<'a>(pairs: &[(&'a str, &'a str)]) -> HashMap<&'a str, &'a [u8]> {
        pairs.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
    }

    #[test]
    fn t002_the_command_is_case_sensitive() {
        assert_eq!(Verb::from_env(&env(&[("CNI_COMMAND", "ADD")])).unwrap(), Some(Verb::Add));
        assert_eq!(Verb::from_env(&env(&[("CNI_COMMAND", "")])).unwrap(), None);
        for text in ["add", "FOO"] {
            let error = Verb::from_env(&env(&[("CNI_COMMAND", text)])).unwrap_err();
            assert_eq!((error.code, error.message), (Code::BadEnvironment, format!("unknown CNI_COMMAND: {text}")));
        }
    }

    #[test]
    fn t003_missing_variables_are_named_together() {
        let error = Call::from_env(Verb::Add, &env(&[("CNI_CONTAINERID", "c"), ("CNI_NETNS", "")])).unwrap_err();
        assert_eq!(error.message, "required env variables [CNI_NETNS,CNI_IFNAME] missing");
        assert!(Call::from_env(Verb::Del, &env(&[("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")])).is_ok());
    }

    #[test]
    fn t005_interface_names_the_kernel_would_refuse() {
        for name in ["sixteen-bytes-ok", ".", "..", "a/b", "a:b", "a b", "a\tb", "eth%d"] {
            let error =
                Call::from_env(Verb::Add, &env(&[("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/n"), ("CNI_IFNAME", name)]))
                    .unwrap_err();
            assert_eq!(error.code, Code::BadEnvironment, "{name}");
        }
        let mut variables = env(&[("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/n")]);
        variables.insert("CNI_IFNAME", b"eth\xff");
        assert_eq!(Call::from_env(Verb::Add, &variables).unwrap_err().code, Code::BadEnvironment);
    }

    #[test]
    fn container_ids_are_checked() {
        for id in ["-c", "c/d", "c d", ".c"] {
            let error =
                Call::from_env(Verb::Del, &env(&[("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0")])).unwrap_err();
            assert!(error.message.starts_with("invalid characters in containerID"), "{error}");
        }
    }

    #[test]
    fn t013_args_in_any_order_unknown_ones_only_when_ignored() {
        let read = |text: &str| Args::from_env(&env(&[("CNI_ARGS", text)]));
        assert_eq!(read("FOO=1").unwrap_err().code, Code::BadEnvironment);
        assert!(read("FOO=1;IgnoreUnknown=1").is_ok() && read("IgnoreUnknown=true;FOO=1").is_ok());
        assert_eq!(read("A=B=C;IgnoreUnknown=1").unwrap_err().code, Code::BadEnvironment);
        assert_eq!(read("IgnoreUnknown").unwrap_err().code, Code::BadEnvironment);
        let parts = ["IgnoreUnknown=1", "K8S_POD_NAME=p", "K8S_POD_NAMESPACE=n", "MAC=0a:58:01:02:03:04"];
        let expected = read(&parts.join(";")).unwrap();
        assert_eq!(expected.pod.as_deref(), Some("n/p"));
        for first in 0..4 {
            for second in 0..4 {
                let mut order = parts;
                order.swap(0, first);
                order.swap(1, second);
                assert_eq!(read(&order.join(";")).unwrap(), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn any_environment_is_an_answer_not_a_panic(id: Vec<u8>, name: Vec<u8>, args: Vec<u8>) {
            let variables: HashMap<&str, &[u8]> =
                [("CNI_CONTAINERID", &id[..]), ("CNI_IFNAME", &name[..]), ("CNI_ARGS", &args[..]), ("CNI_COMMAND", &args[..])].into();
            let _ = Verb::from_env(&variables);
            let _ = Call::from_env(Verb::Del, &variables);
            let _ = Args::from_env(&variables);
        }
    }
}
