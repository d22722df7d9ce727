//! What weft counts of Services beyond what kube-proxy does. Its names begin with `weft_service_`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::proxy::ServingMode;

/// The back ends of Services.
const BACK_ENDS: [&str; 2] = ["nftables", "ipvs"];

/// Which back end a number belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackEndLabel {
    back_end: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModeLabel {
    mode: &'static str,
}

/// Counters and gauges of Services.
#[derive(Debug, Clone)]
pub struct ServiceMetrics {
    /// Revision of the source up to which everything is in the kernel: who has written something waits for its revision.
    pub revision: Gauge,
    /// Services that are served.
    pub services: Gauge,
    /// Their ports, of each family.
    pub ports: Gauge,
    /// Their frontends.
    pub frontends: Gauge,
    /// Their backends, each once for each port.
    pub backends: Gauge,
    /// Frontends that an older Service has.
    pub conflicts: Gauge,
    /// Objects, or parts of them, that are left out because they cannot be right.
    pub rejected: Gauge,
    /// Real servers of IPVS that get no new connections, and are there for those that they have.
    pub draining: Gauge,
    /// Seconds from a change's arrival at this node to the kernel's having it.
    pub change_seconds: Histogram,
    mode: Family<ModeLabel, Gauge>,
    transactions: Family<BackEndLabel, Counter>,
    messages: Family<BackEndLabel, Counter>,
    elements: Family<BackEndLabel, Counter>,
    repairs: Family<BackEndLabel, Counter>,
    failures: Family<BackEndLabel, Counter>,
}

impl Default for ServiceMetrics {
    fn default() -> Self {
        Self {
            revision: Gauge::default(),
            services: Gauge::default(),
            ports: Gauge::default(),
            frontends: Gauge::default(),
            backends: Gauge::default(),
            conflicts: Gauge::default(),
            rejected: Gauge::default(),
            draining: Gauge::default(),
            // A single change takes milliseconds; what arrives with 30,000 Services waits for seconds.
            change_seconds: Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
            ]),
            mode: Family::default(),
            transactions: Family::default(),
            messages: Family::default(),
            elements: Family::default(),
            repairs: Family::default(),
            failures: Family::default(),
        }
    }
}

impl ServiceMetrics {
    /// Registers them in a registry whose prefix is `weft_service`.
    pub(super) fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("revision", "Revision of the source up to which everything is in the kernel", &self.revision),
            ("services", "Services that are served", &self.services),
            ("ports", "Ports of Services, of each family", &self.ports),
            ("frontends", "Addresses and node ports of Services", &self.frontends),
            ("backends", "Backends of Services, each once for each port", &self.backends),
            ("conflicts", "Addresses and node ports that an older Service has", &self.conflicts),
            ("rejected", "Objects, or parts of them, that are left out because they cannot be right", &self.rejected),
            ("draining", "IPVS real servers that only keep the connections they have", &self.draining),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register("mode", "The mode in which Services are served is 1", self.mode.clone());
        for (name, help, counter) in [
            ("transactions", "Transactions and batches that the kernel has taken", &self.transactions),
            ("messages", "Netlink messages sent", &self.messages),
            ("elements", "Set elements, virtual and real servers written or deleted", &self.elements),
            ("repairs", "Objects put back that somebody else had changed or deleted", &self.repairs),
            ("failures", "Transactions and batches that the kernel has refused", &self.failures),
        ] {
            registry.register(name, help, counter.clone());
        }
        let help = "From a change's arrival at this node to the kernel's having it";
        registry.register("change_duration_seconds", help, self.change_seconds.clone());
    }

    /// Says how Services are served, once it is decided and whenever it changes.
    pub fn set_mode(&self, serving: ServingMode) {
        for mode in ServingMode::ALL {
            self.mode.get_or_create(&ModeLabel { mode: mode.name() }).set(i64::from(mode == serving));
        }
    }

    /// Counts what a back end (`nftables`, `ipvs`) has written: transactions, the messages in them, and the elements or
    /// servers that those are about.
    pub fn wrote(&self, back_end: &'static str, transactions: u64, messages: u64, elements: u64) {
        let label = BackEndLabel { back_end };
        self.transactions.get_or_create(&label).inc_by(transactions);
        self.messages.get_or_create(&label).inc_by(messages);
        self.elements.get_or_create(&label).inc_by(elements);
    }

    /// Counts objects of a back end that were put back.
    pub fn repaired(&self, back_end: &'static str, objects: u64) {
        self.repairs.get_or_create(&BackEndLabel { back_end }).inc_by(objects);
    }

    /// How many objects each back end has put back.
    pub(super) fn repairs_by_kind(&self) -> impl Iterator<Item = (String, u64)> {
        BACK_ENDS.into_iter().map(|back_end| {
            let count = self.repairs.get(&BackEndLabel { back_end }).map_or(0, |counter| counter.get());
            (back_end.to_owned(), count)
        })
    }

    /// The mode in which Services are served; `None` until it is decided, and where weft serves none.
    #[must_use]
    pub fn serving(&self) -> Option<&'static str> {
        let is = |mode: &&'static str| self.mode.get(&ModeLabel { mode }).is_some_and(|gauge| gauge.get() == 1);
        ServingMode::ALL.into_iter().map(ServingMode::name).find(is)
    }

    /// Counts a transaction or batch that the kernel has refused.
    pub fn failed(&self, back_end: &'static str) {
        self.failures.get_or_create(&BackEndLabel { back_end }).inc();
    }
}
