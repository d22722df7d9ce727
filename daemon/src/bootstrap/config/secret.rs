//! Texts that must not turn up in logs.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::model::{BootstrapToken, BootstrapTokenDiscovery, Discovery, InitConfiguration, JoinControlPlane};

/// What is shown in a secret's place.
pub(super) const HIDDEN: &str = "<hidden>";

/// A token or a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// Whether a field of that name holds a secret.
pub(super) fn is_secret(field: &str) -> bool {
    matches!(field, "token" | "tlsBootstrapToken" | "certificateKey")
}

/// A value without the secrets in it.
pub(super) fn hidden(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(hidden).collect(),
        Value::Object(object) => {
            let fields = object
                .iter()
                .map(|(name, value)| (name.clone(), if is_secret(name) { Value::from(HIDDEN) } else { hidden(value) }));
            Value::Object(fields.collect())
        }
        value => value.clone(),
    }
}

/// The types of the model that hold secrets are shown as their JSON without them.
macro_rules! shown_without_secrets {
    ($($type:ident)*) => { $(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = serde_json::to_value(self).map_err(|_| fmt::Error)?;
                write!(f, concat!(stringify!($type), " {}"), hidden(&value))
            }
        }
    )* };
}

shown_without_secrets! { BootstrapToken BootstrapTokenDiscovery Discovery InitConfiguration JoinControlPlane }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let token = BootstrapToken { token: "s3cret".to_owned(), ..BootstrapToken::default() };
        let init = InitConfiguration {
            bootstrap_tokens: vec![token],
            certificate_key: Some("s3cret".to_owned()),
            ..InitConfiguration::default()
        };
        let found = BootstrapTokenDiscovery { token: "s3cret".to_owned(), ..BootstrapTokenDiscovery::default() };
        let discovery = Discovery {
            bootstrap_token: Some(found),
            tls_bootstrap_token: Some("s3cret".to_owned()),
            ..Discovery::default()
        };
        let part = JoinControlPlane { certificate_key: Some("s3cret".to_owned()), ..JoinControlPlane::default() };
        let shown = format!("{init:?} {discovery:?} {part:?} {:?}", Secret("s3cret".to_owned()));
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(shown.matches(HIDDEN).count(), 6, "{shown}");
    }
}
