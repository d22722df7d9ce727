//! Whether anybody is there to pull from: three seconds, before the runtime tries for minutes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::future::select_ok;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::TcpStream;

/// How long an endpoint has to take a connection.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// The registry's host in an image's name.
#[must_use]
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host == "localhost" || host.contains(['.', ':']) => host,
        _ => "docker.io",
    }
}

/// The URLs that the runtime asks for images of a registry: its mirrors (`<certs_d>/<host>/hosts.toml`, as containerd reads it),
/// then the registry itself.
#[must_use]
pub fn endpoints(certs_d: &Path, registry: &str) -> Vec<String> {
    let hosts = |folder: &str| fs::read_to_string(certs_d.join(folder).join("hosts.toml")).ok();
    let file = hosts(registry).or_else(|| hosts("_default")).unwrap_or_default();
    let (mut found, server) = parse(&file);
    // Docker's registry answers under another name than its images have.
    let own = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    found.push(server.unwrap_or_else(|| format!("https://{own}")));
    found
}

/// Mirrors and server of a `hosts.toml`.
fn parse(file: &str) -> (Vec<String>, Option<String>) {
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    // Tables below a host's (its headers) have a part more.
    let host = |line: &str| {
        let url = line.strip_prefix("[host.")?.split('#').next()?.trim().strip_suffix(']')?;
        url.ends_with(['"', '\'']).then(|| unquoted(url))
    };
    let (mut mirrors, mut server, mut in_table) = (Vec::new(), None, false);
    for line in file.lines().map(str::trim) {
        if line.starts_with('[') {
            in_table = true;
            mirrors.extend(host(line));
        } else if let Some(("server", value)) = line.split_once('=').map(|(key, value)| (key.trim(), value))
            && !in_table
        {
            server = Some(unquoted(value.split('#').next().unwrap_or_default()));
        }
    }
    (mirrors, server)
}

/// Waits until one of the endpoints takes a connection.
///
/// # Errors
/// The last one's reason.
pub(super) async fn probe(endpoints: &[String]) -> Result<(), String> {
    if endpoints.is_empty() {
        return Err("no endpoint is known".to_owned());
    }
    let probes = endpoints.iter().map(|endpoint| {
        let authority = authority(endpoint);
        let connecting = async move {
            match tokio::time::timeout(PROBE_LIMIT, TcpStream::connect(&authority)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("{authority}: {error}")),
                Err(_) => Err(format!("{authority}: no connection within {} s", PROBE_LIMIT.as_secs())),
            }
        };
        Box::pin(connecting)
    });
    select_ok(probes).await.map(drop)
}

/// Host and port of a URL.
fn authority(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let host = rest.split('/').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if scheme == "http" { 80 } else { 443 };
    if has_port { host.to_owned() } else { format!("{host}:{port}") }
}

/// Whether the runtime behind a socket goes through a proxy: then what is reachable from here says nothing.
pub(super) fn runtime_has_proxy(socket: &Path) -> bool {
    let Ok(stream) = std::os::unix::net::UnixStream::connect(socket) else { return false };
    let Ok(peer) = getsockopt(&stream, PeerCredentials) else { return false };
    let environment = fs::read(format!("/proc/{}/environ", peer.pid())).unwrap_or_default();
    let is_proxy = |variable: &[u8]| {
        let name = variable.split(|byte| *byte == b'=').next().unwrap_or_default();
        [b"HTTPS_PROXY".as_slice(), b"HTTP_PROXY", b"ALL_PROXY"].iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    environment.split(|byte| *byte == 0).any(is_proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_of_names() {
        for (name, host) in [
            ("registry.k8s.io/pause:3", "registry.k8s.io"),
            ("localhost/weft:1", "localhost"),
            ("a:5000/b/c:1", "a:5000"),
            ("nginx", "docker.io"),
            ("library/nginx:1", "docker.io"),
        ] {
            assert_eq!(registry(name), host);
        }
        assert_eq!(authority("http://10.0.0.1/v2"), "10.0.0.1:80");
        assert_eq!(authority("https://[fd00::1]:5000/v2/x"), "[fd00::1]:5000");
        assert_eq!(authority("https://[fd00::1]"), "[fd00::1]:443");
    }

    #[test]
    fn mirrors_come_before_the_registry() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("registry.k8s.io");
        fs::create_dir_all(&own).unwrap();
        let file = "# weft\nserver = \"https://registry.k8s.io\" # last\n\n[host.\"https://m.example:5000\"]\n  capabilities = [\"pull\"]\n\
                    [host.\"https://m.example:5000\".header]\n  x = \"y\"\n[host.'http://[fd00::1]:5000']\n";
        fs::write(own.join("hosts.toml"), file).unwrap();
        assert_eq!(
            endpoints(folder.path(), "registry.k8s.io"),
            ["https://m.example:5000", "http://[fd00::1]:5000", "https://registry.k8s.io"]
        );
        assert_eq!(endpoints(folder.path(), "docker.io"), ["https://registry-1.docker.io"]);
    }

    #[tokio::test]
    async fn one_that_answers_is_enough_and_none_has_a_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = format!("http://{}", listener.local_addr().unwrap());
        let closed = "http://127.0.0.1:1".to_owned();
        probe(&[closed.clone(), open]).await.unwrap();
        let error = probe(&[closed]).await.unwrap_err();
        assert!(error.contains("127.0.0.1:1") && error.contains("refused"), "{error}");
    }
}
