//! What an etcd error means, in one line: the whole chain of causes, and what to look at.

use std::error::Error as StdError;

use etcd_client::Error;

/// A server that does not like a client's certificate, or its speaking TLS or not, ends the connection without a word.
/// So does one that is stopped, hence the condition.
const HUNG_UP: &str =
    "the server hung up; if it always does, check http or https in etcd-endpoints, and etcd-certfile and etcd-keyfile";

/// Said of a connection over which an answer had begun to come: whatever ended it, the settings are right.
const WAS_GOOD: &str = "error reading a body from connection";

/// Words found in the chain of causes, and what they mean to the person who configured weft.
const HINTS: &[(&str, &str)] = &[
    ("UnknownIssuer", "the server's certificate is not signed by the CA in etcd-cafile, or no CA is given"),
    ("NotValidForName", "the server's certificate does not name the host in etcd-endpoints"),
    ("CertificateRequired", "the server asks for a client certificate: set etcd-certfile and etcd-keyfile"),
    ("BadCertificate", "the server refused the client certificate: check etcd-certfile and etcd-keyfile"),
    ("UnknownCA", "the server's CA did not sign the client certificate in etcd-certfile"),
    ("InvalidContentType", "the server does not speak TLS: use http:// in etcd-endpoints"),
    ("frame with invalid size", "the server speaks TLS, or is no etcd: use https:// in etcd-endpoints"),
    ("Expired", "a certificate has expired; check the clock, too"),
    ("broken pipe", HUNG_UP),
    ("connection closed", HUNG_UP),
    ("authentication failed", "check etcd-username and etcd-password"),
    ("user name is empty", "the server asks for a user: set etcd-username and etcd-password"),
    ("permission denied", "the user may not read and write the keys under etcd-prefix"),
    ("TLS options are only supported with HTTPS", "etcd-endpoints mixes http:// and https://"),
    ("Connection refused", "is etcd running there?"),
];

/// The error as one line of plain words.
#[must_use]
pub fn explain(error: &Error) -> String {
    let text = match error {
        Error::GRpcStatus(status) => chain(status.message(), StdError::source(status)),
        Error::TransportError(error) => chain(&error.to_string(), StdError::source(error)),
        other => other.to_string(),
    };
    match hint(&text) {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

fn hint(text: &str) -> Option<&'static str> {
    let (_, hint) = HINTS.iter().find(|(word, _)| text.contains(word))?;
    Some(*hint).filter(|hint| *hint != HUNG_UP || !text.contains(WAS_GOOD))
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
        assert_eq!(hint(of_watch), None);
        assert_eq!(hint("connection error: stream closed because of a broken pipe"), Some(HUNG_UP));
        assert!(hint("connection error detected: frame with invalid size").unwrap().contains("https://"));
    }

    #[test]
    fn e62_a_wrong_ca_is_named() {
        let error = Error::IoError(std::io::Error::other("invalid peer certificate: UnknownIssuer"));
        assert!(explain(&error).contains("etcd-cafile"));
        assert_eq!(chain("a", None), "a");
    }
}
