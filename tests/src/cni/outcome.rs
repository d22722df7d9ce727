//! What a plugin answered, typed, with panics that show the whole answer.

use std::time::Duration;

use serde_json::Value;

use crate::tool::Output;

/// How a call of the plugin ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the process did.
    pub output: Output,
    /// What was called, for messages.
    pub what: String,
}

/// A refusal: the specification's error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: i64,
    /// The message, with the details behind it.
    pub text: String,
}

/// A result of ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct Added(pub Value);

impl Outcome {
    /// The result of an ADD.
    ///
    /// # Panics
    /// When it did not exit with 0 and one JSON object on stdout.
    #[must_use]
    pub fn result(&self) -> Added {
        assert_eq!(self.output.exit, Some(0), "{}", self.story());
        match serde_json::from_str(&self.output.stdout) {
            Ok(value @ Value::Object(_)) => Added(value),
            _ => panic!("stdout is not one JSON object\n{}", self.story()),
        }
    }

    /// Success without a word.
    ///
    /// # Panics
    /// When it did not exit with 0, or wrote to stdout.
    pub fn done(&self) {
        assert_eq!(self.output.exit, Some(0), "{}", self.story());
        assert_eq!(self.output.stdout, "", "{}", self.story());
    }

    /// Whether it exited with 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.output.exit == Some(0)
    }

    /// The refusal, whatever its code.
    ///
    /// # Panics
    /// When it succeeded or died, or stdout is not an error object with an integer `code` and a string `msg`.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        assert!(self.output.exit.is_some_and(|code| code != 0), "not refused\n{}", self.story());
        let parsed: Value = serde_json::from_str(&self.output.stdout).unwrap_or_default();
        let (Some(code), Some(msg)) = (parsed["code"].as_i64(), parsed["msg"].as_str()) else {
            panic!("stdout is not an error object\n{}", self.story())
        };
        let details = parsed["details"].as_str().unwrap_or_default();
        Refusal { code, text: format!("{msg} {details}") }
    }

    /// The text of a refusal with this code that says all of `words`.
    ///
    /// # Panics
    /// When it succeeded, or refused otherwise.
    pub fn refused(&self, code: i64, words: &[&str]) {
        let refusal = self.refusal();
        assert_eq!(refusal.code, code, "{}", self.story());
        for word in words {
            assert!(refusal.text.contains(word), "{word:?} is missing\n{}", self.story());
        }
    }

    /// How long the process lived.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.output.took
    }

    fn story(&self) -> String {
        let Output { exit, stdout, stderr, took } = &self.output;
        format!("{} ended with {exit:?} after {took:?}\nstdout: {stdout}\nstderr: {stderr}", self.what)
    }
}

impl Added {
    /// The addresses with their prefix length, in order, in whatever form the version has.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let ips = self.0["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
        let old = [&self.0["ip4"]["ip"], &self.0["ip6"]["ip"]];
        let all = ips.iter().map(|ip| &ip["address"]).chain(old);
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The first address, without its prefix length.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn ip(&self) -> std::net::IpAddr {
        let first = self.addresses().first().and_then(|text| text.split('/').next()?.parse().ok());
        first.unwrap_or_else(|| panic!("no address in {}", self.0))
    }

    /// The interface at a place: bridge, host end, container end.
    #[must_use]
    pub fn interface(&self, place: usize) -> &Value {
        &self.0["interfaces"][place]
    }

    /// The name of the host end.
    ///
    /// # Panics
    /// When the result does not list it.
    #[must_use]
    pub fn host_end(&self) -> &str {
        self.interface(1)["name"].as_str().unwrap_or_else(|| panic!("no host end in {}", self.0))
    }
}
