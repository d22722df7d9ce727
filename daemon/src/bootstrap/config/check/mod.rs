//! The rules of kubeadm's configuration (kubeadm 1.36, apis/kubeadm/validation/validation.go), all of them looked at in one go.

pub(super) mod cluster;
pub(super) mod node;

use serde_json::Value;

use super::finding::{Finding, Weight};
use super::layers::Layers;

/// Looks at values by their paths, and collects what is wrong with them.
pub(super) struct Check<'a> {
    pub(super) layers: &'a Layers,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl<'a> Check<'a> {
    pub(super) fn new(layers: &'a Layers, findings: &'a mut Vec<Finding>) -> Self {
        Self { layers, findings }
    }

    /// Notes that a field's value is not what it should be.
    fn wrong(&mut self, path: &str, value: &str, expected: &str) {
        self.say(Weight::Wrong, path, format!("{} is {value:?}; expected {expected}", field(path)));
    }

    fn say(&mut self, weight: Weight, path: &str, message: String) {
        self.findings.push(self.layers.finding(weight, path, message));
    }

    /// A text that there is has to follow a rule.
    fn text(&mut self, path: &str, rule: impl FnOnce(&str) -> bool, expected: &str) {
        if let Some(text) = self.layers.text(path)
            && !rule(text)
        {
            self.wrong(path, text, expected);
        }
    }

    /// A secret that there is has to follow a rule. It is not shown.
    fn secret(&mut self, path: &str, rule: impl FnOnce(&str) -> bool, expected: &str) {
        if let Some(text) = self.layers.text(path)
            && !rule(text)
        {
            self.say(Weight::Wrong, path, format!("{} is not what it should be; expected {expected}", field(path)));
        }
    }

    /// Each text of a list has to follow a rule.
    fn texts(&mut self, path: &str, rule: impl Fn(&str) -> bool, expected: &str) {
        for (index, text) in list(self.layers, path).iter().filter_map(Value::as_str).enumerate() {
            if !rule(text) {
                self.wrong(&format!("{path}[{index}]"), text, expected);
            }
        }
    }

    /// Each mapping of a list needs these fields.
    fn fields(&mut self, path: &str, needed: &[&str]) {
        for (index, item) in list(self.layers, path).iter().enumerate() {
            for name in needed {
                if item.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    let path = format!("{path}[{index}].{name}");
                    self.say(Weight::Wrong, &path, format!("{} is missing", field(&path)));
                }
            }
        }
    }

    fn absolute(&mut self, path: &str) {
        self.text(path, |text| text.starts_with('/'), "an absolute path");
    }
}

/// The list at a path; empty if there is none.
fn list<'l>(layers: &'l Layers, path: &str) -> &'l [Value] {
    layers.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A path without its kind, as users know it.
fn field(path: &str) -> &str {
    path.split_once('.').map_or(path, |(_, field)| field)
}
