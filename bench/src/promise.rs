//! What weft promises, beside what was measured.

use serde::Serialize;

/// A figure that must not be exceeded.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Promise {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) limit: f64,
    pub(crate) kept: bool,
}

impl Promise {
    /// A figure and its limit.
    pub(crate) fn new(what: impl Into<String>, value: f64, limit: f64) -> Self {
        Self { what: what.into(), value, limit, kept: value <= limit }
    }
}
