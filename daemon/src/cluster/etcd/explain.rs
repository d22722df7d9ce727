//! What an etcd error means, in one line: the whole chain of causes, and what to look at.

use std::error::Error as StdError;

use etcd_client::Error;

use super::connect::EtcdOptions;

/// A server that does not like a client's certificate, or its speaking TLS or not, ends the connection without a word.
/// So does one that is stopped, hence the condition.
const HUNG_UP: &str =
    "the server hung up; if it always does, check http or https in etcd-endpoints, and etcd-certfile and etcd-keyfile";

/// Said of a connection over which an answer had begun to come: whatever ended it, the settings are right.
const WAS_GOOD: &str = "error reading a body from connection";

/// Words found in the chain of causes, and what they mean to the person who configured weft. The first that is found counts.
const HINTS: &[(&str, &str)] = &[
    ("UnknownIssuer", "the server's certificate is not signed by the CA in etcd-cafile, or no CA is given"),
    ("certificate not valid for name", "the server's certificate does not name the host in etcd-endpoints"),
    ("CertificateRequired", "the server asks for a client certificate: set etcd-certfile and etcd-keyfile"),
    (
        "BadCertificate",
        "the server refused the client certificate in etcd-certfile, or asks for one that is not given: it has to be \
         signed by the CA that the server trusts",
    ),
    ("UnknownCA", "the CA that the server trusts did not sign the client certificate in etcd-certfile"),
    ("KeyMismatch", "the key in etcd-keyfile does not belong to the certificate in etcd-certfile"),
    ("InvalidContentType", "the server does not speak TLS: use http:// in etcd-endpoints"),
    ("tls handshake eof", "if it is always so, the server does not speak TLS: use http:// in etcd-endpoints"),
    ("frame with invalid size", "the server speaks TLS, or is no etcd: use https:// in etcd-endpoints"),
    ("CertificateExpired", "the client certificate in etcd-certfile has expired; check the clock, too"),
    ("certificate expired", "the server's certificate has expired; check the clock, too"),
    ("certificate not valid yet", "the server's certificate is not valid yet; check the clock, too"),
    ("broken pipe", HUNG_UP),
    ("connection closed", HUNG_UP),
    ("authentication failed", "check etcd-username and etcd-password"),
    ("user name is empty", "the server asks for a user: set etcd-username and etcd-password"),
    ("permission denied", "the user in etcd-username may not read and write the keys under etcd-prefix"),
    ("TLS options are only supported with HTTPS", "etcd-endpoints mixes http:// and https://"),
    ("Connection refused", "is etcd running there?"),
];

/// What words mean instead if that key is known not to be given.
const NOT_GIVEN: &[(&str, &str, &str)] = &[
    (
        "UnknownIssuer",
        "etcd-cafile",
        "no CA is given: set etcd-cafile to the one that signed the servers' certificates",
    ),
    ("BadCertificate", "etcd-certfile", "the server asks for a client certificate: set etcd-certfile and etcd-keyfile"),
];

/// The keys of the configuration that hints name, none of which is part of another's name.
const KEYS: &[&str] = &["etcd-endpoints", "etcd-cafile", "etcd-certfile", "etcd-keyfile", "etcd-username"];

/// The error as one line of plain words.
#[must_use]
pub fn explain(error: &Error) -> String {
    explain_of(error, None)
}

/// The same, with what the keys that it names say.
pub(super) fn explain_of(error: &Error, options: Option<&EtcdOptions>) -> String {
    let text = match error {
        Error::GRpcStatus(status) => chain(status.message(), StdError::source(status)),
        Error::TransportError(error) => chain(&error.to_string(), StdError::source(error)),
        other => other.to_string(),
    };
    match hint(&text, options) {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

fn hint(text: &str, options: Option<&EtcdOptions>) -> Option<String> {
    let is_absent = |key: &str| options.is_some_and(|options| options.shown(key).is_none());
    let not_given = NOT_GIVEN.iter().find(|(word, key, _)| text.contains(word) && is_absent(key));
    let known = || HINTS.iter().find(|(word, _)| text.contains(word));
    let hint = not_given.map(|(_, _, hint)| *hint).or_else(|| known().map(|(_, hint)| *hint))?;
    if hint == HUNG_UP && text.contains(WAS_GOOD) {
        return None;
    }
    let shown = |key: &str| options.and_then(|options| options.shown(key));
    Some(KEYS.iter().fold(hint.to_owned(), |hint, key| match shown(key) {
        Some(value) => hint.replace(key, &format!("{key} {value}")),
        None => hint,
    }))
}

/// Whether the error says that the etcd lease which a write wanted to use does not exist (any more).
#[must_use]
pub fn is_lease_gone(error: &Error) -> bool {
    match error {
        Error::GRpcStatus(status) => status.message().contains("requested lease not found"),
        // The client's own words for an answer that gives the lease no time to live.
        Error::LeaseKeepAliveError(message) => message == "lease not found",
        _ => false,
    }
}

/// The messages of an error and its causes, each once.
fn chain(first: &str, mut cause: Option<&(dyn StdError + 'static)>) -> String {
    let mut text = first.to_owned();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_lease_is_told_from_a_failure() {
        assert!(is_lease_gone(&Error::LeaseKeepAliveError("lease not found".to_owned())));
        assert!(!is_lease_gone(&Error::LeaseKeepAliveError("channel closed".to_owned())));
    }

    #[test]
    fn a_watch_that_breaks_is_no_sign_of_wrong_settings() {
        let of_watch =
            "h2 protocol error: error reading a body from connection: stream closed because of a broken pipe";
        let hint = |text: &str| hint(text, None);
        assert_eq!(hint(of_watch), None);
        assert_eq!(hint("connection error: stream closed because of a broken pipe").as_deref(), Some(HUNG_UP));
        assert!(hint("connection error detected: frame with invalid size").unwrap().contains("https://"));
    }

    #[test]
    fn d62_a_wrong_ca_is_named() {
        let error = Error::IoError(std::io::Error::other("invalid peer certificate: UnknownIssuer"));
        assert!(explain(&error).contains("etcd-cafile"));
        let given = EtcdOptions { cafile: Some("/etc/weft/ca.crt".into()), ..EtcdOptions::default() };
        assert!(given.explain(&error).contains("not signed by the CA in etcd-cafile /etc/weft/ca.crt"));
        assert!(EtcdOptions::default().explain(&error).contains("no CA is given"));
        assert_eq!(chain("a", None), "a");
    }
}
