//! The fields of each kind of document, in all versions that are read (kubeadm 1.36, apis/kubeadm/v1beta3 and v1beta4; 1.22
//! for v1beta2).

use super::shape::Shape::{Address, Any, Args, Bool, Duration, Gates, Object, Objects, OneOf, Text, Texts, Whole};
use super::shape::Version::{V1Beta2, V1Beta3, V1Beta4};
use super::shape::{Field, Shape};

const fn f(name: &'static str, shape: Shape) -> Field {
    Field::new(name, shape)
}

const PORT: Shape = Whole(65_535);

/// Fields of an `InitConfiguration`.
pub(super) const INIT: &[Field] = &[
    f("bootstrapTokens", Objects(TOKEN)),
    f("dryRun", Bool).since(V1Beta4),
    f("nodeRegistration", Object(REGISTRATION)),
    f("localAPIEndpoint", Object(ENDPOINT)),
    f("certificateKey", Text),
    f("skipPhases", Texts).since(V1Beta3),
    f("patches", Object(PATCHES)).since(V1Beta3),
    f("timeouts", Object(TIMEOUTS)).since(V1Beta4),
];

/// Fields of a `ClusterConfiguration`.
pub(super) const CLUSTER: &[Field] = &[
    f("etcd", Object(ETCD)),
    f("networking", Object(NETWORKING)),
    f("kubernetesVersion", Text),
    f("controlPlaneEndpoint", Text),
    f("apiServer", Object(API_SERVER)),
    f("controllerManager", Object(COMPONENT)),
    f("scheduler", Object(COMPONENT)),
    f("dns", Object(DNS)),
    f("proxy", Object(PROXY)).since(V1Beta4),
    f("certificatesDir", Text),
    f("imageRepository", Text),
    f("useHyperKubeImage", Bool).until(V1Beta2),
    f("featureGates", Gates),
    f("clusterName", Text),
    f("encryptionAlgorithm", OneOf(ENCRYPTION)).since(V1Beta4),
    f("certificateValidityPeriod", Duration).since(V1Beta4),
    f("caCertificateValidityPeriod", Duration).since(V1Beta4),
];

/// Fields of a `JoinConfiguration`.
pub(super) const JOIN: &[Field] = &[
    f("dryRun", Bool).since(V1Beta4),
    f("nodeRegistration", Object(REGISTRATION)),
    f("caCertPath", Text),
    f("discovery", Object(DISCOVERY)),
    f("controlPlane", Object(CONTROL_PLANE)),
    f("skipPhases", Texts).since(V1Beta3),
    f("patches", Object(PATCHES)).since(V1Beta3),
    f("timeouts", Object(TIMEOUTS)).since(V1Beta4),
];

/// Fields of a `ResetConfiguration`.
pub(super) const RESET: &[Field] = &[
    f("cleanupTmpDir", Bool),
    f("certificatesDir", Text),
    f("criSocket", Text),
    f("dryRun", Bool),
    f("force", Bool),
    f("ignorePreflightErrors", Texts),
    f("skipPhases", Texts),
    f("unmountFlags", Texts),
    f("timeouts", Object(TIMEOUTS)),
];

/// Fields of an `UpgradeConfiguration`.
pub(super) const UPGRADE: &[Field] = &[
    f("apply", Object(UPGRADE_APPLY)),
    f("diff", Object(&[f("kubernetesVersion", Text), f("contextLines", Whole(1_000_000))])),
    f("node", Object(UPGRADE_NODE)),
    f("plan", Object(UPGRADE_PLAN)),
    f("timeouts", Object(TIMEOUTS)),
];

/// Fields of a `WeftConfiguration`.
pub(super) const WEFT: &[Field] = &[
    f("proxyMode", OneOf(&["auto", "ipvs", "nftables"])),
    f("backend", OneOf(&["vxlan"])),
    f("imageMirrors", Texts),
    f("images", Texts),
    f("kubernetesBin", Text),
    f("swap", OneOf(&["disable", "tolerate", "limited"])),
    f("nodeIP", Address),
    f("interface", Text),
    f("wait", Bool),
    f("fix", Bool),
    f("prepareHost", Bool),
    f("apiBalancer", Bool),
    f("apiBalancerPort", Whole(65_535)),
];

/// Values of `encryptionAlgorithm`.
pub(super) const ENCRYPTION: &[&str] = &["ECDSA-P256", "ECDSA-P384", "RSA-2048", "RSA-3072", "RSA-4096"];

const PULL_POLICY: &[&str] = &["Always", "IfNotPresent", "Never"];

const TOKEN: &[Field] = &[
    f("token", Text),
    f("description", Text),
    f("ttl", Duration),
    f("expires", Text),
    f("usages", Texts),
    f("groups", Texts),
];

