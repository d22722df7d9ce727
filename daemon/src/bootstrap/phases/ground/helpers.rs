//! `weft-helpers`: the stable name of the API and the balancer behind it, and the renewal of certificates; and, on a node that
//! joins, kubelet's way through the balancer.

use std::time::Duration;

use kube::config::Kubeconfig as Credentials;

use super::Ground;
use super::machine::weft_name;
use crate::balancer::lists::{KNOWN, MODE, START};
use crate::balancer::{SERVER_NAME, StandIn};
use crate::bootstrap::api::{self, Server};
use crate::bootstrap::converge::Outcome;
use crate::bootstrap::host::{self, Hand};
use crate::bootstrap::journal::Change;
use crate::bootstrap::kubeconfig::Kubeconfig;
use crate::bootstrap::kubelet::service::Service;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::pki::store::write_private;
use crate::bootstrap::resolved::Cluster;
use crate::bootstrap::stable_name;
use crate::bootstrap::static_pods::{Helper, HelperFacts, helper_pod, write_helper};

/// The phase, as it is called.
pub(in crate::bootstrap::phases) const HELPERS: &str = "weft-helpers";
const FINALIZE: &str = "kubelet-finalize";
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(100);
/// How long the balancer may take to start before kubelet is left with the address that it has.
const BALANCER_START: Duration = Duration::from_secs(30);

