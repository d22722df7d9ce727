//! Mirrors of registries: `certs.d/<registry>/hosts.toml`, by which the images of workloads come, too (containerd's
//! `docs/hosts.md`). Pure.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The directory of all registries that have none of their own.
const ANY: &str = "_default";

/// The first line of a file that weft has written.
const OURS: &str = "# Written by weft from --image-mirror; weft reset removes it.\n";

/// A mirror: `https://mirror.example/path`, or with the registry that it stands in for `docker.io=https://mirror.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Whose images it has; all registries' if absent.
    pub registry: Option<String>,
    /// `http` or `https`.
    pub scheme: String,
    /// `mirror.example:5000`.
    pub host: String,
    /// What stands before a repository's name there, without slashes at its ends.
    pub path: String,
}

/// A mirror makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image mirror {text:?}: {reason}; expected [REGISTRY=][http[s]://]HOST[:PORT][/PATH]")]
pub struct MirrorError {
    text: String,
    reason: &'static str,
}

impl FromStr for Mirror {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<Self, MirrorError> {
        let wrong = |reason| MirrorError { text: text.to_owned(), reason };
        let (registry, url) = match text.split_once('=') {
            Some((registry, url)) => (Some(registry), url),
            None => (None, text),
        };
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        if !matches!(scheme, "http" | "https") {
            return Err(wrong("the scheme is neither http nor https"));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // It becomes a directory's name and a line of TOML.
        let is_host = |host: &str| {
            let sound = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            !host.is_empty() && host.chars().all(sound) && !host.starts_with('.')
        };
        if !is_host(host) {
            return Err(wrong("there is no host"));
        }
        if registry.is_some_and(|registry| !is_host(registry)) {
            return Err(wrong("the registry is no host"));
        }
        if !path.chars().all(|c| c.is_ascii_alphanumeric() || "./-_".contains(c)) {
            return Err(wrong("the path holds characters that no repository has"));
        }
        let path = path.trim_matches('/').to_owned();
        Ok(Self { registry: registry.map(str::to_owned), scheme: scheme.to_owned(), host: host.to_owned(), path })
    }
}

impl Mirror {
    fn directory(&self) -> &str {
        self.registry.as_deref().unwrap_or(ANY)
    }

    fn table(&self) -> String {
        let Self { scheme, host, path, .. } = self;
        let (path, override_path) = match path.as_str() {
            "" => (String::new(), ""),
            // With a path of its own a URL is taken as it is, and has to lead to the API's version as well.
            path => (format!("/v2/{path}"), "override_path = true\n"),
        };
        format!("\n[host.\"{scheme}://{host}{path}\"]\ncapabilities = [\"pull\", \"resolve\"]\n{override_path}")
    }
}

/// The files of these mirrors in `certs.d`, with their content; mirrors of one registry are tried in the order given.
#[must_use]
pub fn files(certs_d: &Path, mirrors: &[Mirror]) -> Vec<(PathBuf, String)> {
    let mut files: Vec<(&str, String)> = Vec::new();
    for mirror in mirrors {
        let directory = mirror.directory();
        let position = files.iter().position(|(name, _)| *name == directory).unwrap_or_else(|| {
            let mut text = OURS.to_owned();
            if let Some(registry) = &mirror.registry {
                // The registry itself comes last, where no mirror has the image.
                let server = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
                let _ = writeln!(text, "server = \"https://{server}\"");
            }
            files.push((directory, text));
            files.len() - 1
        });
        if let Some((_, text)) = files.get_mut(position) {
            text.push_str(&mirror.table());
        }
    }
    files.into_iter().map(|(directory, text)| (certs_d.join(directory).join("hosts.toml"), text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(texts: &[&str]) -> Vec<Mirror> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn p0_4_each_registry_gets_its_mirrors_in_order() {
        let wanted =
            mirrors(&["docker.io=one.example", "https://two.example:5000/images", "docker.io=http://three.example"]);
        let files = files(Path::new("/c"), &wanted);
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].0, Path::new("/c/docker.io/hosts.toml"));
        assert_eq!(
            files[0].1,
            format!(
                "{OURS}server = \"https://registry-1.docker.io\"\n\n[host.\"https://one.example\"]\n\
                 capabilities = [\"pull\", \"resolve\"]\n\n[host.\"http://three.example\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
            )
        );
        assert_eq!(files[1].0, Path::new("/c/_default/hosts.toml"));
        assert!(files[1].1.ends_with(
            "[host.\"https://two.example:5000/v2/images\"]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n"
        ));
        for (_, text) in &files {
            text.parse::<toml_edit::DocumentMut>().unwrap();
        }
    }

    #[test]
    fn nonsense_is_refused_before_it_becomes_a_path() {
        for text in ["", "ftp://a", "../x=https://a", "https://", "a\"b", "https://a/b\"c", "=https://a"] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }
}
