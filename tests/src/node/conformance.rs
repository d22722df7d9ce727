//! Upstream's own tests, `e2e.test`, on a cluster: which images they want, a run of some of them, and what came out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::cluster::Cluster;
use super::{agnhost, peers};
use crate::process::{self, ProcessId};
use crate::{tool, wait};

/// The program with the tests.
pub const PROGRAM: &str = "e2e.test";
/// What runs it in several processes. Without it there is one.
const RUNNER: &str = "ginkgo";
const PROCESSES: usize = 4;
/// How long a run may take in several processes on a busy machine; one process gets as much more.
const LIMIT: Duration = Duration::from_secs(1800);
/// The images of which tests of the network make pods. One image does for all: of nginx and pause they want only that it runs.
const IMAGES: [&str; 4] = ["agnhost", "glibc-dns-testing", "nginx", "pause"];

/// Which tests to run: regular expressions over a test's whole name.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// What the name has to match.
    pub focus: &'a str,
    /// What it may not match.
    pub skip: &'a str,
}

/// What came out of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The names of the tests that passed.
    pub passed: Vec<String>,
    /// The others that ran, each with its name and what it said.
    pub failed: Vec<String>,
    /// The tests that have found by themselves that they cannot run, each with its name and the reason.
    pub skipped: Vec<String>,
    /// How long the run took.
    pub took: Duration,
}

/// Why upstream's tests cannot run here; `None` if they can.
#[must_use]
pub fn obstacle() -> Option<String> {
    peers::check(&[PROGRAM]).err().or_else(agnhost::obstacle)
}

/// Puts the images that the tests want on every node that is there.
///
/// # Errors
/// When the image cannot be made, or a node refuses it.
pub fn install_images(cluster: &Cluster) -> Result<()> {
    let list = tool::run(tool::command(peers::need(PROGRAM)?).arg("--list-images"))?;
    let names = wanted(&list);
    anyhow::ensure!(!names.is_empty(), "{PROGRAM} names none of its images: {list}");
    cluster.import_archive(&agnhost::image(&names)?)
}

/// The images of ours among those that the tests may use.
fn wanted(list: &str) -> Vec<String> {
    let of_ours = |name: &&str| {
        let repository = name.rsplit_once(':').map_or(*name, |(repository, _)| repository);
        repository.rsplit('/').next().is_some_and(|last| IMAGES.contains(&last))
    };
    list.split_whitespace().filter(of_ours).map(str::to_owned).collect()
}

/// The tests that run, until their owner is gone.
struct Running(ProcessId);

impl Drop for Running {
    fn drop(&mut self) {
        // Those that it has started end with the namespace that they are in.
        self.0.kill();
    }
}

/// Runs tests from outside of the cluster, as whoever tests a cluster does, and waits for their end.
///
/// # Errors
/// When they do not end in time, or without a report; the error ends with what they said last.
pub fn run(cluster: &Cluster, choice: Choice<'_>) -> Result<Report> {
    let folder = cluster.folder("conformance")?;
    let (log, report) = (folder.join("log"), folder.join("report.json"));
    let tests = peers::need(PROGRAM)?;
    let runner = peers::find(RUNNER);
    let limit = if runner.is_some() { LIMIT } else { LIMIT * u32::try_from(PROCESSES)? };
    // What the runner calls --x is --ginkgo.x for a program that runs without it.
    let (mut command, prefix) = match &runner {
        Some(runner) => (tool::command(runner), ""),
        None => (tool::command(&tests), "ginkgo."),
    };
    let mut option = |name: &str, value: &str| {
        command.arg(format!("--{prefix}{name}={value}"));
    };
    option("focus", choice.focus);
    option("skip", choice.skip);
    option("timeout", &format!("{}s", limit.as_secs()));
    option("no-color", "true");
    if runner.is_some() {
        option("procs", &PROCESSES.to_string());
        option("output-dir", &folder.display().to_string());
        option("json-report", "report.json");
        command.arg(&tests).arg("--");
    } else {
        option("json-report", &report.display().to_string());
    }
    command.arg("--provider=skeleton");
    command.arg(format!("--kubeconfig={}", cluster.control().kubeconfig("admin")?.display()));
    command.arg(format!("--kubectl-path={}", peers::need("kubectl")?.display()));
    // They leave files wherever they may.
    command.current_dir(&folder).envs([("HOME", &folder), ("TMPDIR", &folder)]).env_remove("KUBECONFIG");

    let begin = Instant::now();
    let running = Running(process::spawn(cluster.outside(), &mut command, &log)?);
    let said = || super::tail(&log, 60);
    wait::until(limit, "the end of upstream's tests", || !running.0.alive()).with_context(said)?;
    let took = begin.elapsed();
    let text = fs::read_to_string(&report).with_context(said)?;
    keep(&[&log, &report]);
    Ok(Report { took, ..read(&text).with_context(said)? })
}

