//! `addon` and the wait for what it installs.

use std::collections::BTreeMap;

use super::Init;
use crate::bootstrap::api::{self, CoreDns, Outcome, WeftAddon};
use crate::bootstrap::kubelet::config::dns_server;
use crate::bootstrap::phases::error::PhaseError;
use crate::bootstrap::phases::ground::weft_name;

const PHASE: &str = "addons";

impl Init<'_> {
    pub(super) async fn addon(&mut self, part: &str) -> Result<(), PhaseError> {
        match part {
            "coredns" => self.coredns().await,
            "weft" => self.weft().await,
            // weft is in its place.
            _ => Ok(()),
        }
    }

    async fn coredns(&mut self) -> Result<(), PhaseError> {
        let cluster = &self.config.cluster;
        let (Some((name, tag)), Some(address)) = (&cluster.dns, dns_server(&cluster.service_subnets)) else {
            return Ok(());
        };
        let image = format!("{name}:{tag}");
        let dns = CoreDns { image: &image, dns_domain: &cluster.dns_domain, address };
        let server = self.server().await?.clone();
        let outcome = self.ground.coredns(&server, &dns).await?;
        if outcome != Outcome::Kept {
            self.ground.tell.step(PHASE, "Applied essential addon: CoreDNS");
        }
        Ok(())
    }

    async fn weft(&mut self) -> Result<(), PhaseError> {
        let config = self.config;
        let endpoint = config.cluster.public_endpoint(&config.node);
        let addon = WeftAddon {
            image: &weft_name(),
            pod_subnets: &config.cluster.pod_subnets,
            service_subnets: &config.cluster.service_subnets,
            api_server: &endpoint,
            proxy_mode: config.weft.proxy_mode.name(),
            settings: &BTreeMap::new(),
        };
        let applied = api::apply_weft(self.server().await?, &addon).await?;
        for (object, _) in applied.iter().filter(|(_, outcome)| *outcome == Outcome::Retained) {
            self.ground.tell.warning(PHASE, format!("{object} was changed by others, and stays"));
        }
        if applied.iter().any(|(_, outcome)| matches!(outcome, Outcome::Made | Outcome::Changed)) {
            self.ground.tell.step(PHASE, "Applied essential addon: weft");
        }
        Ok(())
    }

    pub(super) async fn await_ready(&mut self) -> Result<(), PhaseError> {
        if !self.config.weft.wait {
            return Ok(());
        }
        let (node, limit) = (self.config.node.name.clone(), self.config.limits.component);
        let server = self.server().await?.within(limit);
        let tell = self.ground.tell;
        api::await_node(&server, &node, &|words| tell.step("init", format!("waiting for node {node}: {words}")))
            .await?;
        tell.step("init", format!("node {node} is Ready"));
        if self.config.cluster.dns.is_some() {
            let hear = |words: &str| tell.step("init", format!("waiting for CoreDNS: {words}"));
            api::await_available(&server, "kube-system", "coredns", &hear).await?;
            tell.step("init", "CoreDNS serves");
        }
        Ok(())
    }
}
