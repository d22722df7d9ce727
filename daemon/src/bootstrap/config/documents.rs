//! A configuration file: the documents in it by their kind, each as `v1beta4` has it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::finding::{ConfigError, Finding, Weight, place};
use super::model;
use super::shape::{Shape, Version, Walk};
use super::tree::{Content, Node, Position, documents};
use super::{old, tables, weft};
use crate::cluster::json::nearest;

/// What a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Init,
    Cluster,
    Join,
    Reset,
    Upgrade,
    Kubelet,
    KubeProxy,
    Weft,
}

const KUBEADM: &str = "kubeadm.k8s.io";

impl Kind {
    pub(super) const ALL: [Self; 8] =
        [Self::Init, Self::Cluster, Self::Join, Self::Reset, Self::Upgrade, Self::Kubelet, Self::KubeProxy, Self::Weft];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Init => "InitConfiguration",
            Self::Cluster => "ClusterConfiguration",
            Self::Join => "JoinConfiguration",
            Self::Reset => "ResetConfiguration",
            Self::Upgrade => "UpgradeConfiguration",
            Self::Kubelet => "KubeletConfiguration",
            Self::KubeProxy => "KubeProxyConfiguration",
            Self::Weft => weft::KIND,
        }
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::Init | Self::Cluster | Self::Join | Self::Reset | Self::Upgrade => model::API_VERSION,
            Self::Kubelet => "kubelet.config.k8s.io/v1beta1",
            Self::KubeProxy => "kubeproxy.config.k8s.io/v1alpha1",
            Self::Weft => weft::API_VERSION,
        }
    }

    fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    fn shape(self) -> Shape {
        match self {
            Self::Init => Shape::Object(tables::INIT),
            Self::Cluster => Shape::Object(tables::CLUSTER),
            Self::Join => Shape::Object(tables::JOIN),
            Self::Reset => Shape::Object(tables::RESET),
            Self::Upgrade => Shape::Object(tables::UPGRADE),
            Self::Kubelet | Self::KubeProxy => Shape::Any,
            Self::Weft => Shape::Object(tables::WEFT),
        }
    }

    fn is_in(self, version: Version) -> bool {
        !matches!(self, Self::Reset | Self::Upgrade) || version == Version::V1Beta4
    }
}

/// A document.
#[derive(Debug)]
pub(super) struct Document {
    /// Its fields, without apiVersion and kind but for kinds that are not kubeadm's or weft's.
    pub(super) value: Map<String, Value>,
    /// Where each of them stands in the file.
    pub(super) positions: BTreeMap<String, Position>,
    /// The version that it was written in.
    pub(super) version: Version,
    /// Where it begins.
    pub(super) at: Position,
    /// Whether all of it follows from another document, so that it need not be written beside that one.
    pub(super) is_implied: bool,
}

/// A file.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// Its name, for messages.
    pub(super) file: String,
    pub(super) found: BTreeMap<Kind, Document>,
    pub(super) findings: Vec<Finding>,
}

