//! What the binaries are made of, as cargo knows it: the resolved graph, and the checksums of the lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The packages whose binaries are in the image.
pub const ROOTS: [&str; 2] = ["weft", "weft-cni"];

/// A package with a version, in the form that cargo's own reports have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SPDX expression of its license.
    pub license: Option<String>,
    /// Whether it comes from a registry; else it is of this workspace.
    pub is_foreign: bool,
    /// The SHA-256 checksum of what was taken from the registry, in hexadecimal digits.
    pub checksum: Option<String>,
    /// What it uses, by name and version.
    pub uses: BTreeSet<(String, String)>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
    resolve: Option<Resolve>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Described {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `dev`, `build`, or nothing for what is linked.
    kind: Option<String>,
}

/// Asks cargo for all packages that are linked into the binaries of a target.
///
/// # Errors
/// When cargo fails, or speaks another language than expected.
pub fn packages(manifest: &Path, target: &str) -> Result<Vec<Package>> {
    #[expect(clippy::disallowed_methods, reason = "a tool of the build: only cargo knows its graph")]
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target, "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata is not as expected")?;
    let lock = metadata.workspace_root.join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    linked(metadata, &checksums(&lock))
}

/// The packages that [`ROOTS`] reach without development and build dependencies, sorted.
fn linked(metadata: Metadata, checksums: &BTreeMap<(String, String), String>) -> Result<Vec<Package>> {
    let nodes = metadata.resolve.context("cargo metadata resolved nothing")?.nodes;
    let nodes: BTreeMap<&str, &Node> = nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let described: BTreeMap<&str, &Described> = metadata.packages.iter().map(|it| (it.id.as_str(), it)).collect();
    let is_root = |it: &&Described| it.source.is_none() && ROOTS.contains(&it.name.as_str());
    let mut waiting: Vec<&str> = metadata.packages.iter().filter(is_root).map(|it| it.id.as_str()).collect();
    ensure!(waiting.len() == ROOTS.len(), "the workspace does not have all of {ROOTS:?}");
    let mut seen = BTreeSet::new();
    let mut packages = Vec::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let it = described.get(id).with_context(|| format!("cargo metadata does not describe {id}"))?;
        let mut uses = BTreeSet::new();
        for dependency in nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default() {
            if dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()) {
                waiting.push(&dependency.pkg);
                let used = described.get(dependency.pkg.as_str());
                uses.extend(used.map(|used| (used.name.clone(), used.version.clone())));
            }
        }
        packages.push(Package {
            checksum: checksums.get(&(it.name.clone(), it.version.clone())).cloned(),
            name: it.name.clone(),
            version: it.version.clone(),
            // Before SPDX expressions a slash stood for a choice.
            license: it.license.as_ref().map(|license| license.replace('/', " OR ")),
            is_foreign: it.source.is_some(),
            uses,
        });
    }
    packages.sort();
    Ok(packages)
}

/// The checksums of a lock file by name and version. Cargo writes a field a line, in this order.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut checksums = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let value =
                |line: &str| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned);
            package.lines().find_map(value)
        };
        if let (Some(name), Some(version), Some(checksum)) = (field("name"), field("version"), field("checksum")) {
            checksums.insert((name, version), checksum);
        }
    }
    checksums
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Metadata {
        let package = |name: &str, source: Option<&str>| json!({"id": format!("{name}#1"), "name": name, "version": "1", "license": "MIT/Apache-2.0", "source": source});
        let needs = |name: &str, kind: Option<&str>| json!({"pkg": format!("{name}#1"), "dep_kinds": [{"kind": kind, "target": null}]});
        serde_json::from_value(json!({
            "packages": [package("weft", None), package("weft-cni", None), package("linked", Some("registry")),
                package("deep", Some("registry")), package("tester", Some("registry")), package("builder", Some("registry"))],
            "resolve": {"nodes": [
                {"id": "weft#1", "deps": [needs("weft-cni", None), needs("tester", Some("dev")), needs("builder", Some("build"))]},
                {"id": "weft-cni#1", "deps": [needs("linked", None)]},
                {"id": "linked#1", "deps": [needs("deep", None)]},
                {"id": "deep#1", "deps": []},
            ]},
            "workspace_root": "/",
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_linked_counts() {
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1\"\nsource = \"registry\"\nchecksum = \"abc\"\n";
        let packages = linked(metadata(), &checksums(lock)).unwrap();
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["deep", "linked", "weft", "weft-cni"]);
        assert_eq!(packages[0].checksum.as_deref(), Some("abc"));
        assert_eq!(packages[0].license.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(packages[1].uses, BTreeSet::from([("deep".to_owned(), "1".to_owned())]));
        assert_eq!(packages.iter().filter(|package| package.is_foreign).count(), 2);
    }

    #[test]
    fn a_graph_without_our_packages_is_an_error() {
        let mut metadata = metadata();
        metadata.packages.remove(1);
        assert!(linked(metadata, &BTreeMap::new()).is_err());
    }
}
