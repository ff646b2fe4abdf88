//! The structure of `src`, read off its paths: layers use only lower layers, no files use each other in a circle, crates stay
//! in their rooms, and every file says what it is.
//!
//! # What counts as a use
//!
//! A path in code, in a `use` or elsewhere, that begins with `crate`, `super`, `self` or a child module, followed through
//! re-exports to the file that defines the item. Comments, strings and test modules do not count, and neither do two things:
//! a re-export (`pub use`, `pub mod`), so that a file that only re-exports uses nothing; and a child's use of its parent, where
//! the parent re-exports the child or something of it, so that a folder's `mod.rs` may hold the types that its files are about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Layers, lowest first; modules on one line may not use each other unless they are the same module.
const LAYERS: &[&[&str]] = &[
    &["message", "shape", "trace", "wait"],
    &["tensor"],
    &["format"],
    &["random", "weights"],
    &["sharding", "kernel"],
    &["ops"],
    &["graph"],
    &["model", "plan"],
    &["import"],
    &["hub"],
    &["program"],
    &["device", "comm"],
    &["session"],
    &["text", "report"],
    &["generate"],
    &["error"],
    &["chat", "measure", "proof"],
];

/// Modules that each module of the library uses: files by module path, and for each file the files it uses.
struct House {
    /// The file of each module, by the module's path: `["session", "rank"]`.
    modules: BTreeMap<Vec<String>, String>,
    /// For each module what it re-exports, by name.
    exports: BTreeMap<Vec<String>, HashMap<String, Vec<String>>>,
    /// For each file the files that it uses, each with the path by which it does.
    uses: BTreeMap<String, BTreeMap<String, String>>,
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The sources below `src`, by their paths from there, with `/` between folders.
fn sources() -> BTreeMap<String, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    let local = |path: &Path| path.strip_prefix(&source).unwrap().to_str().unwrap().replace('\\', "/");
    all.iter().map(|path| (local(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The code of a file: without its tests, comments and the contents of strings.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let text = text.split("#[cfg(test)]\npub").next().unwrap();
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if c == '"' {
            let mut end = 1;
            while end < rest.len() && !rest[end..].starts_with('"') {
                end += if rest[end..].starts_with('\\') { 1 } else { 0 };
                end += rest[end..].chars().next().map_or(1, char::len_utf8);
            }
            (end + 1).min(rest.len())
        } else if rest.starts_with("'\"'") {
            3
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[skipped..];
    }
    // `pub(in super::super)` says who may use an item, and uses nothing.
    let mut parts = out.split("pub(in ");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |out, part| out + "pub" + part.split_once(')').map_or("", |(_, after)| after))
}

/// The paths of a use tree: `a::{b, c::{self, D as E}}` gives `a::b`, `a::c` and `a::c::D as E`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else {
        return vec![tree.trim_end_matches("::self").to_string()];
    };
    let inside = inside.trim_end().strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(&format!("{before}{part}"))).collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The statements `use ...;` of `code`, each with whether it re-exports, and the rest of the code.
fn statements(code: &str) -> (Vec<(bool, String)>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let public = start.starts_with("pub");
        let tree = match start.strip_prefix("use ") {
            Some(tree) => Some(tree),
            None if public => start.split_once(" use ").filter(|(head, _)| !head.contains(' ')).map(|(_, tree)| tree),
            None => None,
        };
        let Some(tree) = tree else {
            rest += line;
            rest.push('\n');
            continue;
        };
        let mut tree = tree.to_string();
        while !tree.contains(';') {
            tree.push(' ');
            tree += lines.next().unwrap_or(";");
        }
        let tree = tree.split(';').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        found.push((public, tree));
    }
    (found, rest)
}

/// The paths in `code` that begin with one of `roots`: `super::rank::Rank`.
fn paths(code: &str, roots: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            if code[..at].ends_with(|c: char| is_word(c) || c == ':') {
                continue;
            }
            let path: String = code[at..].chars().take_while(|c| is_word(*c) || *c == ':').collect();
            found.push(path.trim_end_matches(':').to_string());
        }
    }
    found
}

