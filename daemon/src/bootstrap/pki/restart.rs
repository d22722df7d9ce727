//! Having a renewed certificate used: whom it concerns, and how kubelet is made to restart them.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bootstrap::converge;
use crate::bootstrap::resolved::Paths;
use crate::bootstrap::yaml;

/// Annotation of a static pod that tells when it was last restarted for its certificates. kubelet restarts a static pod whose
/// manifest changes.
pub const ANNOTATION: &str = "weft.io/certificates-renewed-at";
/// As static pods' manifests have it.
const MODE: u32 = 0o600;

/// A static pod could not be restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// The file system refused.
    #[error("cannot {verb} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The manifest.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The manifest is written in a way that cannot be edited safely.
    #[error("cannot edit {}: {reason}; have kubelet restart it: move the file away, wait 20 s, move it back", .path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// The static pods that go on using the old certificate until they are restarted.
#[must_use]
pub fn affected(name: &str) -> &'static [&'static str] {
    match name {
        "apiserver" | "apiserver-kubelet-client" | "front-proxy-client" | "apiserver-etcd-client" => {
            &["kube-apiserver"]
        }
        "etcd-server" | "etcd-peer" => &["etcd"],
        "controller-manager.conf" => &["kube-controller-manager"],
        "scheduler.conf" => &["kube-scheduler"],
        _ => &[],
    }
}

/// Whether etcd runs on this node: its manifest is here, or no control plane's is yet.
#[must_use]
pub fn has_local_etcd(paths: &Paths) -> bool {
    let manifests = paths.manifests();
    manifests.join("etcd.yaml").exists() || !manifests.join("kube-apiserver.yaml").exists()
}

/// Has kubelet restart a static pod, by an annotation in its manifest. `false` if this node has no such pod.
///
/// # Errors
/// The manifest cannot be read, edited or written; it is then as it was.
pub fn restart(component: &str, paths: &Paths, now: Timestamp) -> Result<bool, RestartError> {
    let path = paths.manifests().join(format!("{component}.yaml"));
    let failed = |verb, source| RestartError::Io { verb, path: path.clone(), source };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("read", error)),
    };
    let edited = annotate(&text, ANNOTATION, &now.to_string())
        .map_err(|reason| RestartError::Manifest { path: path.clone(), reason })?;
    converge::replace(&path, edited.as_bytes(), MODE).map_err(|error| failed("write", error))?;
    Ok(true)
}

/// The manifest with the annotation. The text is edited and not written anew, so that comments stay; then it is read again and
/// compared.
fn annotate(text: &str, key: &str, value: &str) -> Result<String, String> {
    let mut wanted = read(text)?;
    let metadata = wanted["metadata"].as_object_mut().ok_or("it has no metadata")?;
    let annotations = metadata.entry("annotations").or_insert(json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations.as_object_mut().ok_or("its annotations are no map")?.insert(key.to_owned(), json!(value));
    let edited = edit(text, key, value);
    if read(&edited).as_ref() == Ok(&wanted) {
        return Ok(edited);
    }
    // A manifest in another style, such as JSON: written anew.
    Ok(yaml::to_string(&wanted))
}

fn read(text: &str) -> Result<Value, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|_| "it is no YAML".to_owned())?;
    if value.is_object() { Ok(value) } else { Err("it is no object".to_owned()) }
}

/// Puts the annotation first among the annotations of a manifest in the usual style.
fn edit(text: &str, key: &str, value: &str) -> String {
    let without: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with(&format!("{key}:"))).collect();
    let metadata = without.iter().position(|line| line.trim_end() == "metadata:").unwrap_or(0);
    let inner = without.iter().skip(metadata + 1).take_while(|line| line.starts_with(' '));
    let annotations = inner.enumerate().find(|(_, line)| line.trim_end() == "  annotations:").map(|(at, _)| at);
    let mut lines = Vec::new();
    for (number, line) in without.iter().enumerate() {
        lines.push((*line).to_owned());
        match annotations {
            Some(at) if number == metadata + 1 + at => lines.push(format!("    {key}: \"{value}\"")),
            None if number == metadata => {
                lines.extend(["  annotations:".to_owned(), format!("    {key}: \"{value}\"")]);
            }
            _ => {}
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    tier: control-plane\n  name: etcd\nspec:\n  # kept\n  hostNetwork: true\n";

    #[test]
    fn k12_the_annotation_changes_and_nothing_else() {
        let first = annotate(POD, ANNOTATION, "1").unwrap();
        let second = annotate(&first, ANNOTATION, "2").unwrap();
        assert_eq!(second, first.replace("\"1\"", "\"2\""));
        assert!(second.contains("# kept") && second.contains("    tier: control-plane\n"), "{second}");
        let there = POD.replace("  labels:", "  annotations:\n    a: b\n  labels:");
        let there = annotate(&there, ANNOTATION, "1").unwrap();
        assert_eq!(read(&there).unwrap()["metadata"]["annotations"], json!({ "a": "b", ANNOTATION: "1" }));
    }

    #[test]
    fn a_manifest_in_json_works_too() {
        let made = annotate(r#"{"metadata":{"name":"etcd"},"spec":{}}"#, ANNOTATION, "1").unwrap();
        let wanted = json!({ "metadata": { "name": "etcd", "annotations": { ANNOTATION: "1" } }, "spec": {} });
        assert_eq!(read(&made).unwrap(), wanted);
    }

    #[test]
    fn a_pod_that_is_not_here_is_not_restarted() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        assert!(!restart("etcd", &paths, Timestamp::now()).unwrap());
        std::fs::create_dir_all(paths.manifests()).unwrap();
        std::fs::write(paths.manifests().join("etcd.yaml"), POD).unwrap();
        assert!(restart("etcd", &paths, Timestamp::now()).unwrap());
        let text = std::fs::read_to_string(paths.manifests().join("etcd.yaml")).unwrap();
        assert!(text.contains(ANNOTATION), "{text}");
        std::fs::write(paths.manifests().join("etcd.yaml"), "nonsense").unwrap();
        let error = restart("etcd", &paths, Timestamp::now()).unwrap_err().to_string();
        assert!(error.contains("etcd.yaml") && error.contains("move the file away"), "{error}");
    }
}
