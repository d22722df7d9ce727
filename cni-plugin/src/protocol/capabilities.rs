//! What a runtime passes in `runtimeConfig` (CNI conventions, "Dynamic Plugin specific fields").

use std::net::IpAddr;

use super::error::{CniError, Result};
use super::json::{Fields, Json};
use crate::formats::host_port::{PortMapping, Protocol};

/// More host ports than any container has; so many fit into an attachment's record.
const MOST_PORTS: usize = 512;

/// Reads `portMappings`. What is said twice is once in it.
///
/// # Errors
/// Code 7 naming key and value, also for a port that is to lead to two places.
pub fn port_mappings(runtime: &Fields<'_>) -> Result<Vec<PortMapping>> {
    let path = runtime.name("portMappings");
    let values = runtime.array("portMappings")?;
    if values.len() > MOST_PORTS {
        return Err(CniError::invalid(
            &path,
            format!("a list of {}", values.len()),
            format!("at most {MOST_PORTS} ports"),
        ));
    }
    let mut mappings: Vec<PortMapping> = Vec::with_capacity(values.len());
    for value in values {
        let new = port_mapping(value, &path)?;
        match mappings.iter().find(|known| known.has_port_of(&new) && known.host_ip == new.host_ip) {
            None => mappings.push(new),
            Some(known) if *known == new => {}
            Some(known) => {
                let (name, expected) = (format!("{path}.containerPort"), known.container_port);
                let value = format!("{} for {new}", new.container_port);
                return Err(CniError::invalid(&name, value, format!("{expected}, as before in the list")));
            }
        }
    }
    Ok(mappings)
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
        // An IPv4 address in IPv6 clothes is one all the same.
        host_ip: fields.parsed("hostIP", "an IP address")?.map(|ip: IpAddr| ip.to_canonical()),
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
            (r#"{"hostPort":1,"containerPort":1},{"hostPort":1,"containerPort":2}"#, "containerPort"),
        ] {
            let error = read(&format!(r#"{{"portMappings":[{mapping}]}}"#)).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig);
            assert!(error.message.starts_with(&format!("runtimeConfig.portMappings.{key}: ")), "{error}");
        }
        let twice = r#"{"portMappings":[{"hostPort":1,"containerPort":1},{"hostPort":1,"containerPort":1}]}"#;
        assert_eq!(read(twice).unwrap().len(), 1);
    }
}
