//! Configurations of flannel's plugin, for a node where this one stands in its place and under its name.
//!
//! flannel's plugin adds the node's subnet to what stands in `delegate` and calls the bridge plugin with it. Here both are
//! one, so that `delegate` is read as if its keys stood outside.

use super::error::{CniError, Code, Result};
use super::json::{Fields, Json};

/// The plugin type, and the name of the program, by which such a configuration is known.
pub const FLANNEL: &str = "flannel";

/// The configuration with the keys of `delegate` moved out of it.
///
/// # Errors
/// Code 7 for what flannel's plugin refuses, in its words, and for a delegate that is not the bridge plugin.
pub fn without_delegate(json: Json) -> Result<Json> {
    let delegate = match Fields::of(json.get("delegate"), "delegate").map(|_| json.get("delegate"))? {
        Some(Json::Object(members)) => members.clone(),
        _ => Vec::new(),
    };
    let refused = |words: &str| Err(CniError::new(Code::InvalidConfig, words));
    let mut own = Vec::with_capacity(delegate.len());
    for (key, value) in delegate {
        match (key.as_str(), &value) {
            ("type", Json::String(kind)) if kind == "bridge" => {}
            ("type", Json::String(kind)) => {
                return Err(CniError::invalid("delegate.type", format!("{kind:?}"), "bridge, which is built in"));
            }
            ("type", _) => return refused("'delegate' dictionary, if present, must have (string) 'type' field"),
            ("name", _) => {
                return refused("'delegate' dictionary must not have 'name' field, it'll be set by flannel");
            }
            ("ipam", _) => {
                return refused("'delegate' dictionary must not have 'ipam' field, it'll be set by flannel");
            }
            _ => own.push((key, value)),
        }
    }
    let Json::Object(members) = json else { return Ok(json) };
    let outside = members.into_iter().filter(|(key, _)| !key.eq_ignore_ascii_case("delegate"));
    Ok(Json::Object(outside.chain(own).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Json> {
        without_delegate(Json::parse_object(text.as_bytes()).unwrap())
    }

    #[test]
    fn f63_the_delegates_keys_count_as_ones_own() {
        let json = read(r#"{"name":"cbr0","delegate":{"type":"bridge","hairpinMode":true,"mtu":1400}}"#).unwrap();
        assert_eq!(json.get("hairpinMode"), Some(&Json::Bool(true)));
        assert_eq!(json.get("mtu"), Some(&Json::Integer(1400)));
        assert!(json.get("delegate").is_none() && json.get("type").is_none());
        assert_eq!(read(r#"{"name":"n","delegate":null}"#).unwrap().get("name"), Some(&Json::String("n".into())));
    }

    #[test]
    fn f67_what_flannel_refuses() {
        for delegate in [r#"{"name":"n"}"#, r#"{"ipam":null}"#, r#"{"type":1}"#, r#"{"type":"ptp"}"#, "7"] {
            let error = read(&format!(r#"{{"delegate":{delegate}}}"#)).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{delegate}");
        }
    }
}
