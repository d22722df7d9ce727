//! Whether kubelet can use the runtime, and what kubelet's configuration has to know of it.

use k8s_cri::v1::{RuntimeConfigRequest, StatusRequest, StatusResponse, VersionRequest};
use serde_json::Value;
use tonic::Code;

use super::connect::{ASK_LIMIT, Cri};
use super::error::CriError;

/// Who makes control groups; kubelet and the runtime have to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// systemd, in slices and scopes.
    Systemd,
    /// The runtime itself, as folders.
    Cgroupfs,
}

impl CgroupDriver {
    /// As kubelet's configuration has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Cgroupfs => "cgroupfs",
        }
    }
}

/// What a runtime says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `containerd` or `cri-o`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Why it cannot run pods (its condition RuntimeReady is false).
    pub not_ready: Option<String>,
    /// Why it has no network yet (its condition NetworkReady is false); normal before weft's agent runs.
    pub no_network: Option<String>,
    /// `None` when it cannot tell: it is older than containerd 2.0 (`RuntimeConfig` is not implemented). Its configuration
    /// file says it then, and kubelet from 1.37 on refuses it.
    pub cgroup_driver: Option<CgroupDriver>,
    /// The image of which each pod's first container is, if it tells.
    pub sandbox_image: Option<String>,
}

impl Cri {
    /// Asks for version, conditions and the driver of control groups.
    ///
    /// # Errors
    /// [`CriError::NoCri`] when its CRI part is switched off; or it does not answer.
    pub async fn health(&self) -> Result<Health, CriError> {
        let version = VersionRequest { version: "v1".into() };
        let version = self.answer("Version", "", ASK_LIMIT, self.runtime().version(version)).await?;
        let status = StatusRequest { verbose: true };
        let status = self.answer("Status", "", ASK_LIMIT, self.runtime().status(status)).await?;
        let mut runtime = self.runtime();
        let asking = runtime.runtime_config(RuntimeConfigRequest {});
        let cgroup_driver = match self.answer("RuntimeConfig", "", ASK_LIMIT, asking).await {
            Ok(config) => config.linux.and_then(|linux| driver(linux.cgroup_driver)),
            Err(error) if error.code() == Some(Code::Unimplemented) => None,
            Err(error) => return Err(error),
        };
        Ok(Health {
            name: version.runtime_name,
            version: version.runtime_version,
            not_ready: complaint(&status, "RuntimeReady"),
            no_network: complaint(&status, "NetworkReady"),
            cgroup_driver,
            sandbox_image: sandbox_image(&status),
        })
    }
}

fn driver(number: i32) -> Option<CgroupDriver> {
    use k8s_cri::v1::CgroupDriver as Wire;
    Some(match Wire::try_from(number).ok()? {
        Wire::Systemd => CgroupDriver::Systemd,
        Wire::Cgroupfs => CgroupDriver::Cgroupfs,
    })
}

/// Why a condition is false. One that is not there at all is false, too.
fn complaint(status: &StatusResponse, name: &str) -> Option<String> {
    let conditions = status.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.r#type == name) {
        None => Some(format!("the runtime does not report {name}")),
        Some(condition) if condition.status => None,
        Some(condition) => Some(format!("{}: {}", condition.reason, condition.message)),
    }
}

/// containerd puts its whole configuration into the verbose answer, as JSON.
fn sandbox_image(status: &StatusResponse) -> Option<String> {
    let config: Value = serde_json::from_str(status.info.get("config")?).ok()?;
    Some(config.get("sandboxImage")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::{RuntimeCondition, RuntimeStatus};

    #[test]
    fn conditions_are_found_by_name_and_absence_is_a_complaint() {
        let condition = |name: &str, status| RuntimeCondition {
            r#type: name.into(),
            status,
            reason: "Why".into(),
            message: "so".into(),
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", false)];
        let mut status = StatusResponse { status: Some(RuntimeStatus { conditions }), ..Default::default() };
        assert_eq!(complaint(&status, "RuntimeReady"), None);
        assert_eq!(complaint(&status, "NetworkReady").unwrap(), "Why: so");
        assert!(complaint(&status, "Other").unwrap().contains("does not report Other"));
        status.info.insert("config".into(), r#"{"sandboxImage":"registry.k8s.io/pause:3.6"}"#.into());
        assert_eq!(sandbox_image(&status).unwrap(), "registry.k8s.io/pause:3.6");
    }
}
