//! Asking all parts of the control plane at once, each for a short while: a part that hangs is one that is not well.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{OptionFuture, join, join_all, join3};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use super::etcd;
use super::judge::{Asked, Found, Told};
use crate::bootstrap::api::{self, ApiError, Server};
use crate::bootstrap::kubeconfig::Kubeconfig;
use crate::bootstrap::pki::expiry;
use crate::bootstrap::resolved::{Limits, Paths};
use crate::bootstrap::static_pods::Part;
use crate::bootstrap::version::Version;
use crate::bootstrap::waiting::probe::Client;
use crate::bootstrap::waiting::targets::{self, Component, Target};

/// How long anything may take. An API server looks for etcd for 2 s before it says that it is not well.
const ANSWER: Duration = Duration::from_millis(2200);

/// Where there is something of a control plane to be seen.
#[derive(Debug, Clone)]
pub struct Place {
    paths: Paths,
    /// Credentials for the API server; `None` if there are none.
    kubeconfig: Option<PathBuf>,
}

impl Place {
    /// A control-plane node under `paths`, or what a kubeconfig leads to; `None` if there is neither.
    #[must_use]
    pub fn find(paths: Paths, kubeconfig: Option<PathBuf>) -> Option<Self> {
        let admin = paths.kubernetes.join("admin.conf");
        let kubeconfig = kubeconfig.or_else(|| admin.is_file().then_some(admin));
        let place = Self { paths, kubeconfig };
        (place.kubeconfig.is_some() || place.is_node()).then_some(place)
    }

    /// Whether it is this node that has a control plane, and not only a kubeconfig that leads to one.
    #[must_use]
    pub fn is_node(&self) -> bool {
        Part::ALL.into_iter().any(|part| self.paths.manifest(part).is_file())
    }
}

/// Asks.
pub async fn look(place: &Place) -> Found {
    let Place { paths, kubeconfig } = place;
    let mut odd = Vec::new();
    let mut asks = Vec::new();
    let mut way = None;
    match read(&paths.kubelet.join("config.yaml")) {
        Ok(config) => {
            let target = config.as_ref().and_then(|config| targets::kubelet(config, ANSWER));
            asks.extend(target.map(|target| Ask { version: None, paths: vec![target.path.clone()], target }));
        }
        Err(words) => odd.push(words),
    }
    for part in Part::ALL {
        let path = paths.manifest(part);
        let found = read(&path).and_then(|pod| {
            let Some(pod) = pod else { return Ok(None) };
            let target =
                targets::static_pod(part, &pod, ANSWER).map_err(|words| format!("{}: {words}", path.display()))?;
            Ok(Some((pod, target)))
        });
        match found {
            Ok(Some((pod, target))) => {
                if part == Part::ApiServer {
                    way = etcd::way(&pod, &paths.root);
                }
                let image = pod.pointer("/spec/containers/0/image").and_then(Value::as_str);
                let version = image.and_then(Version::of_image).map(|version| version.to_string());
                asks.push(Ask { version, paths: questions(part, &target), target });
            }
            Ok(None) => {}
            Err(words) => odd.push(words),
        }
    }
    let has_manifests = asks.iter().any(|ask| ask.target.component != Component::Kubelet);
    let client = client(kubeconfig.as_deref());
    if !has_manifests && let Some(path) = kubeconfig {
        match server_of(path).await {
            Ok(ask) => asks.push(ask),
            Err(words) => odd.push(words),
        }
    }
    let members = OptionFuture::from(way.as_ref().map(|way| async {
        // Names are looked up, files are read: the whole has a limit of its own.
        timeout(ANSWER, etcd::members(way, paths)).await.unwrap_or_else(|_| Err(late()))
    }));
    let asked = join_all(asks.iter().map(|ask| ask.run(client.as_ref())));
    let (asked, told, etcd) = join3(asked, told(kubeconfig.as_deref()), members).await;
    let certificates = paths.pki.join("ca.crt").is_file().then(|| expiry::look(paths, Timestamp::now()));
    Found { node: has_manifests.then(|| own_name(paths)).flatten(), asked, told, etcd, certificates, odd }
}

fn late() -> String {
    format!("no answer within {:.1} s", ANSWER.as_secs_f64())
}

