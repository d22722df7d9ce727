//! The list of materials, in CycloneDX 1.6.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cargo::{Package, ROOTS};
use crate::elf::Architecture;
use crate::oci::About;

/// The list of what is in one architecture's image.
///
/// # Errors
/// When JSON cannot be written, which does not happen.
pub fn cyclonedx(about: &About, architecture: Architecture, packages: &[Package]) -> Result<Vec<u8>> {
    let image = format!("{}#{architecture}", about.reference);
    let roots: BTreeSet<String> = packages
        .iter()
        .filter(|it| ROOTS.contains(&it.name.as_str()))
        .map(|it| reference(&it.name, &it.version))
        .collect();
    let uses = packages.iter().map(|it| {
        let uses: Vec<String> = it.uses.iter().map(|(name, version)| reference(name, version)).collect();
        json!({"ref": reference(&it.name, &it.version), "dependsOn": uses})
    });
    let graph: Vec<Value> = std::iter::once(json!({"ref": image, "dependsOn": roots})).chain(uses).collect();
    let mut metadata = json!({
        "component": {
            "type": "container", "bom-ref": image, "name": "weft", "version": about.reference.tag,
            "licenses": [{"expression": "Apache-2.0"}],
            "properties": [{"name": "architecture", "value": architecture.name()}],
        },
    });
    if let Some(created) = &about.created {
        metadata["timestamp"] = json!(created);
    }
    let components: Vec<Value> = packages.iter().map(component).collect();
    let document = json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": metadata, "components": components, "dependencies": graph,
    });
    Ok(serde_json::to_vec_pretty(&document)?)
}

fn component(package: &Package) -> Value {
    let is_root = ROOTS.contains(&package.name.as_str());
    let mut component = json!({
        "type": if is_root { "application" } else { "library" },
        "bom-ref": reference(&package.name, &package.version),
        "name": package.name,
        "version": package.version,
    });
    if let Some(license) = &package.license {
        component["licenses"] = json!([{"expression": license}]);
    }
    // A package URL claims that the registry has it; the workspace's own packages are not there.
    if package.is_foreign {
        component["purl"] = json!(reference(&package.name, &package.version));
    }
    if let Some(checksum) = &package.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

/// How a package is referred to: as its package URL is written.
fn reference(name: &str, version: &str) -> String {
    // A plus sign in a version's build part means a blank in a URL.
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}
