//! Error messages: each cause is printed once, with its file, and without characters that a terminal would obey.

mod common;

use assert_cmd::Command;
use common::{Fault, Faulty, fixture, hosts};
use fanfold::Error;
use fanfold::device::DeviceError;
use fanfold::device::host::HostDevice;
use fanfold::generate::{Engine, EngineOptions};
use fanfold::message::shown;
use fanfold::model::Model;
use fanfold::plan::PlanError;
use fanfold::plan::{Plan, Strategy, plan};
use fanfold::program::lower;
use fanfold::session::SessionError;
use fanfold::sharding::Cut;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The error and its causes, as a chain of errors is printed.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// No part of the message between colons appears twice.
#[track_caller]
fn says_it_once(text: &str) {
    let parts: Vec<&str> = text.split(": ").map(str::trim).filter(|part| part.len() > 3).collect();
    for (i, part) in parts.iter().enumerate() {
        assert!(!parts[..i].contains(part), "{part:?} stands twice in: {text}");
    }
}

/// The sources of the library by their paths, without those of the program.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "bin") {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

/// A cause that an error prints itself must not also be its `source()`, or a chain would print it twice. The derive
/// makes a `source()` of a field of that name, of `#[from]` and of `transparent`.
#[test]
fn no_cause_is_both_printed_and_chained() {
    let derived: Vec<_> = sources().into_iter().filter(|(_, text)| text.contains("thiserror::Error")).collect();
    assert!(derived.len() > 12, "only {} files derive errors: the test reads nothing", derived.len());
    for (path, text) in derived {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            assert!(!line.starts_with("source:") && !line.starts_with("pub source:"), "{path}: {line}");
            for chained in ["{source", "#[from]", "#[source]", "error(transparent", "#[backtrace]"] {
                assert!(!line.contains(chained), "{path}: {line}");
            }
        }
    }
}

/// The string literals of a source file, without its unit tests and comments.
fn literals(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(c) = rest.chars().next() {
        let end = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '\'' if rest.starts_with("'\"'") => 3,
            'r' if rest.starts_with("r#\"") => {
                let end = rest.find("\"#").unwrap_or(rest.len() - 2);
                found.push(rest[3..end.max(3)].to_string());
                end + 2
            }
            '"' => {
                let mut escaped = false;
                let closing = |(_, c): &(usize, char)| {
                    let closes = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                };
                let end = rest.char_indices().skip(1).find(closing).map_or(rest.len() - 1, |(at, _)| at);
                found.push(rest[1..end].to_string());
                end + 1
            }
            other => other.len_utf8(),
        };
        rest = &rest[end..];
    }
    found
}

/// The first word in `text` that belongs to the command line: an option or a subcommand.
fn command_word(text: &str) -> Option<String> {
    let starts = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_');
    let option = text.match_indices('-').filter(|(at, _)| starts(*at)).find_map(|(at, _)| {
        let word: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        let name = word.trim_start_matches('-');
        let long = word.starts_with("--") && name.starts_with(|c: char| c.is_ascii_alphabetic());
        let short = word.len() == 2 && name.len() == 1 && name.chars().all(|c| c.is_ascii_alphabetic());
        (long || short).then_some(word)
    });
    let commands =
        ["run", "chat", "embed", "rank", "classify", "plan", "verify", "bench", "perplexity", "pull", "devices"];
    let command = || commands.into_iter().map(|name| format!("fanfold {name}")).find(|call| text.contains(call));
    let other = || ["in the library", "command line", "HF_"].into_iter().find(|words| text.contains(words));
    option.or_else(command).or_else(|| other().map(String::from))
}

/// Users of the library may have no command line, so the program adds such words itself.
#[test]
fn the_library_says_no_word_of_the_command_line() {
    for (text, word) in [
        ("use a smaller context (-c)", Some("-c")),
        ("other --ratios, or", Some("--ratios")),
        ("`fanfold pull {id}` fetches it", Some("fanfold pull")),
        ("a - b, all-reduce, -1, -inf, {x:->9}, --, a--b", None),
    ] {
        assert_eq!(command_word(text).as_deref(), word, "{text}");
    }
    let text = "let a = \"x \\\" --y\"; // \"--no\"\nlet b = r#\"--z\"#; let c = '\"'; \"é\"\n#[cfg(test)]\nmod tests { \"--t\" }";
    assert_eq!(literals(text), ["x \\\" --y", "--z", "é"]);
    let mut read = 0;
    for (path, text) in sources() {
        for literal in literals(&text) {
            assert_eq!(command_word(&literal), None, "{path}: {literal:?}");
            read += 1;
        }
    }
    assert!(read > 2000, "only {read} literals were found: the test reads nothing");
}