impl House {
    fn read() -> House {
        let sources: BTreeMap<String, String> =
            sources().into_iter().filter(|(file, _)| !file.starts_with("bin/") && file != "lib.rs").collect();
        let modules: BTreeMap<Vec<String>, String> =
            sources.keys().map(|file| (House::module(file), file.clone())).collect();
        let mut house = House { modules, exports: BTreeMap::new(), uses: BTreeMap::new() };
        let parsed: BTreeMap<&String, _> = sources.iter().map(|(file, text)| (file, statements(&code(text)))).collect();
        for (file, (uses, code)) in &parsed {
            let here = House::module(file);
            let mut exports = HashMap::new();
            for (_, tree) in uses.iter().filter(|(public, _)| *public) {
                for path in expand(tree) {
                    let (path, name) = match path.split_once(" as ") {
                        Some((path, name)) => (path.to_string(), name.to_string()),
                        None => (path.clone(), path.rsplit("::").next().unwrap().to_string()),
                    };
                    exports.extend(house.absolute(&path, &here).map(|target| (name, target)));
                }
            }
            let children = code.lines().filter_map(|line| {
                let line = line.trim().strip_prefix("pub")?.trim_start_matches(|c: char| c != ' ').trim_start();
                Some(line.strip_prefix("mod ")?.trim_end_matches(';').to_string())
            });
            exports.extend(children.map(|child| (child.clone(), [here.clone(), vec![child]].concat())));
            house.exports.insert(here, exports);
        }
        for (file, (uses, code)) in &parsed {
            let here = House::module(file);
            let imported = uses.iter().filter(|(public, _)| !public).flat_map(|(_, tree)| expand(tree));
            let mut named: Vec<String> = imported.map(|path| path.split(" as ").next().unwrap().to_string()).collect();
            named.extend(paths(code, &["crate", "super", "self"]));
            let children = house.modules.keys().filter(|path| path.split_last().is_some_and(|(_, up)| *up == here));
            let children: Vec<&str> = children.filter_map(|path| path.last()).map(String::as_str).collect();
            named.extend(paths(code, &children));
            // What a file re-exports and also names in its own code, it uses.
            let words = code.lines().filter(|line| !line.trim_end().ends_with(';') || !line.contains("mod "));
            let words: BTreeSet<&str> = words.flat_map(|line| line.split(|c| !is_word(c))).collect();
            let used = house.exports[&here].iter().filter(|(name, _)| words.contains(name.as_str()));
            named.extend(used.map(|(_, target)| format!("crate::{}", target.join("::"))));
            let targets = named.into_iter().filter_map(|path| {
                let target = house.absolute(path.trim_end_matches("::*"), &here)?;
                Some((house.file_of(&target, 0)?, path))
            });
            let targets: BTreeMap<String, String> = targets.filter(|(target, _)| target != *file).collect();
            house.uses.insert((*file).clone(), targets);
        }
        house
    }

    /// The module that a file is: `session/rank.rs` is `["session", "rank"]`, `session/mod.rs` is `["session"]`.
    fn module(file: &str) -> Vec<String> {
        let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(str::to_string).collect()
    }

    /// `path` as seen in the module `here`, from the crate's root; `None` where it is of another crate.
    fn absolute(&self, path: &str, here: &[String]) -> Option<Vec<String>> {
        let mut words = path.split("::").peekable();
        let mut start = match *words.peek()? {
            "crate" => Vec::new(),
            "self" | "super" => here.to_vec(),
            child => {
                let child = [here, &[child.to_string()]].concat();
                return self
                    .modules
                    .contains_key(&child)
                    .then(|| [here, &words.map(String::from).collect::<Vec<_>>()].concat());
            }
        };
        while let Some(word) = words.next_if(|word| ["crate", "self", "super"].contains(word)) {
            if word == "super" {
                start.pop();
            }
        }
        start.extend(words.map(str::to_string));
        Some(start)
    }

    /// The file that defines the item at `path`, followed through re-exports.
    fn file_of(&self, path: &[String], depth: usize) -> Option<String> {
        for n in (1..=path.len()).rev() {
            let (module, rest) = path.split_at(n);
            let Some(file) = self.modules.get(module) else { continue };
            let export = rest.first().and_then(|name| self.exports[module].get(name));
            return match export {
                Some(target) if depth < 10 && target != path => {
                    self.file_of(&[target.as_slice(), &rest[1..]].concat(), depth + 1)
                }
                _ => Some(file.clone()),
            };
        }
        None
    }

    /// Whether `parent` re-exports its child `file`, or something of it.
    fn reexports(&self, parent: &str, file: &str) -> bool {
        let (child, parent) = (House::module(file), House::module(parent));
        child.split_last().is_some_and(|(_, up)| *up == parent)
            && self.exports[&parent].values().any(|target| target.starts_with(&child))
    }

    /// The uses that may close a circle.
    fn edges<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a String> {
        self.uses[file].keys().filter(move |target| !self.reexports(target, file))
    }

