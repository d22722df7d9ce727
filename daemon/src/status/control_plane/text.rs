//! The section as lines.

use std::fmt::Write as _;

use super::judge::{CertificateRow, ComponentRow, ControlPlane, KubeletRow, MemberRow};
use crate::status::judge::Verdict;
use crate::status::table::columns;

/// The section for a person.
#[must_use]
pub fn text(plane: &ControlPlane) -> String {
    let mut tables = vec![table(&["COMPONENT", "NODE", "ASKED AT", "VERSION", "STATE"], &plane.components, component)];
    if let Some(members) = plane.etcd.as_deref().filter(|members| !members.is_empty()) {
        tables.push(table(&["MEMBER", "ID", "ADDRESS", "VERSION", "ROLE", "STATE"], members, member));
    }
    let kubelets = &plane.versions.kubelets;
    if !kubelets.is_empty() {
        tables.push(table(&["NODE", "KUBELET", "READY"], kubelets, kubelet));
    }
    if !plane.certificates.is_empty() {
        tables.push(table(&["CERTIFICATE", "DAYS LEFT"], &plane.certificates, certificate));
    }
    let mut text = tables.join("\n");
    if !plane.wrong.is_empty() || !plane.unknown.is_empty() {
        text.push('\n');
    }
    // Writing into a String cannot fail.
    for words in plane.wrong.iter().chain(&plane.unknown) {
        let _ = writeln!(text, "control plane: {words}");
    }
    for note in &plane.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn table<T>(head: &[&str], rows: &[T], cells: impl Fn(&T) -> Vec<String>) -> String {
    let mut lines = vec![head.iter().map(|word| (*word).to_owned()).collect()];
    lines.extend(rows.iter().map(cells));
    columns(&lines)
}

fn or_dash(cell: Option<&String>) -> String {
    cell.filter(|cell| !cell.is_empty()).cloned().unwrap_or_else(|| "-".to_owned())
}

fn component(row: &ComponentRow) -> Vec<String> {
    let state = match row.verdict {
        Verdict::Well => "well",
        Verdict::Unknown => "unknown",
        Verdict::Wrong => "wrong",
    };
    vec![
        row.component.clone(),
        or_dash(row.node.as_ref()),
        or_dash(row.at.as_ref()),
        or_dash(row.version.as_ref()),
        state.to_owned(),
    ]
}

fn member(row: &MemberRow) -> Vec<String> {
    let role = match (row.leader, row.learner) {
        (true, _) => "leader",
        (false, true) => "learner",
        (false, false) => "member",
    };
    vec![
        or_dash(Some(&row.name)),
        row.id.clone(),
        row.address.clone(),
        or_dash(row.version.as_ref()),
        role.to_owned(),
        if row.healthy { "well" } else { "wrong" }.to_owned(),
    ]
}

fn kubelet(row: &KubeletRow) -> Vec<String> {
    vec![row.node.clone(), or_dash(Some(&row.version)), if row.ready { "yes" } else { "no" }.to_owned()]
}

fn certificate(row: &CertificateRow) -> Vec<String> {
    vec![row.name.clone(), row.days.map_or_else(|| "unreadable".to_owned(), |days| days.to_string())]
}
