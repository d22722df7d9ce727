//! Bootstrap tokens as values: their form, their rules, and the Secret that each one is (Kubernetes'
//! `cluster-bootstrap/token`, kubeadm's `apis/bootstraptoken`).

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::bootstrap::config::model::BootstrapToken;
use crate::bootstrap::duration;

/// Group of all who join with a token of kubeadm's or ours.
pub const DEFAULT_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// How long a token holds if nobody says.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// What a token may be used for.
pub(super) const USAGES: [&str; 2] = ["signing", "authentication"];

/// The type of their Secrets.
pub(super) const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Letters of a token.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Lengths of its two parts.
const ID: usize = 6;
const SECRET: usize = 16;

/// A token; whoever has it may join a node. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: String,
}

/// What is wrong with a token, or with what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is written otherwise.
    #[error(
        "this is no bootstrap token; expected six and sixteen of a-z0-9 with a dot between, as in abcdef.0123456789abcdef"
    )]
    Form,
    /// It is no token's id either.
    #[error("{0:?} is no token and no token's id; expected [a-z0-9]{{6}}, or the whole token")]
    Id(String),
    /// A usage that there is none of.
    #[error("usage {0:?}; expected signing or authentication")]
    Usage(String),
    /// A group that a token cannot give.
    #[error("group {0:?}; expected system:bootstrappers: and then letters of a-z0-9:-, the last of a-z0-9")]
    Group(String),
    /// Groups without authentication.
    #[error("groups are given to whoever authenticates with the token, and its usages lack authentication")]
    GroupsUnused,
    /// `ttl` and `expires` together.
    #[error("a token has either ttl or expires; both are given")]
    TwoEnds,
    /// No duration, or no time.
    #[error("{0}")]
    Time(String),
    /// A field of its Secret.
    #[error("{0}")]
    Field(String),
    /// The machine gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Token({}.…)", self.id)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.split_once('.').ok_or(TokenError::Form)?;
        if !is_part(id, ID) || !is_part(secret, SECRET) {
            return Err(TokenError::Form);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

impl Token {
    /// A new one, from the kernel's random bytes, each letter as likely as any other.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn generate() -> Result<Self, TokenError> {
        let mut letters = String::with_capacity(ID + SECRET);
        let mut bytes = [0; 64];
        while letters.len() < ID + SECRET {
            getrandom::fill(&mut bytes).map_err(|error| TokenError::Random(error.to_string()))?;
            // Bytes past the last whole multiple of 36 would make the first letters likelier.
            let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < 252);
            letters.extend(fair.filter_map(|byte| LETTERS.get(byte % LETTERS.len()).copied().map(char::from)));
        }
        letters.truncate(ID + SECRET);
        let secret = letters.split_off(ID);
        Ok(Self { id: letters, secret })
    }

    /// The part that is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The part that is one.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// All of it, for a command line or a file that only its owner reads.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

/// The id in what an operator has given: an id, or a whole token.
///
/// # Errors
/// [`TokenError::Id`], without the text if it may be a secret.
pub fn id_of(text: &str) -> Result<String, TokenError> {
    if is_part(text, ID) {
        return Ok(text.to_owned());
    }
    match text.parse::<Token>() {
        Ok(token) => Ok(token.id),
        Err(_) if text.contains('.') => Err(TokenError::Form),
        Err(_) => Err(TokenError::Id(text.to_owned())),
    }
}

fn is_part(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| LETTERS.contains(&byte))
}

/// A token and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSpec {
    /// The token.
    pub token: Token,
    /// For people.
    pub description: Option<String>,
    /// Until when it holds; for ever if `None`.
    pub expires: Option<Timestamp>,
    /// What it may be used for.
    pub usages: Vec<String>,
    /// Groups of whoever shows it.
    pub groups: Vec<String>,
}

impl TokenSpec {
    /// Of a new token with all defaults.
    ///
    /// # Errors
    /// [`TokenError::Random`].
    pub fn generate(now: Timestamp) -> Result<Self, TokenError> {
        Self::from_config(&BootstrapToken { token: Token::generate()?.reveal(), ..BootstrapToken::default() }, now)
    }

    /// Of a configuration; what it leaves out is kubeadm's default.
    ///
    /// # Errors
    /// What is against the rules.
    pub fn from_config(config: &BootstrapToken, now: Timestamp) -> Result<Self, TokenError> {
        let expires = match (&config.ttl, &config.expires) {
            (Some(_), Some(_)) => return Err(TokenError::TwoEnds),
            (None, Some(at)) => Some(time(at)?),
            (ttl, None) => {
                let ttl = ttl.as_deref().map_or(Ok(DEFAULT_TTL), span)?;
                if ttl.is_zero() { None } else { Some(after(now, ttl)?) }
            }
        };
        let or_default = |given: &[String], default: &[&str]| match given {
            [] => default.iter().map(|it| (*it).to_owned()).collect(),
            given => given.to_vec(),
        };
        let spec = Self {
            token: config.token.parse()?,
            description: config.description.clone().filter(|text| !text.is_empty()),
            expires,
            usages: or_default(&config.usages, &USAGES),
            groups: or_default(&config.groups, &[DEFAULT_GROUP]),
        };
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), TokenError> {
        if let Some(usage) = self.usages.iter().find(|usage| !USAGES.contains(&usage.as_str())) {
            return Err(TokenError::Usage(usage.clone()));
        }
        if let Some(group) = self.groups.iter().find(|group| !is_group(group)) {
            return Err(TokenError::Group(group.clone()));
        }
        if !self.groups.is_empty() && !self.has("authentication") {
            return Err(TokenError::GroupsUnused);
        }
        Ok(())
    }