    /// The files that `from` uses, directly or through others.
    fn reach<'a>(&'a self, from: &'a String) -> BTreeSet<&'a String> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            next.extend(self.edges(file).filter(|target| seen.insert(*target)));
        }
        seen
    }

    /// Files that use each other, directly or through others, as groups.
    fn circles(&self) -> Vec<Vec<&String>> {
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            self.uses.keys().map(|file| (file, self.reach(file))).collect();
        let mut groups: Vec<Vec<&String>> = Vec::new();
        for (file, reaches) in reached.iter().filter(|(file, reaches)| reaches.contains(*file)) {
            match groups.iter_mut().find(|group| reaches.contains(group[0]) && reached[group[0]].contains(*file)) {
                Some(group) => group.push(file),
                None => groups.push(vec![file]),
            }
        }
        groups
    }
}

#[test]
fn layers_use_only_what_lies_below_them() {
    let house = House::read();
    let level: HashMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |n| (*n, i))).collect();
    let of = |file: &str| {
        let module = House::module(file)[0].clone();
        let level = *level.get(module.as_str()).unwrap_or_else(|| panic!("src/{file} has no place in the layering"));
        (module, level)
    };
    let mut checked = 0;
    for (file, targets) in &house.uses {
        let (own, own_level) = of(file);
        for (target, path) in targets {
            let (other, other_level) = of(target);
            assert!(other_level < own_level || other == own, "src/{file} uses {path}, which does not lie below {own}");
            checked += 1;
        }
    }
    assert!(checked > 500, "only {checked} uses were found: the test reads nothing");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let house = House::read();
    let circles = house.circles();
    let told = circles.iter().map(|group| {
        let each = group.iter().map(|file| {
            let within = house.edges(file).filter(|target| group.contains(target));
            let within: Vec<&str> = within.map(|target| house.uses[*file][target].as_str()).collect();
            format!("  src/{file} uses {}\n", within.join(", "))
        });
        each.collect::<String>()
    });
    assert!(circles.is_empty(), "files that use each other in a circle:\n{}", told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn uses_are_read_in_every_spelling() {
    assert_eq!(
        expand("crate::{a, b::{self, C as D, e::F}}"),
        ["crate::a", "crate::b", "crate::b::C as D", "crate::b::e::F"]
    );
    let house = House::read();
    let here = ["text", "template", "jinja", "value"].map(str::to_string);
    let absolute = |path| house.absolute(path, &here).map(|path| path.join("::"));
    assert_eq!(absolute("super::super::Message").as_deref(), Some("text::template::Message"));
    assert_eq!(absolute("crate::shape::Dim").as_deref(), Some("shape::Dim"));
    assert_eq!(absolute("dict::Dict").as_deref(), Some("text::template::jinja::value::dict::Dict"));
    assert_eq!(absolute("serde::Serialize"), None);
    let file = |path: &[&str]| house.file_of(&path.iter().map(|s| s.to_string()).collect::<Vec<_>>(), 0);
    assert_eq!(file(&["session", "Rank", "new"]).as_deref(), Some("session/rank.rs"));
    let text = "use a::b; // use c::d;\npub(crate) use self::e::{\n    F,\n    G,\n};\nlet s = \"use crate::x\"; pub(in super::super) fn f() {}";
    let (uses, rest) = statements(&code(text));
    assert_eq!(uses, [(false, "a::b".to_string()), (true, "self::e::{ F, G, }".to_string())]);
    assert!(paths(&rest, &["super", "crate"]).is_empty(), "{rest}");
}

fn naming(word: &str, folders: &[&str]) {
    for (file, text) in sources() {
        if folders.iter().any(|folder| file.starts_with(folder)) {
            continue;
        }
        let named = text.lines().find(|line| !line.trim_start().starts_with("//") && line.contains(word));
        assert!(named.is_none(), "src/{file} names {word}: {}", named.unwrap_or_default());
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    naming("wgpu::", &["device/gpu/"]);
    naming("clap::", &["bin/"]);
    naming("anyhow::", &["bin/"]);
    naming("rustyline::", &["bin/"]);
    naming("comfy_table::", &["bin/"]);
    naming("tokenizers::", &["text/"]);
    naming("jiff::", &["text/template/"]);
    naming("ureq::", &["hub/"]);
    naming("tracing::", &["trace.rs"]);
}

#[test]
fn every_file_opens_with_what_it_is() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "src/{file} opens without a word on what it is");
    }
}
