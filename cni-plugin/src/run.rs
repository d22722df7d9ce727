//! One call of the plugin, from its environment to its exit code.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;

use crate::protocol::config::Base;
use crate::protocol::env::{Call, Variables, Verb};
use crate::protocol::flannel::{self, FLANNEL};
use crate::protocol::json::Json;
use crate::protocol::{CniError, Result, Version};
use crate::verbs;

/// More than any runtime sends: a GC list of 60,000 attachments has 8 MiB.
const MAX_INPUT: u64 = 16 * 1024 * 1024;
/// As much as most runtimes send.
const USUAL_INPUT: usize = 2048;
/// The name under which the plugin sets up the loopback interface instead.
const LOOPBACK: &str = "loopback";

/// What a process is called with.
pub struct Invocation<'a, V: Variables> {
    /// How the program was called (`argv[0]`).
    pub program: OsString,
    /// Its environment.
    pub variables: &'a V,
    /// Standard input: the network configuration.
    pub input: &'a mut dyn Read,
    /// Standard output: the result or the error, and nothing else.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub log: &'a mut dyn Write,
}

/// Does what the environment asks for and returns the exit code: 0 for success, 1 for an error, which then stands on
/// standard output.
pub fn run<V: Variables>(invocation: Invocation<'_, V>) -> u8 {
    let mut version = String::from(Version::NEWEST.as_str());
    let Invocation { program, variables, input, output, log } = invocation;
    let result = match Verb::from_env(variables) {
        Ok(None) => {
            // Somebody runs us by hand. Nobody to report a failed write to.
            let _ = writeln!(
                log,
                "weft-cni {}: a CNI plugin; protocol versions {}",
                env!("CARGO_PKG_VERSION"),
                Version::ALL.map(Version::as_str).join(", ")
            );
            return 0;
        }
        Ok(Some(Verb::Version)) => say(output, &verbs::version::answer()),
        Ok(Some(verb)) => dispatch(verb, &program, variables, input, output, &mut version),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            // Where standard output is closed, the exit code is all that is left.
            let _ = say(output, &error.to_json(&version));
            1
        }
    }
}

fn dispatch(
    verb: Verb,
    program: &OsString,
    variables: &impl Variables,
    input: &mut dyn Read,
    output: &mut dyn Write,
    version: &mut String,
) -> Result<()> {
    let call = || Call::from_env(verb, variables);
    // A missing variable is told before standard input is waited for.
    let call = match verb {
        Verb::Add | Verb::Del | Verb::Check => Some(call()?),
        Verb::Gc | Verb::Status | Verb::Version => None,
    };
    let json = Json::parse_object(&read(input)?)?;
    if let Some(Json::String(wanted)) = json.get("cniVersion") {
        version.clone_from(wanted);
    }
    let base = Base::parse(&json)?;
    match verb {
        Verb::Check => base.version.require(Version::V040, "CHECK")?,
        Verb::Gc => base.version.require(Version::V110, "GC")?,
        Verb::Status => base.version.require(Version::V110, "STATUS")?,
        Verb::Add | Verb::Del | Verb::Version => {}
    }
    let called = |kind: &str| base.kind == kind || Path::new(program).file_name().is_some_and(|name| name == kind);
    let loopback = called(LOOPBACK);
    let json = match verb {
        // The others do not look at what is to be attached, and DEL goes on whatever it is.
        Verb::Add | Verb::Status if called(FLANNEL) => flannel::without_delegate(json)?,
        _ => json,
    };
    let mut answer = |text: &str| say(output, text);
    match (verb, call) {
        (Verb::Add, Some(call)) if loopback => verbs::loopback::add(&base, &call, &mut answer),
        (Verb::Del, Some(call)) if loopback => verbs::loopback::del(&call),
        (Verb::Check, Some(call)) if loopback => verbs::loopback::check(&call),
        (_, None) if loopback => Ok(()),
        (Verb::Add, Some(call)) => verbs::add::add(&json, &call, variables, &mut answer),
        (Verb::Del, Some(call)) => verbs::del::del(&base, &json, &call),
        (Verb::Check, Some(call)) => verbs::check::check(&base, &json, &call),
        (Verb::Gc, _) => verbs::gc::gc(&base, &json),
        (Verb::Status, _) => verbs::status::status(&json),
        (Verb::Add | Verb::Del | Verb::Check | Verb::Version, _) => Ok(()),
    }
}

