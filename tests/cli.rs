//! The command line as a user sees it: every subcommand, and every bad input with its exit code and its message.

mod common;

use assert_cmd::Command;
use common::{Expected, adapters, fixture};
use fanfold::tensor::relative_error;
use fanfold::text::Tokenizer;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const LLAMA: &str = "tests/fixtures/llama-uneven";
const BERT: &str = "tests/fixtures/bert";
const PROMPT: &str = "ROMEO: But soft, what light";
const GREEDY: [&str; 5] = ["--temp", "0", "--ignore-eos", "-n", "24"];

fn fanfold(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("fanfold").unwrap();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    command
}

/// Runs the program, which must succeed. Returns its stdout and stderr.
#[track_caller]
fn good(args: &[&str]) -> (String, String) {
    let output = fanfold(args).assert().success().get_output().clone();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Runs the program, which must fail with `code`, with each of `says` on stderr and nothing on stdout.
#[track_caller]
fn bad(args: &[&str], code: i32, says: &[&str]) -> String {
    let output = fanfold(args).assert().code(code).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    for word in says {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// As [`bad`], for a model folder that is refused before any device is needed.
#[track_caller]
fn bad_model(folder: &Path, says: &[&str]) {
    bad(&["run", folder.to_str().unwrap(), "-p", "x", "--devices", "host"], 3, says);
}

/// A copy of a fixture's files, which a test then damages.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        if fixture(name).join(file).exists() {
            fs::copy(fixture(name).join(file), dir.path().join(file)).unwrap();
        }
    }
    dir
}

/// A copy of llama-uneven with `changes` in its config.json.
fn configured(changes: &[(&str, Value)]) -> TempDir {
    let dir = copy("llama-uneven");
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value) in changes {
        config[*field] = value.clone();
    }
    fs::write(path, config.to_string()).unwrap();
    dir
}

fn temporary(name: &str) -> (TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let text = path.to_str().unwrap().to_string();
    (dir, path, text)
}

fn f32s(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    (tensor.shape().to_vec(), bytemuck::pod_collect_to_vec(tensor.data()))
}

/// The reference's continuation of `PROMPT`, decoded as a whole.
fn greedy_text() -> String {
    let bytes = fs::read(fixture("llama-uneven").join("tokenizer.json")).unwrap();
    let tokenizer = Tokenizer::from_bytes("tokenizer.json", &bytes).unwrap();
    tokenizer.decode(&Expected::of("llama-uneven").u32("greedy_0"), true).unwrap()
}

#[test]
fn no_arguments_say_what_it_is_and_what_to_try() {
    let (out, _) = good(&[]);
    for word in ["fanfold devices", "fanfold demo", "fanfold run MODEL -p", "--help"] {
        assert!(out.contains(word), "{out}");
    }
}

#[test]
fn help_opens_with_one_line_and_ends_with_an_example() {
    let (out, _) = good(&["--help"]);
    assert!(out.contains("Exit codes") && out.contains("\nExample"), "{out}");
    let (_, listed) = out.split_once("Commands:\n").expect(&out);
    let commands: Vec<&str> = listed.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(commands.len() >= 8 && commands.contains(&"run"), "{out}");
    for command in commands.into_iter().filter(|command| !["", "help"].contains(command)) {
        let (help, _) = good(&[command, "--help"]);
        let mut lines = help.lines();
        assert!(!lines.next().unwrap().is_empty() && lines.next() == Some(""), "{help}");
        let (_, example) = help.split_once("\nExample").expect(&help);
        assert!(example.contains(&format!("fanfold {command}")), "{help}");
    }
}

