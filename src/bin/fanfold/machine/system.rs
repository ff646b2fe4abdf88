//! What is installed on this machine that fanfold depends on: the Vulkan loader, Vulkan drivers, environment variables.
//!
//! It looks for files and reads variables, and loads no driver. Read `commands/doctor.rs` for the command that prints the
//! result; `./dev setup` looks in the same places and installs what is missing.

use super::folders::caches;
use serde::Serialize;
use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Serialize)]
pub struct System {
    version: &'static str,
    features: Vec<&'static str>,
    os: &'static str,
    arch: &'static str,
    /// The Vulkan loader. `None` on systems that reach a GPU in another way, such as Metal.
    loader: Option<PathBuf>,
    /// The manifests of the Vulkan drivers that a loader would read.
    drivers: Vec<PathBuf>,
    /// The manifest of lavapipe, a software driver that the tests run on.
    lavapipe: Option<PathBuf>,
    /// The manifest of SwiftShader, the other software driver that the tests run on.
    swiftshader: Option<PathBuf>,
    /// Those of [`VARIABLES`] that are set.
    environment: BTreeMap<&'static str, String>,
}

/// Variables that change which driver is loaded, how it computes, or where models come from.
const VARIABLES: [&str; 17] = [
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_LOADER_DRIVERS_DISABLE",
    "VK_INSTANCE_LAYERS",
    "MESA_VK_DEVICE_SELECT",
    "DRI_PRIME",
    "LIBGL_ALWAYS_SOFTWARE",
    "LP_NUM_THREADS",
    "FANFOLD_REQUIRE_GPU",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
];

/// Variables whose value is secret: the report says only that they are set.
const SECRET: [&str; 1] = ["HF_TOKEN"];

/// The folders that a Vulkan loader reads manifests of drivers from, as `./dev` knows them.
const MANIFESTS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// The entries of a folder whose names end with `end`, sorted; none where the folder cannot be read.
fn entries(folder: &Path, end: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    found.sort();
    found
}

/// The manifests that a variable names in place of those in the folders, and the variable's name.
fn named() -> Option<(&'static str, Vec<PathBuf>)> {
    // Loaders before version 1.3.207 know only the second name.
    ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .into_iter()
        .find_map(|name| Some((name, env::split_paths(&env::var_os(name).filter(|v| !v.is_empty())?).collect())))
}

fn loader() -> Option<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/lib64"), "/usr/lib".into(), "/usr/local/lib".into()];
    ["/usr/lib", "/lib"].iter().for_each(|parent| folders.extend(entries(Path::new(parent), "")));
    folders.into_iter().map(|folder| folder.join("libvulkan.so.1")).find(|path| path.is_file())
}

impl System {
    /// Looks at the files and variables of this machine.
    pub fn find() -> System {
        let linux = cfg!(target_os = "linux");
        let installed: Vec<PathBuf> = MANIFESTS.iter().flat_map(|folder| entries(Path::new(folder), ".json")).collect();
        let is_lavapipe =
            |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lvp_icd"));
        let swiftshader = caches().join("fanfold/swiftshader/vk_swiftshader_icd.json");
        let value = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let shown = |name: &'static str| {
            Some((name, if SECRET.contains(&name) { value(name).map(|_| "set".to_string())? } else { value(name)? }))
        };
        System {
            version: env!("CARGO_PKG_VERSION"),
            features: ["cli", "text"].into_iter().chain(cfg!(feature = "hub").then_some("hub")).collect(),
            os: env::consts::OS,
            arch: env::consts::ARCH,
            loader: loader().filter(|_| linux),
            lavapipe: installed.iter().find(is_lavapipe).cloned(),
            drivers: named().map_or(installed, |(_, files)| files),
            swiftshader: Some(swiftshader).filter(|path| path.is_file()),
            environment: VARIABLES.into_iter().filter_map(shown).collect(),
        }
    }

    /// Settings that cannot work, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let Some((name, files)) = named() else { return Vec::new() };
        let missing = files.iter().filter(|path| !path.exists());
        missing.map(|path| format!("{name} names {}, which does not exist", path.display())).collect()
    }

    /// What to install, one sentence each.
    pub fn advice(&self, no_adapter: bool) -> Vec<String> {
        let mut advice = Vec::new();
        if no_adapter {
            advice.push(match self.os {
                "linux" => format!(
                    "install your GPU's Vulkan driver and the Vulkan loader; a software driver, slow, and the loader: {}",
                    install()
                ),
                "macos" => "the GPU is reached through Metal, nothing to install: is this a virtual machine without one?"
                    .to_string(),
                _ => "the GPU is reached through its own driver: install the one its vendor offers".to_string(),
            });
            advice.push("without any, `--devices host` computes on the processor, slowly and exactly".to_string());
        } else if self.os == "linux" && self.lavapipe.is_none() {
            advice.push(format!("to run fanfold's tests: `./dev setup`, or {}", install()));
        }
        advice
    }
}

/// The command that installs a software driver and the loader on this Linux distribution, or the commands of all known
/// distributions where this one is not among them.
fn install() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default().to_lowercase();
    let ids: Vec<&str> =
        release.lines().filter_map(|line| line.strip_prefix("id=").or(line.strip_prefix("id_like="))).collect();
    let ids = ids.join(" ");
    let ways = [
        (["debian", "ubuntu"], "Debian, Ubuntu", "apt-get install mesa-vulkan-drivers libvulkan1"),
        (["fedora", "rhel"], "Fedora", "dnf install mesa-vulkan-drivers vulkan-loader"),
        (["arch", "manjaro"], "Arch", "pacman -S vulkan-swrast vulkan-icd-loader"),
    ];
    match ways.iter().find(|(names, ..)| names.iter().any(|name| ids.contains(name))) {
        Some((_, _, command)) => format!("`{command}`"),
        None => ways.map(|(_, system, command)| format!("{system}: `{command}`")).join("; "),
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &Option<PathBuf>| path.as_ref().map_or("not found".to_string(), |p| p.display().to_string());
        writeln!(f, "fanfold {} ({}), {} on {}", self.version, self.features.join(", "), self.os, self.arch)?;
        if self.os == "linux" {
            writeln!(f, "Vulkan loader: {}", path(&self.loader))?;
            let drivers: Vec<String> = self.drivers.iter().map(|path| path.display().to_string()).collect();
            writeln!(
                f,
                "Vulkan drivers: {}",
                if drivers.is_empty() { "none found".into() } else { drivers.join(", ") }
            )?;
            writeln!(f, "for the tests: lavapipe {}; SwiftShader {}", path(&self.lavapipe), path(&self.swiftshader))?;
        }
        self.environment.iter().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}