fn read(input: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL_INPUT);
    let limited = &mut input.take(MAX_INPUT + 1);
    limited
        .read_to_end(&mut bytes)
        .map_err(|error| CniError::io("read the network configuration from standard input", error))?;
    if bytes.len() as u64 > MAX_INPUT {
        use crate::protocol::Code;
        let message = format!("the network configuration on standard input is longer than {MAX_INPUT} bytes");
        return Err(CniError::new(Code::Decode, message));
    }
    Ok(bytes)
}

/// Writes one line. Flushed, so that a closed standard output is seen here and not after the deed.
fn say(output: &mut dyn Write, text: &str) -> Result<()> {
    let line = format!("{text}\n");
    output
        .write_all(line.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| CniError::io("write the result to standard output", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn call(variables: &[(&'static str, &'static [u8])], input: &mut dyn Read) -> (u8, String, String) {
        let variables: HashMap<&str, &[u8]> = variables.iter().copied().collect();
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let invocation =
            Invocation { program: "weft-cni".into(), variables: &variables, input, output: &mut output, log: &mut log };
        (run(invocation), String::from_utf8(output).unwrap(), String::from_utf8(log).unwrap())
    }

    /// Panics when it is read.
    struct NeverRead;

    impl Read for NeverRead {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("standard input was read");
        }
    }

    fn code(output: &str) -> u64 {
        serde_json::from_str::<serde_json::Value>(output).unwrap()["code"].as_u64().unwrap()
    }

    #[test]
    fn t001_without_a_command_it_says_what_it_is() {
        let (exit, output, log) = call(&[], &mut NeverRead);
        assert_eq!((exit, output.as_str()), (0, ""));
        assert!(log.contains("weft-cni") && log.contains("1.1.0"), "{log}");
    }

    #[test]
    fn t007_t021_version_needs_no_input_and_lists_what_the_verbs_accept() {
        let (exit, output, _) = call(&[("CNI_COMMAND", b"VERSION")], &mut NeverRead);
        let answer: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!((exit, &answer["cniVersion"]), (0, &serde_json::json!("1.1.0")));
        for version in answer["supportedVersions"].as_array().unwrap() {
            assert!(Version::of_config(version.as_str().unwrap()).is_ok());
        }
        assert_eq!(answer["supportedVersions"].as_array().unwrap().len(), Version::ALL.len());
    }

    #[test]
    fn t006_input_without_end_is_refused_in_bounded_memory() {
        let (exit, output, _) = call(&[("CNI_COMMAND", b"STATUS")], &mut std::io::repeat(b' '));
        assert_eq!((exit, code(&output)), (1, 6));
    }

    #[test]
    fn t003_missing_variables_are_told_before_input_is_waited_for() {
        let (exit, output, _) = call(&[("CNI_COMMAND", b"ADD")], &mut NeverRead);
        assert_eq!((exit, code(&output)), (1, 4));
    }

    #[test]
    fn t010_verbs_are_gated_by_the_configurations_version() {
        let del = [("CNI_CONTAINERID", &b"c"[..]), ("CNI_IFNAME", b"eth0"), ("CNI_NETNS", b"/n")];
        for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
            let mut variables = del.to_vec();
            variables.push(("CNI_COMMAND", verb.as_bytes()));
            let input = format!(r#"{{"name":"n","cniVersion":"{version}"}}"#);
            let (_, output, _) = call(&variables, &mut input.as_bytes());
            assert_eq!(code(&output), 1, "{verb}");
            assert!(output.contains(&format!(r#""cniVersion":"{version}""#)), "{output}");
        }
    }
}
