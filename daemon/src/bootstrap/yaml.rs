//! Values as YAML that every reader reads alike: block style, keys in alphabetical order, a scalar quoted when in doubt.
//!
//! kubelet and kubectl read YAML with Go's rules, which are partly those of YAML 1.1: `on`, `0755`, `1e3`, `12:30` and the
//! token `123456.0123456789abcdef` are not strings there. So a string goes without quotes only when no reader can take it
//! for anything else.

use serde_json::Value;

/// The value as one YAML document, with a line feed at its end.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(&mut text, value, 0),
        Value::Array(list) if !list.is_empty() => block(&mut text, value, 0),
        _ => {
            scalar(&mut text, value);
            text.push('\n');
        }
    }
    text
}

/// Reads one document.
///
/// # Errors
/// Why it is no YAML. The words may show a part of the text: not for what holds secrets.
pub fn read(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// A map or list that has members, each on lines of its own.
fn block(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) => {
            for (at, (key, value)) in map.iter().enumerate() {
                // The first key of a list's member stands on the line of its dash.
                if at > 0 || !text.ends_with("- ") {
                    indent(text, depth);
                }
                string(text, key);
                text.push(':');
                member(text, value, depth);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                if at > 0 || !text.ends_with("- ") {
                    indent(text, depth);
                }
                text.push_str("- ");
                if is_block(value) {
                    block(text, value, depth + 1);
                } else {
                    scalar(text, value);
                    text.push('\n');
                }
            }
        }
        _ => {}
    }
}

/// What stands behind a key. Lists are not indented, as kubectl prints them.
fn member(text: &mut String, value: &Value, depth: usize) {
    if is_block(value) {
        text.push('\n');
        block(text, value, if value.is_array() { depth } else { depth + 1 });
    } else {
        text.push(' ');
        scalar(text, value);
        text.push('\n');
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn indent(text: &mut String, depth: usize) {
    text.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(text: &mut String, value: &Value) {
    match value {
        Value::String(value) => string(text, value),
        // Empty ones; null, numbers and booleans are the same in JSON and in YAML.
        other => text.push_str(&other.to_string()),
    }
}

fn string(text: &mut String, value: &str) {
    if is_plain(value) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            // YAML has these as line ends or does not allow them at all.
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => escape(text, character),
            _ if character.is_control() => escape(text, character),
            _ => text.push(character),
        }
    }
    text.push('"');
}

fn escape(text: &mut String, character: char) {
    text.push_str(&format!("\\u{:04x}", u32::from(character)));
}

/// Whether no reader takes it for anything but this string.
fn is_plain(value: &str) -> bool {
    // As numbers, times and YAML's own signs begin otherwise, except for the words below.
    let begin = value.strip_prefix("--").or_else(|| value.strip_prefix('/')).unwrap_or(value);
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./@%+=,:*[]".contains(&byte);
    begin.starts_with(|first: char| first.is_ascii_alphabetic())
        && value.bytes().all(harmless)
        && !value.ends_with(':')
        && !is_word(value)
}

/// Words that are booleans or nothing, in YAML 1.1 or 1.2.
fn is_word(value: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    WORDS.iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn keys_are_in_order_and_lists_as_kubectl_prints_them() {
        let value = json!({"spec": {"b": [{"name": "x", "args": ["--v=4", "a b"]}, [1, 2]], "a": {}}, "kind": "Pod"});
        let expected =
            "kind: Pod\nspec:\n  a: {}\n  b:\n  - args:\n    - --v=4\n    - \"a b\"\n    name: x\n  - - 1\n    - 2\n";
        assert_eq!(to_string(&value), expected);
    }

    #[test]
    fn what_go_reads_as_something_else_is_quoted() {
        for doubtful in [
            "on",
            "Off",
            "Y",
            "0755",
            "1e3",
            "1_000",
            "12:30",
            "123456.0123456789abcdef",
            "1e10.0123456789abcdef",
            "null",
            "~",
            "",
            " a",
            "a: b",
            "a:",
            "a #b",
            "- a",
            "-",
            "---",
            "*a",
            "&a",
            "!a",
            "@a",
            "`a",
            "192.0.2.1:6443",
            "[::1]:6443",
            "=",
            "<<",
            ".inf",
            "0x1f",
            "NO",
            "{a",
            "a\nb",
            "a\u{2028}b",
            "%a",
            "?",
            "|",
            ">",
            "'a",
            "\"a",
        ] {
            assert!(to_string(&json!(doubtful)).starts_with('"'), "{doubtful}");
        }
        for plain in [
            "Pod",
            "--v=4",
            "/etc/kubernetes/pki",
            "registry.k8s.io/etcd:3.6.8-0",
            "https://10.0.0.1:2379",
            "--initial-cluster=n1=https://[2001:db8::10]:2380",
            "--controllers=*,bootstrapsigner",
            "cluster.local",
        ] {
            assert_eq!(to_string(&json!(plain)), format!("{plain}\n"));
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-z0-9.:/_ #\\-\\[\\]{}*&!,=\n]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-z0-9~\\-./: ]{1,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            let text = to_string(&value);
            let read: Value = serde_saphyr::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
