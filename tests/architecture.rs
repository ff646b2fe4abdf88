//! The layering, read off the `use` lines: each layer uses only layers above it in this list.

use std::collections::HashMap;
use std::path::Path;

/// Layers, lowest first; modules on one line may not use each other unless they are the same module.
const LAYERS: &[&[&str]] = &[
    &["tensor", "error", "wait"],
    &["sharding", "kernel"],
    &["ops"],
    &["graph"],
    &["import", "plan"],
    &["hub"],
    &["program"],
    &["device", "comm"],
    &["session"],
    &["text", "report"],
    &["generate"],
    &["verify", "chat", "bench", "perplexity"],
    &["selftest"],
];

fn files(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The modules that a source names by `crate::`, its tests left out.
fn uses(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = lines.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>())
    });
    names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())).collect()
}

#[test]
fn layers_use_only_what_lies_above_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let level: HashMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |n| (*n, i))).collect();
    let mut all = Vec::new();
    files(&source, &mut all);
    let mut checked = 0;
    for path in all {
        let local = path.strip_prefix(&source).unwrap();
        let first = local.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if module == "lib" || module == "bin" {
            continue;
        }
        let own = *level.get(module).unwrap_or_else(|| panic!("src/{first} has no place in the layering"));
        for used in uses(&std::fs::read_to_string(&path).unwrap()) {
            let Some(&other) = level.get(used.as_str()) else { continue };
            // The two lowest name each other: an error carries shapes, a tensor returns errors.
            let allowed = other < own || used == module || own == 0;
            assert!(allowed, "{} uses {used}, which does not lie above {module}", local.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} uses were found: the test reads nothing");
}

fn naming(word: &str, folders: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    for path in all {
        let local = path.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
        if folders.iter().any(|folder| local.starts_with(folder)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let named = text.lines().find(|line| !line.trim_start().starts_with("//") && line.contains(word));
        assert!(named.is_none(), "src/{local} names {word}: {}", named.unwrap_or_default());
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    naming("wgpu::", &["device/gpu/"]);
    naming("clap::", &["bin/"]);
    naming("anyhow::", &["bin/"]);
    naming("tokenizers::", &["text/"]);
    naming("jiff::", &["text/template/"]);
    naming("ureq::", &["hub/"]);
}

#[test]
fn every_module_opens_with_what_it_is() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} opens without a word on what it is", path.display());
    }
}
