//! What the file, and those that it imports, say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item};

use super::keys::{CRI_PLUGINS, Key};
use crate::bootstrap::cri::CgroupDriver;
use crate::bootstrap::host::facts::Told;

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// A setting and where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// Its value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// What the configuration says of pods. What it does not say is `None`: containerd's default then holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// The main file.
    pub path: PathBuf,
    /// Its files, the main one first.
    pub files: Vec<PathBuf>,
    /// Version of the main file's format.
    pub version: i64,
    /// Where the CRI plugin is turned off.
    pub disabled: Option<Place>,
    /// Name of the runtime that pods get.
    pub runtime: String,
    /// Whether that runtime asks systemd for cgroups.
    pub systemd_cgroup: Option<Setting<bool>>,
    /// The sandbox image.
    pub sandbox_image: Option<Setting<String>>,
    /// Where registries' directories are.
    pub config_path: Option<Setting<String>>,
    /// Mirrors the old way, which containerd does not take together with `config_path`.
    pub inline_mirrors: Option<Place>,
}

impl Containerd {
    /// The cgroup driver that pods get.
    #[must_use]
    pub fn driver(&self) -> CgroupDriver {
        match self.systemd_cgroup {
            Some(Setting { value: true, .. }) => CgroupDriver::Systemd,
            _ => CgroupDriver::Cgroupfs,
        }
    }

    /// The line that gives that runtime systemd's cgroups, with the table that it belongs to.
    #[must_use]
    pub fn systemd_line(&self) -> String {
        let mut path = Key::SystemdCgroup(&self.runtime).path(self.version);
        let key = path.pop().unwrap_or_default();
        let quoted =
            path.iter().map(|part| if part.contains('.') { format!("\"{part}\"") } else { (*part).to_owned() });
        format!("[{}] {key} = true", quoted.collect::<Vec<_>>().join("."))
    }
}

/// Reads the file and what it imports; `None` if there is no file.
///
/// # Errors
/// What cannot be read or makes no sense, with file and line.
pub fn read(path: &Path, root: &Path) -> Option<Told<Containerd>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(format!("{}: {error}", path.display()))),
    };
    Some(whole(path, root, text))
}

fn whole(path: &Path, root: &Path, text: String) -> Told<Containerd> {
    let main = parse(path, text)?;
    let mut found = Containerd {
        path: path.to_owned(),
        files: vec![path.to_owned()],
        version: version(&main.document),
        disabled: None,
        runtime: "runc".to_owned(),
        systemd_cgroup: None,
        sandbox_image: None,
        config_path: None,
        inline_mirrors: None,
    };
    let mut files = vec![main];
    for import in imports(&files[0].document, root) {
        let text = fs::read_to_string(&import).map_err(|error| format!("{}: {error}", import.display()))?;
        found.files.push(import.clone());
        files.push(parse(&import, text)?);
    }
    let runtime =
        files.iter().filter_map(|file| file.get(Key::DefaultRuntime)?.as_str().map(str::to_owned)).next_back();
    if let Some(runtime) = runtime.filter(|name| !name.is_empty()) {
        found.runtime = runtime;
    }
    for file in &files {
        if let Some(disabled) = file.disabled() {
            found.disabled = Some(disabled);
        }
        let systemd = file.setting(Key::SystemdCgroup(&found.runtime), Item::as_bool);
        found.systemd_cgroup = systemd.or(found.systemd_cgroup);
        found.sandbox_image = file.text(Key::SandboxImage).or(found.sandbox_image);
        found.config_path = file.text(Key::ConfigPath).or(found.config_path);
        let mirrors =
            file.get(Key::InlineMirrors).filter(|item| item.as_table_like().is_some_and(|table| !table.is_empty()));
        found.inline_mirrors = mirrors.map(|item| file.place(item)).or(found.inline_mirrors);
    }
    Ok(found)
}

struct File {
    path: PathBuf,
    document: Document<String>,
}

impl File {
    fn get(&self, key: Key<'_>) -> Option<&Item> {
        let mut item = self.document.as_item();
        for part in key.path(version(&self.document)) {
            item = item.get(part)?;
        }
        Some(item)
    }

