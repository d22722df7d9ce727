//! How long the certificates of a node hold (kubeadm `certs check-expiration`).

use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::certificate::Certificate;
use super::error::PkiError;
use super::renew::names_here;
use super::store::Store;
use super::table::{self, Entry};
use crate::bootstrap::kubeconfig::Kubeconfig;
use crate::bootstrap::resolved::Paths;

/// All certificates of a node. As JSON it is kubeadm's `CertificateExpirationInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expiry {
    kind: &'static str,
    api_version: &'static str,
    /// The leaves, by name.
    pub certificates: Vec<Row>,
    /// The authorities, by name.
    pub certificate_authorities: Vec<Row>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Until when it holds.
    pub expiration_date: Option<Timestamp>,
    /// How many seconds that is from now; none is left of one that has run out.
    pub residual_time: i64,
    /// Whether its authority's key is elsewhere.
    pub externally_managed: bool,
    /// Its authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_name: Option<String>,
    /// Whether it is not there.
    pub missing: bool,
    /// Why it cannot be read (weft's own key).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Looks at all certificates of this node. Nothing but files is read.
#[must_use]
pub fn look(paths: &Paths, now: Timestamp) -> Expiry {
    let names = names_here(paths);
    let has_etcd = names.iter().any(|name| table::find(name).is_ok_and(Entry::is_of_etcd));
    let mut authorities: Vec<Row> = table::TABLE
        .iter()
        .filter(|entry| entry.authority.is_none() && (has_etcd || !entry.is_of_etcd()))
        .map(|entry| row(entry.name, None, is_external(entry.name, paths), first(&paths.pki, entry.file), now))
        .collect();
    authorities.sort_by(|one, other| one.name.cmp(&other.name));
    Expiry {
        kind: "CertificateExpirationInfo",
        api_version: "output.kubeadm.k8s.io/v1alpha3",
        certificates: names.into_iter().map(|name| leaf(name, paths, now)).collect(),
        certificate_authorities: authorities,
    }
}

fn leaf(name: &str, paths: &Paths, now: Timestamp) -> Row {
    let (authority, found) = match table::find(name) {
        Ok(entry) => (entry.authority.unwrap_or_default(), first(&paths.pki, entry.file)),
        Err(_) => ("ca", in_kubeconfig(&paths.kubernetes, name)),
    };
    row(name, Some(authority), is_external(authority, paths), found, now)
}

fn first(directory: &Path, file: &str) -> Result<Option<Certificate>, PkiError> {
    let path = Store(directory).certificate(file);
    let Some(text) = super::store::read(&path)? else { return Ok(None) };
    Ok(super::store::certificates(&path, &text)?.into_iter().next())
}

fn in_kubeconfig(directory: &Path, name: &str) -> Result<Option<Certificate>, PkiError> {
    let path = directory.join(name);
    let Some(config) = Kubeconfig::load(&path)? else { return Ok(None) };
    config.certificate(directory).map_err(|reason| PkiError::Content { path, expected: "kubeconfig", reason })
}

/// Whether an authority is here without its key.
fn is_external(authority: &str, paths: &Paths) -> bool {
    let store = Store(&paths.pki);
    table::find(authority).is_ok_and(|entry| store.certificate(entry.file).exists() && !store.key(entry.file).exists())
}

fn row(
    name: &str,
    authority: Option<&str>,
    external: bool,
    found: Result<Option<Certificate>, PkiError>,
    now: Timestamp,
) -> Row {
    let (until, problem) = match found {
        Ok(found) => (found.map(|certificate| certificate.not_after()), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let missing = until.is_none() && problem.is_none();
    Row {
        name: name.to_owned(),
        expiration_date: until,
        residual_time: until.map_or(0, |until| until.duration_since(now).as_secs()),
        externally_managed: external && !missing,
        ca_name: authority.filter(|_| !missing).map(str::to_owned),
        missing,
        problem,
    }
}

impl Expiry {
    /// Whether a certificate that is here has run out, cannot be read, or does within so many seconds.
    #[must_use]
    pub fn ends_within(&self, seconds: i64) -> bool {
        let all = self.certificates.iter().chain(&self.certificate_authorities);
        all.filter(|row| !row.missing).any(|row| row.problem.is_some() || row.residual_time <= seconds)
    }

    /// The tables that kubeadm prints.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = table(
            &["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"],
            &self.certificates,
            true,
        );
        text.push('\n');
        let authorities = ["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"];
        text.push_str(&table(&authorities, &self.certificate_authorities, false));
        for row in self.certificates.iter().chain(&self.certificate_authorities) {
            if let Some(problem) = &row.problem {
                let _ = writeln!(text, "\n{}: {problem}", row.name);
            }
        }
        text
    }
}

/// Left-aligned columns, three blanks apart.
fn table(head: &[&str], rows: &[Row], with_authority: bool) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|&title| title.to_owned()).collect()];
    lines.extend(rows.iter().map(|row| cells(row, with_authority)));
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", padded.join("   ").trim_end());
    }
    text
}

fn cells(row: &Row, with_authority: bool) -> Vec<String> {
    let Some(until) = row.expiration_date else {
        let what = if row.missing { "!MISSING! " } else { "!DAMAGED! " };
        return vec![format!("{what}{}", row.name)];
    };
    let until = until.to_zoned(TimeZone::UTC).strftime("%b %d, %Y %H:%M UTC").to_string();
    let mut cells = vec![row.name.clone(), until, residual(row.residual_time)];
    if with_authority {
        cells.push(row.ca_name.clone().unwrap_or_default());
    }
    cells.push(if row.externally_managed { "yes" } else { "no" }.to_owned());
    cells
}

/// A span in its largest unit, as apimachinery's `ShortHumanDuration` has it.
fn residual(seconds: i64) -> String {
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..31_536_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        let cases =
            [(-1, "<invalid>"), (59, "59s"), (3599, "59m"), (86_399, "23h"), (31_535_996, "364d"), (31_536_000, "1y")];
        for (seconds, text) in cases {
            assert_eq!(residual(seconds), text);
        }
    }

    #[test]
    fn what_is_not_there_or_damaged_is_said_so() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        std::fs::create_dir_all(&paths.pki).unwrap();
        std::fs::write(paths.pki.join("ca.crt"), "nonsense").unwrap();
        let found = look(&paths, Timestamp::now());
        assert_eq!((found.certificates.len(), found.certificate_authorities.len()), (11, 3));
        assert!(found.certificates.iter().all(|row| row.missing && row.ca_name.is_none()));
        let text = found.text();
        assert!(text.contains("!MISSING! apiserver\n") && text.contains("!DAMAGED! ca\n"), "{text}");
        assert!(text.contains("ca.crt holds no certificate"), "{text}");
        assert!(found.ends_within(0), "a damaged one is as good as none");
    }
}
