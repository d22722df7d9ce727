//! The shape that all static pods of a control plane share (kubeadm `util/staticpod`).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Part;
use super::volumes::Volumes;
use crate::bootstrap::config::model::EnvVar;

/// Seconds between two looks of liveness and startup probe.
const PERIOD: u64 = 10;

/// What a component's pod has of its own.
#[derive(Debug)]
pub(super) struct Component {
    pub(super) part: Part,
    pub(super) image: String,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<EnvVar>,
    /// `(name, value)`.
    pub(super) annotation: Option<(&'static str, String)>,
    /// What it asks for, by resource.
    pub(super) requests: Value,
    pub(super) probe: Probe,
    pub(super) volumes: Volumes,
}

/// Where and how a component tells whether it is well.
#[derive(Debug)]
pub(super) struct Probe {
    /// Empty for the pod's own address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) scheme: &'static str,
    pub(super) liveness: &'static str,
    pub(super) readiness: Option<&'static str>,
    pub(super) startup: &'static str,
}

impl Component {
    /// The Pod, whose container may take so long to start before kubelet starts it anew.
    pub(super) fn into_value(self, start_limit: Duration) -> Value {
        let name = self.part.name();
        let mut metadata = json!({
            "name": name, "namespace": "kube-system", "labels": {"component": name, "tier": "control-plane"},
        });
        if let Some((key, value)) = self.annotation {
            metadata["annotations"] = json!({ key: value });
        }
        let mut container = json!({
            "name": name, "image": self.image, "imagePullPolicy": "IfNotPresent", "command": self.command,
            "ports": [{"containerPort": self.probe.port, "name": "probe-port", "protocol": "TCP"}],
            "resources": {"requests": self.requests},
            "livenessProbe": self.probe.look(self.probe.liveness, 8, PERIOD, true),
            // A part of a period is a whole look.
            "startupProbe": self.probe.look(self.probe.startup, start_limit.as_secs().div_ceil(PERIOD).max(1), PERIOD, true),
        });
        if let Some(path) = self.probe.readiness {
            container["readinessProbe"] = self.probe.look(path, 3, 1, false);
        }
        if !self.environment.is_empty() {
            container["env"] = json!(self.environment);
        }
        if !self.volumes.is_empty() {
            container["volumeMounts"] = self.volumes.mounts();
        }
        let mut spec = Map::from_iter([
            ("containers".into(), json!([container])),
            ("hostNetwork".into(), json!(true)),
            ("priority".into(), json!(2_000_001_000)),
            ("priorityClassName".into(), json!("system-node-critical")),
            ("securityContext".into(), json!({"seccompProfile": {"type": "RuntimeDefault"}})),
        ]);
        if !self.volumes.is_empty() {
            spec.insert("volumes".into(), self.volumes.volumes());
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {}})
    }
}

impl Probe {
    fn look(&self, path: &str, failures: u64, period: u64, delayed: bool) -> Value {
        let mut get = json!({"path": path, "port": "probe-port", "scheme": self.scheme});
        if !self.host.is_empty() {
            get["host"] = json!(self.host);
        }
        let mut probe =
            json!({"httpGet": get, "failureThreshold": failures, "periodSeconds": period, "timeoutSeconds": 15});
        if delayed {
            probe["initialDelaySeconds"] = json!(PERIOD);
        }
        probe
    }
}

/// The host of a probe: an address that means all is the pod's own, which is the host's.
pub(super) fn probe_host(bound: &str) -> String {
    if bound == "0.0.0.0" || bound == "::" { String::new() } else { bound.to_owned() }
}
