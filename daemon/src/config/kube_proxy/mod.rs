//! A `KubeProxyConfiguration` (`kubeproxy.config.k8s.io/v1alpha1`) as the lowest layer of the configuration.
//!
//! Whoever comes from kube-proxy hands over the file that they have. [`table`] says for each key what it becomes here, or why
//! it becomes nothing; [`joint`] has what depends on more than one key. As with kube-proxy, a value that is wrong is an
//! error, a key that nobody knows a warning.

mod joint;
mod table;
mod texts;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

use self::joint::Section;
use self::table::{Becomes, ROWS, Row};
use super::error::ConfigError;
use super::load::Origin;
use crate::cluster::json::nearest;

/// What is read from such a file.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// Texts by weft's key, with the path of kube-proxy's key that they are from.
    pub(super) texts: BTreeMap<&'static str, (String, Vec<String>)>,
    /// What the reader of the log has to know: keys without a counterpart, and differences.
    pub(super) warnings: Vec<String>,
}

/// Reads a file, YAML or JSON.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    let document = document(text, &mut layer.warnings)
        .map_err(|message| ConfigError::NotKubeProxy { path: path.to_owned(), message })?;
    let mut found = Found::default();
    found.collect(&document, "").and_then(|()| map(&found, &mut layer)).map_err(|wrong| ConfigError::Value {
        key: wrong.key,
        value: wrong.value,
        origin: Origin::File(path.to_owned()),
        expected: wrong.expected.to_owned(),
    })?;
    let said = |warning: &mut String| *warning = format!("{}: {warning}", path.display());
    layer.warnings.iter_mut().for_each(said);
    Ok(layer)
}

/// The document as a mapping, if it is of the right kind.
fn document(text: &str, warnings: &mut Vec<String>) -> Result<Map<String, Value>, String> {
    let document: Value = match serde_saphyr::from_str(text) {
        Ok(document) => document,
        // Strictly first, leniently then, as kube-proxy does: of a key that is there twice the last one counts.
        Err(strict) => {
            let lenient = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
            let document = serde_saphyr::from_str_with_options(text, lenient).map_err(|error| error.to_string())?;
            warnings.push(format!("a key is there more than once, the last one counts: {strict}"));
            document
        }
    };
    let Value::Object(document) = document else { return Err("it is not a mapping".to_owned()) };
    for (key, expected) in [("apiVersion", table::API_VERSION), ("kind", table::KIND)] {
        match document.get(key) {
            Some(Value::String(given)) if given == expected => {}
            given => return Err(format!("{key} is {}; expected {expected}", shown(given.unwrap_or(&Value::Null)))),
        }
    }
    Ok(document)
}

/// A value that does not suit its key.
struct Wrong {
    key: String,
    value: String,
    expected: &'static str,
}

/// The keys of a document, by the rows of the table.
#[derive(Default)]
struct Found {
    rows: Vec<(&'static Row, String, Value)>,
    unknown: Vec<String>,
}

impl Found {
    fn collect(&mut self, mapping: &Map<String, Value>, above: &str) -> Result<(), Wrong> {
        for (key, value) in mapping {
            let path = format!("{above}{key}");
            if matches!(path.as_str(), "apiVersion" | "kind") || is_empty(value) {
                continue;
            }
            let below = format!("{path}.");
            let is_mapping = ROWS.iter().any(|row| row.path.starts_with(&below));
            match (ROWS.iter().find(|row| row.covers(&path)), value) {
                (None, Value::Object(inner)) if is_mapping => self.collect(inner, &below)?,
                (None, _) if is_mapping => {
                    return Err(Wrong { key: path, value: shown(value), expected: "a mapping of keys to values" });
                }
                // A row for everything below a key names each of it.
                (Some(row), Value::Object(inner)) if row.path.ends_with('*') => self.collect(inner, &below)?,
                (Some(row), value) => self.rows.push((row, path, value.clone())),
                (None, _) => self.unknown.push(path),
            }
        }
        Ok(())
    }

    /// The text of a key, if it is given and has the form that its row asks for.
    fn text(&self, path: &str) -> Option<String> {
        let (row, _, value) = self.rows.iter().find(|(_, given, _)| given == path)?;
        (row.form)(value).ok().flatten().map(|texts| texts.join(","))
    }
}

fn map(found: &Found, layer: &mut Layer) -> Result<(), Wrong> {
    let mut unused: Vec<(&str, Vec<&str>)> = Vec::new();
    let section = Section::of(found.text("mode").as_deref());
    for (row, path, value) in &found.rows {
        let wrong = |expected| Wrong { key: path.clone(), value: shown(value), expected };
        let Some(texts) = (row.form)(value).map_err(wrong)? else { continue };
        match row.becomes {
            Becomes::Key(key) => {
                layer.texts.insert(key, (path.clone(), texts));
            }
            Becomes::KeyIn(sections, key) if sections.contains(&section) => {
                layer.texts.insert(key, (path.clone(), texts));
            }
            // Of kube-proxy's other modes, which it has no use for, either; or one of several that `joint` looks at.
            Becomes::KeyIn(..) | Becomes::Joint => {}
            Becomes::Nothing(why) => match unused.iter_mut().find(|(known, _)| *known == why) {
                Some((_, paths)) => paths.push(path),
                None => unused.push((why, vec![path])),
            },
        }
    }
    joint::map(found, section, layer)?;
    for (why, paths) in unused {
        layer.warnings.push(format!("without effect, because {why}: {}", paths.join(", ")));
    }
    for path in &found.unknown {
        let paths: Vec<&str> = ROWS.iter().map(|row| row.path).collect();
        let hint = nearest(path, &paths).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
        layer.warnings.push(format!("there is no key {path}{hint}"));
    }
    Ok(())
}

/// What says as much as a key that is not there.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
