//! One kubeconfig: put together, read, and changed without losing what else stands in it.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::bootstrap::pki::error::PkiError;
use crate::bootstrap::pki::store::{certificates, read};
use crate::bootstrap::pki::{Certificate, Secret};
use crate::bootstrap::yaml;

/// Somebody who talks to a cluster's API.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// The cluster's authorities as PEM.
    pub authority: &'a str,
    /// Name of the user.
    pub user: &'a str,
    /// How the user proves who he is.
    pub credentials: Credentials,
}

/// How a user proves who he is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Not at all.
    None,
    /// By a certificate, inside the kubeconfig.
    Certificate {
        /// As PEM.
        certificate: String,
        /// As PEM.
        key: Secret,
    },
    /// By a key whose certificate is still to come.
    Key(Secret),
    /// By a token.
    Token(Secret),
    /// By files.
    Files {
        /// The certificate's.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
}

impl Credentials {
    fn document(&self) -> Value {
        let encoded = |secret: &Secret| STANDARD.encode(secret.expose());
        match self {
            Self::None => json!({}),
            Self::Certificate { certificate, key } => json!({
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": encoded(key),
            }),
            Self::Key(key) => json!({ "client-key-data": encoded(key) }),
            Self::Token(token) => json!({ "token": String::from_utf8_lossy(token.expose()) }),
            Self::Files { certificate, key } => json!({ "client-certificate": certificate, "client-key": key }),
        }
    }
}

/// The kubeconfig `cluster-info`: where the cluster is and whom to believe, for everybody to read. Its one cluster has no
/// name, as kubeadm's has none.
#[must_use]
pub fn cluster_info(server: &str, authority: &str) -> Kubeconfig {
    let cluster = json!({ "certificate-authority-data": STANDARD.encode(authority), "server": server });
    Kubeconfig(json!({
        "apiVersion": "v1",
        "clusters": [{ "cluster": cluster, "name": "" }],
        "contexts": [],
        "current-context": "",
        "kind": "Config",
        "users": [],
    }))
}

/// A kubeconfig. Its `Debug` tells names only.
#[derive(Clone, PartialEq)]
pub struct Kubeconfig(Value);

impl std::fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubeconfig").field("server", &self.server()).field("user", &self.user()).finish()
    }
}

impl Kubeconfig {
    /// With one cluster, one user and the context `<user>@<cluster>` (kubeadm `kubeconfigutil.CreateBasic`).
    #[must_use]
    pub fn new(login: &Login<'_>) -> Self {
        let mut cluster = json!({ "server": login.server });
        if !login.authority.is_empty() {
            cluster["certificate-authority-data"] = json!(STANDARD.encode(login.authority));
        }
        let context = format!("{}@{}", login.user, login.cluster);
        Self(json!({
            "apiVersion": "v1",
            "clusters": [{ "cluster": cluster, "name": login.cluster }],
            "contexts": [{ "context": { "cluster": login.cluster, "user": login.user }, "name": context }],
            "current-context": context,
            "kind": "Config",
            "users": [{ "name": login.user, "user": login.credentials.document() }],
        }))
    }

