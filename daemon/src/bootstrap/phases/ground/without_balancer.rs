//! `weft-helpers` where the API is to have no balancer on this node (any more).
//!
//! kubelet is led past it first, as it could not be told anything afterwards; what the balancer goes by is removed last. Each
//! step goes by what is there, so a run that was ended is finished by the next.
//!
//! The pod goes before kubelet is started anew: of a pod that it finds, and that goes before it has heard of the API, kubelet
//! takes no leave (`deletePod` until all its sources are ready), and it would run on for ever.

use std::time::Duration;

use super::Ground;
use super::helpers::HELPERS;
use crate::balancer::lists::{self, KNOWN, START};
use crate::bootstrap::host::{self, Hand};
use crate::bootstrap::kubeconfig::Kubeconfig;
use crate::bootstrap::kubelet::service::Service;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::pki::store::write_private;
use crate::bootstrap::resolved::Cluster;
use crate::bootstrap::stable_name;
use crate::bootstrap::static_pods::{Helper, helper_file};
use crate::cluster::kube::place::Place;

/// How long an API server may take to answer before the next is tried.
const ANSWER: Duration = Duration::from_secs(5);

impl Ground<'_> {
    /// Takes the balancer away that an earlier run has laid down; where there is none nothing is done. It stays for as long as
    /// kubelet has no other way.
    pub(super) async fn take_balancer_away(
        &mut self,
        cluster: &Cluster,
        control_plane: bool,
    ) -> Result<(), PhaseError> {
        let (manifest, directory) = (helper_file(self.paths, Helper::Balancer), stable_name::directory(self.paths));
        let is_there = manifest.exists() || directory.exists();
        let path = self.paths.kubernetes.join("kubelet.conf");
        let through = Kubeconfig::load(&path)?.filter(|config| config.server_name() == Some(stable_name::NAME));
        let mut is_led_past = false;
        if let Some(through) = through {
            let direct = match self.way_past_balancer(&through, cluster).await {
                Ok(direct) => direct,
                Err(why) => {
                    let words = format!("the balancer of the API stays, as kubelet would have no other way: {why}");
                    self.tell.warning(HELPERS, words);
                    return Ok(());
                }
            };
            write_private(&path, direct.render().expose())?;
            let server = direct.server().unwrap_or_default();
            self.tell.step(HELPERS, format!("kubelet asks {server}, and no balancer any more"));
            is_led_past = true;
        }
        if manifest.exists() {
            Hand::new(self.paths, &mut self.journal, &self.tools).remove(&manifest)?;
            self.tell.step(HELPERS, format!("Removing static Pod manifest for \"{}\"", Helper::Balancer.name()));
        }
        // Whether kubelet has read what an earlier run has written nobody can tell, if that was ended right after. A
        // control-plane node's asks its own API server, ever since.
        if (is_led_past || (is_there && !control_plane)) && self.services.is_active(Service::Kubelet)? {
            self.services.restart(Service::Kubelet)?;
            self.wait(false).await?;
        }
        let hosts = self.paths.root.join("etc/hosts");
        let mut hand = Hand::new(self.paths, &mut self.journal, &self.tools);
        if hand.unblock(&hosts, stable_name::HOSTS_BLOCK)? != host::Outcome::Kept {
            self.tell.step(HELPERS, format!("{} leads nowhere any more (/etc/hosts)", stable_name::NAME));
        }
        for path in [directory.join(KNOWN), directory.join(START), directory] {
            hand.remove(&path)?;
        }
        Ok(())
    }

    /// The kubeconfig with a server that answers: the cluster's own endpoint, else one that the balancer knows.
    async fn way_past_balancer(&self, through: &Kubeconfig, cluster: &Cluster) -> Result<Kubeconfig, String> {
        let directory = stable_name::directory(self.paths);
        let lists = [KNOWN, START].map(|name| lists::read(&directory, name).unwrap_or_default());
        let public = cluster.public_endpoint(self.node).parse::<Place>();
        let mut last = "no API server is known".to_owned();
        // The name leads to the balancer.
        for place in public.into_iter().chain(lists.into_iter().flatten()).filter(|it| it.host != stable_name::NAME) {
            let mut direct = through.clone();
            direct.set_server(&format!("https://{place}"), None);
            match self.answers(&direct, ANSWER).await {
                Ok(()) => return Ok(direct),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
