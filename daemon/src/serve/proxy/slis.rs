//! `/metrics/slis`: the health checks of a component as Kubernetes counts them, by its names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabel {
    name: &'static str,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    name: &'static str,
    r#type: &'static str,
    status: &'static str,
}

/// kube-proxy has one check, which says that it answers at all.
const PING: CheckLabel = CheckLabel { name: "ping", r#type: "healthz" };

/// The checks that were made.
#[derive(Debug)]
pub struct Slis {
    registry: Registry,
    results: Family<ResultLabel, Counter>,
}

impl Default for Slis {
    fn default() -> Self {
        let (last, results) = (Family::<CheckLabel, Gauge>::default(), Family::default());
        last.get_or_create(&PING).set(1);
        let mut registry = Registry::with_prefix("kubernetes");
        registry.register("healthcheck", "The result of the last health check", last);
        registry.register("healthchecks", "Health checks by their results", Family::clone(&results));
        Self { registry, results }
    }
}

impl Slis {
    /// A check was made, and passed.
    pub fn pinged(&self) {
        let CheckLabel { name, r#type } = PING;
        self.results.get_or_create(&ResultLabel { name, r#type, status: "success" }).inc();
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_have_kubernetes_names() {
        let slis = Slis::default();
        slis.pinged();
        slis.pinged();
        let text = slis.render();
        for line in [
            r#"kubernetes_healthcheck{name="ping",type="healthz"} 1"#,
            r#"kubernetes_healthchecks_total{name="ping",type="healthz",status="success"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