    /// Whether it may be used for this.
    #[must_use]
    pub fn has(&self, usage: &str) -> bool {
        self.usages.iter().any(|it| it == usage)
    }

    /// How long it still holds; `None` is for ever.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        self.expires.map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default())
    }

    /// Name of its Secret.
    #[must_use]
    pub fn secret_name(id: &str) -> String {
        format!("bootstrap-token-{id}")
    }

    /// Its Secret.
    #[must_use]
    pub fn to_secret(&self) -> Value {
        let mut data: BTreeMap<String, String> = [("token-id", self.token.id()), ("token-secret", self.token.secret())]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        data.extend(self.description.clone().map(|text| ("description".to_owned(), text)));
        data.extend(self.expires.map(|end| ("expiration".to_owned(), stamp(end))));
        data.extend(self.usages.iter().map(|usage| (format!("usage-bootstrap-{usage}"), "true".to_owned())));
        if !self.groups.is_empty() {
            data.insert("auth-extra-groups".to_owned(), self.groups.join(","));
        }
        let data: BTreeMap<String, String> = data.into_iter().map(|(key, text)| (key, STANDARD.encode(text))).collect();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
            "metadata": {"namespace": "kube-system", "name": Self::secret_name(self.token.id())},
            "data": data,
        })
    }

    /// Of a Secret.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn from_secret(secret: &Value) -> Result<Self, TokenError> {
        let field = |key: &str| -> Result<Option<String>, TokenError> {
            let Some(coded) = secret["data"][key].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
            let text = STANDARD.decode(coded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            text.map(Some).ok_or_else(|| TokenError::Field(format!("{key} is no text")))
        };
        let needed = |key: &str| field(key)?.ok_or_else(|| TokenError::Field(format!("it has no {key}")));
        let (id, secret_part) = (needed("token-id")?, needed("token-secret")?);
        let name = secret["metadata"]["name"].as_str().unwrap_or_default();
        if name != Self::secret_name(&id) {
            return Err(TokenError::Field(format!("token-id is {id:?}; expected the end of its name, {name}")));
        }
        let mut usages = Vec::new();
        for usage in ["authentication", "signing"] {
            if field(&format!("usage-bootstrap-{usage}"))?.as_deref() == Some("true") {
                usages.push(usage.to_owned());
            }
        }
        let groups = field("auth-extra-groups")?.unwrap_or_default();
        Ok(Self {
            token: format!("{id}.{secret_part}").parse()?,
            description: field("description")?,
            expires: field("expiration")?.map(|text| time(&text)).transpose()?,
            usages,
            groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// Whether this is the other one with, at most, another end.
    #[must_use]
    pub fn is_but_for_the_end(&self, other: &Self) -> bool {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list
        };
        (&self.token, &self.description) == (&other.token, &other.description)
            && sorted(&self.usages) == sorted(&other.usages)
            && sorted(&self.groups) == sorted(&other.groups)
            && self.expires.is_some() == other.expires.is_some()
    }
}

/// `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let is_in = |byte: u8| LETTERS.contains(&byte);
    rest.len() <= 256
        && rest.bytes().all(|byte| is_in(byte) || byte == b':' || byte == b'-')
        && rest.bytes().last().is_some_and(is_in)
}

/// RFC 3339, as the API writes times: UTC, whole seconds.
pub(super) fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn span(text: &str) -> Result<Duration, TokenError> {
    duration::parse(text)
        .ok_or_else(|| TokenError::Time(format!("{text:?} is no duration; expected {}", duration::EXPECTED)))
}

fn time(text: &str) -> Result<Timestamp, TokenError> {
    text.parse().map_err(|_| TokenError::Time(format!("{text:?} is no time; expected RFC 3339, 2030-01-31T12:00:00Z")))
}

/// The end after so long, in whole seconds as it is written.
pub(super) fn after(now: Timestamp, ttl: Duration) -> Result<Timestamp, TokenError> {
    let too_long = || TokenError::Time(format!("{} is too long", duration::short(ttl)));
    let end = i64::try_from(ttl.as_secs()).ok().and_then(|ttl| now.as_second().checked_add(ttl));
    // What is left of this second counts for the token: one that is to hold 1 s is not over at once.
    let end = end.map(|end| if ttl.subsec_nanos() > 0 || now.subsec_nanosecond() > 0 { end + 1 } else { end });
    end.and_then(|end| Timestamp::from_second(end).ok()).ok_or_else(too_long)
}
