//! `prevResult`: what an earlier plugin, or our own ADD, has answered.
//!
//! It is read by content whatever version it says it is in: Go's plugins refuse a mismatch, which helps nobody.

use ipnetwork::IpNetwork;

use super::error::{CniError, Code, Result};
use super::json::{Fields, Json};

/// What CHECK compares with the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Previous {
    /// Name, address and sandbox of each interface.
    pub interfaces: Vec<PreviousInterface>,
    /// The addresses.
    pub ips: Vec<PreviousIp>,
}

/// An address of an earlier result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreviousIp {
    /// With the prefix length of its subnet.
    pub address: IpNetwork,
    /// Which of the interfaces bears it, if it was told.
    pub interface: Option<usize>,
}

/// An interface of an earlier result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousInterface {
    /// Its name.
    pub name: String,
    /// Its address, if it was told.
    pub mac: Option<String>,
    /// The namespace it is in; the host's if absent.
    pub sandbox: Option<String>,
}

impl Previous {
    /// Reads `prevResult` of a configuration.
    ///
    /// # Errors
    /// Code 7 if it is not there or cannot be understood.
    pub fn required(json: &Json) -> Result<Self> {
        let value = json.get("prevResult").ok_or_else(|| {
            CniError::new(Code::InvalidConfig, "Required prevResult missing: prevResult is absent or null")
        })?;
        let fields = Fields::of(Some(value), "prevResult")?;
        let interfaces = fields.array("interfaces")?.iter().map(|value| {
            let fields = Fields::of(Some(value), "prevResult.interfaces")?;
            Ok(PreviousInterface {
                name: fields.string("name")?.unwrap_or_default().to_owned(),
                mac: fields.string("mac")?.map(str::to_ascii_lowercase),
                sandbox: fields.string("sandbox")?.map(str::to_owned),
            })
        });
        let mut ips = Vec::new();
        let network = |fields: &Fields<'_>, key| fields.parsed::<IpNetwork>(key, "an address with prefix length");
        for value in fields.array("ips")? {
            let fields = Fields::of(Some(value), "prevResult.ips")?;
            let interface = fields.number::<usize>("interface", "a number of an interface")?;
            ips.extend(network(&fields, "address")?.map(|address| PreviousIp { address, interface }));
        }
        // 0.2.0 and older.
        for (key, path) in [("ip4", "prevResult.ip4"), ("ip6", "prevResult.ip6")] {
            let address = network(&Fields::of(fields.raw(key), path)?, "ip")?;
            ips.extend(address.map(|address| PreviousIp { address, interface: None }));
        }
        Ok(Self { interfaces: interfaces.collect::<Result<_>>()?, ips })
    }
}

impl Previous {
    /// The container's interface of this name.
    pub fn interface(&self, name: &str) -> impl Iterator<Item = &PreviousInterface> {
        self.interfaces.iter().filter(move |interface| interface.sandbox.is_some() && interface.name == name)
    }

    /// The interfaces on the host.
    pub fn on_host(&self) -> impl Iterator<Item = &PreviousInterface> {
        self.interfaces.iter().filter(|interface| interface.sandbox.as_ref().is_none_or(String::is_empty))
    }

    /// The addresses of the container's interface of this name, and those of which it was not told whose they are.
    pub fn ips_of(&self, name: &str) -> impl Iterator<Item = IpNetwork> {
        let is_ours = move |ip: &&PreviousIp| match ip.interface.map(|index| self.interfaces.get(index)) {
            None | Some(None) => true,
            Some(Some(interface)) => interface.sandbox.is_some() && interface.name == name,
        };
        self.ips.iter().filter(is_ours).map(|ip| ip.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t119_it_must_be_there() {
        for text in ["{}", r#"{"prevResult":null}"#] {
            let error = Previous::required(&Json::parse_object(text.as_bytes()).unwrap()).unwrap_err();
            assert!(error.message.starts_with("Required prevResult missing"), "{error}");
        }
    }

    #[test]
    fn t117_addresses_of_other_interfaces_are_not_ours() {
        let text = r#"{"prevResult":{"interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/n"},{"name":"tun0","sandbox":"/n"}],
            "ips":[{"address":"10.1.0.5/24","interface":1},{"address":"10.7.0.1/24","interface":2},{"address":"10.8.0.1/24"}]}}"#;
        let previous = Previous::required(&Json::parse_object(text.as_bytes()).unwrap()).unwrap();
        let ips: Vec<_> = previous.ips_of("eth0").map(|ip| ip.to_string()).collect();
        assert_eq!(ips, ["10.1.0.5/24", "10.8.0.1/24"]);
        assert_eq!(previous.interface("cni0").count(), 0);
    }

    #[test]
    fn old_and_new_forms() {
        let read = |text: &str| Previous::required(&Json::parse_object(text.as_bytes()).unwrap());
        let new = read(
            r#"{"prevResult":{"interfaces":[{"name":"eth0","mac":"AA:BB:CC:DD:EE:FF","sandbox":"/n"}],
            "ips":[{"address":"10.1.0.5/24"}],"routes":null}}"#,
        )
        .unwrap();
        assert_eq!(new.interfaces[0].mac.as_deref(), Some("aa:bb:cc:dd:ee:ff"));
        assert_eq!(new.ips.len(), 1);
        assert_eq!(read(r#"{"prevResult":{"ip4":{"ip":"10.1.0.5/24"}}}"#).unwrap().ips, new.ips);
        assert_eq!(read(r#"{"prevResult":{"ips":[{"address":"x"}]}}"#).unwrap_err().code, Code::InvalidConfig);
    }
}
