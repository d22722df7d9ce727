//! The network configuration in a file, which is read again when it changes: kubelet puts another one in its place some time
//! after the ConfigMap was changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::cluster::{NetConf, PerFamily};
use crate::config::AgentConfig;

/// How often the file is looked at. kubelet takes up to a minute to bring it.
const LOOK: Duration = Duration::from_secs(5);

/// The network configuration, now and whenever it changes.
pub(super) fn follow(config: &AgentConfig) -> watch::Receiver<Arc<NetConf>> {
    let (network, out) = watch::channel(Arc::new(config.network.clone()));
    if let Some(path) = config.settings.net_config_path.clone() {
        tokio::spawn(look(path, network, LOOK));
    }
    out
}

async fn look(path: PathBuf, network: watch::Sender<Arc<NetConf>>, every: Duration) {
    let mut seen = std::fs::read(&path).ok();
    while !network.is_closed() {
        sleep(every).await;
        // While kubelet changes the link there may be no file for a moment.
        let Ok(text) = std::fs::read(&path) else { continue };
        if seen.as_ref() != Some(&text) {
            let current = Arc::clone(&network.borrow());
            if let Some(new) = judge(&path, &text, &current) {
                network.send_replace(Arc::new(new));
            }
            seen = Some(text);
        }
    }
}

/// What of a new file counts from now on; says so, and what has to wait.
fn judge(path: &Path, text: &[u8], current: &NetConf) -> Option<NetConf> {
    let path = path.display();
    let (new, warnings) = match NetConf::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            tracing::warn!("{path} is not usable any more, and what it was goes on: {error}");
            return None;
        }
    };
    for warning in warnings {
        tracing::warn!("{path}: {warning}");
    }
    let families = |pools: &PerFamily<_>| pools.families().collect::<Vec<_>>();
    if families(&new.pools) != families(&current.pools) {
        tracing::warn!("{path} has other address families than before: restart the agent, until then nothing changes");
        return None;
    }
    if new == *current {
        return None;
    }
    let back_end =
        if new.backend == current.backend { "" } else { "the back end's options, which make the device anew; " };
    let pools =
        if new.pools == current.pools { "" } else { "the networks, as soon as the node's subnet lies within them" };
    tracing::info!("{path} has changed; it takes effect without a restart: {back_end}{pools}");
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_under_running_pods_does() {
        let conf = |text: &str| NetConf::parse(text.as_bytes()).unwrap().0;
        let current = conf(r#"{"Network": "10.244.0.0/16"}"#);
        let judge = |text: &str| judge(Path::new("net-conf.json"), text.as_bytes(), &current);
        let other_port = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "Port": 4789}}"#;
        assert_eq!(judge(other_port), Some(conf(other_port)));
        let wider = r#"{"Network": "10.240.0.0/12"}"#;
        assert_eq!(judge(wider), Some(conf(wider)));
        for same in [
            r#"{ "Network": "10.244.0.0/16" }"#,
            "garbage",
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48"}"#,
        ] {
            assert_eq!(judge(same), None, "{same}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net-conf.json");
        std::fs::write(&path, r#"{"Network": "10.244.0.0/16"}"#).unwrap();
        let first = NetConf::parse(&std::fs::read(&path).unwrap()).unwrap().0;
        let (network, mut out) = watch::channel(Arc::new(first));
        tokio::spawn(look(path.clone(), network, Duration::from_millis(10)));
        tokio::task::yield_now().await;
        std::fs::write(&path, r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}"#).unwrap();
        out.changed().await.unwrap();
        assert_eq!(out.borrow().backend.to_json()["VNI"], 7);
    }
}