    /// Reads a text: YAML or JSON.
    ///
    /// # Errors
    /// Why it is no kubeconfig, in words that repeat nothing of it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
        // The parser's message shows the lines around, which may hold a key.
        let value: Value = serde_saphyr::from_str(text).map_err(|_| "it is no YAML".to_owned())?;
        if value["clusters"].is_array() { Ok(Self(value)) } else { Err("it has no clusters".to_owned()) }
    }

    /// Reads a file; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is no kubeconfig.
    pub fn load(path: &Path) -> Result<Option<Self>, PkiError> {
        let Some(text) = read(path)? else { return Ok(None) };
        Self::parse(&text).map(Some).map_err(|reason| PkiError::Content {
            path: path.to_owned(),
            expected: "kubeconfig",
            reason,
        })
    }

    /// The text, as YAML.
    #[must_use]
    pub fn render(&self) -> Secret {
        // On one line each, as people look for certificates with grep and awk.
        Secret::new(yaml::to_string(&self.0))
    }

    /// `https://host:port` of the current context's cluster, or of the only one.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.cluster()?["server"].as_str()
    }

    /// Name of the current context's cluster.
    #[must_use]
    pub fn cluster_name(&self) -> Option<&str> {
        self.context()?["cluster"].as_str()
    }

    /// Name of the current context's user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.context()?["user"].as_str()
    }

    /// The current context's cluster's authorities, inside or in a file that is looked for from `directory`.
    ///
    /// # Errors
    /// Neither is there, or they are damaged; in words.
    pub fn authorities(&self, directory: &Path) -> Result<Vec<Certificate>, String> {
        let cluster = self.cluster().ok_or("it names no cluster")?;
        let text = embedded(cluster, "certificate-authority", directory)?.ok_or("its cluster has no authority")?;
        Certificate::all_from_pem(&text)
    }

    /// The current context's user's certificate, if it has one, inside or in a file that is looked for from `directory`.
    ///
    /// # Errors
    /// It is damaged or its file is missing; in words.
    pub fn certificate(&self, directory: &Path) -> Result<Option<Certificate>, String> {
        let Some(user) = self.account() else { return Ok(None) };
        let Some(text) = embedded(user, "client-certificate", directory)? else { return Ok(None) };
        Ok(Certificate::all_from_pem(&text)?.into_iter().next())
    }

    /// Whether the current context's user's certificate is a file and not inside.
    #[must_use]
    pub fn refers_to_files(&self) -> bool {
        self.account().is_some_and(|user| !user["client-certificate"].is_null())
    }

    /// The current context's user's key, if it is inside.
    #[must_use]
    pub fn key(&self) -> Option<Secret> {
        let data = self.account()?["client-key-data"].as_str()?;
        STANDARD.decode(data).ok().map(Secret::new)
    }

    /// The current context's user's token.
    #[must_use]
    pub fn token(&self) -> Option<Secret> {
        self.account()?["token"].as_str().map(Secret::new)
    }

    /// Gives the current context's user other credentials in place of the certificate, key or token that it has.
    pub fn set_credentials(&mut self, credentials: &Credentials) {
        let Some(name) = self.user().map(str::to_owned) else { return };
        let Some(entry) = entry_mut(&mut self.0["users"], &name) else { return };
        let user = &mut entry["user"];
        if !user.is_object() {
            *user = json!({});
        }
        let (Value::Object(user), Value::Object(new)) = (user, credentials.document()) else { return };
        for key in
            ["client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile"]
        {
            user.remove(key);
        }
        user.extend(new);
    }

    /// Gives the current context's cluster other authorities.
    pub fn set_authority(&mut self, authority: &str) {
        let Some(name) = self.cluster_name().map(str::to_owned) else { return };
        let Some(entry) = entry_mut(&mut self.0["clusters"], &name) else { return };
        if let Value::Object(cluster) = &mut entry["cluster"] {
            cluster.remove("certificate-authority");
            cluster.insert("certificate-authority-data".to_owned(), json!(STANDARD.encode(authority)));
        }
    }

    /// The name by which the server is known, where that is not the host's.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.cluster()?["tls-server-name"].as_str()
    }

    /// Sends the current context elsewhere, `https://host:port`, to who is known by that name; by the host's, if it is none.
    pub fn set_server(&mut self, server: &str, tls_server_name: Option<&str>) {
        let Some(name) = self.cluster_name().map(str::to_owned) else { return };
        let Some(entry) = entry_mut(&mut self.0["clusters"], &name) else { return };
        if let Value::Object(cluster) = &mut entry["cluster"] {
            cluster.insert("server".to_owned(), json!(server));
            match tls_server_name {
                Some(name) => cluster.insert("tls-server-name".to_owned(), json!(name)),
                None => cluster.remove("tls-server-name"),
            };
        }
    }

    fn context(&self) -> Option<&Value> {
        Some(&entry(&self.0["contexts"], self.0["current-context"].as_str()?)?["context"])
    }

    fn cluster(&self) -> Option<&Value> {
        match self.cluster_name() {
            Some(name) => Some(&entry(&self.0["clusters"], name)?["cluster"]),
            None => Some(&self.0["clusters"].as_array().filter(|all| all.len() == 1)?[0]["cluster"]),
        }
    }

    fn account(&self) -> Option<&Value> {
        Some(&entry(&self.0["users"], self.user()?)?["user"])
    }
}

fn entry<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|entry| entry["name"] == name)
}

