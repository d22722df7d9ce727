//! weft's own manifests, as they are in `manifests/base`, and the little of kustomize that their kustomization asks for.

use serde_json::{Value, json};

/// A file of the base.
macro_rules! base {
    ($name:literal) => {
        ($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base/", $name)))
    };
}

/// What says which files there are.
const KUSTOMIZATION: &str = base!("kustomization.yaml").1;

/// The files.
const FILES: &[(&str, &str)] = &[
    base!("service-account.yaml"),
    base!("rbac.yaml"),
    base!("admission.yaml"),
    base!("config.yaml"),
    base!("daemonset.yaml"),
];

/// Keys of a kustomization that are understood here.
const KEYS: [&str; 6] = ["apiVersion", "kind", "namespace", "labels", "resources", "images"];

/// The base as kustomize would render it, in the order of its files, with weft's image in the place of its own.
///
/// # Errors
/// A file or a key that is not understood; tests see to it that there is none.
pub(super) fn base(image: &str) -> Result<Vec<Value>, String> {
    let kustomization: Value = serde_saphyr::from_str(KUSTOMIZATION).map_err(|error| error.to_string())?;
    let keys = kustomization.as_object().into_iter().flatten().map(|(key, _)| key);
    if let Some(key) = keys.into_iter().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("manifests/base/kustomization.yaml has {key}, which bring-up does not know"));
    }
    let mut objects = Vec::new();
    for name in kustomization["resources"].as_array().into_iter().flatten() {
        let file = FILES.iter().find(|(file, _)| name == file);
        let (_, text) = file.ok_or_else(|| format!("manifests/base names {name}, which is not built in"))?;
        let found: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| format!("{name}: {error}"))?;
        objects.extend(found);
    }
    for object in &mut objects {
        if object["metadata"].get("namespace").is_some() {
            object["metadata"]["namespace"] = kustomization["namespace"].clone();
        }
        for label in kustomization["labels"].as_array().into_iter().flatten() {
            for (key, value) in label["pairs"].as_object().into_iter().flatten() {
                object["metadata"]["labels"][key] = value.clone();
            }
        }
        if object.get("spec").is_none_or(|spec| spec.get("template").is_none()) {
            continue;
        }
        for own in kustomization["images"].as_array().into_iter().flatten() {
            let own = own["name"].as_str().unwrap_or_default();
            replace(&mut object["spec"]["template"]["spec"], own, image);
        }
    }
    Ok(objects)
}

/// Another image in all containers of a pod.
fn replace(pod: &mut Value, own: &str, image: &str) {
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if container["image"] == own {
                container["image"] = json!(image);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_base_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base");
        let found = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let found: BTreeSet<String> = found.filter(|name| name != "kustomization.yaml").collect();
        assert_eq!(FILES.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), found);
        let objects = base("example/weft:1").unwrap();
        let documents: usize =
            FILES.iter().map(|(_, text)| serde_saphyr::from_multiple::<Value>(text).unwrap().len()).sum();
        assert_eq!(objects.len(), documents);
        assert!(objects.iter().all(|object| object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "weft"));
        let images: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "DaemonSet")
            .map(|set| &set["spec"]["template"]["spec"]["containers"][0]["image"])
            .collect();
        assert_eq!(images, ["example/weft:1"]);
    }
}
