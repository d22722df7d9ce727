//! weft itself: the agent's DaemonSet with its rights and its configuration, which is the cluster's.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::kustomize;
use crate::bootstrap::api::error::ApiError;
use crate::bootstrap::api::object::{Outcome, Place};
use crate::bootstrap::api::server::Server;
use crate::bootstrap::{hex, yaml};

/// Of the pods: the hash of the configuration they have been started with. Another one starts them anew, one after the other.
const CONFIG_HASH: &str = "weft/config-hash";

/// What differs from cluster to cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct WeftAddon<'a> {
    /// The agent's image, with its tag.
    pub image: &'a str,
    /// Ranges of the pods, one a family.
    pub pod_subnets: &'a [IpNetwork],
    /// Ranges of the ClusterIPs, one a family.
    pub service_subnets: &'a [IpNetwork],
    /// URL at which every node reaches the API server without any Service: nobody serves one before weft does.
    pub api_server: &'a str,
    /// `proxy-mode`: `auto`, `ipvs`, `nftables` or `none`.
    pub proxy_mode: &'a str,
    /// Further settings of the agent (`weft agent --help`), and others than the base's.
    pub settings: &'a BTreeMap<String, Value>,
}

/// The objects that are applied.
///
/// # Errors
/// [`ApiError::Content`]: what is built in is not understood.
pub fn weft_objects(addon: &WeftAddon<'_>) -> Result<Vec<Value>, ApiError> {
    let wrong = |problem: String| ApiError::content("weft's manifests", problem);
    let mut objects = kustomize::base(addon.image).map_err(wrong)?;
    let mut hash = Sha256::new();
    for map in objects.iter_mut().filter(|object| object["kind"] == "ConfigMap") {
        let data = &mut map["data"];
        for (key, change) in [("config.yaml", settings as Change), ("net-conf.json", network)] {
            if let Some(text) = data[key].as_str() {
                data[key] = json!(change(text, addon).map_err(wrong)?);
            }
        }
        hash.update(data.to_string());
    }
    let hash = hex::encode(&hash.finalize());
    for set in objects.iter_mut().filter(|object| object["kind"] == "DaemonSet") {
        set["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH] = json!(hash);
    }
    Ok(objects)
}

/// The agent's settings as the cluster has them, whoever has written them; `None` if weft is not installed.
///
/// # Errors
/// [`ApiError::Refused`], [`ApiError::Content`] if they are no YAML.
pub async fn read_weft_settings(server: &Server) -> Result<Option<BTreeMap<String, Value>>, ApiError> {
    let place = Place::new("v1", "ConfigMap", "kube-system", "weft-config");
    let Some(found) = server.get(&place).await? else { return Ok(None) };
    let text = found["data"]["config.yaml"].as_str().unwrap_or("{}");
    let settings = yaml::read(text).map_err(|problem| ApiError::content(&place.words, problem))?;
    match settings {
        Value::Object(settings) => Ok(Some(settings.into_iter().collect())),
        _ => Err(ApiError::content(place.words, "config.yaml is no mapping")),
    }
}

type Change = fn(&str, &WeftAddon<'_>) -> Result<String, String>;

/// The agent's settings.
fn settings(text: &str, addon: &WeftAddon<'_>) -> Result<String, String> {
    let mut settings = yaml::read(text)?;
    settings["proxy-mode"] = json!(addon.proxy_mode);
    settings["kube-api-server"] = json!(addon.api_server);
    settings["service-cidr"] = json!(addon.service_subnets.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (key, value) in addon.settings {
        settings[key] = value.clone();
    }
    Ok(yaml::to_string(&settings))
}

/// flannel's network configuration.
fn network(text: &str, addon: &WeftAddon<'_>) -> Result<String, String> {
    let mut network: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let of = |is_v6: bool| addon.pod_subnets.iter().find(|range| range.is_ipv6() == is_v6).map(ToString::to_string);
    match of(false) {
        Some(range) => network["Network"] = json!(range),
        None => {
            network.as_object_mut().and_then(|object| object.remove("Network"));
            network["EnableIPv4"] = json!(false);
        }
    }
    if let Some(range) = of(true) {
        network["EnableIPv6"] = json!(true);
        network["IPv6Network"] = json!(range);
    }
    Ok(format!("{network:#}\n"))
}

/// Applies weft, and says what became of each object. A configuration that somebody else has changed stays
/// ([`Outcome::Retained`]).
///
/// # Errors
/// [`ApiError::Refused`].
pub async fn apply_weft(server: &Server, addon: &WeftAddon<'_>) -> Result<Vec<(String, Outcome)>, ApiError> {
    let mut applied = Vec::new();
    for object in weft_objects(addon)? {
        let force = object["kind"] != "ConfigMap";
        applied.push((Place::of(&object).words, server.apply(&object, force).await?));
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NetConf;

    fn render(pods: &[&str], services: &[&str]) -> (Value, NetConf, Vec<Value>) {
        let parse = |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<IpNetwork>>();
        let further = BTreeMap::from([("log-level".to_owned(), json!("debug"))]);
        let addon = WeftAddon {
            image: "example/weft:1",
            pod_subnets: &parse(pods),
            service_subnets: &parse(services),
            api_server: "https://192.0.2.1:6443",
            proxy_mode: "nftables",
            settings: &further,
        };
        let objects = weft_objects(&addon).unwrap();
        let map = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let settings = yaml::read(map["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let (network, warnings) = NetConf::parse(map["data"]["net-conf.json"].as_str().unwrap().as_bytes()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        (settings, network, objects)
    }

    #[test]
    fn the_configuration_is_the_clusters() {
        let (settings, network, objects) = render(&["10.200.0.0/16"], &["10.96.0.0/12"]);
        assert_eq!(
            settings,
            json!({"proxy-mode": "nftables", "log-level": "debug", "kube-api-server": "https://192.0.2.1:6443",
                   "service-cidr": ["10.96.0.0/12"]})
        );
        assert_eq!(
            network,
            NetConf::parse(br#"{"Network": "10.200.0.0/16", "Backend": {"Type": "vxlan"}}"#).unwrap().0
        );
        let hash = |objects: &[Value]| {
            let set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
            set["spec"]["template"]["metadata"]["annotations"][CONFIG_HASH].clone()
        };
        assert!(hash(&objects).is_string());
        assert_ne!(hash(&objects), hash(&render(&["10.201.0.0/16"], &["10.96.0.0/12"]).2), "another one rolls out");
    }

    #[test]
    fn both_families_and_ipv6_alone_are_understood() {
        let (settings, network, _) = render(&["fd00:10:244::/56", "10.244.0.0/16"], &["10.96.0.0/12", "fd00::/112"]);
        assert_eq!(settings["service-cidr"], json!(["10.96.0.0/12", "fd00::/112"]));
        assert!(network.pools.v4.is_some() && network.pools.v6.is_some());
        let (_, network, _) = render(&["fd00:10:244::/56"], &["fd00::/112"]);
        assert!(network.pools.v4.is_none() && network.pools.v6.is_some());
    }
}
