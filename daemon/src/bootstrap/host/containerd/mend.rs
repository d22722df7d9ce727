//! The text of a configuration with what was wrong in it mended; all else stays as it is. Pure.

use toml_edit::{DocumentMut, Item, Table, TableLike, value};

use super::CERTS_D;
use super::keys::{CRI_PLUGINS, Key};
use super::read::version;

/// What is to be mended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mend {
    /// The CRI plugin is turned on.
    pub enable_cri: bool,
    /// Whether that runtime asks systemd for cgroups.
    pub systemd_cgroup: Option<(String, bool)>,
    /// The sandbox image.
    pub sandbox_image: Option<String>,
    /// Registries' directories are looked for.
    pub config_path: bool,
}

impl Mend {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The mended text; `None` if nothing has to be changed. In a file that another one imports only what stands there is
/// changed (`main` is false).
///
/// # Errors
/// What is wrong with the text.
pub fn mend(text: &str, wanted: &Mend, main: bool) -> Result<Option<String>, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    if main && text.trim().is_empty() {
        // containerd takes the second version since 1.3, and the third only since 2.0.
        document.insert("version", value(2));
    }
    let version = version(&document);
    if wanted.enable_cri
        && let Some(list) = document.get_mut("disabled_plugins").and_then(Item::as_array_mut)
    {
        list.retain(|entry| entry.as_str().is_none_or(|name| !CRI_PLUGINS.contains(&name)));
    }
    let mut set = |key: Key<'_>, new: Item| -> Result<(), String> {
        let path = key.path(version);
        let current = path.iter().try_fold(document.as_item(), |item, part| item.get(part));
        let same = current.is_some_and(|item| item.as_str() == new.as_str() && item.as_bool() == new.as_bool());
        if same || current.is_none() && !main {
            return Ok(());
        }
        put(document.as_table_mut(), &path, new)
    };
    if let Some((runtime, on)) = &wanted.systemd_cgroup {
        set(Key::SystemdCgroup(runtime), value(*on))?;
    }
    if let Some(image) = &wanted.sandbox_image {
        set(Key::SandboxImage, value(image))?;
    }
    if wanted.config_path {
        set(Key::ConfigPath, value(CERTS_D))?;
    }
    if wanted.systemd_cgroup.is_some() && main {
        name_runtime(&mut document, version, wanted)?;
    }
    let new = document.to_string();
    Ok((new != text).then_some(new))
}

/// A runtime that was only options before has to be told what it is: containerd does not merge ours with its default one.
fn name_runtime(document: &mut DocumentMut, version: i64, wanted: &Mend) -> Result<(), String> {
    let Some((runtime, _)) = &wanted.systemd_cgroup else { return Ok(()) };
    let mut path = Key::SystemdCgroup(runtime).path(version);
    path.truncate(path.len() - 2);
    path.push("runtime_type");
    if path.iter().try_fold(document.as_item(), |item, part| item.get(part)).is_some() {
        return Ok(());
    }
    put(document.as_table_mut(), &path, value("io.containerd.runc.v2"))
}

/// Sets the value, in the tables that lead to it; those that are missing are made.
fn put(table: &mut dyn TableLike, path: &[&str], new: Item) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        match table.get_mut(first).and_then(Item::as_value_mut) {
            // What stands around it, a comment perhaps, stays.
            Some(old) => {
                let decor = old.decor().clone();
                if let Ok(mut new) = new.into_value() {
                    *new.decor_mut() = decor;
                    *old = new;
                }
            }
            None => {
                table.insert(first, new);
            }
        }
        return Ok(());
    }
    if table.get(first).is_none() {
        let mut made = Table::new();
        // A table that holds nothing but tables needs no header of its own.
        made.set_implicit(rest.len() > 1);
        table.insert(first, Item::Table(made));
    }
    match table.get_mut(first).and_then(Item::as_table_like_mut) {
        Some(inner) => put(inner, rest, new),
        None => Err(format!("{first} is no table")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn systemd() -> Mend {
        Mend { systemd_cgroup: Some(("runc".into(), true)), ..Mend::default() }
    }

    #[test]
    fn p0_3_the_plugin_is_turned_on_and_nothing_else_changes() {
        let text = "# as the package has it\ndisabled_plugins = [\"cri\", \"btrfs\"] # two\n\n#root = \"/x\"\n";
        let wanted = Mend { enable_cri: true, ..Mend::default() };
        let new = mend(text, &wanted, true).unwrap().unwrap();
        assert!(!new.contains("cri") && new.contains("\"btrfs\"] # two\n\n#root"), "{new}");
        assert_eq!(mend(&new, &wanted, true).unwrap(), None);
    }

    #[test]
    fn p0_2_the_driver_is_set_where_it_stands() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n  \
                    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n    SystemdCgroup = false # slow\n";
        let new = mend(text, &systemd(), true).unwrap().unwrap();
        assert_eq!(new, text.replace("= false", "= true"));
        assert_eq!(mend(&new, &systemd(), true).unwrap(), None, "a second time there is nothing to do");
    }

    #[test]
    fn p0_2_the_driver_is_added_where_it_is_missing() {
        for (text, table) in [
            ("", "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]"),
            ("version = 3\n", "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc.options]"),
        ] {
            let new = mend(text, &systemd(), true).unwrap().unwrap();
            assert!(new.contains(&format!("{table}\nSystemdCgroup = true\n")), "{new}");
            assert!(new.contains("runtime_type = \"io.containerd.runc.v2\"") && new.starts_with("version = "), "{new}");
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("config.toml");
            std::fs::write(&path, &new).unwrap();
            let found = super::super::read(&path, root.path()).unwrap().unwrap();
            assert!(found.systemd_cgroup.unwrap().value);
            assert_eq!(mend(&new, &systemd(), true).unwrap(), None);
        }
        assert_eq!(mend("version = 2\n", &systemd(), false).unwrap(), None, "an imported file gets nothing new");
    }

    #[test]
    fn p0_5_sandbox_image_and_registries() {
        let wanted = Mend { sandbox_image: Some("weft:1".into()), config_path: true, ..Mend::default() };
        let new = mend("version = 3\n[debug]\nlevel = 'info'\n", &wanted, true).unwrap().unwrap();
        assert!(
            new.contains("sandbox = \"weft:1\"") && new.contains("config_path = \"/etc/containerd/certs.d\""),
            "{new}"
        );
        assert!(new.contains("[debug]\nlevel = 'info'\n"), "{new}");
        assert!(mend("plugins = 1\n", &wanted, true).unwrap_err().contains("plugins is no table"));
    }
}
