//! Somebody who answers as the API server of a cluster that weft has made, by a clock of his own, for as long as a node looks
//! whether it may join.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weft::bootstrap::api::Pin;
use weft_tests::scratch::Scratch;

use crate::authority::Authority;
use crate::clock::RightTime;
use crate::impostor::{Impostor, response};

const TOKEN: &str = "abcdef.0123456789abcdef";

/// What weft's init uploads of a configuration, as far as a join reads it.
const CLUSTER: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.36.2
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/12, dnsDomain: cluster.local}
apiServer: {certSANs: [api.weft.internal]}
";
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

pub(crate) struct Api {
    authority: Authority,
    server: Impostor,
    files: Scratch,
    /// Serves as long as it is there.
    _runtime: Runtime,
}

impl Api {
    /// With a certificate that is a few minutes old, as a new cluster has it.
    pub(crate) fn start(clock: RightTime) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let authority = Authority::new("kubernetes");
        let issued = authority.server_since(&["127.0.0.1"], clock.now() - Duration::from_secs(5 * 60));
        let pem = authority.pem();
        let answer = move |_: usize, request: &str| {
            let (status, body) = answer(request, &pem);
            let date = httpdate::fmt_http_date(clock.now());
            response(&body.to_string(), Some(&date)).replacen("200 OK", status, 1)
        };
        let server = runtime.block_on(Impostor::start(&issued, answer));
        Self { authority, server, files: Scratch::new(), _runtime: runtime }
    }

    /// The words of a join by a token.
    pub(crate) fn by_token(&self) -> Vec<String> {
        let pin = Pin::of_all(self.authority.pem().as_bytes()).unwrap().remove(0).to_string();
        vec![
            self.server.address.to_string(),
            format!("--token={TOKEN}"),
            format!("--discovery-token-ca-cert-hash={pin}"),
        ]
    }

    /// The words of a join by a file.
    pub(crate) fn by_file(&self) -> Vec<String> {
        let mut config = kubeconfig(&self.server.address.to_string(), &self.authority.pem());
        config["users"] = json!([{"name": "newcomer", "user": {"token": TOKEN}}]);
        config["contexts"] = json!([{"name": "x", "context": {"cluster": "", "user": "newcomer"}}]);
        config["current-context"] = json!("x");
        let path = self.files.join("discovery.conf");
        std::fs::write(&path, config.to_string()).unwrap();
        vec![format!("--discovery-file={}", path.display())]
    }
}

fn kubeconfig(address: &str, authority: &str) -> Value {
    let cluster =
        json!({"server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority)});
    json!({"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]})
}

fn answer(request: &str, authority: &str) -> (&'static str, Value) {
    let path = request.split(' ').nth(1).unwrap_or_default().trim_end_matches('?');
    let map = |data: Value| ("200 OK", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": data}));
    match path.rsplit('/').next() {
        Some("cluster-info") => {
            // He is where he was asked.
            let host =
                request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
            map(json!({"kubeconfig": kubeconfig(&host.unwrap_or_default(), authority).to_string()}))
        }
        Some("kubeadm-config") => map(json!({"ClusterConfiguration": CLUSTER})),
        Some("kubelet-config") => map(json!({"kubelet": KUBELET})),
        _ => {
            let message = format!("{path} not found");
            let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                "message": message, "reason": "NotFound", "code": 404});
            ("404 Not Found", status)
        }
    }
}
