//! The value of a lease in etcd, byte for byte as flannel writes it:
//! `{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:…"}}`.
//!
//! `BackendType`, `BackendData` and `BackendV6Data` are left out when empty. A node without an IPv4 address publishes
//! `0.0.0.0`, which here is no address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use serde_json::Value;

use super::family::{Family, PerFamily};
use super::json::{Caseless, Json};
use crate::overlay::backend;

/// What a node publishes about itself along with its subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseValue {
    /// Where peers send encapsulated packets, by outer family.
    pub public_ips: PerFamily<IpAddr>,
    /// How peers reach the node.
    pub backend: BackendData,
}

/// The back end a node uses and what its peers need to know to use it too. Of nothing it is the default: a reservation, or a
/// subnet that was leased before the agent ran (`weft lease`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendData {
    /// Its name, such as `vxlan`; empty if nothing is said of one.
    pub kind: String,
    /// What it says of itself for each family, in words of its own.
    pub data: PerFamily<Json>,
}

impl BackendData {
    /// Whether nothing is said.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.kind.is_empty()
    }
}

/// Why a lease's value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseValueError {
    /// Not JSON, or no object.
    #[error("the value is not a JSON object ({0})")]
    NotAnObject(String),
    /// A field cannot be used.
    #[error("{field} is {value}; expected {expected}")]
    Field {
        /// The field, in flannel's spelling.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// The JSON form; the order of the fields is flannel's.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    backend_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_data: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "BackendV6Data")]
    backend_v6_data: Option<&'a Json>,
}

/// Where the data of each family's device stands.
const DATA: [(Family, &str); 2] = [(Family::V4, "BackendData"), (Family::V6, "BackendV6Data")];

