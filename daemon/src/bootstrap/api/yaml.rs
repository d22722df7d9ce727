//! YAML as kubeadm's ConfigMaps and kubeconfigs have it: keys in their order, one document.

use serde_json::Value;

/// Writes a document.
pub(super) fn write(value: &Value) -> Result<String, String> {
    let text = serde_saphyr::to_string(value).map_err(|error| error.to_string())?;
    Ok(if text.ends_with('\n') { text } else { format!("{text}\n") })
}

/// Reads a document.
pub(super) fn read(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}
