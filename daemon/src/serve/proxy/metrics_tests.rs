//! The names that dashboards and alerts ask for.

use super::*;
use crate::serve::proxy::ServingMode;

#[test]
fn every_number_has_kube_proxys_name() {
    let services = ServiceMetrics::default();
    let start = UNIX_EPOCH + Duration::from_secs(1000);
    let metrics = ProxyMetrics::new(&services, start);
    let now = start + Duration::from_secs(2);
    metrics.queued(Family::V4, now);
    metrics.synced(Family::V4, Pass::Full, Duration::from_millis(3), now);
    metrics.synced(Family::V4, Pass::Partial, Duration::from_millis(20), now);
    metrics.synced(Family::V6, Pass::Partial, Duration::from_secs(60), now);
    metrics.sync_failed(Family::V6);
    metrics.cleanup_failed(Family::V4);
    metrics.programmed(Family::V4, start + Duration::from_secs(1), now);
    metrics.conntrack_cleaned(Family::V4, 3, Duration::from_millis(1));
    metrics.no_local_endpoints(Family::V4, 1, 2);
    metrics.endpoint_changes_pending.set(4);
    metrics.endpoint_changes.inc_by(5);
    metrics.service_changes_pending.set(6);
    metrics.service_changes.inc_by(7);
    metrics.answered_healthz(StatusCode::SERVICE_UNAVAILABLE);
    metrics.answered_livez(StatusCode::OK);
    services.services.set(8);
    services.set_mode(ServingMode::Ipvs);
    services.set_mode(ServingMode::Nftables);
    services.wrote("nftables", 1, 9, 20);
    services.repaired("ipvs", 2);
    services.failed("nftables");
    let text = metrics.render();
    for line in [
        "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 2",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.001\",ip_family=\"IPv4\"} 0",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\",ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"16.384\",ip_family=\"IPv6\"} 0",
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\",ip_family=\"IPv6\"} 1",
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"0.5\",ip_family=\"IPv4\"} 0",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"1.0\",ip_family=\"IPv4\"} 1",
        "kubeproxy_network_programming_duration_seconds_bucket{le=\"300.0\",ip_family=\"IPv4\"} 1",
        "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv4\"} 1",
        "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 3",
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1002.0",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1002.0",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"} 1",
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv4\"} 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 1",
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"external\"} 2",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 4",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 5",
        "kubeproxy_sync_proxy_rules_service_changes_pending 6",
        "kubeproxy_sync_proxy_rules_service_changes_total 7",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        "weft_service_services 8",
        "weft_service_mode{mode=\"ipvs\"} 0",
        "weft_service_mode{mode=\"nftables\"} 1",
        "weft_service_messages_total{back_end=\"nftables\"} 9",
        "weft_service_elements_total{back_end=\"nftables\"} 20",
        "weft_service_repairs_total{back_end=\"ipvs\"} 2",
        "weft_service_failures_total{back_end=\"nftables\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("_total_total"), "{text}");
}

#[test]
fn t110_what_changed_before_the_start_does_not_count_as_programming() {
    let start = UNIX_EPOCH + Duration::from_secs(1000);
    let metrics = ProxyMetrics::new(&ServiceMetrics::default(), start);
    metrics.programmed(Family::V4, start - Duration::from_secs(1), start + Duration::from_secs(1));
    let count = |text: &str| text.lines().filter(|line| line.contains("network_programming_duration_seconds_")).count();
    assert_eq!(count(&metrics.render()), 0);
    metrics.programmed(Family::V4, start + Duration::from_secs(9), start + Duration::from_secs(8));
    let text = metrics.render();
    let sum = "kubeproxy_network_programming_duration_seconds_sum{ip_family=\"IPv4\"} 0.0";
    assert!(text.lines().any(|line| line == sum), "a clock ahead of ours counts as no time:\n{text}");
}
