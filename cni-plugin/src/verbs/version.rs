//! VERSION: which versions of the protocol are spoken.

use serde_json::json;

use crate::protocol::Version;

/// The answer. It needs neither configuration nor rights.
#[must_use]
pub fn answer() -> String {
    let supported = Version::ALL.map(Version::as_str);
    json!({"cniVersion": Version::NEWEST.as_str(), "supportedVersions": supported}).to_string()
}