impl Ground<'_> {
    /// Whether this node has a balancer: it is wanted, and the API servers answer to the name.
    pub(super) fn has_balancer(&self, cluster: &Cluster) -> bool {
        self.weft.api_balancer && stable_name::is_known(cluster)
    }

    /// Lays down weft's own static pods and what they go by. `servers` are the API servers that are known by now, as URLs or
    /// `host:port`; a run that knows none leaves the list of an earlier one. A balancer that is not wanted any more goes.
    pub(in crate::bootstrap::phases) async fn helpers(
        &mut self,
        cluster: &Cluster,
        servers: &[String],
        control_plane: bool,
    ) -> Result<(), PhaseError> {
        let image = weft_name();
        let listen = stable_name::listen(self.node, self.weft.api_balancer_port);
        if self.has_balancer(cluster) {
            self.balancer_files(cluster, servers)?;
            self.helper(Helper::Balancer, &image, &listen)?;
        } else {
            self.take_balancer_away(cluster, control_plane).await?;
        }
        if control_plane {
            self.helper(Helper::CertRenewal, &image, &listen)?;
        }
        Ok(())
    }

    /// Lays down one of them, if it is not so already.
    pub(in crate::bootstrap::phases) fn helper(
        &self,
        helper: Helper,
        image: &str,
        listen: &[std::net::SocketAddr],
    ) -> Result<(), PhaseError> {
        let pod = helper_pod(helper, &HelperFacts { image, paths: self.paths, listen });
        match write_helper(self.paths, helper, &pod)? {
            Outcome::Kept => {}
            Outcome::Made => self.tell.step(HELPERS, format!("Creating static Pod manifest for \"{}\"", helper.name())),
            Outcome::Changed(difference) => {
                let words = format!("Changing static Pod manifest for \"{}\":\n{difference}", helper.name());
                self.tell.step(HELPERS, words);
            }
        }
        Ok(())
    }

    /// The balancer's directory with its first list, and the name in /etc/hosts. All of it is in the journal.
    fn balancer_files(&mut self, cluster: &Cluster, servers: &[String]) -> Result<(), PhaseError> {
        let directory = stable_name::directory(self.paths);
        let hosts = self.paths.root.join("etc/hosts");
        let mut list = stable_name::start_list(servers.iter().map(String::as_str));
        if list.is_empty() && !directory.join(START).exists() {
            // The balancer has been away, and this node is in the cluster already: kubelet knows a server.
            let kubelet = Kubeconfig::load(&self.paths.kubernetes.join("kubelet.conf"))?;
            let kubelet = kubelet.as_ref().filter(|config| config.server_name() != Some(stable_name::NAME));
            let public = cluster.public_endpoint(self.node);
            list = stable_name::start_list(kubelet.and_then(Kubeconfig::server).into_iter().chain([public.as_str()]));
        }
        let lines = stable_name::hosts_lines(self.node, self.weft.api_balancer_port);
        let mut hand = Hand::new(self.paths, &mut self.journal, &self.tools);
        hand.directory(&directory, 0o755)?;
        if !list.is_empty() {
            hand.file(&directory.join(START), list.as_bytes(), MODE)?;
        }
        if hand.block(&hosts, stable_name::HOSTS_BLOCK, &lines)? != host::Outcome::Kept {
            let words = format!("{} leads to this node's balancer of the API (/etc/hosts)", stable_name::NAME);
            self.tell.step(HELPERS, words);
        }
        // The balancer's own: whatever it holds by then, reset takes it away.
        let id = self.journal.begin(Change::FileMade { path: directory.join(KNOWN), sha256: None })?;
        Ok(self.journal.done(id)?)
    }

    /// Where kubelet of a joining node finds the API: the balancer, for which this process stands in until the node's own has
    /// started; `None` if there is to be none, or its port is somebody else's.
    pub(in crate::bootstrap::phases) fn way_by_balancer(&mut self, cluster: &Cluster) -> Option<String> {
        if !self.has_balancer(cluster) {
            return None;
        }
        let listen = stable_name::listen(self.node, self.weft.api_balancer_port);
        match StandIn::begin(&listen, &stable_name::directory(self.paths)) {
            Ok(stand_in) => {
                self.stand_in = Some(stand_in);
                Some(stable_name::server(self.node, self.weft.api_balancer_port))
            }
            Err(error) => {
                let [first, _] = listen;
                self.tell.warning(HELPERS, format!("the balancer of the API cannot listen on {first} yet: {error}"));
                None
            }
        }
    }

    /// Whether this process stands in for the balancer.
    pub(in crate::bootstrap::phases) fn stands_in(&self) -> bool {
        self.stand_in.is_some()
    }

    /// Sees to it that kubelet reaches the API through the balancer of the node, once that is seen to work; else by `direct`, and
    /// the next run tries again.
    pub(in crate::bootstrap::phases) async fn kubelet_through_balancer(
        &mut self,
        cluster: &Cluster,
        direct: Option<&str>,
    ) -> Result<(), PhaseError> {
        let path = self.paths.kubernetes.join("kubelet.conf");
        let url = stable_name::server(self.node, self.weft.api_balancer_port);
        let Some(mut config) = Kubeconfig::load(&path)?.filter(|_| self.has_balancer(cluster)) else { return Ok(()) };
        let goes_by_it = config.server() == Some(url.as_str());
        match self.stand_in.take() {
            Some(stand_in) => stand_in.end().await,
            None if goes_by_it => return Ok(()),
            None => {}
        }
        config.set_server(&url, Some(stable_name::NAME));
        if let Err(error) = self.answers(&config, BALANCER_START).await {
            let words =
                format!("kubelet goes on asking one API server, as the balancer at {url} does not answer: {error}");
            self.tell.warning(FINALIZE, words);
            let (true, Some(direct)) = (goes_by_it, direct) else { return Ok(()) };
            config.set_server(direct, Some(SERVER_NAME));
        } else {
            let words = format!("kubelet reaches the API through {url}, behind which all of its servers stand");
            self.tell.step(FINALIZE, words);
            if goes_by_it {
                return Ok(());
            }
        }
        write_private(&path, config.render().expose())?;
        self.services.restart(Service::Kubelet)?;
        self.wait(false).await
    }

    /// Whether the API answers a kubelet with this kubeconfig, within this time.
    pub(super) async fn answers(&self, config: &Kubeconfig, limit: Duration) -> Result<(), String> {
        let text = config.render();
        let yaml = std::str::from_utf8(text.expose()).map_err(|error| error.to_string())?;
        let credentials = Credentials::from_yaml(yaml).map_err(|error| error.to_string())?;
        let server = Server::connect_as(credentials, &self.limits).await.map_err(|error| error.to_string())?;
        let asked = api::read_kubelet_config(&server.within(limit).every(LOOK)).await;
        asked.map(drop).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Given;
    use super::*;
    use crate::bootstrap::config::WeftOptions;
    use crate::bootstrap::host::Wanted;
    use crate::bootstrap::host::reset::{self, ResetOptions, plan, see};
    use crate::bootstrap::host::tools::System;
    use crate::bootstrap::journal::Journal;
    use crate::bootstrap::kubelet::service::{Plain, ServiceManager};
    use crate::bootstrap::phases::tell::{Format, Teller};
    use crate::bootstrap::pki::samples::{cluster, node};
    use crate::bootstrap::resolved::{Limits, Paths};

    const HOSTS: &str = "127.0.0.1 localhost\n192.0.2.9 other";

    fn lay_down(paths: &Paths, weft: &WeftOptions, cluster: &Cluster, servers: &[&str], control_plane: bool) {
        let (node, tell) = (node(), Teller::without_log(Format::Text));
        let given = Given {
            node: &node,
            limits: Limits::default(),
            weft,
            patches: None,
            wanted: Wanted::worker(&node, paths),
            ignored: &["IsPrivilegedUser".to_owned()],
            hash: String::new(),
        };
        let plain = Plain { weft: "/weft".into(), kubelet: None, containerd: None, paths: paths.clone() };
        let mut ground = Ground::new(given, paths, ServiceManager::Plain(plain), &tell).unwrap();
        let servers: Vec<String> = servers.iter().map(|server| (*server).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ground.helpers(cluster, &servers, control_plane)).unwrap();
    }

    fn manifests(paths: &Paths) -> Vec<String> {
        let found = fs::read_dir(paths.manifests()).map(Iterator::collect::<Vec<_>>).unwrap_or_default();
        let mut names: Vec<String> =
            found.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn p0_18_r08_helpers_are_laid_down_once_and_taken_back_whole() {
        let root = tempfile::tempdir().unwrap();
        let (paths, weft) = (Paths::under(root.path()), WeftOptions::default());
        let hosts = root.path().join("etc/hosts");
        fs::create_dir_all(hosts.parent().unwrap()).unwrap();
        fs::write(&hosts, HOSTS).unwrap();
        let mut cluster = cluster();
        cluster.api_server.cert_sans.push(stable_name::NAME.to_owned());
        lay_down(&paths, &weft, &cluster, &["https://192.0.2.1:6443"], true);
        assert_eq!(manifests(&paths), ["weft-api-balancer.yaml", "weft-cert-renewal.yaml"]);
        let list = stable_name::directory(&paths).join(START);
        let block = "# weft: begin api\n127.0.0.1 api.weft.internal\n# weft: end api\n";
        let after = |paths: &Paths| {
            assert_eq!(fs::read_to_string(&hosts).unwrap(), format!("{HOSTS}\n{block}"));
            assert_eq!(fs::read_to_string(&list).unwrap(), "192.0.2.1:6443\n");
            Journal::read(paths).unwrap().len()
        };
        let entries = after(&paths);
        // One that goes by kubelet's own credentials knows no server, and leaves the list.
        lay_down(&paths, &weft, &cluster, &[], true);
        assert_eq!(after(&paths), entries, "nothing new");

        fs::write(stable_name::directory(&paths).join(KNOWN), "192.0.2.2:6443\n").unwrap();
        let options = ResetOptions::new(paths.clone(), &Journal::read(&paths).unwrap());
        let plan = plan(&options, &see(&options, &Journal::read(&paths).unwrap()).unwrap());
        let done = reset::run(&plan, &options, &System).unwrap();
        assert!(done.warnings.is_empty(), "{:?}", done.warnings);
        assert_eq!(fs::read_to_string(&hosts).unwrap(), format!("{HOSTS}\n"));
        assert!(manifests(&paths).is_empty() && !paths.state.exists());
    }

    #[test]
    fn p0_18_a_cluster_without_the_name_has_no_balancer() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        lay_down(&paths, &WeftOptions::default(), &cluster(), &["192.0.2.1:6443"], false);
        let mut named = cluster();
        named.api_server.cert_sans.push(stable_name::NAME.to_owned());
        let unwanted = WeftOptions { api_balancer: false, ..WeftOptions::default() };
        lay_down(&paths, &unwanted, &named, &["192.0.2.1:6443"], false);
        assert!(manifests(&paths).is_empty() && !root.path().join("etc/hosts").exists());
        lay_down(&paths, &unwanted, &named, &["192.0.2.1:6443"], true);
        assert_eq!(manifests(&paths), ["weft-cert-renewal.yaml"]);
    }
}
