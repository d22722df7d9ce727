//! `weft migrate unfinish`: flannel and kube-proxy come to the cluster again, on nodes that are not weft's.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::TRY_AGAIN;
use super::cluster::{block_on, look};
use super::tell;
use crate::cluster::kube::{KubeOptions, explain};
use crate::migrate::api;
use crate::migrate::report::Report;
use crate::migrate::unfinish::unfinish;

/// Take `weft migrate finish` back: flannel's and kube-proxy's DaemonSets come again, and keep off nodes that are weft's.
///
/// Changes nothing (exit code 1) until each node of weft's has the label weft/agent=true and weft's DaemonSet asks for it (the
/// overlay migrate-from-flannel). Then: the DaemonSets are created as ConfigMap kube-system/weft-migration-saved has them, each
/// with the term that keeps it off, and kubeadm's configuration says that there is a kube-proxy. Nodes go back by
/// `weft migrate back`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft migrate unfinish --dry-run")]
pub(super) struct UnfinishArgs {
    /// File with an administrator's credentials; ~/.kube/config, /etc/kubernetes/admin.conf, or the pod's if not given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// URL of the API server; that of the kubeconfig if not given
    #[arg(long, value_name = "URL")]
    kube_api_server: Option<String>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &UnfinishArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let options =
            KubeOptions { kubeconfig: args.kubeconfig.clone(), kube_api_server: args.kube_api_server.clone() };
        let Some((client, cluster)) = look(options).await? else { return Ok(ExitCode::from(TRY_AGAIN)) };
        let wanted = unfinish(&cluster);
        if !wanted.obstacles.is_empty() {
            tell(&wanted.obstacles);
            return Ok(ExitCode::FAILURE);
        }
        let mut report = Report::default();
        if wanted.create.is_empty() {
            report.nothing("daemonsets", "all that were deleted are there");
        }
        for set in &wanted.create {
            let metadata = &set["metadata"];
            let name =
                [&metadata["namespace"], &metadata["name"]].map(|part| part.as_str().unwrap_or_default()).join("/");
            if args.dry_run {
                report.note("daemonsets", &format!("{name} would be created"));
            } else {
                let created = api::create(&client, set).await.map_err(|error| explain(&error));
                report.outcome("daemonsets", created, &format!("{name} is there again, off nodes that are weft's"));
            }
        }
        match (&wanted.kubeadm, &cluster.kubeadm) {
            (Some(_), _) if args.dry_run => report.note("kubeadm", "proxy.disabled would be set to false"),
            (Some(text), Some(before)) => {
                let set = api::set_kubeadm(&client, before, text).await;
                report.outcome("kubeadm", set, "proxy.disabled is false in ConfigMap kube-system/kubeadm-config");
            }
            _ => report.nothing("kubeadm", "its configuration stays as it is"),
        }
        Ok(if report.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}
