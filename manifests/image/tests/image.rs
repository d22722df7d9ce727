//! The image from outside: what is in it, that it comes out the same twice, and that a runtime takes it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_image::elf::Architecture;
use weft_image::oci::{Digest, INDEX, MANIFEST, SBOM};
use weft_tests::scratch::Scratch;
use weft_tests::{binaries, skip, tool};

const NAME: &str = "localhost/weft:0.1.0";
const DATE: &str = "1700000000";

/// The folder of the binaries, or the reason why there is none.
fn built() -> Result<PathBuf, String> {
    for name in ["weft", "weft-cni"] {
        binaries::find(name).map_err(|error| error.to_string())?;
    }
    Ok(binaries::folder())
}

/// The same binaries as if they were arm64's: the machine is one field of their header (elf(5), `e_machine`).
fn disguised(folder: &Path, scratch: &Scratch) -> PathBuf {
    let other = scratch.join("other");
    fs::create_dir_all(&other).unwrap();
    for name in ["weft", "weft-cni"] {
        let mut bytes = fs::read(folder.join(name)).unwrap();
        bytes[18..20].copy_from_slice(&183_u16.to_le_bytes());
        fs::write(other.join(name), bytes).unwrap();
    }
    other
}

fn build(folders: &[&Path], out: &Path) {
    let mut command = tool::command(env!("CARGO_BIN_EXE_weft-image"));
    // The path of root, whom tests run as, does not lead to a user's cargo.
    command.env("CARGO", env!("CARGO"));
    command.args(["--tag", "0.1.0", "--revision", "abc", "--date", DATE]);
    command.args(["--manifest", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"), "--out"]).arg(out);
    for folder in folders {
        command.arg("--binaries").arg(folder);
    }
    tool::run(&mut command).unwrap();
}

/// The files of a tar archive. Every entry has to be without a date and root's.
fn unpack(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
        let (mode, is_file) = (header.mode().unwrap(), header.entry_type().is_file());
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if is_file {
            files.insert(path, (mode, bytes));
        }
    }
    files
}

/// An image layout whose every descriptor is checked when it is followed.
struct Layout {
    files: BTreeMap<String, (u32, Vec<u8>)>,
    followed: BTreeSet<String>,
}

impl Layout {
    fn open(archive: &[u8]) -> Self {
        let files = unpack(archive);
        assert_eq!(files["oci-layout"].1, br#"{"imageLayoutVersion":"1.0.0"}"#);
        Self { files, followed: BTreeSet::new() }
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&self.files["index.json"].1).unwrap()
    }

    fn follow(&mut self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let bytes = self.files[&path].1.clone();
        assert_eq!(Digest::of(&bytes).to_string(), digest);
        assert_eq!(descriptor["size"], bytes.len());
        self.followed.insert(path);
        bytes
    }

    fn json(&mut self, descriptor: &Value) -> Value {
        let value: Value = serde_json::from_slice(&self.follow(descriptor)).unwrap();
        if value["mediaType"].is_string() {
            assert_eq!(value["mediaType"], descriptor["mediaType"]);
        }
        value
    }

    /// Everything that is there has been followed to.
    fn assert_complete(&self) {
        let blobs: BTreeSet<String> = self.files.keys().filter(|path| path.starts_with("blobs/")).cloned().collect();
        assert_eq!(blobs, self.followed);
    }
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut inflated).unwrap();
    inflated
}

/// One architecture's image, with all that it promises.
fn check_image(layout: &mut Layout, descriptor: &Value, folder: &Path, machine: Architecture) {
    assert_eq!(descriptor["platform"], json!({"architecture": machine.name(), "os": "linux"}));
    let manifest = layout.json(descriptor);
    let config = layout.json(&manifest["config"]);
    assert_eq!((&config["architecture"], &config["os"]), (&json!(machine.name()), &json!("linux")));
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    assert_eq!(config["config"]["Entrypoint"], json!(["/weft"]));
    assert_eq!(config["config"]["Cmd"], json!(["pause"]));
    for (label, value) in [("title", "weft"), ("version", "0.1.0"), ("revision", "abc"), ("licenses", "Apache-2.0")] {
        let label = format!("org.opencontainers.image.{label}");
        assert_eq!(config["config"]["Labels"][&label], value);
        assert_eq!(manifest["annotations"][&label], value);
    }
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let layer = inflate(&layout.follow(&manifest["layers"][0]));
    assert_eq!(config["rootfs"]["diff_ids"], json!([Digest::of(&layer).to_string()]));
    assert!(layer.len() <= 20 << 20, "{} bytes", layer.len());
    let files = unpack(&layer);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["weft", "weft-cni"], "nothing else");
    for (name, (mode, bytes)) in &files {
        assert_eq!((*mode, bytes == &fs::read(folder.join(name)).unwrap()), (0o755, true), "{name}");
    }
}

