//! Why the cluster was not found, told apart as far as they can be.

use std::time::Duration;

/// Why a node cannot join, so far or at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// What was given contradicts itself, or is not what it should be.
    #[error("{0}")]
    Given(String),
    /// No API server answers.
    #[error("no API server answers: {0}; is it up, is the address right, and does a firewall let port 6443 through?")]
    Unreachable(String),
    /// An API server answers, and has nothing published yet.
    #[error("{endpoint} has no cluster-info for everybody to read ({words}): is `init` still under way there?")]
    NotPublished {
        /// Who was asked.
        endpoint: String,
        /// What it said.
        words: String,
    },
    /// Whoever answers is no API server of Kubernetes.
    #[error("{endpoint} does not answer as an API server does ({words}): a proxy or another program is in between")]
    NoApiServer {
        /// Who was asked.
        endpoint: String,
        /// What it said.
        words: String,
    },
    /// The token is none of the cluster's.
    #[error(
        "token {id} is unknown to the cluster at {endpoint}, or has expired; a new one, on a control-plane node: \
         weft token create --print-join-command"
    )]
    UnknownToken {
        /// The token's id.
        id: String,
        /// Who was asked.
        endpoint: String,
    },
    /// There is a token of that id, and it is another one.
    #[error(
        "the cluster at {endpoint} knows a token {id}, but with another secret: the part behind the dot is wrong, or the token \
         has expired; a new one, on a control-plane node: weft token create --print-join-command"
    )]
    BadSecret {
        /// The token's id.
        id: String,
        /// Who was asked.
        endpoint: String,
    },
    /// The signature is not the token's, and there is no pin by which to tell why.
    #[error(
        "cluster-info at {endpoint} is signed for token {id}, but not with it: the part behind the dot is wrong, or somebody in \
         between has changed it; nothing has been sent there"
    )]
    BadSignature {
        /// The token's id.
        id: String,
        /// Who was asked.
        endpoint: String,
    },
    /// The token is not signed with yet.
    #[error(
        "cluster-info at {endpoint} is not signed with token {id}: it is not signed yet (kube-controller-manager does that), or \
         the token is unknown or has expired; with --discovery-token-ca-cert-hash it need not be signed"
    )]
    NotSigned {
        /// The token's id.
        id: String,
        /// Who was asked.
        endpoint: String,
    },
    /// The cluster is the token's, and its authority another than expected.
    #[error(
        "the certificate authority of the cluster at {endpoint} is {found}, and not the one expected: the hash is of another \
         cluster or an older authority, or somebody is in between; nothing has been sent there"
    )]
    WrongPin {
        /// Who was asked.
        endpoint: String,
        /// What its authorities' hashes are.
        found: String,
    },
    /// Neither signature nor authority are right.
    #[error(
        "whoever answers at {endpoint} is not the cluster: cluster-info is neither signed with the token nor is its authority \
         the expected one; somebody is in between, or it is another cluster; nothing has been sent there"
    )]
    Intercepted {
        /// Who was asked.
        endpoint: String,
    },
    /// The server's certificate is not the cluster's.
    #[error(
        "the server at {endpoint} has no certificate of the cluster it tells of ({words}): somebody is in between, or it has \
         been set up anew"
    )]
    NotTrusted {
        /// Who was asked.
        endpoint: String,
        /// What is wrong with its certificate.
        words: String,
    },
    /// What is said over the trusted connection is not what was said before.
    #[error(
        "cluster-info at {endpoint} is another over a trusted connection than before: somebody in between has changed it"
    )]
    Mismatch {
        /// Who was asked.
        endpoint: String,
    },
    /// The clocks differ so far that certificates seem not to hold.
    #[error(
        "clock skew {}: this machine's clock is {} the one of the API server at {endpoint}; set the clock (chrony, ntp), then \
         run it again",
        span(*by), if *ahead { "ahead of" } else { "behind" }
    )]
    ClockSkew {
        /// Who was asked.
        endpoint: String,
        /// How far.
        by: Duration,
        /// Whether this machine is ahead.
        ahead: bool,
    },
    /// The server's certificate does not hold now, by clocks that agree.
    #[error("the certificate of the server at {endpoint} does not hold now ({words}); on its node: weft certs renew")]
    NotNow {
        /// Who was asked.
        endpoint: String,
        /// What is wrong with its certificate.
        words: String,
    },
}

impl DiscoveryError {
    /// Whether waiting may help.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::NotPublished { .. } | Self::NoApiServer { .. } | Self::NotSigned { .. }
        )
    }
}

/// `10m`, `1h 5m`, `42s`.
fn span(by: Duration) -> String {
    let minutes = (by.as_secs() + 30) / 60;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{}s", by.as_secs()),
        (0, minutes) => format!("{minutes}m"),
        (hours, 0) => format!("{hours}h"),
        (hours, minutes) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j16_skew_is_told_in_minutes() {
        let told = |seconds, ahead| {
            DiscoveryError::ClockSkew { endpoint: "x".to_owned(), by: Duration::from_secs(seconds), ahead }.to_string()
        };
        assert!(told(600, true).starts_with("clock skew 10m: this machine's clock is ahead of"), "{}", told(600, true));
        assert!(told(599, false).starts_with("clock skew 10m: this machine's clock is behind"));
        assert!(told(3900, true).starts_with("clock skew 1h 5m"));
    }
}