impl LeaseValue {
    /// The JSON that flannel would write for the same facts.
    #[must_use]
    pub fn to_json(&self) -> String {
        let wire = Wire {
            public_ip: match self.public_ips.v4 {
                Some(IpAddr::V4(v4)) => v4,
                _ => Ipv4Addr::UNSPECIFIED,
            },
            public_ipv6: match self.public_ips.v6 {
                Some(IpAddr::V6(v6)) => Some(v6),
                _ => None,
            },
            backend_type: &self.backend.kind,
            backend_data: self.backend.data.v4.as_ref(),
            backend_v6_data: self.backend.data.v6.as_ref(),
        };
        // A struct of strings and numbers has no way to fail; the fallback is what an unreadable value would be anyway.
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads a value, whoever wrote it.
    ///
    /// # Errors
    /// Names the field that cannot be used. Whether the fields suit the subnets is the caller's question.
    pub fn parse(text: &[u8]) -> Result<Self, LeaseValueError> {
        let value: Value = serde_json::from_slice(text).map_err(|e| LeaseValueError::NotAnObject(e.to_string()))?;
        let object =
            Caseless::new(&value).ok_or_else(|| LeaseValueError::NotAnObject("another kind of JSON".into()))?;
        let public_ips = PerFamily {
            v4: public_ip(object, "PublicIP", Family::V4)?,
            v6: public_ip(object, "PublicIPv6", Family::V6)?,
        };
        let kind = string(object, "BackendType", "a string")?.unwrap_or_default();
        let mut data = PerFamily::default();
        // Of no back end there is nothing to be said.
        for (family, field) in DATA.into_iter().filter(|_| !kind.is_empty()) {
            data.set(family, backend_data(object, kind, field)?);
        }
        let backend = BackendData { kind: kind.to_owned(), data };
        Ok(Self { public_ips, backend })
    }
}

fn public_ip(object: Caseless<'_>, field: &'static str, family: Family) -> Result<Option<IpAddr>, LeaseValueError> {
    const EXPECTED: &str = "a unicast address of the node";
    let Some(text) = string(object, field, EXPECTED)? else { return Ok(None) };
    let refused = || LeaseValueError::Field { field, value: format!("{text:?}"), expected: EXPECTED };
    let address: IpAddr = text.parse().map_err(|_| refused())?;
    if Family::of(address) != family || address.is_multicast() || address.is_loopback() {
        return Err(refused());
    }
    // No route leads to a broadcast address, nor to an IPv6 address that means something on one link only.
    let is_reachable = match address {
        IpAddr::V4(v4) => !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    if !is_reachable {
        return Err(refused());
    }
    Ok(Some(address).filter(|address| !address.is_unspecified()))
}

/// What the data of a back end that is known here must be; that of another may be anything.
fn backend_data(object: Caseless<'_>, kind: &str, field: &'static str) -> Result<Option<Json>, LeaseValueError> {
    let Some(value) = object.get(field) else { return Ok(None) };
    if let Some(kind) = backend::kind(kind) {
        (kind.check)(Some(value)).map_err(|expected| LeaseValueError::Field {
            field,
            value: value.to_string(),
            expected,
        })?;
    }
    Ok(Some(Json::of(value)))
}

fn string<'a>(
    object: Caseless<'a>,
    field: &'static str,
    expected: &'static str,
) -> Result<Option<&'a str>, LeaseValueError> {
    match object.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(LeaseValueError::Field { field, value: other.to_string(), expected }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::backend::VxlanData;
    use proptest::prelude::*;

    const FLANNEL: &str = r#"{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#;

    fn vxlan(vni: u32, mac: &str) -> VxlanData {
        VxlanData { vni: Some(vni), vtep_mac: mac.parse().unwrap() }
    }

    #[test]
    fn d51_the_values_flannel_writes_byte_for_byte() {
        let value = LeaseValue {
            public_ips: PerFamily { v4: Some("192.168.64.3".parse().unwrap()), v6: None },
            backend: PerFamily { v4: Some(vxlan(1, "c6:d2:32:6f:8f:44")), v6: None }.into(),
        };
        assert_eq!(value.to_json(), FLANNEL);
        assert_eq!(LeaseValue::parse(FLANNEL.as_bytes()).unwrap(), value);

        let minimal = LeaseValue {
            public_ips: PerFamily { v4: Some("1.2.3.4".parse().unwrap()), v6: None },
            backend: BackendData::default(),
        };
        assert_eq!(minimal.to_json(), r#"{"PublicIP":"1.2.3.4","PublicIPv6":null}"#);
        assert_eq!(LeaseValue::parse(minimal.to_json().as_bytes()).unwrap(), minimal);

        let six = LeaseValue {
            public_ips: PerFamily { v4: None, v6: Some("fd00::3".parse().unwrap()) },
            backend: PerFamily { v4: None, v6: Some(vxlan(7, "c6:d2:32:6f:8f:44")) }.into(),
        };
        assert_eq!(
            six.to_json(),
            r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::3","BackendType":"vxlan","BackendV6Data":{"VNI":7,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#
        );
        assert_eq!(LeaseValue::parse(six.to_json().as_bytes()).unwrap(), six);
    }

    #[test]
    fn d50_garbage_names_its_field() {
        let cases = [
            ("notjson", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"PublicIP":"1.2.3"}"#, "PublicIP"),
            (r#"{"PublicIP":"224.0.0.1"}"#, "PublicIP"),
            (r#"{"PublicIP":"127.0.0.1"}"#, "PublicIP"),
            (r#"{"PublicIP":7}"#, "PublicIP is 7"),
            (r#"{"PublicIP":"1.2.3.4","PublicIPv6":"1.2.3.4"}"#, "PublicIPv6"),
            (r#"{"PublicIP":"1.2.3.4","PublicIPv6":"fe80::1"}"#, "PublicIPv6"),
            (r#"{"PublicIP":"1.2.3.4","PublicIPv6":"febf::1"}"#, "PublicIPv6"),
            (r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"hi"}}"#, "BackendData"),
            (
                r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}}"#,
                "BackendData",
            ),
            (
                r#"{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendV6Data":{"VNI":-1,"VtepMAC":"c6:d2:32:6f:8f:44"}}"#,
                "BackendV6Data",
            ),
        ];
        for (text, field) in cases {
            let message = LeaseValue::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(field), "{text}: {message}");
        }
    }

    #[test]
    fn what_another_back_end_says_is_kept_as_it_is() {
        let text =
            br#"{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"xyz","BackendData":{"PublicKey":"x","Port":1}}"#;
        let value = LeaseValue::parse(text).unwrap();
        assert_eq!((value.backend.kind.as_str(), value.backend.data.v6.is_none()), ("xyz", true));
        assert_eq!(value.backend.data.v4.as_ref().unwrap().value()["PublicKey"], "x");
        assert_eq!(LeaseValue::parse(value.to_json().as_bytes()).unwrap(), value);
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = LeaseValue::parse(text.as_bytes());
        }

        #[test]
        fn what_is_written_is_read_back(v4: u32, v6: u128, vni in 0u32..1 << 24, mac: [u8; 5], which in 0u8..16) {
            let v4 = Some(IpAddr::V4(v4.into())).filter(|ip| which & 1 != 0 && !ip.is_multicast() && !ip.is_loopback()
                && !ip.is_unspecified() && *ip != IpAddr::V4(Ipv4Addr::BROADCAST));
            let v6 = Some(Ipv6Addr::from_bits(v6))
                .filter(|ip| which & 2 != 0 && !ip.is_multicast() && !ip.is_loopback() && !ip.is_unspecified()
                    && !ip.is_unicast_link_local())
                .map(IpAddr::V6);
            let vtep_mac = weft_netlink::MacAddr([0xc6, mac[0], mac[1], mac[2], mac[3], mac[4]]);
            let data = VxlanData { vni: Some(vni), vtep_mac };
            let value = LeaseValue {
                public_ips: PerFamily { v4, v6 },
                backend: PerFamily {
                    v4: (which & 4 != 0).then_some(data),
                    v6: (which & 8 != 0).then_some(data),
                }
                .into(),
            };
            prop_assert_eq!(LeaseValue::parse(value.to_json().as_bytes()).unwrap(), value);
        }
    }
}
