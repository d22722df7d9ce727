//! What single values have to look like (kubeadm 1.36, apis/kubeadm/validation and util/endpoint.go).

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// A DNS-1123 subdomain: labels of `[a-z0-9-]` that neither begin nor end with a dash, with dots between; 253 characters.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_label(label) && label.len() <= 253)
}

fn is_label(label: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
}

/// A name or address of a certificate: IP address, DNS name, or a name whose first label is `*`.
pub(super) fn is_alternative_name(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text).to_ascii_lowercase();
    text.parse::<IpAddr>().is_ok() || is_subdomain(&name)
}

/// The host and port of `host[:port]`, `[v6]:port` or a bare IPv6 address.
pub(super) fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((address.to_string(), None));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            let host = host.parse::<Ipv6Addr>().ok()?.to_string();
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => None,
    };
    let is_host = host.parse::<IpAddr>().is_ok() || (is_subdomain(&host) && !looks_like_ipv4(&host));
    is_host.then_some((host, port))
}

/// Whether a name would be taken for an IPv4 address, and is none: `10.0.0.300`.
fn looks_like_ipv4(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// A repository whose images `repository/name:tag` could be pulled: a host with or without port, and path components.
pub(super) fn is_image_repository(text: &str) -> bool {
    let component = |part: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let bytes = part.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && part.bytes().all(inside) && !part.contains("..")
    };
    let mut parts = text.split('/');
    let Some(first) = parts.next() else { return false };
    let host = match first.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) => return false,
        None => first,
    };
    let is_host = is_subdomain(&host.to_ascii_lowercase())
        || host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<Ipv6Addr>().is_ok());
    (is_host || component(first)) && parts.all(component)
}

/// A bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(super) fn is_token(text: &str) -> bool {
    let word = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.split_once('.').is_some_and(|(id, secret)| word(id, 6) && word(secret, 16))
}

/// A group of bootstrappers: `system:bootstrappers:` and up to 256 of `[a-z0-9:-]`, not with a colon or dash at the end.
pub(super) fn is_token_group(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("system:bootstrappers:") else { return false };
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b':' | b'-');
    (1..=256).contains(&rest.len()) && rest.bytes().all(inside) && !rest.ends_with([':', '-'])
}

/// A key for certificates: 32 bytes in hexadecimal digits.
pub(super) fn is_certificate_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A pin of a certificate authority: `sha256:` and 32 bytes in hexadecimal digits.
pub(super) fn is_ca_hash(text: &str) -> bool {
    let digits = text.split_once(':').filter(|(kind, _)| kind.eq_ignore_ascii_case("sha256")).map(|(_, digits)| digits);
    digits.is_some_and(is_certificate_key)
}

/// One range, or two of different families with a comma between. `None` for anything else.
pub(super) fn subnets(text: &str) -> Option<Vec<IpNetwork>> {
    let networks: Vec<IpNetwork> = text
        .split(',')
        .map(|part| {
            let network: IpNetwork = part.trim().contains('/').then(|| part.trim().parse().ok())??;
            // Host bits say nothing about a range, and are dropped as kubeadm drops them.
            IpNetwork::new(network.network(), network.prefix()).ok()
        })
        .collect::<Option<_>>()?;
    match networks.as_slice() {
        [_] => Some(networks),
        [one, other] if one.is_ipv4() != other.is_ipv4() => Some(networks),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for (text, expected) in [
            ("api.example", Some(("api.example", None))),
            ("api.example:8443", Some(("api.example", Some(8443)))),
            ("192.0.2.1", Some(("192.0.2.1", None))),
            ("192.0.2.1:6443", Some(("192.0.2.1", Some(6443)))),
            ("2001:db8::1", Some(("2001:db8::1", None))),
            ("[2001:db8::1]:6443", Some(("2001:db8::1", Some(6443)))),
            ("[2001:db8::1]", Some(("2001:db8::1", None))),
            ("api.example:0", None),
            ("api.example:70000", None),
            ("192.0.2.300", None),
            ("Api.example", None),
            ("a:b:c", None),
            ("https://api.example", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_port(text), expected, "{text}");
        }
    }

    #[test]
    fn image_repositories() {
        for good in ["registry.k8s.io", "registry.aliyuncs.com/google_containers", "localhost:5000/k8s", "[::1]:5000/a"]
        {
            assert!(is_image_repository(good), "{good}");
        }
        for bad in ["", "https://registry.k8s.io", "a//b", "host/UPPER", "host:port/a", "host/a/", "a b"] {
            assert!(!is_image_repository(bad), "{bad}");
        }
    }

    #[test]
    fn tokens_groups_keys_and_names() {
        assert!(is_token("abcdef.0123456789abcdef"));
        for bad in ["abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef0123456789abcdef", ""] {
            assert!(!is_token(bad), "{bad}");
        }
        assert!(is_token_group("system:bootstrappers:kubeadm:default-node-token"));
        for bad in ["system:bootstrappers:", "system:bootstrappers:a:", "system:masters", "system:bootstrappers:A"] {
            assert!(!is_token_group(bad), "{bad}");
        }
        let digits = "0123456789abcdef".repeat(4);
        assert!(is_certificate_key(&digits) && is_ca_hash(&format!("sha256:{digits}")));
        assert!(!is_certificate_key(&digits[1..]) && !is_ca_hash(&digits));
        for good in ["api.example", "*.example", "192.0.2.1", "2001:db8::1", "API.example"] {
            assert!(is_alternative_name(good), "{good}");
        }
        for bad in ["a*.example", "*", "a_b", "https://a", ""] {
            assert!(!is_alternative_name(bad), "{bad}");
        }
        assert!(
            is_subdomain("node-1.example") && !is_subdomain("Node") && !is_subdomain("-a") && !is_subdomain("a..b")
        );
    }

    #[test]
    fn ranges_of_a_cluster() {
        assert_eq!(subnets("10.96.0.1/12").unwrap()[0].to_string(), "10.96.0.0/12");
        assert_eq!(subnets("10.244.0.0/16, fd00::/48").unwrap().len(), 2);
        for bad in ["", "10.96.0.0", "10.0.0.0/8,10.96.0.0/12", "10.0.0.0/33", "a/8", "::/48,10.0.0.0/8,10.1.0.0/16"] {
            assert_eq!(subnets(bad), None, "{bad}");
        }
    }
}