const REGISTRATION: &[Field] = &[
    f("name", Text),
    f("criSocket", Text),
    f("taints", Objects(TAINT)),
    f("kubeletExtraArgs", Args),
    f("ignorePreflightErrors", Texts),
    f("imagePullPolicy", OneOf(PULL_POLICY)).since(V1Beta3),
    f("imagePullSerial", Bool).since(V1Beta4),
];

const TAINT: &[Field] = &[f("key", Text), f("value", Text), f("effect", Text), f("timeAdded", Text)];

const ENDPOINT: &[Field] = &[f("advertiseAddress", Address), f("bindPort", PORT)];

const PATCHES: &[Field] = &[f("directory", Text)];

const TIMEOUTS: &[Field] = &[
    f("controlPlaneComponentHealthCheck", Duration),
    f("kubeletHealthCheck", Duration),
    f("kubernetesAPICall", Duration),
    f("etcdAPICall", Duration),
    f("tlsBootstrap", Duration),
    f("discovery", Duration),
    f("upgradeManifests", Duration),
];

const ETCD: &[Field] = &[f("local", Object(LOCAL_ETCD)), f("external", Object(EXTERNAL_ETCD))];

const LOCAL_ETCD: &[Field] = &[
    f("imageRepository", Text),
    f("imageTag", Text),
    f("dataDir", Text),
    f("extraArgs", Args),
    f("extraEnvs", Objects(ENV)).since(V1Beta4),
    f("serverCertSANs", Texts),
    f("peerCertSANs", Texts),
];

const EXTERNAL_ETCD: &[Field] = &[
    f("endpoints", Texts),
    f("httpEndpoints", Texts).since(V1Beta4),
    f("caFile", Text),
    f("certFile", Text),
    f("keyFile", Text),
];

const NETWORKING: &[Field] = &[f("serviceSubnet", Text), f("podSubnet", Text), f("dnsDomain", Text)];

const COMPONENT: &[Field] =
    &[f("extraArgs", Args), f("extraVolumes", Objects(VOLUME)), f("extraEnvs", Objects(ENV)).since(V1Beta4)];

const API_SERVER: &[Field] = &[
    f("extraArgs", Args),
    f("extraVolumes", Objects(VOLUME)),
    f("extraEnvs", Objects(ENV)).since(V1Beta4),
    f("certSANs", Texts),
    f("timeoutForControlPlane", Duration).until(V1Beta3),
];

const VOLUME: &[Field] =
    &[f("name", Text), f("hostPath", Text), f("mountPath", Text), f("readOnly", Bool), f("pathType", Text)];

const ENV: &[Field] = &[f("name", Text), f("value", Text), f("valueFrom", Any)];

const DNS: &[Field] = &[
    f("type", Text).until(V1Beta2),
    f("imageRepository", Text),
    f("imageTag", Text),
    f("disabled", Bool).since(V1Beta4),
];

const PROXY: &[Field] = &[f("disabled", Bool)];

const DISCOVERY: &[Field] = &[
    f("bootstrapToken", Object(TOKEN_DISCOVERY)),
    f("file", Object(&[f("kubeConfigPath", Text)])),
    f("tlsBootstrapToken", Text),
    f("timeout", Duration).until(V1Beta3),
];

const TOKEN_DISCOVERY: &[Field] =
    &[f("token", Text), f("apiServerEndpoint", Text), f("caCertHashes", Texts), f("unsafeSkipCAVerification", Bool)];

const CONTROL_PLANE: &[Field] = &[f("localAPIEndpoint", Object(ENDPOINT)), f("certificateKey", Text)];

const UPGRADE_APPLY: &[Field] = &[
    f("kubernetesVersion", Text),
    f("allowExperimentalUpgrades", Bool),
    f("allowRCUpgrades", Bool),
    f("certificateRenewal", Bool),
    f("dryRun", Bool),
    f("etcdUpgrade", Bool),
    f("forceUpgrade", Bool),
    f("ignorePreflightErrors", Texts),
    f("patches", Object(PATCHES)),
    f("printConfig", Bool),
    f("skipPhases", Texts),
    f("imagePullPolicy", OneOf(PULL_POLICY)),
    f("imagePullSerial", Bool),
];

const UPGRADE_NODE: &[Field] = &[
    f("certificateRenewal", Bool),
    f("dryRun", Bool),
    f("etcdUpgrade", Bool),
    f("ignorePreflightErrors", Texts),
    f("skipPhases", Texts),
    f("patches", Object(PATCHES)),
    f("imagePullPolicy", OneOf(PULL_POLICY)),
    f("imagePullSerial", Bool),
];

const UPGRADE_PLAN: &[Field] = &[
    f("kubernetesVersion", Text),
    f("allowExperimentalUpgrades", Bool),
    f("allowRCUpgrades", Bool),
    f("dryRun", Bool),
    f("etcdUpgrade", Bool),
    f("ignorePreflightErrors", Texts),
    f("printConfig", Bool),
];
