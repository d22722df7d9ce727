//! The image that upstream's tests run their pods from: their own program, `agnhost`, and what their scripts call.
//!
//! Upstream's image stands on Alpine; this one has the same commands as Debian has them, with the shared objects that they need.
//! busybox would be one file instead, but its shell takes its own `nc` and `wget` before those of the search path.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use weft_image::archive::{Archive, FILE_MODE};
use weft_image::elf;

use super::image::{self, PROGRAM_MODE};
use super::peers;
use crate::scratch::Scratch;
use crate::tool;

/// The program.
pub const PROGRAM: &str = "agnhost";

/// What scripts of the tests call: the name in the image, and the program that it is.
const COMMANDS: [(&str, &str); 32] = [
    ("awk", "awk"),
    ("basename", "basename"),
    ("cat", "cat"),
    ("cp", "cp"),
    ("curl", "curl"),
    ("cut", "cut"),
    ("date", "date"),
    ("dig", "dig"),
    ("echo", "echo"),
    ("env", "env"),
    ("getent", "getent"),
    ("grep", "grep"),
    ("head", "head"),
    ("hostname", "hostname"),
    ("ls", "ls"),
    ("mkdir", "mkdir"),
    // The one that knows `-u` together with `-w`, as upstream's image has it.
    ("nc", "nc.openbsd"),
    ("nslookup", "nslookup"),
    ("printf", "printf"),
    ("rm", "rm"),
    ("sed", "sed"),
    ("seq", "seq"),
    ("sh", "sh"),
    ("sleep", "sleep"),
    ("sort", "sort"),
    ("tail", "tail"),
    ("test", "test"),
    ("timeout", "timeout"),
    ("touch", "touch"),
    ("tr", "tr"),
    ("uniq", "uniq"),
    ("wc", "wc"),
];

/// What the image cannot do without and this machine does not have, as a reason; `None` if it is complete.
#[must_use]
pub fn obstacle() -> Option<String> {
    let programs = COMMANDS.iter().map(|(_, program)| *program);
    let missing: Vec<&str> = programs.filter(|program| peers::find(program).is_none()).collect();
    let agnhost = peers::check(&[PROGRAM]).err();
    agnhost.or_else(|| (!missing.is_empty()).then(|| format!("needs {} installed", missing.join(", "))))
}

/// An archive with the image, under these names.
///
/// # Errors
/// When `agnhost` is not linked statically, or something that the image needs is not there.
pub fn image(names: &[String]) -> Result<Vec<u8>> {
    let (program, architecture) = image::static_program(&peers::need(PROGRAM)?)?;
    let mut layer = Archive::default();
    layer.file(PROGRAM, PROGRAM_MODE, &program)?;
    for folder in ["etc", "tmp", "uploads"] {
        layer.directory(folder)?;
    }
    // /etc/hosts and then the cluster's DNS, whatever the C library's own order is.
    layer.file("etc/nsswitch.conf", FILE_MODE, b"hosts: files dns\n")?;
    for (name, bytes) in certificate()? {
        layer.file(name, FILE_MODE, &bytes)?;
    }
    let mut objects = BTreeSet::new();
    for (name, program) in COMMANDS {
        let program = peers::need(program)?;
        let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        if elf::architecture(&bytes).is_err() {
            objects.extend(shared_objects(&tool::run(tool::command("ldd").arg(&program))?));
        }
        layer.file(&format!("bin/{name}"), PROGRAM_MODE, &bytes)?;
    }
    for object in objects {
        let bytes = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
        let path = object.strip_prefix("/").unwrap_or(&object).to_string_lossy();
        layer.file(&path, PROGRAM_MODE, &bytes)?;
    }
    image::archive(names, architecture, &json!({"Entrypoint": [format!("/{PROGRAM}")], "Cmd": ["pause"]}), layer)
}

/// A certificate and its key, where `agnhost porter` looks for them. Whoever asks it does not check whose they are.
fn certificate() -> Result<[(&'static str, Vec<u8>); 2]> {
    let scratch = Scratch::new();
    let names = ["localhost.crt", "localhost.key"];
    let paths = names.map(|name| scratch.join(name));
    let mut command = tool::command("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]);
    tool::run(command.arg("-out").arg(&paths[0]).arg("-keyout").arg(&paths[1]))?;
    Ok([(names[0], fs::read(&paths[0])?), (names[1], fs::read(&paths[1])?)])
}

/// The files that ldd names, the loader among them. What the kernel brings along (`linux-vdso.so.1`) is none.
fn shared_objects(ldd: &str) -> Vec<PathBuf> {
    let paths = ldd.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(|path| Path::new(path).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_loader_as_ldd_names_them() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1d)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f1e)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(shared_objects(ldd), expected);
    }
}
