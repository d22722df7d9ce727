//! The command-line flags, made from the table of keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use super::flannel::{self, FLAGS};
use super::keys::{KEYS, Key};

/// The flags that were given. `AGENT` says whether the command has the keys that only the agent has a use for.
#[derive(Debug, Clone, Default)]
pub struct Flags<const AGENT: bool> {
    /// `--config`.
    pub(super) file: Option<PathBuf>,
    /// Texts by key, of the flags that were given, and of those of flannel's by their names.
    pub(super) texts: BTreeMap<&'static str, Vec<String>>,
}

impl<const AGENT: bool> Flags<AGENT> {
    /// The text of a flag that was given on the command line; the last, of one that was given several times.
    #[must_use]
    pub fn given(&self, key: &str) -> Option<&str> {
        self.texts.get(key)?.last().map(String::as_str)
    }

    /// Flags of flannel's that weft has another name for, or none.
    fn foreign() -> impl Iterator<Item = &'static flannel::Flag> {
        FLAGS.iter().filter(|flag| AGENT && flag.is_foreign())
    }

    fn keys() -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(|key| AGENT || !key.agent_only)
    }
}

impl<const AGENT: bool> Args for Flags<AGENT> {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
            "Configuration file with any of these keys [env: WEFT_CONFIG] [default: /etc/weft/config.yaml, if there]",
        );
        let command = Self::keys().fold(command.arg(file), |command, key| command.arg(flag(key)));
        Self::foreign().fold(command, |command, flag| {
            let arg = Arg::new(flag.name).long(flag.name).value_name("VALUE").action(ArgAction::Append).hide(true);
            command.arg(if flag.is_switch { arg.num_args(0..=1).default_missing_value("true") } else { arg })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const AGENT: bool> FromArgMatches for Flags<AGENT> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one("config").cloned();
        for name in Self::keys().map(|key| key.name).chain(Self::foreign().map(|flag| flag.name)) {
            if let Some(texts) = matches.get_many::<String>(name) {
                self.texts.insert(name, texts.cloned().collect());
            }
        }
        Ok(())
    }
}

fn flag(key: &'static Key) -> Arg {
    let default = if key.name == "node-name" { String::new() } else { (key.default)() };
    let default = if default.is_empty() { default } else { format!(" [default: {default}]") };
    let arg = Arg::new(key.name)
        .long(key.name)
        .value_name("VALUE")
        .help(format!("{} [env: {}]{default}", key.help, key.variable()))
        .action(if key.is_list { ArgAction::Append } else { ArgAction::Set });
    if key.is_switch { arg.num_args(0..=1).default_missing_value("true") } else { arg }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<const AGENT: bool>(args: &[&str]) -> Result<Flags<AGENT>, clap::Error> {
        let command = Flags::<AGENT>::augment_args(Command::new("weft").no_binary_name(true));
        Flags::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn each_key_is_a_flag_and_only_given_ones_count() {
        Flags::<true>::augment_args(Command::new("weft")).debug_assert();
        let flags = parse::<true>(&["--iface", "eth1", "--ip-masq", "--iface", "eth2", "--bridge=br0"]).unwrap();
        assert_eq!(flags.texts["iface"], ["eth1", "eth2"]);
        assert_eq!(flags.texts["ip-masq"], ["true"]);
        assert_eq!((flags.given("iface"), flags.given("config")), (Some("eth2"), None));
        assert_eq!(flags.texts.len(), 3);
        for args in [&["--ip-masq=false"][..], &["--ip-masq", "false"], &["--ip-masq", "false", "--bridge=br0"]] {
            assert_eq!(parse::<true>(args).unwrap().texts["ip-masq"], ["false"]);
        }
    }

    #[test]
    fn flannels_flags_are_taken_and_not_listed() {
        let flags = parse::<true>(&["--kube-subnet-mgr", "--healthz-port=8081", "--v", "3"]).unwrap();
        assert_eq!((&flags.texts["kube-subnet-mgr"], &flags.texts["v"]), (&vec!["true".into()], &vec!["3".into()]));
        let help = Flags::<true>::augment_args(Command::new("weft")).render_long_help().to_string();
        assert!(!help.contains("kube-subnet-mgr") && help.contains("--iface-regex"), "{help}");
        assert!(parse::<false>(&["--kube-subnet-mgr"]).is_err());
    }

    #[test]
    fn a_lease_has_no_use_for_a_bridge() {
        assert!(parse::<false>(&["--bridge=br0"]).is_err());
        assert!(parse::<false>(&["--subnet-file=/x"]).is_ok());
    }
}
