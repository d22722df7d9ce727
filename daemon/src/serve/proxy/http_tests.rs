//! What load balancers, dashboards and kube-proxy's own tests ask for.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::cluster::Family;
use crate::serve::ServiceMetrics;
use crate::serve::proxy::{NodeState, ServingMode};
use crate::serve::testing::{get, on_own_loopback, try_get, until};

const HEALTH: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";

fn surface(now: Moment) -> ProxySurface {
    ProxySurface {
        healthz_bind: HEALTH.parse().ok(),
        metrics_bind: METRICS.parse().ok(),
        configz: json!({"weft": {"proxy-mode": "auto"}}),
        health: Arc::new(ProxyHealth::new(ServingMode::Nftables, Family::ALL, now)),
        metrics: Arc::new(ProxyMetrics::new(&ServiceMetrics::default(), SystemTime::now())),
    }
}

#[test]
fn t081_health_is_told_as_kube_proxy_does() {
    on_own_loopback(|| async {
        let long_ago = Moment { steady: Moment::now().steady, wall: SystemTime::UNIX_EPOCH };
        let surface = surface(long_ago);
        let (health, metrics) = (Arc::clone(&surface.health), Arc::clone(&surface.metrics));
        let stop = CancellationToken::new();
        let server = tokio::spawn(surface.serve(stop.clone()));
        let at: SocketAddr = HEALTH.parse().unwrap();

        let answer = get(at, "/healthz").await;
        assert_eq!(answer.status, 200);
        assert!(answer.has("content-type: application/json") && answer.has("x-content-type-options: nosniff"));
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((&body["nodeEligible"], &body["healthy"]), (&json!(true), &json!(true)));
        assert_eq!(body["lastUpdated"], body["currentTime"], "what is well is up to date");
        let since = json!({"lastUpdated": "1970-01-01T00:00:00.000000000Z", "healthy": true});
        assert_eq!(body["status"], json!({"IPv4": since, "IPv6": since}));
        let keys = ["lastUpdated", "currentTime", "nodeEligible", "healthy", "status"];
        let places: Vec<_> = keys.iter().map(|key| answer.body.find(&format!("\"{key}\":"))).collect();
        assert!(places.is_sorted() && places[0] == Some(1), "{}", answer.body);

        health.set_node(NodeState::Leaving);
        let answer = get(at, "/healthz").await;
        assert!(answer.status == 503 && answer.body.contains("\"nodeEligible\":false"), "{answer:?}");
        let answer = get(at, "/livez").await;
        assert!(answer.status == 200 && !answer.body.contains("nodeEligible"), "{answer:?}");
        health.set_node(NodeState::Present);

        let late = Moment { steady: long_ago.steady.checked_sub(Duration::from_secs(61)).unwrap(), ..long_ago };
        health.queued(Family::V6, late);
        for path in ["/healthz", "/livez"] {
            let answer = get(at, path).await;
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((answer.status, &body["healthy"]), (503, &json!(false)), "{path}");
            assert_eq!(body["lastUpdated"], json!("1970-01-01T00:00:00.000000000Z"));
            assert_eq!(
                (&body["status"]["IPv4"]["healthy"], &body["status"]["IPv6"]["healthy"]),
                (&json!(true), &json!(false))
            );
        }
        health.updated(Family::V6, Moment::now());
        assert_eq!(get(at, "/healthz").await.status, 200);
        let text = metrics.render();
        assert!(text.contains("kubeproxy_proxy_healthz_total{code=\"200\"} 2"), "{text}");
        assert!(text.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 2"), "{text}");
        assert!(text.contains("kubeproxy_proxy_livez_total{code=\"503\"} 1"), "{text}");

        stop.cancel();
        server.await.unwrap();
        assert!(try_get(at, "/healthz").await.is_none(), "a proxy that has stopped tells nothing");
    });
}

#[test]
fn mode_metrics_and_configuration_are_where_kube_proxy_has_them() {
    on_own_loopback(|| async {
        let surface = surface(Moment::now());
        let health = Arc::clone(&surface.health);
        let stop = CancellationToken::new();
        let server = tokio::spawn(surface.serve(stop.clone()));
        let at: SocketAddr = METRICS.parse().unwrap();
        assert_eq!(get(at, "/proxyMode").await.body, "nftables");
        health.set_mode(ServingMode::Ipvs);
        assert_eq!(get(at, "/proxyMode").await.body, "ipvs");
        let answer = get(at, "/healthz").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        assert_eq!(get(at, "/configz").await.body, "{\"weft\":{\"proxy-mode\":\"auto\"}}");
        let answer = get(at, "/metrics").await;
        assert!(answer.status == 200 && answer.body.contains("kubeproxy_sync_proxy_rules_service_changes_total 0"));
        assert_eq!(get(at, "/elsewhere").await.status, 404);
        stop.cancel();
        server.await.unwrap();
    });
}

#[test]
fn an_address_in_use_is_tried_again() {
    on_own_loopback(|| async {
        let other = std::net::TcpListener::bind(HEALTH).unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(surface(Moment::now()).serve(stop.clone()));
        assert_eq!(
            get(METRICS.parse().unwrap(), "/healthz").await.status,
            200,
            "the other address does not wait for it"
        );
        drop(other);
        until(async || try_get(HEALTH.parse().unwrap(), "/healthz").await.is_some_and(|answer| answer.status == 200))
            .await;
        stop.cancel();
        server.await.unwrap();
    });
}
