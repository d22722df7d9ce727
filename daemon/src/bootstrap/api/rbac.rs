//! The rights that bring-up gives, as objects: kubeadm's names, rules and subjects (contract sections 1.3, 1.7, 1.8, 1.11).

use serde_json::{Value, json};

use super::token::DEFAULT_GROUP;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// Group of all kubelets that have joined.
const NODES: &str = "system:nodes";

/// Group and ClusterRoleBinding of administrators.
const ADMINS: &str = "kubeadm:cluster-admins";

/// Whom a binding names.
enum Subject {
    Group(&'static str),
    User(&'static str),
}

impl Subject {
    fn value(&self) -> Value {
        let (kind, name) = match self {
            Self::Group(name) => ("Group", name),
            Self::User(name) => ("User", name),
        };
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
    }
}

/// By which `admin.conf` may do everything.
pub(super) fn cluster_admins() -> Value {
    cluster_binding(ADMINS, "cluster-admin", &Subject::Group(ADMINS))
}

/// What new nodes and the API server need.
pub(super) fn for_joining() -> Vec<Value> {
    let requests = |whose: &str| format!("system:certificates.k8s.io:certificatesigningrequests:{whose}");
    let newcomers = Subject::Group(DEFAULT_GROUP);
    let mut objects = vec![
        json!({
            "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "kubeadm:get-nodes"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
        }),
        cluster_binding("kubeadm:get-nodes", "kubeadm:get-nodes", &newcomers),
        cluster_binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", &newcomers),
        cluster_binding("kubeadm:node-autoapprove-bootstrap", &requests("nodeclient"), &newcomers),
        cluster_binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            &requests("selfnodeclient"),
            &Subject::Group(NODES),
        ),
        cluster_binding(
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            &Subject::User("kube-apiserver-kubelet-client"),
        ),
    ];
    objects.extend(for_balancers());
    objects
}

/// That everybody may read cluster-info: whoever does has no credentials yet.
pub(super) fn for_cluster_info() -> Vec<Value> {
    let anonymous = [Subject::User("system:anonymous")];
    reader("kube-public", "kubeadm:bootstrap-signer-clusterinfo", "configmaps", "cluster-info", &anonymous)
}

/// That nodes and newcomers may read kubeadm's configuration.
pub(super) fn for_kubeadm_config() -> Vec<Value> {
    let who = [Subject::Group(DEFAULT_GROUP), Subject::Group(NODES)];
    reader("kube-system", "kubeadm:nodes-kubeadm-config", "configmaps", "kubeadm-config", &who)
}

/// That nodes and newcomers may read kubelet's configuration.
pub(super) fn for_kubelet_config() -> Vec<Value> {
    let who = [Subject::Group(NODES), Subject::Group(DEFAULT_GROUP)];
    reader("kube-system", "kubeadm:kubelet-config", "configmaps", "kubelet-config", &who)
}

/// That nodes may read which API servers there are: their balancers go by it. The Node authorizer lets them read no
/// EndpointSlice.
fn for_balancers() -> Vec<Value> {
    let mut objects = reader("default", "weft:api-servers", "endpointslices", "kubernetes", &[Subject::Group(NODES)]);
    objects[0]["rules"][0]["apiGroups"] = json!(["discovery.k8s.io"]);
    objects
}

/// That newcomers may read the encrypted certificates.
pub(super) fn for_certificates() -> Vec<Value> {
    let who = [Subject::Group(DEFAULT_GROUP)];
    reader("kube-system", "kubeadm:kubeadm-certs", "secrets", "kubeadm-certs", &who)
}

fn cluster_binding(name: &str, role: &str, subject: &Subject) -> Value {
    json!({
        "apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject.value()],
    })
}

/// A Role to read one object, and its RoleBinding.
fn reader(namespace: &str, name: &str, resource: &str, object: &str, who: &[Subject]) -> Vec<Value> {
    let metadata = json!({"namespace": namespace, "name": name});
    let subjects: Vec<Value> = who.iter().map(Subject::value).collect();
    vec![
        json!({
            "apiVersion": RBAC, "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": [resource], "resourceNames": [object], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": RBAC, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": subjects,
        }),
    ]
}
