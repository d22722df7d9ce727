//! The whole way, from text and flags to what the rooms work from.

mod api;
mod documents;
mod init;
mod join;
mod machine;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tempfile::TempDir;

use super::address::tests::machine;
use super::*;
use crate::bootstrap::resolved::{EtcdPlace, Limits};

#[derive(Debug, Parser)]
struct Init {
    #[command(flatten)]
    flags: InitFlags,
}

#[derive(Debug, Parser)]
struct Join {
    #[command(flatten)]
    flags: JoinFlags,
}

const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn facts() -> Facts {
    Facts {
        hostname: "Node-1".to_owned(),
        machine: machine(
            &[("lo", "127.0.0.1/8"), ("eth0", "192.0.2.7/24"), ("eth1", "2001:db8::7/64")],
            &[(2, 100), (3, 1024)],
        ),
        cri_sockets: vec![PathBuf::from("/var/run/containerd/containerd.sock")],
        token: Secret("fresh0.0123456789abcdef".to_owned()),
        real: true,
    }
}

fn init_flags(flags: &str) -> InitFlags {
    Init::try_parse_from(["weft"].into_iter().chain(flags.split_whitespace())).unwrap().flags
}

fn join_flags(flags: &str) -> JoinFlags {
    Join::try_parse_from(["weft"].into_iter().chain(flags.split_whitespace())).unwrap().flags
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeadm.yaml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn init_of(text: &str, flags: &str) -> Result<InitConfig, ConfigError> {
    let (_dir, path) = file(text);
    let mut flags = init_flags(flags);
    flags.node.config = Some(path);
    init(&flags, &facts())
}

fn cluster_file(fields: &str) -> String {
    format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{fields}")
}

fn notices(notices: &[Finding]) -> String {
    notices.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
