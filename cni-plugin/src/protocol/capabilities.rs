//! What a runtime passes in `runtimeConfig` (CNI conventions, "Dynamic Plugin specific fields").

use std::net::IpAddr;

use super::error::{CniError, Result};
use super::json::{Fields, Json};

/// A transport protocol of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the host that leads to a port of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping {
    /// Port on the host.
    pub host_port: u16,
    /// Port in the container.
    pub container_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// The one address of the host that it applies to; all if absent.
    pub host_ip: Option<IpAddr>,
}

/// Reads `portMappings`.
///
/// # Errors
/// Code 7 naming key and value.
pub fn port_mappings(runtime: &Fields<'_>) -> Result<Vec<PortMapping>> {
    let path = runtime.name("portMappings");
    runtime.array("portMappings")?.iter().map(|value| port_mapping(value, &path)).collect()
}

fn port_mapping(value: &Json, path: &str) -> Result<PortMapping> {
    let fields = Fields::of(Some(value), path)?;
    let port = |key: &str| -> Result<u16> {
        let expected = "a port from 1 to 65535";
        let port = fields.number(key, expected)?.unwrap_or(0);
        if port == 0 { Err(CniError::invalid(&fields.name(key), port, expected)) } else { Ok(port) }
    };
    let protocol = fields.string("protocol")?.unwrap_or("tcp");
    Ok(PortMapping {
        host_port: port("hostPort")?,
        container_port: port("containerPort")?,
        protocol: match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(CniError::invalid(&fields.name("protocol"), protocol, "tcp, udp or sctp")),
        },
        host_ip: fields.parsed("hostIP", "an IP address")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn read(text: &str) -> Result<Vec<PortMapping>> {
        let json = Json::parse_object(text.as_bytes()).unwrap();
        port_mappings(&Fields::of(Some(&json), "runtimeConfig")?)
    }

    #[test]
    fn t011_go_and_specification_spell_the_same() {
        let go = r#"{"PortMappings":[{"HostPort":80,"ContainerPort":8080,"Protocol":"UDP","HostIP":""}]}"#;
        let specification = r#"{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"udp"}]}"#;
        assert_eq!(read(go).unwrap(), read(specification).unwrap());
        assert_eq!(read(r#"{"portMappings":null}"#).unwrap(), vec![]);
    }

    #[test]
    fn t107_bad_ports_name_key_and_value() {
        for (mapping, key) in [
            (r#"{"hostPort":0,"containerPort":1}"#, "hostPort"),
            (r#"{"hostPort":-1,"containerPort":1}"#, "hostPort"),
            (r#"{"hostPort":65536,"containerPort":1}"#, "hostPort"),
            (r#"{"hostPort":1,"containerPort":0}"#, "containerPort"),
            (r#"{"hostPort":1,"containerPort":1,"protocol":"foo"}"#, "protocol"),
            (r#"{"hostPort":1,"containerPort":1,"hostIP":"x"}"#, "hostIP"),
        ] {
            let error = read(&format!(r#"{{"portMappings":[{mapping}]}}"#)).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.message.starts_with(&format!("runtimeConfig.portMappings.{key}: ")), "{error}");
        }
    }
}