fn entry_mut<'a>(list: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    list.as_array_mut()?.iter_mut().find(|entry| entry["name"] == name)
}

/// `<what>-data`, decoded, or the bytes of the file `<what>`.
fn embedded(of: &Value, what: &str, directory: &Path) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = of[format!("{what}-data")].as_str().filter(|data| !data.is_empty()) {
        return STANDARD.decode(data).map(Some).map_err(|error| format!("{what}-data is no base64: {error}"));
    }
    let Some(path) = of[what].as_str().filter(|path| !path.is_empty()) else { return Ok(None) };
    let path = directory.join(path);
    std::fs::read(&path).map(Some).map_err(|error| format!("{what} {}: {error}", path.display()))
}

/// The certificates of an authority's file.
pub(super) fn authority(path: &Path) -> Result<Option<Vec<Certificate>>, PkiError> {
    read(path)?.map(|text| certificates(path, &text)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login<'static> {
        Login {
            cluster: "kubernetes",
            server: "https://192.0.2.10:6443",
            authority: "authority",
            user: "bob",
            credentials: Credentials::Token(Secret::new("abcdef.0123456789abcdef")),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let made = Kubeconfig::new(&login());
        let text = made.render();
        let again = Kubeconfig::parse(text.expose()).unwrap();
        assert_eq!(again, made);
        assert_eq!((again.server(), again.cluster_name()), (Some("https://192.0.2.10:6443"), Some("kubernetes")));
        assert_eq!(again.token().unwrap().expose(), b"abcdef.0123456789abcdef");
        assert!(!format!("{:?} {:?}", made, login()).contains("0123"), "no secret is told");
    }

    #[test]
    fn another_server_may_go_by_a_name_of_its_own() {
        let mut config = Kubeconfig::new(&login());
        config.set_server("https://127.0.0.1:7443", Some("api.example"));
        let again = Kubeconfig::parse(config.render().expose()).unwrap();
        assert_eq!((again.server(), again.server_name()), (Some("https://127.0.0.1:7443"), Some("api.example")));
        assert_eq!(again.token().unwrap().expose(), b"abcdef.0123456789abcdef", "the rest stays");
        config.set_server(login().server, None);
        assert_eq!(config, Kubeconfig::new(&login()), "and back");
    }

    #[test]
    fn a_long_certificate_stays_on_the_line_of_its_key() {
        let authority = "x".repeat(5000);
        let made = Kubeconfig::new(&Login { authority: &authority, ..login() }).render();
        let text = std::str::from_utf8(made.expose()).unwrap().to_owned();
        let wanted = format!("    certificate-authority-data: {}", STANDARD.encode(&authority));
        assert!(text.lines().any(|line| line == wanted), "{text}");
    }

    #[test]
    fn other_credentials_leave_the_rest_alone() {
        let text = "apiVersion: v1\nclusters:\n- {cluster: {server: s, tls-server-name: t}, name: c}\ncontexts:\n\
                    - {context: {cluster: c, user: u, namespace: n}, name: x}\ncurrent-context: x\nkind: Config\n\
                    users:\n- {name: v, user: {token: other}}\n- {name: u, user: {token: old, as: w}}\n";
        let mut config = Kubeconfig::parse(text.as_bytes()).unwrap();
        config.set_credentials(&Credentials::Files { certificate: "/a.pem".into(), key: "/b.pem".into() });
        config.set_authority("new");
        let mut wanted = Kubeconfig::parse(text.as_bytes()).unwrap();
        wanted.0["users"][1]["user"] = json!({ "as": "w", "client-certificate": "/a.pem", "client-key": "/b.pem" });
        wanted.0["clusters"][0]["cluster"]["certificate-authority-data"] = json!("bmV3");
        assert_eq!(config, wanted);
        assert!(config.refers_to_files() && config.token().is_none());
    }

    #[test]
    fn cluster_info_has_one_cluster_without_a_name() {
        let info = cluster_info("https://192.0.2.10:6443", "authority");
        assert_eq!(info.server(), Some("https://192.0.2.10:6443"));
        assert_eq!(info.0["clusters"][0]["name"], "");
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_without_repeating_it() {
        for text in ["", "secret", "a: [secret", "clusters: secret"] {
            let error = Kubeconfig::parse(text.as_bytes()).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
