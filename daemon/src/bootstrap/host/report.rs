//! What the checks have found, and which of it stands in the way.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::bootstrap::cri::CgroupDriver;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// weft mends it before it goes on.
    Mended,
    /// Nothing comes to a stop by it today.
    Warning,
    /// No cluster can be on this machine as it is.
    Error,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// kubeadm's name of the check where it has one: what `--ignore-preflight-errors` takes.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub cause: String,
    /// What mends it.
    pub fix: String,
    /// Whether `weft preflight --fix` mends it.
    pub fixable: bool,
    /// Whether it was an error and is ignored.
    pub ignored: bool,
}

impl Finding {
    /// An error: cause and fix.
    pub fn error(name: impl Into<String>, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Error, name, cause, fix)
    }

    /// A warning: cause and fix.
    pub fn warning(name: impl Into<String>, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Warning, name, cause, fix)
    }

    /// The same as something that `weft preflight --fix` can do.
    #[must_use]
    pub fn fixable(self) -> Self {
        Self { fixable: true, ..self }
    }

    fn new(severity: Severity, name: impl Into<String>, cause: impl Into<String>, fix: impl Into<String>) -> Self {
        let (name, cause, fix) = (name.into(), cause.into(), fix.into());
        Self { name, severity, cause, fix, fixable: false, ignored: false }
    }
}

/// What kubelet must be told so that it works on this machine as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletNeeds {
    /// `failSwapOn: false`: there is swap, and it stays.
    pub tolerate_swap: bool,
    /// `memorySwap.swapBehavior: LimitedSwap`: pods may use it.
    pub limited_swap: bool,
    /// `failCgroupV1: false`: there is nothing else here.
    pub tolerate_cgroup_v1: bool,
    /// `cgroupDriver`: the runtime's.
    pub cgroup_driver: Option<CgroupDriver>,
    /// The disk syncs slowly: this much at worst. etcd and the probes want more patience.
    pub slow_disk: Option<Duration>,
}

/// Names whose errors only warn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignored {
    all: bool,
    names: BTreeSet<String>,
}

/// `--ignore-preflight-errors` makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--ignore-preflight-errors: \"all\" takes all others in, and was given together with {0}; give it alone")]
pub struct IgnoredError(String);

impl Ignored {
    /// Reads names, each of which may be several with commas between; capitals do not matter.
    ///
    /// # Errors
    /// `all` together with others.
    pub fn parse<T: AsRef<str>>(names: &[T]) -> Result<Self, IgnoredError> {
        let words = names.iter().flat_map(|text| text.as_ref().split(','));
        let mut names: BTreeSet<String> =
            words.map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty()).collect();
        let all = names.remove("all");
        if all && !names.is_empty() {
            return Err(IgnoredError(names.into_iter().collect::<Vec<_>>().join(", ")));
        }
        Ok(Self { all, names })
    }

    /// Whether errors of that name only warn.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(&name.to_ascii_lowercase())
    }
}

/// All findings.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PreflightReport {
    /// How many errors stand in the way.
    pub errors: usize,
    /// How many warnings there are, ignored errors among them.
    pub warnings: usize,
    /// All of them, errors first.
    pub findings: Vec<Finding>,
    /// What kubelet must be told if one goes on.
    pub kubelet: KubeletNeeds,
}

impl PreflightReport {
    /// Makes a report, in which errors of ignored names are warnings.
    #[must_use]
    pub fn new(mut findings: Vec<Finding>, ignored: &Ignored, kubelet: KubeletNeeds) -> Self {
        for finding in &mut findings {
            if finding.severity == Severity::Error && ignored.has(&finding.name) {
                finding.severity = Severity::Warning;
                finding.ignored = true;
            }
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self { errors: count(Severity::Error), warnings: count(Severity::Warning), kubelet, findings }
    }

    /// Whether nothing stands in the way.
    #[must_use]
    pub const fn is_passed(&self) -> bool {
        self.errors == 0
    }

    /// The finding of that name, if there is one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.name == name)
    }
}

/// As kubeadm words it, with what mends each.
impl fmt::Display for PreflightReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::Error => "ERROR",
                Severity::Warning => "WARNING",
                Severity::Mended => "mended",
            };
            let ignored = if finding.ignored { " (ignored)" } else { "" };
            writeln!(text, "\t[{word} {}]: {}{ignored}", finding.name, finding.cause)?;
            if !finding.fix.is_empty() {
                writeln!(text, "\t    -> {}", finding.fix)?;
            }
        }
        out.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p02_names_are_ignored_whatever_their_capitals() {
        let ignored = Ignored::parse(&["port-6443,SWAP"]).unwrap();
        let finding = |name| Finding::error(name, "cause", "fix");
        let findings = vec![finding("Port-6443"), finding("Mem"), finding("Swap")];
        let report = PreflightReport::new(findings, &ignored, KubeletNeeds::default());
        assert_eq!((report.errors, report.warnings), (1, 2));
        assert_eq!(report.findings[0].name, "Mem", "errors come first");
        assert!(report.get("Swap").unwrap().ignored);
        assert!(Ignored::parse(&["all"]).unwrap().has("Mem"));
        assert!(Ignored::parse(&["all,Swap"]).unwrap_err().to_string().contains("swap"));
        assert!(!Ignored::parse::<&str>(&[]).unwrap().has("all"));
    }

    #[test]
    fn each_error_is_shown_with_its_fix() {
        let findings = vec![Finding::warning("Hostname", "a", ""), Finding::error("Mem", "too little", "add some")];
        let text = PreflightReport::new(findings, &Ignored::default(), KubeletNeeds::default()).to_string();
        assert_eq!(text, "\t[ERROR Mem]: too little\n\t    -> add some\n\t[WARNING Hostname]: a\n");
    }
}
