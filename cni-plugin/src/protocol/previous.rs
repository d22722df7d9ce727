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
    pub ips: Vec<IpNetwork>,
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
            ips.extend(network(&Fields::of(Some(value), "prevResult.ips")?, "address")?);
        }
        // 0.2.0 and older.
        for (key, path) in [("ip4", "prevResult.ip4"), ("ip6", "prevResult.ip6")] {
            ips.extend(network(&Fields::of(fields.raw(key), path)?, "ip")?);
        }
        Ok(Self { interfaces: interfaces.collect::<Result<_>>()?, ips })
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
