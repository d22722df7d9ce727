//! A real etcd, one member, on an address of a namespace. Keys are read and written over its JSON gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::netns::Netns;
use crate::process::{self, ProcessId};
use crate::{http, tool, wait};

/// Puts of a transaction (etcd's `--max-txn-ops`).
const MOST_PUTS: usize = 128;
/// Bytes of a transaction, well below etcd's `--max-request-bytes`.
const MOST_BYTES: usize = 512 * 1024;

/// Where the client port of an etcd is, and which process serves it. A value: dropping it does not stop etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Etcd {
    netns: Netns,
    address: SocketAddr,
    folder: PathBuf,
    process: ProcessId,
}

impl Etcd {
    /// Starts etcd with its data and log in `folder` (data that is there is served again), and waits until it answers.
    ///
    /// # Errors
    /// When etcd is not installed or does not get ready.
    pub fn start(netns: &Netns, address: SocketAddr, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (client, log) = (format!("http://{address}"), folder.join("etcd.log"));
        let mut command = tool::command("etcd");
        command
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap", "--log-outputs", "stderr"]);
        let process = process::spawn(netns, &mut command, &log).context("is etcd-server installed?")?;
        let this = Self { netns: netns.clone(), address, folder: folder.to_owned(), process };
        let ready = wait::until_ok(Duration::from_secs(30), "etcd to answer", || {
            if !process.alive() {
                return Err(format!("it ended; see {}", log.display()));
            }
            match http::get(netns, address, "/health") {
                Ok(answer) if answer.body.contains("true") => Ok(()),
                Ok(answer) => Err(answer.body),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        if ready.is_err() {
            process.kill();
        }
        ready?;
        Ok(this)
    }

    /// What clients are told.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("etcd.log")
    }

    /// Writes a key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.call("/v3/kv/put", &json!({"key": base64(key.as_bytes()), "value": base64(value.as_bytes())})).map(drop)
    }

    /// Writes many keys, in few transactions.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn put_all(&self, pairs: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        let (mut puts, mut bytes) = (Vec::new(), 0);
        for (key, value) in pairs {
            bytes += key.len() + value.len();
            puts.push(json!({"requestPut": {"key": base64(key.as_bytes()), "value": base64(value.as_bytes())}}));
            if puts.len() == MOST_PUTS || bytes > MOST_BYTES {
                self.call("/v3/kv/txn", &json!({"success": puts}))?;
                (puts, bytes) = (Vec::new(), 0);
            }
        }
        if puts.is_empty() { Ok(()) } else { self.call("/v3/kv/txn", &json!({"success": puts})).map(drop) }
    }

    /// Deletes a key, or all keys that begin with it if it ends with `/`.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.call("/v3/kv/deleterange", &range(key)).map(drop)
    }

    /// The value of a key; of a key that ends with `/`: all keys that begin with it and their values, in order.
    ///
    /// # Errors
    /// When etcd refuses.
    pub fn get(&self, key: &str) -> Result<Vec<(String, String)>> {
        let answer = self.call("/v3/kv/range", &range(key))?;
        let pairs = answer.get("kvs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        pairs.iter().map(|pair| Ok((text(pair, "key")?, text(pair, "value")?))).collect()
    }

    fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let answer = http::post(&self.netns, self.address, path, &body.to_string())?;
        if answer.status != 200 {
            bail!("etcd refused {path}: {}", answer.body);
        }
        Ok(serde_json::from_str(&answer.body)?)
    }
}

/// The key, or the range of all keys with that prefix if it ends with a slash.
fn range(key: &str) -> Value {
    // The byte after '/' in ASCII is '0': the end of the prefix's range.
    let end = key.strip_suffix('/').map_or_else(String::new, |stem| base64(format!("{stem}0").as_bytes()));
    json!({"key": base64(key.as_bytes()), "range_end": end})
}

/// A field of etcd's JSON, which holds bytes as base64; an empty value is left out.
fn text(pair: &Value, field: &str) -> Result<String> {
    let coded = pair.get(field).and_then(Value::as_str).unwrap_or_default();
    let bytes = unbase64(coded).with_context(|| format!("etcd's {field} is not base64: {coded}"))?;
    Ok(String::from_utf8(bytes)?)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    let mut coded = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let six = (word >> (18 - 6 * place)) & 63;
            let letter = ALPHABET.get(usize::try_from(six).unwrap_or_default()).copied().unwrap_or(b'=');
            coded.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    coded
}

fn unbase64(coded: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0u32, 0u32);
    for letter in coded.trim_end_matches('=').bytes() {
        let six = ALPHABET.iter().position(|known| *known == letter)?;
        word = (word << 6 | u32::try_from(six).ok()?) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::OwnedNetns;
    use crate::scratch::{Scratch, unique_name};

    #[test]
    fn base64_matches_the_vectors_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(unbase64(coded).unwrap(), plain.as_bytes());
        }
        assert_eq!(unbase64("a?"), None);
    }

    #[test]
    fn keys_are_written_read_and_deleted() {
        let (netns, scratch) = (OwnedNetns::new(unique_name()), Scratch::new());
        let etcd = Etcd::start(&netns, "127.0.0.1:2379".parse().unwrap(), scratch.path()).unwrap();
        etcd.put("/a/1", "one").unwrap();
        etcd.put("/a/2", "").unwrap();
        etcd.put("/b", "other").unwrap();
        assert_eq!(etcd.get("/a/").unwrap(), [("/a/1".into(), "one".into()), ("/a/2".into(), String::new())]);
        etcd.delete("/a/1").unwrap();
        assert_eq!(etcd.get("/a/1").unwrap(), []);
        etcd.delete("/a/").unwrap();
        assert_eq!(etcd.get("/a/").unwrap(), []);
        assert_eq!(etcd.get("/b").unwrap(), [("/b".into(), "other".into())]);
        etcd.put_all((0..200).map(|i| (format!("/c/{i:03}"), format!("v{i}")))).unwrap();
        let all = etcd.get("/c/").unwrap();
        assert_eq!((all.len(), all.last().unwrap()), (200, &("/c/199".into(), "v199".into())));
    }
}
