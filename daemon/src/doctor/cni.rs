//! What a runtime finds: network configurations in their order, and the plugin.

use super::check::Group;
use super::{Check, Told};

const GROUP: Group = Group("cni");

/// The plugin's binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plugin {
    /// It is not there.
    Absent,
    /// It is there, of this version; `None` if it does not say.
    Version(Option<String>),
}

/// What is asked of the files.
#[derive(Debug, Clone)]
pub struct CniFacts {
    /// The directory of configurations.
    pub conf_dir: String,
    /// The names of the configurations in it, in the order in which a runtime looks at them.
    pub files: Told<Vec<String>>,
    /// The name of weft's.
    pub ours: String,
    /// Whether the agent is ready, so that its configuration should be there; `None` if it does not tell.
    pub ready: Option<bool>,
    /// The path of the plugin.
    pub plugin_path: String,
    /// The plugin.
    pub plugin: Told<Plugin>,
    /// Version of the agent; nothing if it does not tell.
    pub version: Option<String>,
}

/// The checks.
#[must_use]
pub fn judge(facts: &CniFacts) -> Vec<Check> {
    vec![configurations(facts), plugin(facts)]
}

fn configurations(facts: &CniFacts) -> Check {
    let (dir, ours) = (&facts.conf_dir, &facts.ours);
    let files = match &facts.files {
        Ok(files) => files,
        Err(reason) => return GROUP.unknown("configuration", reason.clone()),
    };
    match files.iter().position(|file| file == ours) {
        Some(0) => GROUP.good("configuration", format!("{dir}/{}", files.join(", "))),
        Some(_) => {
            let before: Vec<&str> = files.iter().take_while(|file| *file != ours).map(String::as_str).collect();
            let moves: Vec<String> = before.iter().map(|file| format!("mv {dir}/{file} {dir}/{file}.saved")).collect();
            GROUP.problem(
                "configuration",
                format!("{} comes before {ours} in {dir}, and runtimes take the first: new pods get another network", before.join(", ")),
                format!("{}, and end whoever writes it", moves.join("; ")),
            )
        }
        None if facts.ready == Some(true) => GROUP.problem(
            "configuration",
            format!("the agent is ready, and {dir}/{ours} is not there: runtimes have no network for new pods"),
            format!("cni-conf-dir has to be the runtime's directory (containerd: conf_dir under [plugins…cni]), mounted at {dir} in the agent's pod"),
        ),
        None => GROUP.problem(
            "configuration",
            format!("{dir}/{ours} is not there: it comes when the agent is ready, and until then no pod gets a network"),
            "see what the agent says of its components",
        ),
    }
}

fn plugin(facts: &CniFacts) -> Check {
    let path = &facts.plugin_path;
    match &facts.plugin {
        Ok(Plugin::Absent) => GROUP.problem(
            "plugin",
            format!("{path} is not there, so runtimes cannot call it"),
            format!("cni-bin-source for the agent to copy it from, or install weft-cni at {path}"),
        ),
        Ok(Plugin::Version(Some(version))) => match &facts.version {
            None => {
                GROUP.unknown("plugin", format!("{path} is {version}, and the agent does not tell its own version"))
            }
            Some(agent) if agent == version => GROUP.good("plugin", format!("{path} is {version}")),
            Some(agent) => GROUP.problem(
                "plugin",
                format!("{path} is {version}, and the agent {agent}: one of them was not updated"),
                format!("install weft-cni {agent} at {path}, or give the agent cni-bin-source"),
            ),
        },
        Ok(Plugin::Version(None)) => GROUP.problem(
            "plugin",
            format!("{path} is no weft-cni"),
            "install weft-cni there, of the agent's version, or give the agent cni-bin-source",
        ),
        Err(reason) => GROUP.unknown("plugin", reason.clone()),
    }
}

/// The version that is written into a plugin's binary: what it says when somebody runs it by hand.
#[must_use]
pub fn version_in(binary: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"weft-cni ";
    const BEHIND: &[u8] = b": a CNI plugin";
    /// As long as versions are.
    const LONGEST: usize = 64;
    binary.windows(BEFORE.len()).enumerate().filter(|(_, window)| *window == BEFORE).find_map(|(at, _)| {
        let rest = binary.get(at + BEFORE.len()..)?;
        let rest = rest.get(..LONGEST).unwrap_or(rest);
        let end = rest.windows(BEHIND.len()).position(|window| window == BEHIND)?;
        let version = std::str::from_utf8(rest.get(..end)?).ok()?;
        version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    fn facts(files: &[&str], plugin: Plugin) -> CniFacts {
        CniFacts {
            conf_dir: "/etc/cni/net.d".into(),
            files: Ok(files.iter().map(|file| (*file).to_owned()).collect()),
            ours: "10-weft.conflist".into(),
            ready: Some(true),
            plugin_path: "/opt/cni/bin/weft-cni".into(),
            plugin: Ok(plugin),
            version: Some("1.0.0".into()),
        }
    }

    fn outcomes(facts: &CniFacts) -> [Outcome; 2] {
        let checks = judge(facts);
        [checks[0].outcome, checks[1].outcome]
    }

    #[test]
    fn the_first_configuration_counts() {
        let good = Plugin::Version(Some("1.0.0".into()));
        let files = ["10-weft.conflist", "87-podman.conflist"];
        assert_eq!(outcomes(&facts(&files, good.clone())), [Outcome::Good; 2]);
        let second = facts(&["05-other.conf", "10-weft.conflist"], good.clone());
        assert_eq!(outcomes(&second), [Outcome::Problem, Outcome::Good]);
        assert!(judge(&second)[0].remedy.as_ref().unwrap().starts_with("mv /etc/cni/net.d/05-other.conf "));
        assert_eq!(outcomes(&facts(&[], good)), [Outcome::Problem, Outcome::Good]);
    }

    #[test]
    fn the_plugin_is_of_the_agents_version() {
        let files = ["10-weft.conflist"];
        for plugin in [Plugin::Absent, Plugin::Version(None), Plugin::Version(Some("0.9.0".into()))] {
            assert_eq!(outcomes(&facts(&files, plugin))[1], Outcome::Problem);
        }
        let untold = CniFacts { version: None, ..facts(&files, Plugin::Version(Some("0.9.0".into()))) };
        assert_eq!(outcomes(&untold)[1], Outcome::Unknown);
    }

    #[test]
    fn a_version_is_found_in_a_binary() {
        assert_eq!(
            version_in(b"\0weft-cni \0weft-cni 1.2.3-rc1: a CNI plugin; protocol").as_deref(),
            Some("1.2.3-rc1")
        );
        assert_eq!(version_in(b"\x7fELF something else"), None);
        assert_eq!(version_in(b"weft-cni x: a CNI plugin"), None);
    }
}
