//! Whatever comes from outside is an answer or an error, never a panic.
//!
//! `cargo test` shows each target what lies in `__fuzz__/<target>/corpus` and what bolero thinks of within a second; a
//! fuzzer goes on from there (CONTRIBUTING.md says how).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bolero::check;
use weft_cni::formats::host_local::Owner;
use weft_cni::formats::{Attachment, SubnetEnv, crc32c};
use weft_cni::ipam::pool::Pool;
use weft_cni::protocol::config::{Base, NetConf, valid_attachments};
use weft_cni::protocol::env::{Args, Call, Variables, Verb};
use weft_cni::protocol::flannel::without_delegate;
use weft_cni::protocol::json::Json;
use weft_cni::protocol::previous::Previous;
use weft_cni::protocol::{CniError, Code};

/// What a runtime is told is always an error object.
fn is_told(error: &CniError) {
    let wire: serde_json::Value = serde_json::from_str(&error.to_json("1.1.0")).unwrap();
    assert!(wire["code"].is_u64() && wire["msg"].as_str().is_some_and(|text| !text.is_empty()));
}

fn network(json: &Json) {
    match Base::parse(json) {
        Ok(base) => drop(valid_attachments(&base, json).map_err(|error| is_told(&error))),
        Err(error) => is_told(&error),
    }
    if let Err(error) = NetConf::parse(json, &Args::default()) {
        is_told(&error);
        assert!(matches!(error.code, Code::InvalidConfig | Code::UnsupportedField | Code::IncompatibleVersion));
    }
}

#[test]
fn fuzz_stdin() {
    check!(name = "stdin").for_each(|bytes: &[u8]| match Json::parse_object(bytes) {
        Err(error) => assert_eq!(error.code, Code::Decode),
        Ok(json) => {
            network(&json);
            match without_delegate(json) {
                Ok(json) => network(&json),
                Err(error) => is_told(&error),
            }
        }
    });
}

/// Every variable has the same bytes.
struct All<'a>(&'a [u8]);

impl Variables for All<'_> {
    fn get(&self, _: &str) -> Option<Vec<u8>> {
        Some(self.0.to_vec())
    }
}

#[test]
fn fuzz_environment() {
    check!(name = "environment").for_each(|bytes: &[u8]| {
        let variables = All(bytes);
        let errors = [
            Args::from_env(&variables).err(),
            Verb::from_env(&variables).err(),
            Call::from_env(Verb::Add, &variables).err(),
        ];
        errors.iter().flatten().for_each(is_told);
    });
}

#[test]
fn fuzz_previous_result() {
    check!(name = "previous").for_each(|bytes: &[u8]| {
        let text = [&br#"{"prevResult":"#[..], bytes, b"}"].concat();
        let Ok(json) = Json::parse_object(&text) else { return };
        match Previous::required(&json) {
            Ok(previous) => assert!(previous.ips_of("eth0").count() <= previous.ips.len()),
            Err(error) => is_told(&error),
        }
    });
}

/// Damaged ones are found by their checksum; a body that has the right one must be as safe.
#[test]
fn fuzz_records() {
    check!(name = "record").for_each(|bytes: &[u8]| {
        let _ = Attachment::decode(bytes);
        let mut honest = b"weftatt\x01".to_vec();
        honest.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        honest.extend_from_slice(&crc32c(bytes).to_le_bytes());
        honest.extend_from_slice(&[0; 12]);
        honest.extend_from_slice(&crc32c(&[0; 12]).to_le_bytes());
        honest.extend_from_slice(bytes);
        if let Ok(attachment) = Attachment::decode(&honest) {
            assert_eq!(Attachment::decode(&attachment.encode()), Ok(attachment));
        }
    });
}

#[test]
fn fuzz_pool() {
    check!(name = "pool").for_each(|bytes: &[u8]| {
        let _ = Pool::decode(bytes);
        let mut honest = b"weftpol\x02\0\0\0\0".to_vec();
        honest.extend_from_slice(&crc32c(bytes).to_le_bytes());
        honest.extend_from_slice(bytes);
        if let Some(mut pool) = Pool::decode(&honest) {
            assert_eq!(Pool::decode(&pool.encode()).as_ref(), Some(&pool));
            pool.take_next(0, 0);
        }
    });
}

#[test]
fn fuzz_files_of_others() {
    check!(name = "files").for_each(|bytes: &[u8]| {
        if let Some(owner) = Owner::parse(bytes) {
            assert!(!owner.container.is_empty());
            let _ = Owner::parse(owner.render().as_bytes());
        }
        if let Ok(text) = std::str::from_utf8(bytes) {
            let _ = text.parse::<SubnetEnv>();
        }
    });
}

/// The corpus is what makes the targets worth running: each of its files means what its folder says.
#[test]
fn the_corpus_is_understood() {
    let read = |name: &str| std::fs::read(format!("{}/tests/__fuzz__/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for file in ["weft", "flannel", "host-local", "etcd"] {
        let json = Json::parse_object(&read(&format!("stdin/corpus/{file}"))).unwrap();
        NetConf::parse(&without_delegate(json).unwrap(), &Args::default()).unwrap();
    }
    let pool = read("pool/corpus/one-set");
    let bytes = [&b"weftpol\x02\0\0\0\0"[..], &crc32c(&pool).to_le_bytes(), &pool].concat();
    assert!(Pool::decode(&bytes).is_some());
    for file in ["body", "newer"] {
        serde_json::from_slice::<Attachment>(&read(&format!("record/corpus/{file}"))).unwrap();
    }
    assert!(Owner::parse(&read("files/corpus/reservation")).unwrap().is("c1", "eth0"));
}