    fn setting<'a, T>(&'a self, key: Key<'_>, value: impl Fn(&'a Item) -> Option<T>) -> Option<Setting<T>> {
        let item = self.get(key)?;
        Some(Setting { value: value(item)?, place: self.place(item) })
    }

    fn text(&self, key: Key<'_>) -> Option<Setting<String>> {
        self.setting(key, |item| item.as_str().map(str::to_owned)).filter(|setting| !setting.value.is_empty())
    }

    fn place(&self, item: &Item) -> Place {
        let offset = item.span().map_or(0, |span| span.start);
        Place { file: self.path.clone(), line: line(self.document.raw(), offset) }
    }

    fn disabled(&self) -> Option<Place> {
        let list = self.document.get("disabled_plugins")?.as_array()?;
        let found = list.iter().find(|value| value.as_str().is_some_and(|name| CRI_PLUGINS.contains(&name)))?;
        let offset = found.span().map_or(0, |span| span.start);
        Some(Place { file: self.path.clone(), line: line(self.document.raw(), offset) })
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn parse(path: &Path, text: String) -> Told<File> {
    let document = Document::parse(text).map_err(|error| {
        let message = error.message();
        format!("{} is no TOML: {message}", path.display())
    })?;
    Ok(File { path: path.to_owned(), document })
}

/// A file without a version is of the first.
pub(super) fn version(document: &toml_edit::Table) -> i64 {
    document.get("version").and_then(Item::as_integer).unwrap_or(1)
}

/// Imported files that are there; a last component may hold one `*`.
fn imports(document: &Document<String>, root: &Path) -> Vec<PathBuf> {
    let list = document.get("imports").and_then(Item::as_array);
    let patterns = list.into_iter().flat_map(|list| list.iter()).filter_map(toml_edit::Value::as_str);
    let mut files = Vec::new();
    for pattern in patterns {
        let pattern = root.join(pattern.strip_prefix('/').unwrap_or(pattern));
        let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str()))
        else {
            continue;
        };
        let (head, tail) = name.split_once('*').unwrap_or((name, ""));
        let fits = |path: &PathBuf| {
            let found = path.file_name().and_then(|found| found.to_str()).unwrap_or_default();
            found == name || name.contains('*') && found.starts_with(head) && found.ends_with(tail)
        };
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        let mut fitting: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
        fitting.sort();
        files.extend(fitting);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Containerd {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.toml");
        fs::write(&path, text).unwrap();
        read(&path, root.path()).unwrap().unwrap()
    }

    #[test]
    fn p0_3_a_disabled_cri_plugin_is_found_with_its_line() {
        for name in CRI_PLUGINS {
            let text = format!("# Debian's\nversion = 2\ndisabled_plugins = [\n  \"btrfs\",\n  \"{name}\",\n]\n");
            assert_eq!(found(&text).disabled.unwrap().line, 5, "{name}");
        }
        assert_eq!(found("disabled_plugins = [\"cri\"]\n").disabled.unwrap().line, 1);
        assert_eq!(found("disabled_plugins = []\n").disabled, None);
    }

    #[test]
    fn p0_2_the_cgroup_driver_is_read_from_each_version() {
        let one = "[plugins.cri.containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
        let two = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n";
        let three = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'crun'\n\
                     [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.crun.options]\nSystemdCgroup = true\n";
        for (text, line) in [(one, 2), (two, 3), (three, 5)] {
            let found = found(text);
            assert_eq!(found.driver(), CgroupDriver::Systemd);
            assert_eq!(found.systemd_cgroup.unwrap().place.line, line);
        }
        let nothing = found("version = 2\n");
        assert_eq!(nothing.driver(), CgroupDriver::Cgroupfs);
        assert_eq!(
            nothing.systemd_line(),
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options] SystemdCgroup = true"
        );
    }

    #[test]
    fn images_and_registries_are_read_from_each_version() {
        let two = found(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.k8s.io/pause:3.8\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n",
        );
        assert_eq!(two.sandbox_image.unwrap().value, "registry.k8s.io/pause:3.8");
        assert!(two.inline_mirrors.is_some() && two.config_path.is_none());
        let three = found(
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'p:1'\n\
             [plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
        );
        assert_eq!(three.sandbox_image.unwrap().value, "p:1");
        assert_eq!(three.config_path.unwrap().value, "/etc/containerd/certs.d");
    }

    #[test]
    fn imported_files_have_the_last_word() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/containerd/config.toml");
        fs::create_dir_all(root.path().join("etc/containerd/conf.d")).unwrap();
        fs::write(&path, "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n").unwrap();
        let cri = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nSystemdCgroup = true\n";
        fs::write(root.path().join("etc/containerd/conf.d/10.toml"), format!("version = 2\n{cri}")).unwrap();
        fs::write(root.path().join("etc/containerd/conf.d/10.toml.old"), "nonsense").unwrap();
        let found = read(&path, root.path()).unwrap().unwrap();
        assert_eq!(found.driver(), CgroupDriver::Systemd);
        assert!(found.systemd_cgroup.unwrap().place.file.ends_with("conf.d/10.toml"));
    }

    #[test]
    fn no_file_is_no_fault_and_nonsense_is_told() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.toml");
        assert!(read(&path, root.path()).is_none());
        fs::write(&path, "version = \n").unwrap();
        assert!(read(&path, root.path()).unwrap().unwrap_err().contains("is no TOML"));
    }
}
