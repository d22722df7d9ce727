//! Errors as the specification has them: a code, a sentence, details.

use std::fmt;

use serde::Serialize;

/// The result of anything that a runtime may have to be told about.
pub type Result<T, E = CniError> = std::result::Result<T, E>;

/// Error codes (CNI specification, "Error", and the Go library's additions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version, or the verb in that version, is not supported.
    IncompatibleVersion = 1,
    /// A field of the configuration is understood and not supported.
    UnsupportedField = 2,
    /// A CNI environment variable is missing or bad.
    BadEnvironment = 4,
    /// Something could not be read or written.
    Io = 5,
    /// The input is not JSON, or not of the right shape.
    Decode = 6,
    /// The configuration is wrong.
    InvalidConfig = 7,
    /// The namespace given is the plugin's own.
    InvalidNamespace = 8,
    /// It may work later.
    TryAgainLater = 11,
    /// STATUS: pods cannot be added now.
    NotAvailable = 50,
    /// Anything else; the number that the Go plugins use.
    Internal = 999,
}

/// An error to be told to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// What kind of error.
    pub code: Code,
    /// What went wrong, with key and value.
    pub message: String,
    /// More, where there is more.
    pub details: String,
}

impl CniError {
    /// An error without details.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// A wrong configuration value.
    #[must_use]
    pub fn invalid(key: &str, value: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::new(Code::InvalidConfig, format!("{key}: {value} is not valid; expected {expected}"))
    }

    /// A field that is understood and not supported.
    #[must_use]
    pub fn unsupported(key: &str, value: impl fmt::Display, instead: impl fmt::Display) -> Self {
        Self::new(Code::UnsupportedField, format!("{key}: {value} is not supported; {instead}"))
    }

    /// Something that may work later.
    #[must_use]
    pub fn later(message: impl Into<String>) -> Self {
        Self::new(Code::TryAgainLater, message)
    }

    /// Reading or writing `what` failed.
    #[must_use]
    pub fn io(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(Code::Io, format!("{what}: {error}"))
    }

    /// A failure that is nobody's input.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The error as the runtime reads it from standard output. `cni_version` is the configuration's.
    #[must_use]
    pub fn to_json(&self, cni_version: &str) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            #[serde(rename = "cniVersion")]
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let wire = Wire { cni_version, code: self.code as u32, msg: &self.message, details: &self.details };
        // Strings and one number: there is nothing in it that cannot be written.
        serde_json::to_string(&wire).unwrap_or_default()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}

impl From<weft_netlink::Error> for CniError {
    /// What the kernel refused for want of room or time may be tried again; the rest is internal.
    fn from(error: weft_netlink::Error) -> Self {
        use weft_netlink::Errno;
        let code = match error.errno() {
            Some(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR | Errno::EBUSY) => Code::TryAgainLater,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t022_an_error_is_json_with_an_integer_code_and_a_message() {
        let error = CniError::invalid("mtu", 67, "68 to 65535").with_details("a \"quoted\" word");
        let wire: serde_json::Value = serde_json::from_str(&error.to_json("1.0.0")).unwrap();
        assert_eq!(wire["code"], 7);
        assert_eq!(wire["msg"], "mtu: 67 is not valid; expected 68 to 65535");
        assert_eq!(wire["details"], "a \"quoted\" word");
        assert_eq!(wire["cniVersion"], "1.0.0");
    }
}
