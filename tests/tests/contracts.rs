//! Every numbered case of the contracts has a test of its number.
//!
//! Names of tests hold the numbers of the cases that they show: `t081_f73_…` is case 81 of the plugin's contract and case 73 of
//! the overlay's. A case that is shown in another way is named in ARCHITECTURE.md, and here.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Groups A to G of the overlay's contract.
const OVERLAY: &[&str] = &[
    "01", "02", "03", "05", "06", "07", "09", "10", "11", "13", // A
    "14", "15", "17", "18", "19", "21", "22", // B
    "23", "25", "26", "27", "29", "30", "31", "33", // C
    "34", "35", "37", "38", "39", "41", "42", "43", "45", "46", "47", "49", "50", // D
    "51", "53", "54", "55", "57", "58", "58a", "58b", "59", "61", "62", // E
    "63", "65", "66", "67", "69", "70", "71", "73", "74", "75", "77", "78", "79", // F
    "81", "82", "83", "85", "86", // G
];

/// The words of the names of all functions in a file.
fn words(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let functions = text.lines().filter_map(|line| line.trim_start().split_once("fn ")?.1.split_once('('));
    functions.flat_map(|(name, _)| name.split('_')).map(str::to_owned).collect()
}

/// The same of all files below a folder.
fn words_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(words_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(words(&path));
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn every_case_of_the_overlays_contract_has_a_test_of_its_number() {
    let found: BTreeSet<String> = ["daemon", "cni-plugin", "netlink", "tests"]
        .iter()
        .flat_map(|folder| words_below(&root().join(folder)))
        .collect();
    let has = |number: &&str| ["d", "f"].iter().any(|letter| found.contains(&format!("{letter}{number}")));
    let missing: Vec<_> = OVERLAY.iter().filter(|number| !has(number)).collect();
    assert!(missing.is_empty(), "no test of {missing:?}");
}

#[test]
fn each_test_that_the_readme_names_is_in_the_file_that_it_links() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let links = readme.split('[').filter_map(|rest| {
        let (number, rest) = rest.split_once("](")?;
        let (file, _) = rest.split_once(')')?;
        let is_case = number.starts_with(['d', 'f']) && number.get(1..2)?.parse::<u8>().is_ok();
        is_case.then_some((number, file))
    });
    let links: Vec<_> = links.collect();
    assert!(links.len() > 20, "{links:?}");
    for (number, file) in links {
        assert!(words(&root().join(file)).contains(number), "{file} has no {number}");
    }
}
