//! What each subcommand does.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use weft_tests::kube::{Port, Service};
use weft_tests::lab::{Balance, Lab, LabView, Matrix, PROBE_PORT, ServiceRequest, Spec, tail};
use weft_tests::tool;

use crate::{Cli, Output, Verb, service, show};

/// How long a pair may take to become reachable.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// The same where an answer is not expected any more (`ping` on a lab that is as it is).
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Does what was asked and says how it went.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { name, output, verb } = cli;
    match verb {
        Verb::Up { nodes, pods, flannel, dual_stack, proxy_mode } => {
            up(Spec { nodes, pods, flannel, dual_stack, ..Spec::named(name) }.services(&proxy_mode), output)
        }
        Verb::Down => {
            let was_there = Lab::down(&name)?;
            eprintln!(
                "{}",
                if was_there { format!("lab `{name}` is gone") } else { format!("there is no lab `{name}`") }
            );
            Ok(ExitCode::SUCCESS)
        }
        Verb::Status => {
            let view = look(&name)?;
            show::lab(&view, output)?;
            Ok(code(view.complete()))
        }
        Verb::Ping => {
            let lab = Lab::open(&name)?;
            finish(&lab, output, LOOK_LIMIT, false, None)
        }
        Verb::Exec { place, command } => exec(&name, &place, &command),
        Verb::Service { verb } => service::run(&name, verb, output),
        Verb::Ask(ask) => service::ask(&name, &ask, output),
        Verb::ProbeServer(server) => service::serve(&server),
        Verb::AddNode => {
            let mut lab = Lab::open(&name)?;
            lab.add_node()?;
            finish(&lab, output, PING_LIMIT, true, None)
        }
        Verb::RemoveNode { node } => quietly(Lab::open(&name)?.remove_node(&node)),
        Verb::KillAgent { node } => quietly(Lab::open(&name)?.kill_agent(&node)),
        Verb::StartAgent { node } => {
            let mut lab = Lab::open(&name)?;
            lab.start_agent(&node)?;
            quietly(lab.await_ready(&node))
        }
        Verb::Cut { node } => quietly(Lab::open(&name)?.cut(&node)),
        Verb::Heal { node } => quietly(Lab::open(&name)?.heal(node.as_deref())),
    }
}

fn up(spec: Spec, output: Output) -> Result<ExitCode> {
    let name = spec.name.clone();
    let enough = |view: &LabView| view.wanted_nodes >= spec.nodes && view.wanted_pods >= spec.pods;
    let there = Lab::look(&name)?.filter(|view| view.complete() && enough(view));
    let mut lab = Lab::prepare(spec)?;
    match there {
        Some(view) => eprintln!("lab `{name}` is up already, with {} nodes", view.nodes.len()),
        None => lab.converge()?,
    }
    lab.serve_pods(&std::env::current_exe()?)?;
    let service = lab.add_service(&shown_service())?;
    finish(&lab, output, PING_LIMIT, true, Some(&service))
}

/// The Service that `up` shows: a node port and a cluster IP over all pods.
fn shown_service() -> ServiceRequest {
    ServiceRequest {
        namespace: "default".into(),
        name: "lab".into(),
        kind: "NodePort".into(),
        ports: vec![Port::tcp(80, PROBE_PORT)],
        ..ServiceRequest::default()
    }
}

/// Shows the lab, the matrix, and how a Service is spread. Anything that does not get through is a failure.
fn finish(lab: &Lab, output: Output, limit: Duration, with_lab: bool, service: Option<&Service>) -> Result<ExitCode> {
    let matrix = lab.matrix(limit)?;
    let balance = service.map(|service| lab.balance(service, limit)).transpose()?;
    let view = lab.view();
    match output {
        Output::Json => show::json(&json!({
            "lab": view, "pairs": matrix.pairs, "reachable": matrix.reachable(), "total": matrix.pairs.len(),
            "service": balance,
        }))?,
        Output::Table => {
            if with_lab {
                show::lab(&view, output)?;
            }
            show::matrix(&matrix);
            if let Some(balance) = &balance {
                show::balance(balance, &view);
            }
        }
    }
    if !matrix.complete() {
        explain(&view, &matrix);
    }
    let faults = balance.as_ref().map(Balance::faults).unwrap_or_default();
    for fault in &faults {
        eprintln!("Service: {fault}");
    }
    if output == Output::Table {
        println!("{} of {} pod pairs reachable", matrix.reachable(), matrix.pairs.len());
    }
    Ok(code(matrix.complete() && faults.is_empty()))
}

/// What tells why pairs are not reachable: the nodes concerned, what they say, and the ends of their logs.
fn explain(view: &LabView, matrix: &Matrix) {
    let broken = matrix.broken();
    eprintln!(
        "not reachable: {}{}",
        broken.iter().take(12).cloned().collect::<Vec<_>>().join(", "),
        if broken.len() > 12 { ", …" } else { "" }
    );
    for node in &view.nodes {
        let concerned =
            matrix.pairs.iter().any(|p| !p.reachable && (p.from_node == node.name || p.to_node == node.name));
        if concerned && matrix.reachable() > 0 || node.ready.is_err() {
            let health = node.ready.as_ref().err().map_or("ready", String::as_str);
            let cut = if node.cut { ", cut off" } else { "" };
            eprintln!(
                "{}: {health}{cut}; the last lines of {}:\n{}",
                node.name,
                node.log.display(),
                tail(&node.log, 10)
            );
        }
    }
}

fn exec(name: &str, place: &str, words: &[String]) -> Result<ExitCode> {
    let view = look(name)?;
    let netns = view.namespace(place).with_context(|| {
        let places: Vec<&str> = view
            .nodes
            .iter()
            .flat_map(|n| [n.name.as_str()].into_iter().chain(n.pods.iter().map(|p| p.name.as_str())))
            .collect();
        format!("there is no node or pod `{place}`; there are {}", places.join(", "))
    })?;
    let (program, args) = words.split_first().context("no command")?;
    let mut command = tool::command(program);
    command.args(args);
    let status = netns.run(|| command.status())?.with_context(|| format!("cannot run {program}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

pub(crate) fn look(name: &str) -> Result<LabView> {
    Lab::look(name)?.with_context(|| format!("there is no lab `{name}`; `weft-lab up --name {name}` makes one"))
}

fn quietly(done: Result<()>) -> Result<ExitCode> {
    done.map(|()| ExitCode::SUCCESS)
}

pub(crate) fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