/// Copies files into the folder `WEFT_E2E_REPORTS`, if that is wanted.
fn keep(files: &[&Path]) {
    let Some(folder) = std::env::var_os("WEFT_E2E_REPORTS").map(PathBuf::from) else { return };
    for file in files {
        let target = folder.join(file.file_name().unwrap_or_default());
        if let Err(error) = fs::copy(file, &target) {
            eprintln!("cannot write {}: {error}", target.display());
        }
    }
}

/// Reads a report in the form of `--json-report`: suites, each with an entry for every test that it has.
fn read(text: &str) -> Result<Report> {
    let suites: Vec<Value> = serde_json::from_str(text)?;
    let mut report = Report::default();
    for suite in &suites {
        for test in list(&suite["SpecReports"]) {
            let name = name(test);
            let message = test["Failure"]["Message"].as_str().unwrap_or_default();
            match test["State"].as_str().unwrap_or_default() {
                "passed" if test["LeafNodeType"] == "It" => report.passed.push(name),
                // Steps before and after all tests.
                "passed" => {}
                // Those that were not chosen say nothing.
                "skipped" | "pending" if message.is_empty() => {}
                "skipped" => report.skipped.push(format!("{name}: {message}")),
                state => report.failed.push(format!("{name}: {state}: {message}")),
            }
        }
        let reasons = list(&suite["SpecialSuiteFailureReasons"]).filter_map(Value::as_str);
        report.failed.extend(reasons.map(|reason| format!("the whole run: {reason}")));
        if suite["SuiteSucceeded"] != true && report.failed.is_empty() {
            report.failed.push("the whole run, without a reason".into());
        }
    }
    Ok(report)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// A test's whole name: that of the groups that it is in, and its own. A step before all tests has but its kind.
fn name(test: &Value) -> String {
    let own = [&test["LeafNodeText"], &test["LeafNodeType"]].into_iter().filter_map(Value::as_str);
    let own = own.into_iter().find(|text| !text.is_empty());
    let words: Vec<&str> = list(&test["ContainerHierarchyTexts"]).filter_map(Value::as_str).chain(own).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_that_the_network_needs_whatever_their_registry_and_version() {
        let list = "registry.k8s.io/e2e-test-images/agnhost:2.63.0\nregistry.k8s.io/e2e-test-images/nonroot:1.5\n\
            localhost:5000/pause:3.10.2\nregistry.k8s.io/e2e-test-images/agnhost-more:1\n";
        assert_eq!(wanted(list), ["registry.k8s.io/e2e-test-images/agnhost:2.63.0", "localhost:5000/pause:3.10.2"]);
    }

    #[test]
    fn a_report_with_every_kind_of_end() {
        let test = |state: &str, kind: &str, message: &str| {
            json!({"State": state, "LeafNodeType": kind, "LeafNodeText": if kind == "It" { "works" } else { "" },
                "ContainerHierarchyTexts": ["[sig-network]", "Services"], "Failure": {"Message": message}})
        };
        let text = json!([{"SuiteSucceeded": false, "SpecialSuiteFailureReasons": ["a process was lost"], "SpecReports": [
            test("passed", "It", ""), test("passed", "SynchronizedBeforeSuite", ""), test("skipped", "It", ""),
            test("skipped", "It", "needs SCTP"), test("failed", "It", "no route"), test("panicked", "AfterSuite", "oh"),
        ]}]);
        let report = read(&text.to_string()).unwrap();
        assert_eq!(report.passed, ["[sig-network] Services works"]);
        assert_eq!(report.skipped, ["[sig-network] Services works: needs SCTP"]);
        let failed = [
            "[sig-network] Services works: failed: no route",
            "[sig-network] Services AfterSuite: panicked: oh",
            "the whole run: a process was lost",
        ];
        assert_eq!(report.failed, failed);
        assert_eq!(read(r#"[{"SuiteSucceeded": false}]"#).unwrap().failed, ["the whole run, without a reason"]);
        assert!(read("").is_err());
    }
}
