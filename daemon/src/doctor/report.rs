//! All checks together: the exit code, and how they are shown.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Check, Outcome};
use crate::status::judge::Verdict;

/// What the doctor has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The node.
    pub node: String,
    /// Version of this program.
    pub version: &'static str,
    /// The worst of all checks.
    pub verdict: Verdict,
    /// How many problems there are.
    pub problems: usize,
    /// How many checks could not be made.
    pub unknown: usize,
    /// All checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// The report of these checks.
    #[must_use]
    pub fn new(node: String, checks: Vec<Check>) -> Self {
        let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
        let (problems, unknown) = (count(Outcome::Problem), count(Outcome::Unknown));
        let verdict = match (problems, unknown) {
            (0, 0) => Verdict::Well,
            (0, _) => Verdict::Unknown,
            _ => Verdict::Wrong,
        };
        Self { node, version: env!("CARGO_PKG_VERSION"), verdict, problems, unknown, checks }
    }

    /// 0 if nothing is wrong, 1 if something is, 2 if nothing is known to be, and something could not be checked.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.verdict.exit_code()
    }

    /// For a person: what is wrong, unknown or worth knowing; everything if `wide`.
    #[must_use]
    pub fn text(&self, wide: bool) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let mark = match check.outcome {
                Outcome::Problem => "PROBLEM",
                Outcome::Unknown => "unknown",
                Outcome::Note => "note",
                Outcome::Good if wide => "good",
                Outcome::Moot if wide => "moot",
                Outcome::Good | Outcome::Moot => continue,
            };
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{mark:8} {} {}: {}", check.group, check.name, check.words);
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "         -> {remedy}");
            }
        }
        let asked = self.checks.iter().filter(|check| check.outcome != Outcome::Moot).count();
        let _ = writeln!(
            text,
            "{}: {asked} checks, {} problems, {} could not be made",
            self.node, self.problems, self.unknown
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Group;

    const GROUP: Group = Group("kernel");

    #[test]
    fn the_exit_code_is_that_of_the_worst() {
        let report = |checks: &[Check]| Report::new("n1".into(), checks.to_vec()).exit_code();
        let (good, note, moot) = (GROUP.good("a", ""), GROUP.note("b", ""), GROUP.moot("c", ""));
        let (unknown, problem) = (GROUP.unknown("d", ""), GROUP.problem("e", "", ""));
        assert_eq!(report(&[good.clone(), note, moot]), 0);
        assert_eq!(report(&[good, unknown.clone()]), 2);
        assert_eq!(report(&[unknown, problem]), 1);
    }

    #[test]
    fn a_problem_comes_with_its_remedy_and_what_is_good_only_if_asked_for() {
        let checks = vec![GROUP.good("vxlan", "there"), GROUP.problem("ip_vs", "not there", "modprobe ip_vs")];
        let report = Report::new("n1".into(), checks);
        let text = report.text(false);
        assert!(text.starts_with("PROBLEM  kernel ip_vs: not there\n         -> modprobe ip_vs\n"), "{text}");
        assert!(text.ends_with("n1: 2 checks, 1 problems, 0 could not be made\n"), "{text}");
        assert!(report.text(true).contains("good     kernel vxlan: there"));
    }
}
