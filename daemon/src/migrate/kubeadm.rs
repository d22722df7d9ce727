//! kubeadm's ClusterConfiguration, as far as it says who serves Services. Pure.
//!
//! kubeadm uploads it as YAML into ConfigMap `kube-system/kubeadm-config`, and `kubeadm upgrade` brings kube-proxy back
//! unless it says `proxy: {disabled: true}`, which `kubeadm.k8s.io/v1beta4` knows (Kubernetes 1.31). The text is edited and
//! not written anew, so that whatever else stands in it stays as it is; then it is read again and compared.

use serde_json::{Value, json};

/// The version that knows `proxy.disabled`.
const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";
/// Those before that kubeadm still reads.
const OLDER: [&str; 2] = ["kubeadm.k8s.io/v1beta2", "kubeadm.k8s.io/v1beta3"];

/// What has to become of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyEdit {
    /// It says that there is no kube-proxy.
    Disabled,
    /// It has to be this text.
    Replace(String),
    /// It is of this older version, which cannot say so.
    TooOld(String),
}

/// Says what has to become of a ClusterConfiguration so that it has no kube-proxy.
///
/// # Errors
/// Why it cannot be edited, in words.
pub fn without_proxy(text: &str) -> Result<ProxyEdit, String> {
    let before = read(text)?;
    if let Some(version) = before["apiVersion"].as_str().filter(|version| OLDER.contains(version)) {
        return Ok(ProxyEdit::TooOld(version.to_owned()));
    }
    if before["apiVersion"] != API_VERSION {
        return Err(format!("apiVersion is {}, and only {API_VERSION} knows proxy.disabled", before["apiVersion"]));
    }
    if before["proxy"]["disabled"] == true {
        return Ok(ProxyEdit::Disabled);
    }
    let edited = edit(text);
    let mut wanted = before;
    if !wanted["proxy"].is_object() {
        wanted["proxy"] = json!({});
    }
    wanted["proxy"]["disabled"] = json!(true);
    if read(&edited).as_ref() == Ok(&wanted) {
        Ok(ProxyEdit::Replace(edited))
    } else {
        Err("its proxy cannot be edited; set proxy.disabled to true by hand".to_owned())
    }
}

/// The ClusterConfiguration with kube-proxy again; `None` if it has it.
///
/// # Errors
/// Why it cannot be edited, in words.
pub fn with_proxy(text: &str) -> Result<Option<String>, String> {
    let before = read(text)?;
    if before["proxy"]["disabled"] != true {
        return Ok(None);
    }
    let edited = text.replacen("\n  disabled: true\n", "\n  disabled: false\n", 1);
    let mut wanted = before;
    wanted["proxy"]["disabled"] = json!(false);
    if read(&edited).as_ref() == Ok(&wanted) {
        Ok(Some(edited))
    } else {
        Err("its proxy cannot be edited; set proxy.disabled to false by hand".to_owned())
    }
}

fn read(text: &str) -> Result<Value, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() { Ok(value) } else { Err("it is no object".to_owned()) }
}

/// The text with the key set. Keys of the document begin their lines; those of `proxy` are indented.
fn edit(text: &str) -> String {
    let is_proxy = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key == "proxy");
    let mut lines = Vec::new();
    let mut in_proxy = false;
    let has_proxy = text.lines().any(|line| is_proxy(&line));
    for line in text.lines() {
        if is_proxy(&line) {
            in_proxy = true;
            lines.extend(["proxy:", "  disabled: true"]);
            continue;
        }
        in_proxy &= line.starts_with(' ') || line.is_empty();
        if in_proxy && line.trim_start().starts_with("disabled:") {
            continue;
        }
        lines.push(line);
    }
    if !has_proxy {
        lines.extend(["proxy:", "  disabled: true"]);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiServer: {}\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n";
    const TAIL: &str = "networking:\n  podSubnet: 10.244.0.0/16\nscheduler: {}\n";

    #[test]
    fn the_key_is_set_and_nothing_else_changes() {
        let wanted = format!("{HEAD}proxy:\n  disabled: true\n{TAIL}");
        for proxy in ["proxy: {}\n", "proxy:\n  disabled: false\n", "proxy:\n"] {
            let edit = without_proxy(&format!("{HEAD}{proxy}{TAIL}")).unwrap();
            assert_eq!(edit, ProxyEdit::Replace(wanted.clone()), "{proxy}");
        }
        assert_eq!(without_proxy(&wanted), Ok(ProxyEdit::Disabled));
        let appended = format!("{HEAD}{TAIL}proxy:\n  disabled: true\n");
        assert_eq!(without_proxy(&format!("{HEAD}{TAIL}")), Ok(ProxyEdit::Replace(appended)));
    }

    #[test]
    fn kube_proxy_is_had_again() {
        let without = format!("{HEAD}proxy:\n  disabled: true\n{TAIL}");
        let with = without.replace("true", "false");
        assert_eq!(with_proxy(&without), Ok(Some(with.clone())));
        assert_eq!(with_proxy(&with), Ok(None));
        assert_eq!(with_proxy(&HEAD.replace("v1beta4", "v1beta3")), Ok(None));
        assert!(with_proxy(&format!("{HEAD}proxy: {{disabled: true}}\n")).unwrap_err().contains("by hand"));
        // Another object's key of that name is not the one.
        let other = format!("{HEAD}dns:\n  disabled: true\nproxy:\n  disabled: true\n");
        assert!(with_proxy(&other).is_err());
    }

    #[test]
    fn what_cannot_be_edited_is_left_alone() {
        let old = HEAD.replace("v1beta4", "v1beta3");
        assert_eq!(without_proxy(&old), Ok(ProxyEdit::TooOld("kubeadm.k8s.io/v1beta3".to_owned())));
        assert!(without_proxy(&HEAD.replace("v1beta4", "v9")).unwrap_err().contains("v9"));
        assert!(without_proxy(&format!("{HEAD}\"proxy\": {{}}\n")).unwrap_err().contains("by hand"));
        assert!(without_proxy("- a\n").is_err() && without_proxy("a: [").is_err());
    }
}