impl Documents {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no YAML. All else is in [`Documents::findings`].
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a text that `file` is the name of.
    ///
    /// # Errors
    /// [`ConfigError::NotYaml`].
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let nodes = documents(text).map_err(|error| ConfigError::NotYaml {
            place: error.at.map_or_else(|| file.to_owned(), |at| place(file, at)),
            message: error.message,
        })?;
        let mut read = Self { file: file.to_owned(), ..Self::default() };
        if nodes.is_empty() {
            read.find(Weight::Wrong, None, "there is no document in it".to_owned());
        }
        nodes.iter().for_each(|node| read.take(node));
        old::modernize(&mut read);
        Ok(read)
    }

    fn take(&mut self, node: &Node) {
        if !matches!(node.content, Content::Mapping(_)) {
            let message = format!("the document is {}; expected a mapping with apiVersion and kind", node.describe());
            return self.find(Weight::Wrong, Some(node.at), message);
        }
        let mut word = |name: &str| {
            let found = node.get(name).and_then(|value| Some((value.text()?.to_owned(), value.at)));
            if found.is_none() {
                let given = node.get(name).map_or_else(|| "missing".to_owned(), Node::describe);
                let at = node.get(name).map_or(node.at, |value| value.at);
                self.find(Weight::Wrong, Some(at), format!("{name} of the document is {given}; expected text"));
            }
            found
        };
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        let (Some((api_version, version_at)), Some((kind, kind_at))) = (api_version, kind) else { return };
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        if !Kind::ALL.iter().any(|kind| kind.group() == group) {
            let message = format!("{kind} of {api_version} is neither kubeadm's nor weft's, and is ignored");
            return self.find(Weight::Note, Some(version_at), message);
        }
        let Some(version) = self.version(group, version, version_at) else { return };
        let kinds: Vec<Kind> =
            Kind::ALL.into_iter().filter(|kind| kind.group() == group && kind.is_in(version)).collect();
        let Some(found) = kinds.iter().find(|known| known.name() == kind) else {
            return self.unknown_kind(&kinds, &kind, &api_version, kind_at);
        };
        self.add(*found, version, node);
    }

    /// The version of a document, if it is one that can be read. Kinds of others have one version, which counts as the newest.
    fn version(&mut self, group: &str, version: &str, at: Position) -> Option<Version> {
        if group == KUBEADM {
            let found = Version::ALL.into_iter().find(|known| known.name() == version);
            match found {
                None => {
                    let message =
                        format!("apiVersion is {group}/{version}; expected {group}/v1beta2, v1beta3 or v1beta4");
                    self.find(Weight::Wrong, Some(at), message);
                }
                Some(Version::V1Beta4) => {}
                Some(old) => self.find(
                    Weight::Note,
                    Some(at),
                    format!("{group}/{} is old; `weft config migrate` writes it as v1beta4", old.name()),
                ),
            }
            return found;
        }
        let known = Kind::ALL.iter().find(|kind| kind.group() == group)?.api_version();
        if known.split_once('/').is_some_and(|(_, known)| known == version) {
            return Some(Version::V1Beta4);
        }
        self.find(Weight::Wrong, Some(at), format!("apiVersion is {group}/{version}; expected {known}"));
        None
    }

    fn unknown_kind(&mut self, kinds: &[Kind], kind: &str, api_version: &str, at: Position) {
        if kind == "ClusterStatus" {
            return self.find(Weight::Note, Some(at), "ClusterStatus is of no use any more, and is ignored".to_owned());
        }
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let hint = nearest(kind, &names).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        let message = format!("there is no kind {kind} in {api_version}{hint}");
        self.find(Weight::Wrong, Some(at), message);
    }

    fn add(&mut self, kind: Kind, version: Version, node: &Node) {
        if let Some(first) = self.found.get(&kind) {
            let message = format!("{} is there twice (first in line {})", kind.name(), first.at.line);
            return self.find(Weight::Wrong, Some(node.at), message);
        }
        let mut positions = BTreeMap::new();
        let mut walk = Walk { file: &self.file, version, positions: &mut positions, findings: &mut self.findings };
        let Some(Value::Object(value)) = walk.read(kind.shape(), node, "") else { return };
        self.found.insert(kind, Document { value, positions, version, at: node.at, is_implied: false });
    }

    /// Notes something about a place of the file.
    pub(super) fn find(&mut self, weight: Weight, at: Option<Position>, message: String) {
        let place = at.map_or_else(|| self.file.clone(), |at| place(&self.file, at));
        self.findings.push(Finding { weight, place, message });
    }

    /// The document of a kind; an empty one is made if there is none.
    pub(super) fn entry(&mut self, kind: Kind, at: Position) -> &mut Document {
        self.found.entry(kind).or_insert_with(|| Document {
            value: Map::new(),
            positions: BTreeMap::new(),
            version: Version::V1Beta4,
            at,
            is_implied: false,
        })
    }
}
