//! Strategic merge patches for what weft generates: Pods, Deployments and KubeletConfiguration.
//!
//! As `apimachinery/pkg/util/strategicpatch` has them: a list whose members have a key is merged member by member, every
//! other list is replaced. The keys stand in the API's Go types; KubeletConfiguration has none.

use serde_json::{Map, Value};

/// Fields of Pods and Deployments that are lists with a key (`patchMergeKey` in core/v1 and apps/v1).
const KEYS: [(&str, &str); 16] = [
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("hostAliases", "ip"),
    ("hostIPs", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("podIPs", "ip"),
    ("ports", "containerPort"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Beyond [`KEYS`]: raw block devices.
const DEVICES: (&str, &str) = ("volumeDevices", "devicePath");

/// Lists of plain values that are joined.
const JOINED: [&str; 1] = ["finalizers"];

/// Says what to do with the map or list that it stands in, instead of merging: `replace`, `delete` or `merge`.
const DIRECTIVE: &str = "$patch";
/// Before the name of a list of plain values: what to take out of it.
const TAKE_OUT: &str = "$deleteFromPrimitiveList/";
/// Before the name of a list: its order, which clients send along and which changes nothing of what is in it.
const ORDER: &str = "$setElementOrder/";
/// The keys that stay of a map.
const RETAIN: &str = "$retainKeys";

/// Changes `value` as `patch` says.
///
/// # Errors
/// What of the patch makes no sense.
pub(super) fn merge(value: &mut Value, patch: &Value) -> Result<(), String> {
    let keyed = !matches!(value["kind"].as_str(), Some("KubeletConfiguration"));
    let Value::Object(patch) = patch else { return Err("expected a map".into()) };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => merge_map(map, patch, keyed),
        _ => Ok(()),
    }
}

fn key_of(field: &str) -> Option<&'static str> {
    KEYS.iter().chain([&DEVICES]).find(|(name, _)| *name == field).map(|(_, key)| *key)
}

fn merge_map(map: &mut Map<String, Value>, patch: &Map<String, Value>, keyed: bool) -> Result<(), String> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        Some("replace") => {
            *map = patch
                .iter()
                .filter(|(name, _)| *name != DIRECTIVE)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        None | Some("merge") => {}
        Some(other) => return Err(format!("$patch is {other:?}; expected replace, delete or merge")),
    }
    if let Some(Value::Array(retained)) = patch.get(RETAIN) {
        map.retain(|name, _| retained.iter().any(|retained| retained == name));
    }
    for (name, change) in patch {
        if let Some(list) = name.strip_prefix(TAKE_OUT) {
            take_out(map.get_mut(list), change);
        } else if !name.starts_with(ORDER) && name != RETAIN && name != DIRECTIVE {
            merge_field(map, name, change, keyed).map_err(|reason| format!("{name}: {reason}"))?;
        }
    }
    Ok(())
}

fn merge_field(map: &mut Map<String, Value>, name: &str, change: &Value, keyed: bool) -> Result<(), String> {
    match (map.get_mut(name), change) {
        (_, Value::Null) => {
            map.remove(name);
        }
        (Some(Value::Object(old)), Value::Object(change)) => {
            merge_map(old, change, keyed)?;
            if change.get(DIRECTIVE).is_some_and(|directive| directive == "delete") {
                map.remove(name);
            }
        }
        (Some(Value::Array(old)), Value::Array(change)) if keyed && JOINED.contains(&name) => {
            let new: Vec<Value> = change.iter().filter(|value| !old.contains(value)).cloned().collect();
            old.extend(new);
        }
        (Some(Value::Array(old)), Value::Array(change)) => match key_of(name).filter(|_| keyed) {
            Some(key) => merge_list(old, change, key)?,
            None => *old = change.clone(),
        },
        (_, change) => {
            map.insert(name.to_owned(), clean(change, name, keyed)?);
        }
    }
    Ok(())
}

/// Merges members by their key; new ones go to the end.
fn merge_list(list: &mut Vec<Value>, patch: &[Value], key: &str) -> Result<(), String> {
    if patch.iter().any(|member| directive(member) == Some("replace") && member.get(key).is_none()) {
        *list = patch.iter().filter(|member| directive(member).is_none()).cloned().collect();
        return Ok(());
    }
    for change in patch {
        let wanted = change.get(key).ok_or_else(|| format!("a member without {key}, by which the list is merged"))?;
        let at = list.iter().position(|member| member.get(key) == Some(wanted));
        match (at.and_then(|at| list.get_mut(at)), change) {
            (_, change) if directive(change) == Some("delete") => list.retain(|member| member.get(key) != Some(wanted)),
            (Some(Value::Object(old)), Value::Object(change)) => merge_map(old, change, true)?,
            (Some(old), change) => *old = change.clone(),
            (None, change) => list.push(clean(change, "", true)?),
        }
    }
    Ok(())
}

/// A value that is new, without what was meant for an old one.
fn clean(value: &Value, name: &str, keyed: bool) -> Result<Value, String> {
    match value {
        Value::Object(patch) => {
            let mut map = Map::new();
            merge_map(&mut map, patch, keyed)?;
            Ok(Value::Object(map))
        }
        Value::Array(patch) if keyed && key_of(name).is_some() => {
            let mut list = Vec::new();
            merge_list(&mut list, patch, key_of(name).unwrap_or_default())?;
            Ok(Value::Array(list))
        }
        other => Ok(other.clone()),
    }
}

fn take_out(list: Option<&mut Value>, values: &Value) {
    if let (Some(Value::Array(list)), Value::Array(values)) = (list, values) {
        list.retain(|value| !values.contains(value));
    }
}

fn directive(member: &Value) -> Option<&str> {
    member.get(DIRECTIVE)?.as_str()
}
