//! Limits of a container's traffic: the bandwidth plugin's keys, and `runtimeConfig.bandwidth` with the same names.

use super::error::{CniError, Result};
use super::json::{Fields, Json};
use crate::formats::attachment::{Limit, Limits};

const KEYS: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];
/// Limits for some destinations only.
const SUBNETS: [&str; 2] = ["unshapedSubnets", "shapedSubnets"];

/// Reads the limits. Those of the configuration itself, were it but a zero, go before all that the runtime says.
///
/// # Errors
/// Code 7 naming key and value, code 2 for limits that are not for all destinations.
pub fn limits(configuration: &Fields<'_>, runtime: &Fields<'_>) -> Result<Limits> {
    let path = runtime.name("bandwidth");
    let asked = Fields::of(runtime.raw("bandwidth"), &path)?;
    for fields in [configuration, &asked] {
        for key in SUBNETS {
            match fields.raw(key) {
                None => {}
                Some(Json::Array(list)) if list.is_empty() => {}
                Some(value) => {
                    let instead = "chain the bandwidth plugin behind this one";
                    return Err(CniError::unsupported(&fields.name(key), value, instead));
                }
            }
        }
    }
    // What the runtime says is checked all the same.
    let asked = read(&asked)?;
    let is_static = KEYS.iter().any(|key| configuration.raw(key).is_some());
    if is_static { read(configuration) } else { Ok(asked) }
}

fn read(fields: &Fields<'_>) -> Result<Limits> {
    let [ingress_rate, ingress_burst, egress_rate, egress_burst] = KEYS;
    Ok(Limits {
        ingress: read_limit(fields, ingress_rate, ingress_burst)?,
        egress: read_limit(fields, egress_rate, egress_burst)?,
    })
}

fn read_limit(fields: &Fields<'_>, rate_key: &str, burst_key: &str) -> Result<Option<Limit>> {
    let number = |key| fields.number::<u64>(key, "a number of bits, not negative").map(Option::unwrap_or_default);
    let (rate, burst) = (number(rate_key)?, number(burst_key)?);
    let wrong = |key, value: u64, expected: String| Err(CniError::invalid(&fields.name(key), value, expected));
    match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) => wrong(rate_key, rate, format!("{rate_key} and {burst_key} both, or neither")),
        (_, 0) => wrong(burst_key, burst, format!("{rate_key} and {burst_key} both, or neither")),
        // The kernel counts in bytes, and takes none for no limit or for a mistake.
        (..8, _) => wrong(rate_key, rate, "at least 8 bits a second, or 0 for no limit".to_owned()),
        (_, ..8) => wrong(burst_key, burst, "at least 8 bits".to_owned()),
        // The kernel's token bucket has 32 bits for its burst.
        _ if burst / 8 > u64::from(u32::MAX) => wrong(burst_key, burst, "less than 2^35 bits".to_owned()),
        _ => Ok(Some(Limit { rate, burst })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Code;

    fn parse(configuration: &str, runtime: &str) -> Result<Limits> {
        let [configuration, runtime] =
            [configuration, runtime].map(|text| Json::parse_object(format!("{{{text}}}").as_bytes()).unwrap());
        limits(&Fields::of(Some(&configuration), "")?, &Fields::of(Some(&runtime), "runtimeConfig")?)
    }

    #[test]
    fn t011_go_and_specification_spell_the_same() {
        let go = r#""Bandwidth":{"IngressRate":80,"IngressBurst":800,"EgressRate":0,"EgressBurst":0}"#;
        let specification = r#""bandwidth":{"ingressRate":80,"ingressBurst":800}"#;
        let both = parse("", go).unwrap();
        assert_eq!(both, parse("", specification).unwrap());
        assert_eq!(both, Limits { ingress: Some(Limit { rate: 80, burst: 800 }), egress: None });
        for nothing in ["", r#""bandwidth":null"#, r#""bandwidth":{"ingressRate":null}"#] {
            assert_eq!(parse("", nothing).unwrap(), Limits::default());
        }
    }

    #[test]
    fn t116_bursts_of_the_runtimes_fit() {
        // containerd's and CRI-O's for "as much as can be said".
        for burst in [u64::from(u32::MAX), u64::from(u32::MAX) * 8 - 1, u64::from(u32::MAX) * 8 + 7] {
            let text = format!(r#""bandwidth":{{"egressRate":8000,"egressBurst":{burst}}}"#);
            assert_eq!(parse("", &text).unwrap().egress, Some(Limit { rate: 8000, burst }));
        }
    }

    #[test]
    fn t116_static_limits_go_before_the_runtimes() {
        let runtime = r#""bandwidth":{"ingressRate":80,"ingressBurst":80,"egressRate":80,"egressBurst":80}"#;
        let own = parse(r#""egressRate":16,"egressBurst":24"#, runtime).unwrap();
        assert_eq!(own, Limits { ingress: None, egress: Some(Limit { rate: 16, burst: 24 }) });
        assert_eq!(parse(r#""ingressRate":0"#, runtime).unwrap(), Limits::default());
        assert!(parse(r#""ingressRate":null"#, runtime).unwrap().ingress.is_some());
    }

    #[test]
    fn t107_bad_limits_name_key_and_value() {
        for (limit, key, value) in [
            (r#""ingressRate":1000"#, "ingressBurst", "0"),
            (r#""egressBurst":1000"#, "egressRate", "0"),
            (r#""egressRate":-5"#, "egressRate", "-5"),
            (r#""ingressRate":7,"ingressBurst":80"#, "ingressRate", "7"),
            (r#""ingressRate":80,"ingressBurst":7"#, "ingressBurst", "7"),
            (r#""ingressRate":80,"ingressBurst":34359738368"#, "ingressBurst", "34359738368"),
            (r#""ingressRate":"1M""#, "ingressRate", "1M"),
        ] {
            let error = parse("", &format!(r#""bandwidth":{{{limit}}}"#)).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfig, "{limit}");
            assert!(error.message.starts_with(&format!("runtimeConfig.bandwidth.{key}: ")), "{error}");
            assert!(error.message.contains(value), "{error}");
            let error = parse(limit, "").unwrap_err();
            assert!(error.message.starts_with(&format!("{key}: ")), "{error}");
        }
        let error = parse(r#""unshapedSubnets":["10.0.0.0/8"]"#, "").unwrap_err();
        assert_eq!(error.code, Code::UnsupportedField);
    }
}