#[test]
fn every_layer_prints_its_cause_once() {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let two = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    let mut errors: Vec<Error> = Vec::new();
    let mut cut = |ranges: [std::ops::Range<usize>; 2]| {
        let mut plan = two.clone();
        plan.nodes.iter_mut().find(|node| node.node == "lm_head").unwrap().cut = Cut::new(ranges.to_vec());
        errors.push(lower(model.graph(), &plan).unwrap_err().into());
    };
    cut([200..384, 0..200]);
    cut([0..100, 200..384]);
    cut([0..200, 200..385]);
    for fault in [Fault::Lost, Fault::Panics, Fault::Hangs(Duration::from_secs(5))] {
        let mut devices = hosts(2);
        devices[1] = Box::new(Faulty { host: HostDevice::new(), at: 9, fault });
        let options = EngineOptions::default().context(16).deadline(Duration::from_millis(400));
        let mut engine = Engine::open(model.clone(), &two, devices, options, Arc::new(|_| ())).unwrap();
        errors.push(engine.feed(&[1]).unwrap_err().into());
        errors.push(engine.feed(&[1]).unwrap_err().into());
    }
    let room =
        DeviceError::OutOfMemory { device: "one".into(), what: "activations".into(), bytes: 7, reason: "full".into() };
    let cause = Box::new(room.into());
    errors.push(SessionError::Rank { rank: 0, device: "one".into(), node: Some("lm_head".into()), cause }.into());
    errors.extend(["{", "{\"fanfold\": 2}", "[]"].map(|text| Plan::from_json(text).unwrap_err().into()));
    errors.extend(["nowhere", "Cargo.toml", "src"].map(|path| Model::open(path).map(drop).unwrap_err().into()));
    errors.extend(["", "a/b/c"].map(|name| name.parse::<fanfold::hub::ModelId>().unwrap_err().into()));
    for error in errors {
        says_it_once(&chain(&error));
        assert_eq!(chain(&error), error.to_string(), "all of an error is in its text");
    }
}

#[test]
fn what_is_from_outside_cannot_move_the_cursor() {
    let hostile = "\u{1b}[2J\u{7}\r\u{9b}31m\u{202e}\u{2066}\0 \n\u{e9}\u{4e2d}";
    assert_eq!(
        shown(hostile),
        "\\u{1b}[2J\\u{7}\\r\\u{9b}31m\\u{202e}\\u{2066}\\u{0} \n\u{e9}\u{4e2d}",
        "letters and ends of lines stay"
    );
    assert_eq!(shown(&shown(hostile)), shown(hostile));
    let long = format!("the beginning {} the way out", "x".repeat(1 << 20));
    let cut = shown(&long);
    assert!(cut.len() < 5000 && cut.starts_with("the beginning") && cut.ends_with("the way out"), "{cut}");
    let error = Error::from(PlanError::Format(hostile.repeat(10_000)));
    assert!(error.to_string().len() < 50_000);
    assert!(error.to_string().chars().all(|c| c == '\n' || !c.is_control()));
}

/// Runs the program, which must fail with `code`. Returns stderr.
#[track_caller]
fn said(args: &[&str], code: i32) -> String {
    let mut command = Command::cargo_bin("fanfold").unwrap();
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).assert().code(code).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && said.len() < 10_000, "{} bytes: {said:.500}", said.len());
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    says_it_once(said.trim_start_matches("error: "));
    said
}

/// Changes the demo's plan over two hosts. Returns the message about it.
fn plan_said(change: impl FnOnce(&mut Value)) -> String {
    let model = Model::demo().unwrap();
    let mut json: Value =
        serde_json::from_str(&plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap().to_json()).unwrap();
    change(&mut json);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.json");
    fs::write(&file, json.to_string()).unwrap();
    let said =
        said(&["run", "demo", "-p", "Once", "-n", "2", "--devices", "host,host", "--plan", file.to_str().unwrap()], 2);
    assert_eq!(said.matches("mine.json").count(), 1, "{said}");
    said
}

fn head(json: &mut Value) -> &mut Value {
    json["nodes"].as_array_mut().unwrap().iter_mut().find(|node| node["node"] == "lm_head").unwrap()
}

#[test]
fn a_plan_is_refused_for_the_true_reason_in_the_name_of_its_file() {
    let turned = plan_said(|json| {
        let cut = head(json)["cut"].as_array_mut().unwrap();
        cut.reverse();
    });
    assert!(turned.contains("in the order of ranks") && !turned.contains("to no rank"), "{turned}");
    let gap = plan_said(|json| head(json)["cut"][1][0] = 800.into());
    assert!(gap.contains("to no rank") && gap.contains("lm_head"), "{gap}");
    for said in [
        plan_said(|json| json["world_size"] = 3.into()),
        plan_said(|json| json["model"] = "another".into()),
        plan_said(|json| json["fanfold"] = 9.into()),
        plan_said(|json| head(json)["factor"] = "q".into()),
    ] {
        assert!(said.contains("plan"), "{said}");
    }
}

#[test]
fn names_in_files_are_escaped_and_cut() {
    let hostile = "\u{1b}]0;title\u{7}\u{202e}";
    let said_of_node = plan_said(|json| head(json)["node"] = hostile.into());
    assert!(said_of_node.contains("no such node"), "{said_of_node}");
    let long = plan_said(|json| head(json)["node"] = "x".repeat(1 << 20).into());
    assert!(long.contains("no such node"), "{long:.200}");
    plan_said(|json| json[hostile] = 1.into());
    plan_said(|json| json["model"] = format!("{hostile}\n{}", "y".repeat(1 << 20)).into());
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "config.json"] {
        fs::copy(fixture("llama-uneven").join(name), folder.path().join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&fs::read(folder.path().join("config.json")).unwrap()).unwrap();
    for (field, value) in [("model_type", hostile.to_string()), ("hidden_act", "z".repeat(1 << 20) + hostile)] {
        let old = std::mem::replace(&mut config[field], value.into());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        said(&["plan", folder.path().to_str().unwrap(), "--devices", "host"], 3);
        config[field] = old;
    }
    said(&["plan", &format!("nowhere{hostile}"), "--devices", "host"], 3);
}
