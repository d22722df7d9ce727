//! What a program of a distribution takes along into its image: its loader and its shared libraries (Debian links etcd so).
//!
//! They are put where they were found, so that the loader, whose search path is built in, finds them there again. Libraries in
//! places of a program's own (RPATH) are not looked for. Numbers and offsets are those of elf(5).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
/// Size of a program header of a 64-bit file, in bytes.
const HEADER_LEN: u64 = 56;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
/// How long a table or a name may be: many times of what is usual.
const TABLE_LIMIT: u64 = 1 << 16;
const NAME_LIMIT: usize = 4096;

/// Where distributions keep their libraries; `{}` is Debian's name of the machine.
const FOLDERS: [&str; 6] = ["/lib/{}-linux-gnu", "/usr/lib/{}-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// What a program says that it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
}

/// The files that a program cannot run without, by their absolute paths; empty for a static one.
///
/// # Errors
/// When one of them cannot be found, or the program is none.
pub(super) fn files(program: &File) -> io::Result<BTreeMap<PathBuf, File>> {
    let mut found = BTreeMap::new();
    let needs = needs(program)?;
    let mut rest = needs.libraries;
    if let Some(loader) = needs.loader {
        let path = PathBuf::from(loader);
        found.insert(path.clone(), File::open(&path).map_err(|error| named(&error, &path))?);
    }
    while let Some(name) = rest.pop() {
        if found.keys().any(|path| path.file_name().is_some_and(|file| file == name.as_str())) {
            continue;
        }
        let path = find(&name).ok_or_else(|| invalid(format!("its shared library {name} is not on this machine")))?;
        let file = File::open(&path).map_err(|error| named(&error, &path))?;
        rest.extend(self::needs(&file)?.libraries);
        found.insert(path, file);
    }
    Ok(found)
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = FOLDERS.iter().map(|folder| folder.replace("{}", std::env::consts::ARCH));
    folders.map(|folder| Path::new(&folder).join(name)).find(|path| path.is_file())
}

fn needs(file: &File) -> io::Result<Needs> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(invalid("not a 64-bit little-endian ELF file".to_owned()));
    }
    let (table, count) = (number(&head, 32, 8), number(&head, 56, 2));
    let mut headers = Vec::new();
    for index in 0..count {
        let mut header = [0; 56];
        file.read_exact_at(&mut header, table.saturating_add(index * HEADER_LEN))?;
        let field = |at| number(&header, at, 8);
        headers.push((number(&header, 0, 4), field(8), field(16), field(32)));
    }
    let mut needs = Needs::default();
    let mut dynamic = Vec::new();
    for (kind, offset, _, size) in &headers {
        match *kind {
            PT_INTERP => needs.loader = Some(text(file, *offset)?),
            PT_DYNAMIC => {
                let mut bytes = vec![0; usize::try_from((*size).min(TABLE_LIMIT)).unwrap_or_default()];
                file.read_exact_at(&mut bytes, *offset)?;
                dynamic = bytes.chunks_exact(16).map(|entry| (number(entry, 0, 8), number(entry, 8, 8))).collect();
            }
            _ => {}
        }
    }
    let dynamic: Vec<(u64, u64)> = dynamic.into_iter().take_while(|(tag, _)| *tag != DT_NULL).collect();
    let Some((_, strings)) = dynamic.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(needs) };
    // The table of names is given by its address in memory.
    let mut loads = headers.iter().filter(|(kind, ..)| *kind == PT_LOAD);
    let within = loads.find(|(_, _, address, size)| (*address..address.saturating_add(*size)).contains(strings));
    let (_, offset, address, _) = within.ok_or_else(|| invalid("its table of names is not in the file".to_owned()))?;
    let names = strings - address + offset;
    for (_, at) in dynamic.iter().filter(|(tag, _)| *tag == DT_NEEDED) {
        needs.libraries.push(text(file, names.saturating_add(*at))?);
    }
    Ok(needs)
}

/// The text that begins here, up to its zero.
fn text(file: &File, offset: u64) -> io::Result<String> {
    let mut bytes = vec![0; NAME_LIMIT];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(|| invalid("a name in it has no end".to_owned()))?;
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(|_| invalid("a name in it is no text".to_owned()))
}

/// A little-endian number; what is not there is 0.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..at + len).unwrap_or_default();
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_test_needs_a_c_library_and_what_loads_it() {
        let program = File::open("/proc/self/exe").unwrap();
        let needs = needs(&program).unwrap();
        let Some(loader) = needs.loader else {
            assert_eq!(needs.libraries, Vec::<String>::new(), "static programs need nothing");
            return;
        };
        let files = files(&program).unwrap();
        assert!(files.contains_key(Path::new(&loader)), "{files:?}");
        for library in needs.libraries {
            assert!(files.keys().any(|path| path.ends_with(&library)), "{library}: {files:?}");
        }
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [vec![0; 100], b"#!/bin/sh\n".to_vec(), [b"\x7fELF\x02\x01".to_vec(), vec![255; 58]].concat()] {
            std::fs::write(&path, bytes).unwrap();
            assert!(needs(&File::open(&path).unwrap()).is_err());
        }
    }
}