/// The list of materials that belongs to an image.
fn check_referrer(layout: &mut Layout, descriptor: &Value, image: &Value, file: &[u8]) {
    assert_eq!(descriptor["artifactType"], SBOM);
    let manifest = layout.json(descriptor);
    assert_eq!((&manifest["artifactType"], &manifest["subject"]["digest"]), (&json!(SBOM), &image["digest"]));
    layout.follow(&manifest["config"]);
    assert_eq!(layout.follow(&manifest["layers"][0]), file);
}

/// Every component is described, and every edge of the graph leads to one.
fn check_sbom(file: &[u8]) {
    let document: Value = serde_json::from_slice(file).unwrap();
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
    let components = document["components"].as_array().unwrap();
    let names: BTreeSet<&str> = components.iter().map(|it| it["name"].as_str().unwrap()).collect();
    for linked in ["weft", "weft-cni", "weft-netlink", "tokio", "rtnetlink", "etcd-client", "ring"] {
        assert!(names.contains(linked), "{linked} is linked");
    }
    for not in ["weft-tests", "proptest", "bolero", "tempfile"] {
        assert!(!names.contains(not), "{not} is not linked");
    }
    for component in components {
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        let is_ours = component["name"].as_str().unwrap().starts_with("weft");
        assert_eq!(component["purl"].is_string(), !is_ours, "{component}");
        assert_eq!(component["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64), !is_ours);
    }
    let known: BTreeSet<&str> = components
        .iter()
        .chain([&document["metadata"]["component"]])
        .map(|it| it["bom-ref"].as_str().unwrap())
        .collect();
    let edges = document["dependencies"].as_array().unwrap();
    assert_eq!(edges.iter().map(|edge| edge["ref"].as_str().unwrap()).collect::<BTreeSet<_>>(), known);
    for edge in edges {
        assert!(edge["dependsOn"].as_array().unwrap().iter().all(|to| known.contains(to.as_str().unwrap())), "{edge}");
    }
}

#[test]
fn every_digest_leads_to_what_it_says_and_nothing_else_is_there() {
    let folder = match built() {
        Ok(folder) => folder,
        Err(reason) => skip!("{reason}"),
    };
    let scratch = Scratch::new();
    let other = disguised(&folder, &scratch);
    let out = scratch.join("out");
    build(&[&other, &folder], &out);

    let mut layout = Layout::open(&fs::read(out.join("weft-0.1.0.oci.tar")).unwrap());
    let index = layout.index();
    let [named, referrers @ ..] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    assert_eq!((&index["mediaType"], &named["mediaType"]), (&json!(INDEX), &json!(INDEX)));
    assert_eq!(named["annotations"]["io.containerd.image.name"], NAME);
    assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], "0.1.0");
    let images = layout.json(named)["manifests"].as_array().unwrap().clone();
    assert_eq!((images.len(), referrers.len()), (2, 2));
    let folders = [folder.as_path(), other.as_path()];
    for (at, machine) in Architecture::ALL.into_iter().enumerate() {
        assert_eq!(images[at]["mediaType"], MANIFEST);
        check_image(&mut layout, &images[at], folders[at], machine);
        let sbom = fs::read(out.join(format!("weft-0.1.0-{machine}.cdx.json"))).unwrap();
        check_referrer(&mut layout, &referrers[at], &images[at], &sbom);
        check_sbom(&sbom);
    }
    layout.assert_complete();
}