fn read(path: &Path) -> Result<Option<Value>, String> {
    match fs::read_to_string(path) {
        Ok(text) => serde_saphyr::from_str(&text).map(Some).map_err(|error| format!("{}: {error}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The name that this node's kubelet has a certificate for.
fn own_name(paths: &Paths) -> Option<String> {
    let kubelet = Kubeconfig::load(&paths.kubernetes.join("kubelet.conf")).ok()??;
    let certificate = kubelet.certificate(&paths.kubernetes).ok()??;
    let parts = certificate.subject_text().split(',').map(str::trim);
    parts.into_iter().find_map(|part| part.strip_prefix("CN=system:node:")).map(str::to_owned)
}

/// An API server says of itself whether it lives, and whether it shall be asked. Others know one of both.
fn questions(part: Part, target: &Target) -> Vec<String> {
    match part {
        Part::ApiServer => vec!["/livez".to_owned(), "/readyz".to_owned()],
        _ => vec![target.path.clone()],
    }
}

/// The API server that a kubeconfig leads to.
async fn server_of(path: &Path) -> Result<Ask, String> {
    let shown = path.display();
    let config = Kubeconfig::load(path).map_err(|error| error.to_string())?;
    let config = config.ok_or_else(|| format!("{shown}: there is no such file"))?;
    let url = config.server().unwrap_or_default();
    let uri: http::Uri = url.parse().map_err(|_| format!("{shown}: its server is {url:?}; expected a URL"))?;
    let tls = uri.scheme_str() != Some("http");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let found = timeout(ANSWER, tokio::net::lookup_host((host.as_str(), port))).await;
    let found = found.map_err(|_| format!("{host}: {}", late()))?;
    let mut found = found.map_err(|error| format!("{host}: {error}"))?;
    let address: SocketAddr = found.next().ok_or_else(|| format!("{host} has no address"))?;
    let component = Component::Part(Part::ApiServer);
    let target = Target { component, address, tls, path: "/livez".to_owned(), limit: ANSWER };
    Ok(Ask { version: None, paths: questions(Part::ApiServer, &target), target })
}

/// As an administrator where that is possible: anonymous users may be switched off.
fn client(kubeconfig: Option<&Path>) -> Result<Client, String> {
    let own = kubeconfig.and_then(|path| Client::from_kubeconfig(&fs::read_to_string(path).ok()?).ok());
    own.map_or_else(Client::anonymous, Ok).map_err(|error| error.to_string())
}

/// A component that is to be asked.
struct Ask {
    version: Option<String>,
    target: Target,
    paths: Vec<String>,
}

impl Ask {
    async fn run(&self, client: Result<&Client, &String>) -> Asked {
        let one = |path: &String| {
            let target = Target { path: path.clone(), ..self.target.clone() };
            async move {
                let answer = match client {
                    Ok(client) => timeout(ANSWER, client.ask(&target)).await.unwrap_or_else(|_| Err(late())),
                    Err(words) => Err(words.clone()),
                };
                (target.path, answer)
            }
        };
        Asked {
            component: self.target.component.to_string(),
            at: self.target.address.to_string(),
            version: self.version.clone(),
            answers: join_all(self.paths.iter().map(one)).await,
        }
    }
}

async fn told(kubeconfig: Option<&Path>) -> Result<Told, String> {
    let path = kubeconfig.ok_or("there are no credentials for it: no admin.conf, and no --kubeconfig")?;
    let server = Server::connect(path, None, &Limits::default()).await.map_err(|error| error.to_string())?;
    // Once: this is about how it is now.
    let server = server.within(Duration::ZERO);
    let (version, (nodes, pods)) = join(
        answer(api::server_version(&server)),
        join(answer(api::nodes(&server)), answer(api::control_plane_pods(&server))),
    )
    .await;
    Ok(Told { version, nodes, pods })
}

async fn answer<T>(asked: impl Future<Output = Result<T, ApiError>>) -> Result<T, String> {
    match timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(late()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_something_to_see_with_a_manifest_or_credentials() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::under(root.path());
        assert!(Place::find(paths.clone(), None).is_none());
        assert!(Place::find(paths.clone(), Some("/x".into())).is_some());
        fs::create_dir_all(paths.manifests()).unwrap();
        fs::write(paths.manifests().join("other.yaml"), "").unwrap();
        assert!(Place::find(paths.clone(), None).is_none(), "a static pod of somebody else's");
        fs::write(paths.manifests().join("etcd.yaml"), "").unwrap();
        assert!(Place::find(paths.clone(), None).unwrap().kubeconfig.is_none());
        let admin = paths.kubernetes.join("admin.conf");
        fs::write(&admin, "").unwrap();
        assert_eq!(Place::find(paths, None).unwrap().kubeconfig, Some(admin));
    }
}
