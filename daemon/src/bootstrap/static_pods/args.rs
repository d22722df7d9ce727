//! Command lines: defaults in order, and what the configuration adds behind them.

use crate::bootstrap::config::model::Arg;

/// `--name=value` each: the defaults sorted, without those whose name the configuration uses, then the configuration's own
/// in the order given, repeated ones too (kubeadm `util.ArgumentsToCommand`).
pub(in crate::bootstrap) fn command_line(mut defaults: Vec<(&'static str, String)>, extra: &[Arg]) -> Vec<String> {
    defaults.retain(|(name, _)| extra.iter().all(|arg| arg.name != *name));
    defaults.sort();
    let defaults = defaults.into_iter().map(|(name, value)| format!("--{name}={value}"));
    defaults.chain(extra.iter().map(|arg| format!("--{}={}", arg.name, arg.value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arg(name: &str, value: &str) -> Arg {
        Arg { name: name.into(), value: value.into() }
    }

    #[test]
    fn i02_a_default_gives_way_and_repeated_flags_keep_their_order() {
        let defaults = vec![("b", "1".to_owned()), ("a", "2".to_owned()), ("c", "3".to_owned())];
        let extra = [arg("z", "9"), arg("b", "x"), arg("b", "y"), arg("v", "")];
        assert_eq!(command_line(defaults, &extra), ["--a=2", "--c=3", "--z=9", "--b=x", "--b=y", "--v="]);
    }
}