#[test]
fn the_docker_archive_is_the_same_image() {
    let folder = match built() {
        Ok(folder) => folder,
        Err(reason) => skip!("{reason}"),
    };
    let scratch = Scratch::new();
    build(&[&folder], scratch.path());
    let machine = Architecture::ALL.into_iter().find(|it| it.target().starts_with(std::env::consts::ARCH)).unwrap();
    let files = unpack(&fs::read(scratch.join(format!("weft-0.1.0-{machine}.docker.tar"))).unwrap());
    assert_eq!(files.len(), 3);
    let manifest: Value = serde_json::from_slice(&files["manifest.json"].1).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!([NAME]));
    let (name, layer) = (manifest[0]["Config"].as_str().unwrap(), manifest[0]["Layers"][0].as_str().unwrap());
    let config = &files[name].1;
    assert_eq!(name, format!("{}.json", Digest::of(config).hex()));
    let diff_id = Digest::of(&files[layer].1).to_string();
    assert_eq!(serde_json::from_slice::<Value>(config).unwrap()["rootfs"]["diff_ids"], json!([diff_id]));

    let mut layout = Layout::open(&fs::read(scratch.join("weft-0.1.0.oci.tar")).unwrap());
    let images = {
        let index = layout.index();
        layout.json(&index["manifests"][0])
    };
    let oci = layout.json(&images["manifests"][0]);
    assert_eq!(oci["config"]["digest"], Digest::of(config).to_string());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = match built() {
        Ok(folder) => folder,
        Err(reason) => skip!("{reason}"),
    };
    let scratch = Scratch::new();
    // Copies, so that their dates and owners are others.
    let copy = scratch.join("copy");
    fs::create_dir_all(&copy).unwrap();
    for name in ["weft", "weft-cni"] {
        fs::copy(folder.join(name), copy.join(name)).unwrap();
    }
    let (first, second) = (scratch.join("first"), scratch.join("second"));
    build(&[&folder], &first);
    build(&[&copy], &second);
    let names =
        |folder: &Path| -> BTreeSet<_> { fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect() };
    assert_eq!((names(&first).len(), names(&first)), (3, names(&second)));
    for name in names(&first) {
        assert!(fs::read(first.join(&name)).unwrap() == fs::read(second.join(&name)).unwrap(), "{name:?}");
    }
}

/// A containerd without CRI in namespaces of its own; imports both archives and runs the image as a runtime would.
const SCRIPT: &str = r#"
set -eu
scratch=$1; export PATH="$PATH:/usr/sbin:/sbin"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
ctr() { command ctr --address "$scratch/containerd.sock" --namespace k8s.io "$@"; }
containerd --config "$scratch/config.toml" > "$scratch/log" 2>&1 &
for i in $(seq 600); do ctr version > /dev/null 2>&1 && break; sleep 0.05; done
ctr images import --snapshotter native --all-platforms "$scratch"/weft-0.1.0.oci.tar
ctr images ls -q > "$scratch/oci.names"
ctr images check name==localhost/weft:0.1.0 > "$scratch/check"
ctr run --rm --cgroup "" --snapshotter native localhost/weft:0.1.0 version /weft --version > "$scratch/version"
ctr run --rm --cgroup "" --snapshotter native localhost/weft:0.1.0 plugin /weft-cni < /dev/null > "$scratch/plugin" 2>&1 || true
ctr run --detach --cgroup "" --snapshotter native localhost/weft:0.1.0 pause
ctr tasks ls > "$scratch/tasks"
ctr tasks kill --signal SIGTERM pause
for i in $(seq 200); do ctr tasks ls | grep -q STOPPED && break; sleep 0.05; done
ctr tasks ls > "$scratch/tasks.after"
ctr tasks delete pause > /dev/null 2>&1 || true
ctr containers delete pause
ctr images rm --sync localhost/weft:0.1.0 > /dev/null
ctr images import --snapshotter native "$scratch"/weft-0.1.0-*.docker.tar
ctr images ls -q > "$scratch/docker.names"
"#;

#[test]
fn containerd_imports_both_archives_and_runs_them() {
    let folder = match built() {
        Ok(folder) => folder,
        Err(reason) => skip!("{reason}"),
    };
    if tool::call("containerd", &["--version"]).is_err() || tool::call("runc", &["--version"]).is_err() {
        skip!("needs containerd and runc");
    }
    let scratch = Scratch::new();
    build(&[&folder], scratch.path());
    let at = |name: &str| scratch.join(name).display().to_string();
    let config = format!(
        "version = 2\nroot = \"{}\"\nstate = \"/run/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
         \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"{}\"\n",
        at("root"),
        at("containerd.sock")
    );
    fs::write(scratch.join("config.toml"), config).unwrap();
    let mut command = tool::command("unshare");
    command.args(["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"]);
    let output = tool::run(command.arg(scratch.path()));
    let read = |name: &str| fs::read_to_string(scratch.join(name)).unwrap_or_default();
    output.unwrap_or_else(|error| {
        panic!("{error:#}; its log ends with {:#?}", read("log").lines().rev().take(5).collect::<Vec<_>>())
    });
    assert_eq!(read("oci.names").trim(), NAME);
    assert!(read("check").contains("complete"), "{}", read("check"));
    assert!(read("version").starts_with("weft 0."), "{}", read("version"));
    assert!(read("plugin").starts_with("weft-cni 0."), "{}", read("plugin"));
    assert!(read("tasks").contains("RUNNING"), "{}", read("tasks"));
    assert!(read("tasks.after").contains("STOPPED"), "{}", read("tasks.after"));
    assert_eq!(read("docker.names").trim(), NAME);
}