#[test]
fn completions_for_every_shell_and_manual_pages_of_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (out, _) = good(&["completions", shell]);
        assert!(out.contains("verify") && out.contains("ratios"), "{shell}: {out}");
    }
    bad(&["completions", "tcsh"], 2, &["bash", "zsh", "fish"]);
    let (page, _) = good(&["man"]);
    assert!(page.contains(".TH fanfold 1") && page.contains("fanfold\\-verify(1)"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man/man1");
    good(&["man", folder.to_str().unwrap()]);
    assert!(fs::read_to_string(folder.join("fanfold.1")).unwrap().contains("whatever GPUs"));
    assert!(fs::read_to_string(folder.join("fanfold-run.1")).unwrap().contains("temp"));
    let file = folder.join("fanfold.1");
    bad(&["man", file.to_str().unwrap()], 2, &["fanfold.1"]);
}

#[test]
fn devices_are_listed() {
    let (out, _) = good(&["devices"]);
    assert!(out.lines().last().unwrap().starts_with("host"), "{out}");
    let found = adapters();
    assert_eq!(out.lines().count(), found.len() + 1);
    for (line, adapter) in out.lines().zip(&found) {
        assert!(line.starts_with(&format!("{}: ", adapter.index)) && line.contains(&adapter.name), "{out}");
    }
    let (json, _) = good(&["devices", "--json"]);
    let json: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(json.len(), found.len());
    for (entry, adapter) in json.iter().zip(&found) {
        assert_eq!((&entry["index"], &entry["name"]), (&adapter.index.into(), &adapter.name.clone().into()));
    }
}

#[test]
fn the_doctor_tests_every_adapter() {
    let found = adapters();
    if found.is_empty() {
        return;
    }
    let (out, _) = good(&["doctor", "--json", "--seconds", "1"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["passed"], true, "{out}");
    assert!(report["features"].as_array().unwrap().contains(&"cli".into()) && report["version"].is_string(), "{out}");
    let tested = report["adapters"].as_array().unwrap();
    assert_eq!(tested.len(), found.len());
    for (entry, adapter) in tested.iter().zip(&found) {
        assert_eq!(
            (&entry["name"], &entry["max_binding"]),
            (&adapter.name.clone().into(), &adapter.max_binding.into())
        );
        let checks = entry["checks"].as_array().unwrap();
        assert_eq!(checks.len(), fanfold::proof::checks(), "{out}");
        assert!(checks.iter().all(|check| check["passed"] == true), "{out}");
    }
}

/// With `--exact`, the order of sums is one that all devices offer, and stands in the program.
#[test]
fn an_exact_program_says_in_which_order_sums_are_added_up() {
    let Some(adapter) = adapters().pop() else { return };
    let devices = format!("{}x2", adapter.index);
    let program = |args: &[&str]| good(&[&["plan", LLAMA, "-v", "--devices", &devices], args].concat()).0;
    assert!(!program(&[]).contains("sums "));
    let exact = program(&["--exact"]);
    assert_eq!(exact.matches(&format!("sums {}\n", adapter.numerics[0])).count(), 2, "{exact}");
    assert_eq!(program(&["--exact", "--numerics", "sequential"]).matches("sums sequential\n").count(), 2);
}

/// On a software adapter, whose memory is the machine's, loading holds the weights once: what was read of the files does not stay.
#[cfg(target_os = "linux")]
#[test]
fn loading_holds_the_weights_once() {
    let Some(adapter) = adapters().into_iter().rfind(|adapter| adapter.is_software()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 3, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 512,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "hidden_act": "silu",
    });
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let layer = |n: usize| {
        let square = ["q", "k", "v", "o"].map(|part| (format!("self_attn.{part}_proj"), vec![2048, 2048]));
        let wide = ["gate", "up"].map(|part| (format!("mlp.{part}_proj"), vec![8192, 2048]));
        let norms = ["input_layernorm", "post_attention_layernorm"].map(|part| (part.to_string(), vec![2048]));
        let rest = [("mlp.down_proj".to_string(), vec![2048, 8192])];
        let all = square.into_iter().chain(wide).chain(norms).chain(rest);
        all.map(move |(part, shape)| (format!("model.layers.{n}.{part}.weight"), shape))
    };
    let outer =
        [("model.embed_tokens.weight".to_string(), vec![512, 2048]), ("model.norm.weight".to_string(), vec![2048])];
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in outer.into_iter().chain((0..3).flat_map(layer)) {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(name, serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = Value::from(header).to_string();
    let mut file = fs::File::create(dir.path().join("model.safetensors")).unwrap();
    std::io::Write::write_all(&mut file, &[&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    // All elements are zeros, which take no space on disk.
    file.set_len(8 + header.len() as u64 + end).unwrap();
    let (model, index) = (dir.path().to_str().unwrap(), adapter.index.to_string());
    let (out, _) = good(&["bench", model, "-p", "1", "-n", "0", "-r", "1", "-o", "json", "--devices", &index]);
    let row = &serde_json::from_str::<Value>(&out).unwrap()[0];
    let [peak, weights] = ["peak_memory_bytes", "weight_bytes"].map(|field| row[field].as_f64().unwrap());
    assert!(weights > 380e6 && peak <= 1.15 * weights + 300e6, "{peak} bytes for {weights} of weights");
}

/// `fanfold tune` keeps what it measured, later runs use it and give the same text, and the doctor shows it.
#[test]
fn what_is_tuned_is_kept_and_used() {
    let Some(adapter) = adapters().pop() else { return };
    let (cache, index) = (tempfile::tempdir().unwrap(), adapter.index.to_string());
    let within = |args: &[&str]| {
        let output = fanfold(args).env("XDG_CACHE_HOME", cache.path()).assert().success().get_output().clone();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let run = || within(&[&["run", LLAMA, "-p", PROMPT, "--devices", &index], &GREEDY[..]].concat());
    let before = run();
    let (json, _) = within(&["tune", LLAMA, "--devices", &index, "--json"]);
    let tuned: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(tuned[0]["name"], Value::from(adapter.name.clone()));
    let measured = tuned[0]["measured"].as_array().unwrap();
    assert!(measured.iter().any(|case| case["op"] == "Linear" && case["schedules"].as_array().unwrap().len() > 1));
    let file = cache.path().join("fanfold/tuned.json");
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(&file).unwrap()).unwrap(), tuned);
    assert_eq!(run().0, before.0);
    let (table, said) = within(&["tune", LLAMA, "--devices", &index]);
    assert!(table.contains("Linear") && table.contains("over guess") && said.contains("tuned.json"), "{table}{said}");
    let (report, _) = within(&["doctor", "--seconds", "1"]);
    assert!(report.contains(&format!("tuned for {} sizes of ops", measured.len())), "{report}");
    // A file that is damaged is not used, and a line says so.
    fs::write(&file, "[{").unwrap();
    let (text, said) = run();
    assert_eq!(text, before.0);
    assert!(said.contains("is not used") && said.contains("fanfold tune"), "{said}");
    // The host has nothing to measure.
    let (table, said) = within(&["tune", LLAMA, "--devices", "host"]);
    assert!(table.is_empty() && said.contains("nothing to measure"), "{table}{said}");
}

#[test]
fn the_doctor_says_what_is_missing_and_outlives_a_broken_driver() {
    let dir = tempfile::tempdir().unwrap();
    let doctor = |driver: &Path, args: &[&str]| {
        let mut command = fanfold(&[&["doctor"], args].concat());
        for loader in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            command.env(loader, driver);
        }
        for loader in ["LIBGL_DRIVERS_PATH", "__EGL_VENDOR_LIBRARY_DIRS"] {
            command.env(loader, dir.path());
        }
        let output = command.assert().get_output().clone();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = doctor(&dir.path().join("gone.json"), &[]);
    assert!(out.contains("gone.json, which does not exist"), "{out}");
    assert_eq!(code, Some(1), "{err}");
    if out.contains("adapter 0") {
        common::aloud("skipped: the adapters of this machine cannot be hidden");
        return;
    }
    assert!(out.contains("no adapter was found") && out.contains("--devices host"), "{out}");
    let (code, json, _) = doctor(&dir.path().join("gone.json"), &["--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &report["passed"], &report["adapters"]), (Some(1), &false.into(), &serde_json::json!([])));
    // A driver that crashes every process that loads it.
    let (source, library) = (dir.path().join("driver.c"), dir.path().join("driver.so"));
    let code = "#include <stdlib.h>\nint vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *v) { (void)v; abort(); }\n\
                void *vk_icdGetInstanceProcAddr(void *i, const char *n) { (void)i; (void)n; abort(); }\n";
    fs::write(&source, code).unwrap();
    let built =
        std::process::Command::new("cc").arg("-shared").arg("-fPIC").arg("-o").arg(&library).arg(&source).status();
    if !cfg!(target_os = "linux") || !built.is_ok_and(|status| status.success()) {
        common::aloud("skipped: no C compiler to make a broken driver with");
        return;
    }
    let manifest = dir.path().join("broken.json");
    let icd = serde_json::json!({"library_path": library, "api_version": "1.3.0"});
    fs::write(&manifest, serde_json::json!({"file_format_version": "1.0.0", "ICD": icd}).to_string()).unwrap();
    let (code, out, _) = doctor(&manifest, &[]);
    assert_eq!(code, Some(1));
    assert!(out.contains("the driver ended its process") && out.contains("broken.json"), "{out}");
    assert!(out.contains("advice"), "{out}");
}

#[test]
fn run_continues_a_prompt_a_file_and_standard_input_alike() {
    let (_dir, path, file) = temporary("prompt.txt");
    fs::write(path, PROMPT).unwrap();
    // The text is streamed piece by piece, even characters that span several tokens, and equals the decoding of all
    // tokens.
    let wanted = greedy_text() + "\n";
    let expected = fs::read(fixture("llama-uneven").join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    assert_eq!(wanted.trim_end_matches('\n'), expected["greedy_text_0"].as_str().unwrap());
    let hosts = ["--devices", "hostx3", "--ratios", "3,2,1"];
    let args = |source: &[&'static str]| [&["run", LLAMA], source, &GREEDY, &hosts].concat();
    let (out, err) = good(&args(&["-p", PROMPT]));
    assert_eq!(out, wanted);
    assert!(err.contains("17 prompt tokens") && err.contains("24 tokens"), "{err}");
    let from_file = [&["run", LLAMA, "-f", file.as_str()], GREEDY.as_slice(), &hosts].concat();
    assert_eq!(good(&from_file).0, wanted);
    let output = fanfold(&args(&["-"])).write_stdin(PROMPT).assert().success().get_output().clone();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), wanted);
}

#[test]
fn run_writes_the_logits_of_the_prompt() {
    let (_dir, path, file) = temporary("logits.safetensors");
    let args = ["run", LLAMA, "-p", PROMPT, "--logits", &file, "--devices", "hostx3", "-n", "0"];
    assert_eq!(good(&args).0, "");
    let (shape, logits) = f32s(&path, "logits");
    assert_eq!(shape, [17, 384]);
    let error = relative_error(&logits, &Expected::of("llama-uneven").f32("logits_0"));
    assert!(error <= 1e-4, "error {error:e}");
}

#[test]
fn run_on_shards_of_an_adapter() {
    if adapters().is_empty() {
        return;
    }
    let (_dir, path, file) = temporary("logits.safetensors");
    let placing = ["--devices", "0x3", "--ratios", "5,2,1", "--logits", &file];
    let (out, _) = good(&[&["run", LLAMA, "-p", PROMPT], GREEDY.as_slice(), &placing].concat());
    assert_eq!(out, greedy_text() + "\n");
    let error = relative_error(&f32s(&path, "logits").1, &Expected::of("llama-uneven").f32("logits_0"));
    assert!(error <= 1e-4, "error {error:e}");
}

#[test]
fn a_seed_repeats_a_run() {
    let args = ["run", LLAMA, "-p", PROMPT, "-n", "12", "--seed", "7", "--devices", "host"];
    let (first, err) = good(&args);
    assert!(err.contains("seed 7"), "{err}");
    assert_eq!(good(&args).0, first);
    let (_, err) = good(&["run", LLAMA, "-p", PROMPT, "-n", "1", "--devices", "host"]);
    assert!(err.contains("seed "), "a drawn seed is told: {err}");
}

#[test]
fn embed_with_each_pooling() {
    let text = "ROMEO: But soft";
    let args = |pooling: &'static str| ["embed", BERT, text, "--devices", "hostx2", "--json", "--pooling", pooling];
    let rows = |args: &[&str]| serde_json::from_str::<Vec<Vec<f32>>>(&good(args).0).unwrap();
    let positions = rows(&args("none"));
    let mean: Vec<f32> = (0..72)
        .map(|i| (positions.iter().map(|row| row[i] as f64).sum::<f64>() / positions.len() as f64) as f32)
        .collect();
    for (pooling, wanted) in [("mean", &mean), ("cls", &positions[0])] {
        let pooled = rows(&args(pooling));
        assert_eq!(pooled.len(), 1);
        let error = relative_error(&pooled[0], wanted);
        assert!(error < 1e-5, "{pooling}: {error:e}");
    }
    let (plain, _) = good(&["embed", BERT, text, text, "--devices", "host"]);
    assert_eq!(plain.lines().map(|line| line.split(' ').count()).collect::<Vec<_>>(), [72, 72]);
    // The hidden states of a decoder can be printed, too.
    assert_eq!(rows(&["embed", LLAMA, text, "--devices", "host", "--json"])[0].len(), 96);
}

#[test]
fn embed_writes_the_last_hidden_states() {
    let expected = fs::read(fixture("bert").join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let texts = ["texts", "prompts"].iter().find_map(|key| expected[*key].as_array()).expect("texts").clone();
    let (_dir, path, file) = temporary("hidden.safetensors");
    let text = texts[0].as_str().unwrap();
    let (out, _) = good(&["embed", BERT, text, "--pooling", "none", "--out", &file, "--devices", "hostx2"]);
    assert_eq!(out, "");
    let error = relative_error(&f32s(&path, "hidden").1, &Expected::of("bert").f32("hidden_0"));
    assert!(error <= 1e-4, "error {error:e}");
    good(&["embed", BERT, "one", "two", "--out", &file, "--devices", "host"]);
    assert_eq!(f32s(&path, "embeddings").0, [2, 72]);
}

#[test]
fn plan_is_a_picture_of_80_columns() {
    for devices in ["hostx3", "hostx16"] {
        let (out, _) = good(&["plan", LLAMA, "--devices", devices]);
        for word in ["strategy tensor", "all_reduce", "lm_head", "weights", "host"] {
            assert!(out.contains(word), "{word}: {out}");
        }
        for line in out.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
    if adapters().is_empty() {
        return;
    }
    let (out, _) = good(&["plan", "demo", "--devices", "0x3", "--ratios", "5,2,1"]);
    assert!(out.lines().all(|line| line.chars().count() <= 80) && out.contains("ratios 5,2,1"), "{out}");
    let table: Vec<usize> = out.lines().rev().take(3).map(|line| line.find(" of ").unwrap_or(0)).collect();
    assert!(out.contains('…') && table[0] > 0 && table.iter().all(|at| *at == table[0]), "{out}");
}

#[test]
fn plan_prints_programs_and_json() {
    let (out, _) = good(&["plan", LLAMA, "-v", "--devices", "hostx2"]);
    for word in ["\nrank 0\n", "\nrank 1\n", "= Linear", "= input input_ids", "output logits", "= all_reduce"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    let (json, _) = good(&["plan", LLAMA, "--json", "--devices", "hostx2", "--ratios", "2,1"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["world_size"], &json["ratios"]), (&2.into(), &serde_json::json!([2.0, 1.0])));
}

#[test]
fn a_plan_is_written_edited_and_given_back() {
    let (_dir, path, file) = temporary("plan.json");
    good(&["plan", LLAMA, "-o", &file, "--devices", "hostx2"]);
    let mut plan: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let nodes = plan["nodes"].as_array_mut().unwrap();
    let head = nodes.iter_mut().find(|node| node["node"] == "lm_head").unwrap();
    head["cut"] = serde_json::json!([[0, 301], [301, 384]]);
    nodes.retain(|node| node["node"] != "model.embed_tokens");
    fs::write(&path, plan.to_string()).unwrap();
    let (out, _) =
        good(&[&["run", LLAMA, "-p", PROMPT, "--devices", "hostx2", "--plan", &file], GREEDY.as_slice()].concat());
    assert_eq!(out, greedy_text() + "\n");
    let (shown, _) = good(&["plan", LLAMA, "--devices", "hostx2", "--plan", &file]);
    assert!(!shown.contains("embed_tokens"), "{shown}");

    let three = ["run", LLAMA, "-p", PROMPT, "--plan", &file, "--devices"];
    bad(&[three.as_slice(), &["hostx3"]].concat(), 2, &["the plan is for 2 ranks, 3 devices"]);
    let other = ["run", "tests/fixtures/gpt2", "-p", "x", "--plan", &file, "--devices", "hostx2"];
    bad(&other, 2, &["the plan is for model", "fanfold plan -o"]);
    bad(&[three.as_slice(), &["hostx2", "--ratios", "1,2"]].concat(), 2, &["--plan", "--ratios"]);
    plan["speed"] = 9.into();
    fs::write(&path, plan.to_string()).unwrap();
    bad(&[three.as_slice(), &["hostx2"]].concat(), 2, &["the plan cannot be read", "speed"]);
    bad(&["plan", LLAMA, "--plan", "nowhere.json", "--devices", "host"], 2, &["nowhere.json"]);
}

#[test]
fn verify_says_verified() {
    let (out, err) = good(&["verify", LLAMA, "--devices", "hostx3", "--ratios", "3,2,1"]);
    assert!(out.starts_with("verified") && out.contains("every token the same"), "{out}");
    assert!(err.contains("sharded: host, host, host"), "{err}");
    let exact = ["verify", LLAMA, "-p", PROMPT, "--exact", "--strategy", "column", "--devices", "hostx3"];
    assert!(good(&exact).0.contains("bits equal"));
    let json: Value = serde_json::from_str(&good(&[exact.as_slice(), &["--json"]].concat()).0).unwrap();
    assert_eq!(json["bits_equal"], true);
    assert!(good(&["verify", BERT, "--devices", "hostx2"]).0.starts_with("verified"));
    if adapters().is_empty() {
        return;
    }
    let gpus = ["verify", LLAMA, "-p", PROMPT, "--exact", "--devices", "0x3", "--ratios", "5,2,1"];
    assert!(good(&gpus).0.contains("bits equal"));
}

#[test]
fn exact_is_refused_where_it_cannot_be_promised() {
    let args = ["verify", LLAMA, "--exact", "--devices", "hostx2", "--strategy"];
    for strategy in ["row", "tensor"] {
        let says = ["an exact answer cannot be promised", "--strategy column makes a plan for --exact"];
        bad(&[args.as_slice(), &[strategy]].concat(), 2, &says);
    }
    good(&["run", LLAMA, "-p", PROMPT, "-n", "1", "--devices", "host", "--exact"]);
    if adapters().is_empty() {
        return;
    }
    bad(&["verify", LLAMA, "--exact", "--devices", "0,host"], 2, &["--exact cannot be promised", "different adapters"]);
}

#[test]
fn demo_shows_devices_plan_text_and_proof() {
    let (out, _) = good(&["demo", "-n", "8", "--devices", "hostx3", "--ratios", "5,2,1"]);
    for word in ["Devices", "Plan", "all_reduce", "ROMEO:", "8 tokens at", "Proof", "verified"] {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn demo_runs_three_shards_of_the_first_adapter() {
    if adapters().is_empty() {
        return;
    }
    let (out, _) = good(&["demo", "-n", "8"]);
    assert!(out.contains("rank 2: ") && out.contains("share 5") && out.contains("verified"), "{out}");
}

#[test]
fn no_adapter_says_how_to_install_one() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none.json");
    fs::write(&none, "{}").unwrap();
    let without = |args: &[&str]| {
        let mut command = fanfold(args);
        for loader in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            command.env(loader, &none);
        }
        for loader in ["LIBGL_DRIVERS_PATH", "__EGL_VENDOR_LIBRARY_DIRS"] {
            command.env(loader, dir.path());
        }
        command
    };
    let json = without(&["devices", "--json"]).assert().success().get_output().stdout.clone();
    if serde_json::from_slice::<Vec<Value>>(&json).unwrap() != [] as [Value; 0] {
        common::aloud("skipped: the adapters of this machine cannot be hidden");
        return;
    }
    let output = without(&["run", LLAMA, "-p", "x"]).assert().code(2).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.stdout.is_empty() && said.contains("mesa-vulkan-drivers") && said.contains("--devices host"),
        "{said}"
    );
    let listed = without(&["devices"]).assert().success().get_output().clone();
    assert!(String::from_utf8(listed.stderr).unwrap().contains("mesa-vulkan-drivers"));
    without(&["run", LLAMA, "-p", PROMPT, "-n", "1", "--devices", "host"]).assert().success();
}

#[test]
fn what_cannot_be_meant_is_usage() {
    bad(&["fly"], 2, &["fly"]);
    bad(&["run"], 2, &["MODEL"]);
    let host = ["run", LLAMA, "--devices", "host"];
    let run = |more: &[&'static str], says: &[&str]| bad(&[host.as_slice(), more].concat(), 2, says);
    run(&[], &["-p TEXT", "-f FILE"]);
    run(&["-p", "x", "-f", "y"], &["cannot be used with"]);
    run(&["-f", "nowhere.txt"], &["nowhere.txt"]);
    run(&["-f", "tests/fixtures/llama-uneven/model.safetensors"], &["model.safetensors: is not UTF-8 text", "byte"]);
    #[cfg(unix)]
    run(&["-f", "/dev/urandom"], &["/dev/urandom: is not UTF-8 text"]);
    run(&["-p", ""], &["the prompt holds no token"]);
    run(&["-p", PROMPT, "-c", "4"], &["17 tokens do not fit the context of 4", "-c", "up to the 512"]);
    run(&["-p", "x", "-c", "-1"], &["--context", "a number of 0 to"]);
    run(&["-p", "x", "--temp", "NaN"], &["--temp"]);
    run(&["-p", "x", "--top-p", "2"], &["--top-p"]);
    run(&["-p", "x", "--top-p", "0"], &["top-p 0"]);
    run(&["-p", "x", "--strategy", "diagonal"], &["single, column, row, tensor"]);
    run(&["-p", "x", "--memory", "lots"], &["8GiB"]);
    run(&["-p", "x", "--memory", "24"], &["--memory", "24GiB", "24GB", "24B"]);
    run(&["-p", "x", "--memory", "1GiB,1GiB"], &["--memory has 2 sizes for 1 device"]);
    bad(&["embed", BERT, "--devices", "host"], 2, &["TEXT", "-f FILE"]);
    let two = ["embed", BERT, "one", "two", "--pooling", "none", "--devices", "host"];
    bad(&two, 2, &["--pooling none takes one text"]);
    bad(&["embed", BERT, "one", "--pooling", "max", "--devices", "host"], 2, &["mean", "cls", "last", "none"]);
    bad(&["run", BERT, "-p", "x", "--devices", "host"], 2, &["predicts no tokens", "embed"]);
}

#[test]
fn devices_that_are_not_there() {
    let run = |list: &str, says: &[&str]| bad(&["run", LLAMA, "-p", "x", "--devices", list], 2, says);
    run("nosuch", &["\"nosuch\" matches no adapter", "host: the reference evaluation"]);
    run("99", &["\"99\" matches no adapter"]);
    run("hostx17", &["1 to 16"]);
    run("host,,host", &["an entry is empty"]);
}

#[test]
fn ratios_that_cannot_be_used() {
    let run = |ratios: &str, says: &[&str]| {
        bad(&["plan", LLAMA, "--devices", "hostx3", "--ratios", ratios], 2, says);
    };
    run("1,2", &["--ratios has 2 numbers for 3 devices"]);
    run("-1,2,3", &["at least 0"]);
    run("1,-2,3", &["at least 0"]);
    run("0,0,0", &["one must be more"]);
    run("1,inf,1", &["at least 0"]);
    run("1,x,1", &["x"]);
}

#[test]
fn a_device_without_a_share_takes_no_part() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json").to_str().unwrap().to_string();
    let three = ["--devices", "hostx3"];
    let idle = [&["plan", LLAMA, "-o", &file, "--ratios", "0,2,1", "--memory", "1B,1GiB,1GiB"], &three[..]].concat();
    let (shown, told) = good(&idle);
    assert!(shown.contains("over 2 ranks, ratios 2,1"), "{shown}");
    assert!(told.contains("device 0 (host) has no share of the model and takes no part"), "{told}");
    let run = [&["run", LLAMA, "-p", PROMPT, "--plan", &file], &three[..], GREEDY.as_slice()].concat();
    assert_eq!(good(&run).0, greedy_text() + "\n");
}

#[test]
fn a_model_that_does_not_fit() {
    let placing = ["--devices", "hostx3", "--memory", "1KiB,1GiB,2KB"];
    let fits_not = |said: String| {
        for (rank, has) in [(0, 1024), (2, 2000)] {
            let line = said.lines().find(|line| line.contains(&format!("rank {rank} (host)"))).expect(&said);
            let number = |text: &str| text.rsplit(['(', ' ']).next().unwrap().parse::<u64>().unwrap();
            let numbers: Vec<u64> = line.split(" bytes").map(number).take(2).collect();
            assert!(numbers[0] > has && numbers[1] == has, "{line}");
            assert!(line.contains(&format!("short of {}", bytesize::ByteSize::b(numbers[0] - has))), "{line}");
        }
        assert!(!said.contains("rank 1") && said.contains("-c") && said.contains("--memory"), "{said}");
    };
    fits_not(bad(&[&["run", LLAMA, "-p", "x"], placing.as_slice()].concat(), 4, &["does not fit"]));
    fits_not(bad(&[&["verify", LLAMA], placing.as_slice()].concat(), 4, &["does not fit"]));
    // The plan is printed all the same, since a person needs to see it to change it.
    let output = fanfold(&[&["plan", LLAMA], placing.as_slice()].concat()).assert().code(4).get_output().clone();
    assert!(String::from_utf8(output.stdout).unwrap().contains("weights"));
    fits_not(String::from_utf8(output.stderr).unwrap());
}

/// The message of `devices` with hardly any memory, which says how much the model needs on one of them.
fn needed(model: &str, devices: &str) -> u64 {
    let said = bad(&["verify", model, "-c", "64", "--devices", devices, "--memory", "1B"], 4, &[]);
    said.split(" bytes").next().unwrap().rsplit('(').next().unwrap().parse().unwrap()
}

#[test]
fn what_fits_no_single_device_is_verified_against_streamed_weights() {
    // Each device could hold the whole model, but not in addition to its own shard.
    let memory = [format!("{}B", needed(LLAMA, "host")).as_str(); 3].join(",");
    let (out, err) = good(&["verify", LLAMA, "-c", "64", "-p", PROMPT, "--devices", "hostx3", "--memory", &memory]);
    assert!(out.starts_with("verified"), "{out}");
    assert!(err.contains("fits no single device"), "{err}");
    assert!(err.contains("after layer 0: error") && err.contains("after layer 1: error"), "{err}");
    let memory = [format!("{}B", 2 * needed(LLAMA, "host")).as_str(); 3].join(",");
    let (_, err) = good(&["verify", LLAMA, "-c", "64", "-p", PROMPT, "--devices", "hostx3", "--memory", &memory]);
    assert!(err.contains("single: host\n"), "{err}");
}

/// A configuration for random weights: a small Llama with the fields of `altered`.
fn random_config(altered: &[(&str, usize)]) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_slice(&fs::read(fixture("llama-uneven").join("config.json")).unwrap()).unwrap();
    altered.iter().for_each(|(field, value)| config[*field] = (*value).into());
    let path = dir.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let name = format!("random:{}", path.display());
    (dir, name)
}

#[test]
fn a_model_larger_than_the_machine_is_refused_before_it_is_loaded() {
    let sizes = [("hidden_size", 1 << 15), ("intermediate_size", 1 << 17), ("num_hidden_layers", 100)];
    let (_dir, model) = random_config(&[sizes.as_slice(), &[("head_dim", 128), ("vocab_size", 1 << 17)]].concat());
    let words = ["does not fit", "GiB", "--memory"];
    bad(&["verify", &model, "--devices", "host"], 4, &words);
    // A plan may be made here for another machine: it is made, with a warning.
    let (told, warned) = good(&["plan", &model, "--devices", "host"]);
    assert!(told.contains("strategy ") && warned.contains("has free now"), "{told}{warned}");
    // Devices that use the machine's main memory share it, whatever kind they are.
    bad(&["verify", &model, "--devices", "hostx2"], 4, &[&words, ["ranks 0, 1 (host)"].as_slice()].concat());
    if let Some(software) = adapters().iter().find(|adapter| adapter.is_software()) {
        let devices = format!("{0}x2,host", software.index);
        bad(&["verify", &model, "--devices", &devices], 4, &[&words, ["ranks 0, 1, 2"].as_slice()].concat());
    }
}

/// Memory that the system reports as available and then refuses gives an error, and no abort.
#[test]
#[cfg(target_os = "linux")]
fn memory_that_the_system_refuses_ends_with_4() {
    let (_dir, model) = random_config(&[("vocab_size", 3_000_000)]);
    let program = assert_cmd::cargo::cargo_bin("fanfold");
    let line = format!("ulimit -v 1000000; exec {} verify {model} --devices host --memory 64GiB", program.display());
    let output = Command::new("sh").args(["-c", &line]).assert().code(4).get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no room for") && said.contains("GiB") && !said.contains("panicked"), "{said}");
}

/// The logits of a whole chunk exceed a binding: on one rank, on two, and on two whose partial sums are added.
#[test]
fn a_real_vocabulary_is_verified_at_the_default_context() {
    let Some(adapter) = adapters().into_iter().min_by_key(|adapter| adapter.max_binding) else { return };
    let small = [("hidden_size", 8), ("intermediate_size", 8), ("num_attention_heads", 2), ("num_key_value_heads", 1)];
    let (_dir, model) =
        random_config(&[small.as_slice(), &[("vocab_size", 262_144), ("num_hidden_layers", 1)]].concat());
    let devices = format!("{}x2", adapter.index);
    for strategy in ["tensor", "row"] {
        let (out, _) = good(&["verify", &model, "--devices", &devices, "--strategy", strategy]);
        assert!(out.starts_with("verified"), "{strategy}: {out}");
    }
}

#[test]
fn a_tied_vocabulary_that_is_held_twice_is_told() {
    let plan = |strategy: &str| {
        good(&["plan", "tests/fixtures/qwen2-bias-tied", "--devices", "hostx2", "--strategy", strategy]).0
    };
    let told = plan("column");
    let line = told.lines().find(|line| line.contains("is held in 2 cuts")).expect(&told);
    assert!(line.starts_with("model.embed_tokens.weight") && line.contains("KiB more"), "{line}");
    assert!(!plan("tensor").contains("is held in"), "{}", plan("tensor"));
}

#[test]
fn a_path_that_holds_no_model() {
    bad_model(Path::new("nowhere"), &["nowhere: does not exist"]);
    bad_model(Path::new("Cargo.toml"), &["Cargo.toml", "is a file"]);
    let dir = tempfile::tempdir().unwrap();
    bad_model(dir.path(), &["is empty"]);
    fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    bad_model(dir.path(), &["pytorch_model.bin", "pickle", "save_pretrained"]);
}

#[test]
fn weights_that_are_damaged() {
    let dir = copy("llama-uneven");
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    bad_model(dir.path(), &["model.safetensors", "at byte"]);
    fs::write(&path, &whole[..100]).unwrap();
    bad_model(dir.path(), &["model.safetensors", "at byte"]);
    fs::write(&path, "").unwrap();
    bad_model(dir.path(), &["model.safetensors"]);
    fs::write(&path, [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
    bad_model(dir.path(), &["model.safetensors", "at byte 0"]);
    let header = String::from_utf8_lossy(&whole[..8192]).into_owned();
    let at = header.find("\"F32\"").unwrap();
    let mut other = whole.clone();
    other[at..at + 5].copy_from_slice(b"\"I32\"");
    fs::write(&path, other).unwrap();
    bad_model(dir.path(), &["I32", "supported: F32, F16, BF16", "tensor"]);
    fs::remove_file(&path).unwrap();
    let index = r#"{"weight_map":{"a":"../secret.safetensors"}}"#;
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    bad_model(dir.path(), &["model.safetensors.index.json", "../secret.safetensors", "within the folder"]);
    fs::write(dir.path().join("model.safetensors.index.json"), index.replace("../", "")).unwrap();
    bad_model(dir.path(), &["secret.safetensors", "not in the folder"]);
}

#[test]
fn a_configuration_that_disagrees_lists_every_tensor() {
    let dir = configured(&[("intermediate_size", 251.into()), ("vocab_size", 385.into())]);
    let tensors: Vec<String> = (0..2)
        .flat_map(|layer| ["gate", "up", "down"].map(|part| format!("model.layers.{layer}.mlp.{part}_proj.weight")))
        .chain(["model.embed_tokens.weight".to_string(), "lm_head.weight".to_string()])
        .collect();
    let says: Vec<&str> = tensors.iter().map(String::as_str).chain(["expected", "251"]).collect();
    bad_model(dir.path(), &says);
}

#[test]
fn a_field_that_nobody_understands_is_named_and_can_be_left_out() {
    let dir = configured(&[("residual_scale", 0.5.into()), ("use_cache", false.into())]);
    bad_model(dir.path(), &["config.json", "residual_scale: 0.5", "--ignore-config residual_scale"]);
    let args = ["run", dir.path().to_str().unwrap(), "-p", "x", "-n", "1", "--devices", "host", "--ignore-config"];
    good(&[args.as_slice(), &["residual_scale"]].concat());
    bad(&[args.as_slice(), &["residual_scael"]].concat(), 3, &["residual_scael: is to be ignored, and is not there"]);
}

#[test]
fn a_configuration_that_makes_no_sense() {
    let spoilt = |field: &str, value: Value, says: &[&str]| bad_model(configured(&[(field, value)]).path(), says);
    spoilt("num_key_value_heads", 4.into(), &["config.json", "num_key_value_heads", "4 does not divide 6"]);
    spoilt("hidden_size", 0.into(), &["config.json", "hidden_size"]);
    spoilt("num_hidden_layers", (-1).into(), &["config.json", "num_hidden_layers"]);
    spoilt("num_key_value_heads", 0.into(), &["num_key_value_heads"]);
    spoilt("model_type", "mamba".into(), &["mamba", "supported: llama, ", ", gpt2, bert"]);
    let ntk = serde_json::json!({"rope_type": "ntk", "rope_theta": 1e4});
    spoilt("rope_parameters", ntk, &["rope type", "ntk", "supported: default"]);
}

#[test]
fn a_tokenizer_that_cannot_be_used() {
    let dir = copy("llama-uneven");
    fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    bad_model(dir.path(), &["tokenizer.json"]);
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    bad_model(dir.path(), &["tokenizer.json", "is missing"]);
    // The tokenizer has a larger vocabulary, with ids beyond the model's.
    let small = copy("llama-uneven");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/tokenizer.json");
    fs::copy(demo, small.path().join("tokenizer.json")).unwrap();
    bad_model(small.path(), &["tokenizer.json", "token ids up to 1023", "ends before 384"]);
}

/// `fanfold plan MODEL -v | head -1` does not crash.
#[cfg(unix)]
#[test]
fn a_reader_that_has_gone_is_no_error() {
    use std::process::Stdio;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let binary = assert_cmd::cargo::cargo_bin!("fanfold");
    let mut command = std::process::Command::new(binary);
    command.args(["plan", "demo", "-v", "--devices", "hostx3"]).stdout(writer).stderr(Stdio::piped());
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn bench_prints_what_llama_bench_prints() {
    let run = |more: &[&'static str]| {
        let args =
            ["bench", LLAMA, "-p", "5,9", "-n", "3", "-d", "0,20", "-r", "2", "--chunk", "4", "--devices", "hostx2"];
        good(&[args.as_slice(), more].concat())
    };
    let tests = ["pp5", "pp9", "tg3", "pp5 @ d20", "pp9 @ d20", "tg3 @ d20"];
    let (out, err) = run(&[]);
    let lines: Vec<&str> = out.lines().collect();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
    let columns = ["model", "size", "params", "backend", "devices", "strategy", "ratios", "test", "t/s"];
    assert_eq!(cells(lines[0]), columns);
    // The columns stand below each other; how wide the last one is depends on how fast the machine is.
    let before_last = |line: &str| line.trim_end_matches('|').rfind('|').map(|at| line[..at].chars().count());
    assert!(
        lines[1].starts_with("| ---") && lines.iter().all(|line| before_last(line) == before_last(lines[0])),
        "{out}"
    );
    assert_eq!(lines[2..].iter().map(|line| cells(line)[7].clone()).collect::<Vec<_>>(), tests);
    for line in &lines[2..] {
        assert_eq!(cells(line)[..2], ["llama f32", "1.0 MiB"], "{out}");
        assert_eq!(cells(line)[3..7], ["host", "2x host", "tensor", "1,1"]);
        let (mean, deviation) = cells(line)[8].split_once(" ± ").map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        assert!(mean.parse::<f64>().unwrap() > 0.0 && deviation.parse::<f64>().unwrap() >= 0.0, "{out}");
    }
    assert!(err.contains("loaded ") && err.contains("peak memory"), "{err}");

    let (out, _) = run(&["-o", "json", "--strategies", "row,column"]);
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    let of = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("test"), [tests, tests].concat());
    assert_eq!(of("strategy")[..7], ["row", "row", "row", "row", "row", "row", "column"]);
    assert_eq!(of("n_prompt")[..4], [5, 9, 0, 5]);
    assert_eq!(of("n_gen")[..4], [0, 0, 3, 0]);
    assert_eq!(of("n_depth")[2..4], [0, 20]);
    for row in &rows {
        let samples: Vec<f64> = row["samples_ts"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let (mean, difference) = ((samples[0] + samples[1]) / 2.0, (samples[0] - samples[1]).abs());
        let near = |name: &str, wanted: f64| (row[name].as_f64().unwrap() / wanted - 1.0).abs() < 1e-6;
        // The sample deviation of two values is their difference divided by the square root of two.
        assert!(near("avg_ts", mean) && near("stddev_ts", difference / 2f64.sqrt()), "{row}");
        let tokens = row["n_prompt"].as_f64().unwrap() + row["n_gen"].as_f64().unwrap();
        assert!((tokens * 1e9 / row["samples_ns"][0].as_f64().unwrap() / samples[0] - 1.0).abs() < 1e-6, "{row}");
        assert!(row["load_s"].as_f64().unwrap() > 0.0 && row["weight_bytes"].as_u64().unwrap() > 1 << 20, "{row}");
        assert_eq!(row["peak_memory_bytes"].is_number(), cfg!(target_os = "linux"), "{row}");
    }

    let (out, _) = run(&["-o", "csv"]);
    assert_eq!(out.lines().count(), 7);
    assert!(out.starts_with("fanfold,model_filename,") && out.contains("\"host,host\""), "{out}");
    let (out, _) = run(&["-o", "jsonl"]);
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
}

#[test]
fn bench_needs_no_file_but_a_configuration() {
    let config = "tests/fixtures/gpt2/config.json";
    let args = ["bench", "--random", config, "-p", "8", "-n", "2", "-r", "1", "--devices", "hostx2"];
    for (dtype, size) in [("f16", 2), ("bf16", 2), ("f32", 4)] {
        let (out, _) = good(&[args.as_slice(), &["--dtype", dtype, "-o", "json"]].concat());
        let row: &Value = &serde_json::from_str::<Vec<Value>>(&out).unwrap()[0];
        assert_eq!(row["model_type"], format!("gpt2 {dtype}"));
        assert_eq!(row["model_size"].as_u64().unwrap(), size * row["model_n_params"].as_u64().unwrap());
    }
    // In another format, of which a note tells where it cannot be: rows of 72 elements are no blocks of 32.
    let (out, err) = good(&[
        "bench",
        "demo",
        "-p",
        "4",
        "-n",
        "0",
        "-r",
        "1",
        "--devices",
        "host",
        "-o",
        "json",
        "--weights",
        "q8_0",
    ]);
    let row: &Value = &serde_json::from_str::<Vec<Value>>(&out).unwrap()[0];
    assert!(row["model_type"] == "llama q8_0" && row["model_size"].as_u64().unwrap() < 3 << 20, "{row}");
    assert!(!err.contains("stay in"), "{err}");
    let (out, err) = good(&[args.as_slice(), &["--weights", "q8_0", "-o", "json"]].concat());
    assert!(out.contains("\"gpt2 f16\"") && err.contains("stay in f16") && err.contains("blocks of 32"), "{out}{err}");
    // A model that embeds is measured with whole texts.
    let (out, _) = good(&["bench", BERT, "-p", "8", "-r", "1", "--devices", "host"]);
    assert!(out.lines().count() == 3 && out.contains(" pp8 |"), "{out}");
    // The defaults fit the model, whose context is 256.
    let (out, _) = good(&["bench", "tests/fixtures/gpt2", "-n", "0", "-r", "1", "--devices", "host", "-o", "jsonl"]);
    assert!(out.contains("\"pp256\""), "{out}");
    if adapters().is_empty() {
        return;
    }
    let (out, _) = good(&["bench", "--random", config, "-p", "8", "-n", "2", "-r", "1", "--devices", "0x2"]);
    assert!(out.contains("2x ") && out.contains("tg2"), "{out}");
}

#[test]
fn random_weights_stand_wherever_a_model_does() {
    let model = "random:tests/fixtures/qwen3-qknorm/config.json";
    assert!(good(&["verify", model, "--devices", "hostx3"]).0.starts_with("verified"));
    assert!(good(&["plan", model, "--devices", "hostx3", "--check"]).0.contains("qwen3"));
    bad(&["run", model, "-p", "x", "--devices", "host"], 3, &["tokenizer.json", "is missing"]);
    bad(&["plan", "random:nowhere.json", "--devices", "host"], 3, &["nowhere.json"]);
    bad(&["plan", "random:", "--devices", "host"], 2, &["random:CONFIG.json"]);
    let dir = configured(&[("hidden_size", (1u64 << 31).into()), ("vocab_size", (1u64 << 31).into())]);
    let model = format!("random:{}", dir.path().join("config.json").display());
    bad(&["plan", &model, "--devices", "host"], 3, &["config.json", "larger than any machine holds"]);
    // Large, but not absurdly so: the memory is computed, and nothing is allocated.
    let dir = configured(&[("intermediate_size", (1u64 << 30).into())]);
    let config = dir.path().join("config.json");
    let args = ["bench", "--random", config.to_str().unwrap(), "--devices", "hostx2", "--memory", "1000GB,100GB"];
    bad(&args, 4, &["the model does not fit", "rank 1"]);
}

#[test]
fn what_cannot_be_measured_is_usage() {
    let bench = |more: &[&'static str], says: &[&str]| {
        bad(&[&["bench", LLAMA, "--devices", "host"], more].concat(), 2, says);
    };
    bench(&["-p", "600"], &["--n-prompt", "pp600 needs 600 positions", "made for 512"]);
    bench(&["-p", "8", "-n", "8", "-d", "510"], &["--n-depth", "pp8 @ d510"]);
    bench(&["-p", "0", "-n", "0"], &["--n-prompt and --n-gen are 0"]);
    bench(&["-r", "0"], &["a number of 1 to 1000"]);
    bench(&["--strategies", "tensor,diagonal"], &["single, column, row, tensor"]);
    bench(&["--random", "config.json"], &["cannot be used with"]);
    bad(&["bench", "--devices", "host"], 2, &["MODEL", "--random CONFIG.json"]);
    bad(&["bench", BERT, "--devices", "host", "-n", "4"], 2, &["embeds whole texts", "tg4"]);
    bad(&["bench", "--random", "nowhere.json", "--devices", "host"], 3, &["nowhere.json"]);
    let score = |more: &[&'static str], code: i32, says: &[&str]| {
        bad(&[&["perplexity", LLAMA, "--devices", "host"], more].concat(), code, says);
    };
    score(&[], 2, &["-f FILE"]);
    score(&["-f", "nowhere.txt"], 2, &["nowhere.txt"]);
    score(&["-p", "R"], 2, &["nothing to score: 1 tokens"]);
    score(&["-p", PROMPT, "-c", "1"], 2, &["nothing to score"]);
    score(&["-p", PROMPT, "-c", "8", "--stride", "9"], 2, &["--stride 9"]);
    bad(&["perplexity", BERT, "--devices", "host", "-p", "x"], 2, &["predicts no tokens"]);
}

#[test]
fn perplexity_of_a_text() {
    let (_dir, path, file) = temporary("text.txt");
    fs::write(path, PROMPT.repeat(3)).unwrap();
    let args = ["perplexity", "demo", "-c", "16", "--devices"];
    let (out, err) = good(&[args.as_slice(), &["host", "-f", &file]].concat());
    assert!(out.contains(" nats per token, perplexity ") && out.contains("windows of 16"), "{out}");
    assert!(err.contains("1 of ") && err.contains(" tokens in "), "{err}");
    let json = |devices: &'static str, source: &[&str]| -> Value {
        serde_json::from_str(&good(&[args.as_slice(), &[devices, "--json"], source].concat()).0).unwrap()
    };
    let one = json("host", &["-f", &file]);
    let nats = |found: &Value| found["nats_per_token"].as_f64().unwrap();
    assert!(out.starts_with(&format!("{:.4} ± ", nats(&one))), "{out} {one}");
    assert!((one["perplexity"].as_f64().unwrap() - nats(&one).exp()).abs() < 1e-9);
    let windows = one["windows"].as_array().unwrap();
    assert_eq!(windows[1]["start"], 16);
    let tokens: u64 = windows.iter().map(|window| window["tokens"].as_u64().unwrap()).sum();
    assert_eq!(one["tokens"], tokens);
    let three = json("hostx3", &["-p", &PROMPT.repeat(3)]);
    assert!((nats(&one) - nats(&three)).abs() < 1e-5, "{one} {three}");
    // Where windows overlap, each token is predicted from more context.
    let known = json("host", &["-f", &file, "--stride", "4"]);
    assert!(nats(&known) < nats(&one) && known["tokens"].as_u64() > one["tokens"].as_u64(), "{known}");
}

/// A copy of llama-uneven with `value` as one element of a matrix.
fn poisoned(tensor: &str, at: [usize; 2], value: f32) -> TempDir {
    let dir = copy("llama-uneven");
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(tensor).unwrap();
    assert_eq!(view.dtype(), safetensors::Dtype::F32);
    let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
    let byte = start + 4 * (at[0] * view.shape()[1] + at[1]);
    bytes[byte..byte + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    dir
}

#[test]
fn weights_that_are_no_numbers_are_found() {
    let tensor = "model.layers.1.mlp.up_proj.weight";
    for (value, says) in [(f32::NAN, "holds NaN"), (f32::INFINITY, "holds inf"), (f32::NEG_INFINITY, "holds -inf")] {
        let dir = poisoned(tensor, [201, 77], value);
        let model = dir.path().to_str().unwrap();
        let says = [says, "at [201, 77]", "model.safetensors", tensor];
        bad(&["run", model, "-p", "x", "--check", "--devices", "hostx2"], 3, &says);
        bad(&["verify", model, "--check", "--devices", "hostx2"], 3, &says);
        bad(&["bench", model, "--check", "--devices", "hostx2"], 3, &says);
        bad(&["perplexity", model, "-p", PROMPT, "--check", "--devices", "hostx2"], 3, &says);
    }
    let (out, _) = good(&[&["run", LLAMA, "-p", PROMPT, "--check", "--devices", "host"], GREEDY.as_slice()].concat());
    assert_eq!(out, greedy_text() + "\n");
    good(&["embed", BERT, "x", "--check", "--devices", "host"]);
}

/// Greedy text of llama-uneven on the host. Returns stderr.
fn said(model: &str, more: &[&str]) -> String {
    good(&[&["run", model, "-p", PROMPT, "--temp", "0", "--devices", "host"], more].concat()).1
}

#[test]
fn why_a_text_ended_is_said() {
    let said_of = |more: &[&str]| said(LLAMA, &[&["--ignore-eos"], more].concat());
    let length = said_of(&["-n", "3"]);
    assert!(length.ends_with("ended: length (3 tokens, as -n says)\n"), "{length}");
    let none = said_of(&["-n", "0"]);
    assert!(none.ends_with("ended: length (0 tokens, as -n says)\n"), "{none}");
    let context = said_of(&["-c", "20", "-n", "-1"]);
    assert!(context.contains("ended: context (20 positions are full; -c raises it, up to the 512"), "{context}");
    // If the model was made for no more positions, the message does not advise to raise `-c`.
    let small = configured(&[("max_position_embeddings", 24.into())]);
    let small = small.path().to_str().unwrap();
    for max in ["2048", "0"] {
        let full = said(small, &["-c", max, "-n", "-1", "--ignore-eos"]);
        assert!(full.contains("24 positions are full, and the model was made for no more"), "{full}");
        assert!(!full.contains("-c"), "{full}");
    }
    let long = PROMPT.repeat(3);
    let refused = bad(&["run", small, "-p", &long, "--devices", "host"], 2, &["the context of 24", "made for no more"]);
    assert!(!refused.contains("-c"), "{refused}");
    let refused = bad(&["run", small, "-p", &long, "-c", "8", "--devices", "host"], 2, &["no more than 24"]);
    assert!(!refused.contains("-c"), "{refused}");

    let text = greedy_text();
    let stop: String = text.chars().skip(4).take(3).collect();
    let stopped = said_of(&["-n", "24", "--stop", "zzz", "--stop", &stop]);
    assert!(stopped.contains(&format!("ended: stop text {stop:?}")), "{stopped}");
    let tokens = Expected::of("llama-uneven").u32("greedy_0");
    let at = tokens.iter().position(|token| *token == tokens[3]).unwrap();
    let ends = copy("llama-uneven");
    let generation = serde_json::json!({"eos_token_id": tokens[3]});
    fs::write(ends.path().join("generation_config.json"), generation.to_string()).unwrap();
    let ends = ends.path().to_str().unwrap();
    let ended = said(ends, &["-n", "24"]);
    assert!(
        ended.contains(&format!("ended: end token {} ", tokens[3])) && ended.contains(&format!("; {at} tokens")),
        "{ended}"
    );

    // Several prompts at once, each of which ends for its own reason.
    let args = ["run", ends, "-p", PROMPT, "-p", "ROMEO", "--temp", "0", "-n", "6", "--devices", "host"];
    let (_, several) = good(&args);
    assert!(several.contains(&format!("prompt 1: {at} tokens, ended: end token {} ", tokens[3])), "{several}");
    assert!(several.contains("prompt 2: ") && several.matches("ended: ").count() == 2, "{several}");
    // The same as JSON, even if there is no token.
    let json = |more: &[&str]| -> Value {
        let args = ["run", ends, "-p", PROMPT, "--temp", "0", "--devices", "host", "--logprobs", "1"];
        serde_json::from_str(good(&[&args[..], more].concat()).0.lines().last().unwrap()).unwrap()
    };
    let last = json(&["-n", "24"]);
    assert_eq!((&last["finish_reason"], &last["stop_reason"]), (&"stop".into(), &tokens[3].into()));
    let last = json(&["-n", "24", "--ignore-eos", "--stop", &stop]);
    assert_eq!((&last["finish_reason"], &last["stop_reason"]), (&"stop".into(), &stop.into()));
    assert_eq!(
        json(&["-n", "0"]),
        serde_json::json!({"finish_reason": "length", "stop_reason": null, "ended": "length"})
    );
    let last = json(&["-c", "20", "-n", "-1", "--ignore-eos"]);
    assert_eq!((&last["finish_reason"], &last["ended"]), (&"length".into(), &"context".into()));
}

#[test]
fn no_rate_is_told_of_fewer_than_two_steps_or_of_the_first() {
    // Of three tokens, the first is chosen after the prompt, and the step to the second compiles kernels.
    for tokens in ["1", "2", "3"] {
        let few = said(LLAMA, &["--ignore-eos", "-n", tokens]);
        assert!(!few.contains("/s") && few.contains("17 prompt tokens in "), "{few}");
    }
    let more = said(LLAMA, &["--ignore-eos", "-n", "4"]);
    assert!(more.contains("/s once warm"), "{more}");
    let (_, err) = good(&["embed", BERT, "one text", "--json", "--devices", "host"]);
    assert!(!err.contains("/s"), "{err}");
    let (_, err) = good(&["embed", BERT, "a", "b", "c", "--batch", "1", "--json", "--devices", "host"]);
    assert!(err.contains("/s once warm") && err.contains("texts/s"), "{err}");
}

#[test]
fn a_text_that_begins_with_a_hyphen_is_a_text() {
    let host = ["--devices", "host"];
    for text in ["- bread", "-5", "--x", "-n"] {
        let run = [&["run", LLAMA, "-p", text, "-n", "1", "--temp", "0", "--stop", "- zzz"], &host[..]].concat();
        let attached = format!("--prompt={text}");
        let other = [&["run", LLAMA, &attached, "-n", "1", "--temp", "0"], &host[..]].concat();
        assert_eq!(good(&run).0, good(&other).0, "{text}");
        good(&[&["verify", LLAMA, "--prompt", text], &host[..]].concat());
    }
    for text in ["- bread", "-5", "-q", "-- so"] {
        let embed = good(&[&["embed", BERT, text, "plain", "--json"], &host[..]].concat()).0;
        assert_eq!(embed, good(&[&["embed", BERT, "--json"], &host[..], &["--", text, "plain"]].concat()).0, "{text}");
    }
    let (ranked, _) = good(&[&["rank", "tests/fixtures/bert-rerank", "-q", "-d", "- e", "--json"], &host[..]].concat());
    assert_eq!(serde_json::from_str::<Vec<Value>>(&ranked).unwrap().len(), 2);
    bad(&[&["embed", BERT, "text", "--jsno"], &host[..]].concat(), 2, &["unexpected argument '--jsno'", "--json"]);
}

#[test]
fn words_of_which_there_are_a_few_stand_in_help_and_completion() {
    let listed = "[possible values: single, column, row, tensor]";
    for (command, words) in [
        ("run", vec![listed]),
        ("bench", vec![listed, "[possible values: f16, bf16, f32]", "[possible values: md, csv, json, jsonl]"]),
        ("embed", vec!["[possible values: mean, cls, last, none]"]),
    ] {
        let help = good(&[command, "-h"]).0.split_whitespace().collect::<Vec<_>>().join(" ");
        words.iter().for_each(|words| assert!(help.contains(words), "{words} is not in: {help}"));
    }
    let (script, _) = good(&["completions", "bash"]);
    for words in ["single column row tensor", "f16 bf16 f32", "mean cls last none"] {
        assert!(script.contains(words), "{words} is not in the completions");
    }
}

#[test]
fn negative_numbers_mean_what_llama_cpp_means() {
    let run = |more: &[&'static str]| {
        let args = ["run", LLAMA, "-p", PROMPT, "--ignore-eos", "--devices", "host"];
        let max = if more.contains(&"-n") { &[][..] } else { &["-n", "8"] };
        good(&[&args[..], max, more].concat())
    };
    let greedy = run(&["--temp", "0"]).0;
    assert_eq!(run(&["--temp", "-1"]).0, greedy);
    let drawn = |said: String| said.split("seed ").nth(1).unwrap().split_whitespace().next().unwrap().parse::<u64>();
    let (text, err) = run(&["--seed", "-1"]);
    let seed = drawn(err).unwrap().to_string();
    let args = ["run", LLAMA, "-p", PROMPT, "--ignore-eos", "-n", "8", "--devices", "host", "--seed", &seed];
    assert_eq!(good(&args).0, text, "the seed that is told gives the text again");
    let with = |more: &[&'static str]| run(&[&["--seed", "5", "--temp", "1.5"], more].concat()).0;
    assert_eq!(with(&["--top-k", "-1"]), with(&["--top-k", "0"]));
    let penalised =
        |last: &'static str| run(&["--temp", "0", "-n", "24", "--repeat-penalty", "1.8", "--repeat-last-n", last]).0;
    assert_eq!(penalised("-1"), penalised("512"));
    assert!(penalised("0").starts_with(greedy.trim_end_matches('\n')));
    assert_ne!(penalised("-1"), penalised("0"));
    bad(&["run", LLAMA, "-p", "x", "--devices", "host", "--seed", "-2"], 2, &["--seed", "-1: drawn"]);
    bad(&["run", LLAMA, "-p", "x", "--devices", "host", "-n", "-2"], 2, &["--tokens", "-1 for no limit"]);
    // The default is the model's own context, as in llama.cpp.
    let (out, _) = good(&["plan", LLAMA, "--devices", "host", "-c", "0"]);
    assert_eq!(out, good(&["plan", LLAMA, "--devices", "host", "-c", "512"]).0);
    assert_ne!(out, good(&["plan", LLAMA, "--devices", "host", "-c", "256"]).0);
}

#[test]
fn single_takes_the_first_devices_numbers() {
    let run = |placing: &[&str]| good(&[&["run", LLAMA, "-p", PROMPT, "-n", "2", "--temp", "0"], placing].concat());
    let one = run(&["--devices", "host"]).0;
    let single = ["--strategy", "single", "--devices", "hostx2"];
    for numbers in [&["--ratios", "2,1"][..], &["--memory", "1GiB,1B"], &["--ratios", "2", "--memory", "1GiB"]] {
        assert_eq!(run(&[&single, numbers].concat()).0, one, "{numbers:?}");
    }
    let args = [&["run", LLAMA, "-p", "x"], &single[..]].concat();
    bad(&[&args[..], &["--memory", "1B,1GiB"]].concat(), 4, &["rank 0"]);
    bad(&[&args[..], &["--ratios", "1,2,3"]].concat(), 2, &["--ratios has 3 numbers for 2 devices"]);
    bad(&[&args[..], &["--memory", "1B,1B,1B"]].concat(), 2, &["--memory has 3 sizes for 2 devices"]);
    let bench = ["bench", LLAMA, "-p", "4", "-n", "0", "-r", "1", "-o", "jsonl", "--devices", "hostx2"];
    let (out, _) = good(&[&bench[..], &["--ratios", "2,1", "--strategies", "tensor,single"]].concat());
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["strategy"].clone()).collect::<Vec<_>>(), ["tensor", "single"]);
    assert_eq!(rows[1]["devices"].as_array().unwrap().len(), 1);
}

/// A file that cannot be written is reported before the model is looked for, and a run that fails leaves the old file
/// in place.
#[test]
fn a_file_is_written_whole_or_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (folder, gone, file) = (path(""), path("no/such/folder/x"), path("old"));
    let commands: [&[&str]; 3] =
        [&["run", "nowhere", "-p", "x", "--logits"], &["embed", "nowhere", "x", "--out"], &["plan", "nowhere", "-o"]];
    for command in commands {
        bad(&[command, &[folder.as_str()]].concat(), 2, &["is a folder"]);
        bad(&[command, &[gone.as_str()]].concat(), 2, &["there is no folder"]);
        fs::write(&file, "old").unwrap();
        bad(&[command, &[file.as_str()]].concat(), 3, &["nowhere"]);
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }
    let plan = ["plan", LLAMA, "--devices", "host", "--json", "-o"];
    let (json, _) = good(&[&plan[..], &[file.as_str()]].concat());
    assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), json.trim_end());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        good(&[&plan[..], &["/dev/null"]].concat());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let (twice, _) = good(&[&plan[..], &["-"]].concat());
        assert_eq!(twice.trim_end(), format!("{json}{json}").trim_end());
    }
    #[cfg(target_os = "linux")]
    bad(&["run", LLAMA, "-p", "x", "-n", "0", "--devices", "host", "--logits", "/dev/full"], 1, &["/dev/full"]);
}

/// An output stream that cannot be written, as on a full disk, and one that is closed.
#[cfg(target_os = "linux")]
#[test]
fn nothing_panics_where_stdout_or_stderr_cannot_be_written() {
    let host = ["--devices", "host"];
    let with = |args: &[&'static str]| [args, &host].concat();
    let commands: Vec<Vec<&str>> = vec![
        vec!["devices"],
        with(&["run", LLAMA, "-p", "x", "-n", "2"]),
        with(&["run", LLAMA, "-p", "x", "-p", "y", "-n", "2", "--check"]),
        with(&["run", LLAMA, "-p", "x", "-n", "2", "--logprobs", "1"]),
        with(&["chat", LLAMA, "--template", "tests/fixtures/templates/chatml.jinja", "-n", "2"]),
        with(&["embed", BERT, "x"]),
        with(&["rank", "tests/fixtures/bert-rerank", "x", "y"]),
        with(&["plan", LLAMA, "--strategy", "single"]),
        with(&["verify", LLAMA]),
        with(&["bench", LLAMA, "-p", "2", "-n", "2", "-r", "1"]),
        with(&["perplexity", LLAMA, "-p", PROMPT]),
        with(&["demo", "-n", "2"]),
        vec!["completions", "bash"],
        vec!["man"],
        vec!["--help"],
        vec!["run", "--help"],
        vec![],
    ];
    let run = |args: &[&str], streams: &str| {
        let mut shell = std::process::Command::new("sh");
        let script = format!("printf 'Hello\\n' | \"$0\" \"$@\" {streams}");
        shell.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", &script]);
        let output = shell.arg(assert_cmd::cargo::cargo_bin!("fanfold")).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{args:?} {streams}: {said}");
        output.status.code().unwrap()
    };
    for command in &commands {
        assert_eq!(run(command, "2>/dev/full"), 0, "{command:?} 2>/dev/full");
        assert_eq!(run(command, ">/dev/full"), 1, "{command:?} >/dev/full");
    }
    let one = &commands[1];
    assert_eq!((run(one, "2>&-"), run(one, ">&- 2>&-")), (0, 0));
    assert_eq!(run(&["run", "nowhere", "-p", "x"], "2>/dev/full"), 3);
    assert_eq!(run(&["run", "--no-such-option"], "2>/dev/full"), 2);
    let (help, _) = good(&["--help"]);
    let (_, listed) = help.split_once("Commands:\n").expect(&help);
    for command in listed.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next()) {
        let tried = commands.iter().any(|args| args.first() == Some(&command));
        assert!(
            tried || ["help", "pull", "doctor", "classify", "tune", ""].contains(&command),
            "{command} is not tried"
        );
    }
}
