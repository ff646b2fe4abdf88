//! Conversations: the contents of the cache change no answer; and the command line as a user sees it.

mod common;

use assert_cmd::Command;
use common::{adapters, engine, fixture, hosts, values};
use fanfold::Error;
use fanfold::chat::{Answer, Chat, GenerationRequest, answer};
use fanfold::generate::GenerateError;
use fanfold::generate::GenerateOptions;
use fanfold::generate::{Engine, EngineOptions};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::proof::argmax;
use fanfold::text::TextError;
use fanfold::text::{ChatTemplate, FinishReason, Message, Sampling, Tokenizer};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;

const CHATML: &str = "tests/fixtures/templates/chatml.jinja";
const PROMPT: &str = "ROMEO: But soft, what light";

fn llama() -> (Arc<Model>, Tokenizer) {
    let model = Arc::new(Model::open(fixture("llama-uneven")).unwrap());
    let bytes = model.file("tokenizer.json").unwrap().unwrap();
    let tokenizer = Tokenizer::from_bytes(model.file_path("tokenizer.json"), &bytes).unwrap();
    (model, tokenizer)
}

fn open(model: &Arc<Model>, context: usize) -> Engine {
    let plan = plan(model.graph(), Strategy::Tensor, &[2.0, 1.0]).unwrap();
    let options = EngineOptions::default().context(context).chunk(7);
    Engine::open(model.clone(), &plan, hosts(2), options, Arc::new(|_| ())).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new("chat_template.jinja", source, Vec::new(), SystemTime::now()).unwrap()
}

fn chatml() -> String {
    fs::read_to_string(CHATML).unwrap()
}

fn greedy(max: usize) -> GenerationRequest {
    let sampling = Sampling::greedy();
    GenerationRequest::new(sampling, GenerateOptions::new(max).ignore_end())
}

fn chat(source: &str, context: usize) -> Chat {
    let (model, tokenizer) = llama();
    Chat::new(open(&model, context), tokenizer, template(source), Some("Be brief.".to_string()))
}

/// The answer of a model whose cache is empty.
fn afresh(source: &str, messages: &[Message], asking: &GenerationRequest) -> Answer {
    let (model, tokenizer) = llama();
    let ids = template(source).encode(&tokenizer, messages).unwrap();
    answer(&mut open(&model, 512), &tokenizer, &ids, asking, |_| ()).unwrap()
}

#[test]
fn the_cache_changes_no_answer() {
    // Templates of reasoning models drop the reasoning of earlier answers; other templates drop whole turns.
    let dots = "(message.content if message.role != 'assistant' else '...') +";
    let forgetful = chatml().replace("message.content +", dots);
    let last_only = chatml().replace("in messages", "in messages[:1] + messages[-1:]");
    let (_, tokenizer) = llama();
    for source in [chatml(), forgetful, last_only] {
        let mut chat = chat(&source, 512);
        let mut held: Vec<u32> = Vec::new();
        for text in ["Who is there?", "Nay, answer me.", "Long live the king!"] {
            let mut told = String::new();
            let answer = chat.ask(text, &greedy(9), |piece| told += piece.text).unwrap();
            assert_eq!((answer.tokens.len(), answer.finish_reason), (9, FinishReason::Length));
            assert_eq!(told, answer.text);
            let (last, earlier) = chat.messages().split_last().unwrap();
            assert_eq!(last, &Message::new("assistant", told));
            let fresh = afresh(&source, earlier, &greedy(9));
            assert_eq!((&answer.tokens, &answer.text), (&fresh.tokens, &fresh.text), "{text}");
            // The common prefix, and nothing else, is not fed again. The token chosen last has never been fed.
            let ids = template(&source).encode(&tokenizer, earlier).unwrap();
            let common = ids.iter().zip(&held).take_while(|(a, b)| a == b).count();
            assert_eq!((answer.cached, answer.prompt), (common, ids.len()), "{text}");
            held = [&ids[..], &answer.tokens[..8]].concat();
        }
        assert_eq!(chat.messages().len(), 7);
        chat.reset();
        assert_eq!(chat.messages(), [Message::new("system", "Be brief.")]);
        let again = chat.ask("Long live the king!", &greedy(9), |_| ()).unwrap();
        assert!(again.cached > 0 && chat.messages().len() == 3);
        // If the engine already holds all tokens, the last one is still fed, for its logits.
        chat.reset();
        let same = chat.ask("Long live the king!", &greedy(9), |_| ()).unwrap();
        assert_eq!((same.prompt - same.cached, same.tokens), (1, again.tokens));
    }
}

#[test]
fn an_engine_that_rewinds_gives_the_same_bits() {
    let (model, _) = llama();
    let mut rewound = engine(&model, Strategy::Tensor, &[2.0, 1.0], hosts(2));
    let mut fresh = engine(&model, Strategy::Tensor, &[2.0, 1.0], hosts(2));
    let ids: Vec<u32> = (10..30).collect();
    rewound.feed(&ids).unwrap();
    assert_eq!((rewound.rewind(8), rewound.past()), (8, 8));
    fresh.feed(&ids[..8]).unwrap();
    let other = [99, 98, 97];
    assert_eq!(values(&rewound.feed(&other).unwrap()), values(&fresh.feed(&other).unwrap()));
    assert_eq!((rewound.rewind(500), rewound.past()), (11, 11));
    assert_eq!(rewound.rewind(0), 0);
}

#[test]
fn an_answer_ends_at_what_ends_it() {
    let mut chat = chat(&chatml(), 320);
    let whole = chat.ask("Speak.", &greedy(12), |_| ()).unwrap();
    chat.reset();
    // After Ctrl-C, the answer so far stays a part of the chat, which continues.
    let asking = greedy(12);
    let mut pieces = 0;
    let cut = chat.ask("Speak.", &asking, |_| {
        pieces += 1;
        if pieces == 3 {
            asking.options.cancel.cancel();
        }
    });
    let cut = cut.unwrap();
    assert_eq!((cut.finish_reason, cut.tokens.as_slice()), (FinishReason::Cancelled, &whole.tokens[..3]));
    assert_eq!(chat.messages().last().unwrap().content, cut.text);
    assert!(whole.text.starts_with(&cut.text));
    // The same before anything has been fed.
    let early = chat.ask("Speak.", &asking, |_| ()).unwrap();
    assert_eq!((early.finish_reason, early.tokens.len()), (FinishReason::Cancelled, 0));
    assert!(chat.ask("Speak.", &greedy(1), |_| ()).is_ok());

    chat.reset();
    let middle: String = whole.text.chars().skip(2).take(2).collect();
    let stopped = chat.ask("Speak.", &greedy(12).stops(vec![middle.clone()]), |_| ()).unwrap();
    assert_eq!(stopped.text, whole.text[..whole.text.find(&middle).unwrap()]);
    assert_eq!(stopped.finish_reason, FinishReason::StopText(middle));

    chat.reset();
    let full = chat.ask("Speak.", &greedy(usize::MAX), |_| ()).unwrap();
    assert_eq!(full.finish_reason, FinishReason::Context);
    assert_eq!((full.prompt + full.tokens.len(), chat.context()), (321, (320, 320)));
    // A message that does not fit is refused and forgotten, and the chat continues.
    let said = chat.messages().len();
    let refused = chat.ask("More!", &greedy(1), |_| ());
    assert!(matches!(refused, Err(Error::Generate(GenerateError::Context { capacity: 320, .. }))), "{refused:?}");
    assert_eq!(chat.messages().len(), said);
    chat.reset();
    assert_eq!(chat.ask("Speak.", &greedy(12), |_| ()).unwrap().tokens, whole.tokens);
}

#[test]
fn a_turn_that_the_template_refuses_is_forgotten() {
    let picky = chatml() + "{% if 'no' in messages[-1].content %}{{ raise_exception('never no') }}{% endif %}";
    let mut chat = chat(&picky, 512);
    let refused = chat.ask("no", &greedy(2), |_| ());
    assert!(matches!(&refused, Err(Error::Text(TextError::Template { reason, .. })) if reason.ends_with("never no")));
    assert_eq!(chat.ask("yes", &greedy(2), |_| ()).unwrap().tokens.len(), 2);
    assert_eq!(chat.messages().len(), 3);
}

/// A copy of llama-uneven to which `files` are added.
fn folder(files: &[(&str, Value)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        fs::copy(fixture("llama-uneven").join(file), dir.path().join(file)).unwrap();
    }
    for (name, value) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value.as_str().map_or_else(|| value.to_string(), str::to_string)).unwrap();
    }
    dir
}

#[test]
fn end_tokens_are_those_of_the_configurations_and_the_tokenizer() {
    let ends = |files: &[(&str, Value)]| {
        Model::open(folder(files).path()).map(|model| model.info().end_tokens.clone()).map_err(|e| e.to_string())
    };
    let mut tokenizer: Value =
        serde_json::from_slice(&fs::read(fixture("llama-uneven").join("tokenizer.json")).unwrap()).unwrap();
    let mut turn_end = tokenizer["added_tokens"][0].clone();
    (turn_end["id"], turn_end["content"]) = (9.into(), "*".into());
    tokenizer["added_tokens"].as_array_mut().unwrap().push(turn_end);
    let tokenizer = ("tokenizer.json", tokenizer);
    let names = |eos: Value| ("tokenizer_config.json", json!({"eos_token": eos}));
    let generation = |eos: Value| ("generation_config.json", json!({"eos_token_id": eos}));
    assert_eq!(ends(&[names(Value::Null)]), Ok(vec![0]));
    assert_eq!(ends(&[generation(json!([7, 3])), names("<|endoftext|>".into())]), Ok(vec![7, 3, 0]));
    assert_eq!(ends(&[generation(json!(7)), names(json!({"content": "*"})), tokenizer]), Ok(vec![7, 9]));
    assert_eq!(ends(&[generation(json!([0])), names("no such token".into())]), Ok(vec![0]));
    // As in transformers, an end token outside the vocabulary is never produced.
    assert_eq!(ends(&[generation(json!([0, 99_999])), names(Value::Null)]), Ok(vec![0]));
    for never in [json!(384), json!(-1), json!([-1, 1u64 << 40])] {
        assert_eq!(ends(&[generation(never), names(Value::Null)]), Ok(vec![]));
    }
    let error = ends(&[generation(json!("</s>"))]).unwrap_err();
    assert!(error.contains("generation_config.json: eos_token_id: expected a token id"), "{error}");
    // Without a generation_config.json, config.json counts; if that says nothing, the default of its class.
    let config = |eos: Option<Value>| {
        let text = fs::read_to_string(fixture("llama-uneven").join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config.as_object_mut().unwrap().remove("eos_token_id");
        eos.into_iter().for_each(|eos| config["eos_token_id"] = eos);
        ("config.json", config)
    };
    for (eos, expected) in [
        (None, vec![2]),
        (Some(json!([7, 50_256])), vec![7]),
        (Some(json!(50_256)), vec![]),
        (Some(json!(null)), vec![]),
    ] {
        assert_eq!(ends(&[config(eos), generation(Value::Null), names(Value::Null)]), Ok(expected));
    }
}

#[test]
fn a_template_is_found_where_transformers_finds_it() {
    let found = |files: &[(&str, Value)]| Model::open(folder(files).path()).unwrap().chat_template();
    let source = |files: &[(&str, Value)]| found(files).unwrap().map(|(_, source)| source);
    let config = |template: Value| ("tokenizer_config.json", json!({"chat_template": template, "bos_token": "<s>"}));
    let (file, other) = (("chat_template.jinja", "F".into()), ("additional_chat_templates/default.jinja", "D".into()));
    assert_eq!(source(&[]), None);
    assert_eq!(source(&[config("C".into())]), Some("C".into()));
    assert_eq!(source(&[config("C".into()), other.clone()]), Some("D".into()));
    assert_eq!(source(&[config("C".into()), file, other]), Some("F".into()));
    let list = json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "L"}]);
    assert_eq!(source(&[config(list)]), Some("L".into()));
    for (senseless, says) in
        [(json!([{"name": "rag", "template": "R"}]), "\"default\": rag"), (json!(3), "expected a text")]
    {
        let error = found(&[config(senseless)]).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json: chat_template") && error.contains(says), "{error}");
    }
}

/// Runs the program with `input` on its standard input. Returns its exit code, stdout and stderr.
fn run(args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::cargo_bin("fanfold").unwrap();
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).write_stdin(input).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let said = text(output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), text(output.stdout), said)
}

#[track_caller]
fn good(args: &[&str], input: &str) -> (String, String) {
    let (code, out, err) = run(args, input);
    assert_eq!(code, 0, "{err}");
    (out, err)
}

#[track_caller]
fn bad(args: &[&str], code: i32, says: &[&str]) {
    let (found, out, err) = run(args, "x\n");
    assert_eq!((found, out.as_str()), (code, ""), "{err}");
    says.iter().for_each(|word| assert!(err.contains(word), "{word:?} is not in: {err}"));
}

#[test]
fn a_continuation_and_its_prompt_are_one_text() {
    // As in Llama 2, the space before a word is part of its token, and the decoder drops the space at the beginning of
    // a text.
    let vocab: serde_json::Map<String, Value> = (0..384).map(|id| (format!("▁w{id}"), id.into())).collect();
    let decoders = json!([{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]);
    let dir = folder(&[
        (
            "tokenizer.json",
            json!({"decoder": {"type": "Sequence", "decoders": decoders},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "▁w0"}}),
        ),
        ("tokenizer_config.json", json!({})),
        ("chat_template.jinja", "{{ messages[0].content }}".into()),
    ]);
    let options = ["run", dir.path().to_str().unwrap(), "--temp", "0", "-n", "3", "--ignore-eos", "--devices", "host"];
    let out = |more: &[&str]| good(&[&options, more].concat(), "").0;
    let text = out(&["-p", "▁w5"]);
    assert!(text.starts_with(" w") && text.split_whitespace().count() == 3, "{text:?}");
    let told = out(&["-p", "▁w5", "--logprobs", "1"]);
    let lines =
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_string());
    assert_eq!(lines.collect::<String>() + "\n", text);
    let both = out(&["-p", "▁w5", "-p", "▁w6"]);
    assert!(both.starts_with(&format!("==> ▁w5 <==\n{text}\n==> ▁w6 <==\n w")), "{both:?}");
    // An answer is the beginning of a text.
    assert_eq!(out(&["-p", "▁w5", "--chat"]), text[1..]);
    let second = text.split_whitespace().nth(1).unwrap();
    assert_eq!(out(&["-p", "▁w5", "--stop", second]), text[..text.find(second).unwrap()].to_string() + "\n");
}

#[test]
fn a_tokenizer_that_would_break_the_program_is_an_error_with_its_name() {
    let sane: Value =
        serde_json::from_slice(&fs::read(fixture("llama-uneven").join("tokenizer.json")).unwrap()).unwrap();
    let refused = |dir: &TempDir, says: &str| {
        let options = ["run", dir.path().to_str().unwrap(), "-p", "here and there", "--devices", "host"];
        bad(&options, 3, &["tokenizer.json", says]);
    };
    let doubling = json!({"type": "Replace", "pattern": {"String": "e"}, "content": "ee"});
    let text = json!({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [],
        "special_tokens": {}});
    for (part, value, says) in [
        ("normalizer", json!({"type": "Sequence", "normalizers": vec![doubling; 60]}), "makes more than"),
        (
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="}),
            "states a trie of 4294967292",
        ),
        (
            "pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            "pre_tokenizer: FixedLength: pieces of length 0",
        ),
        ("post_processor", text, "post_processor: TemplateProcessing: single"),
    ] {
        let mut file = sane.clone();
        file[part] = value;
        refused(&folder(&[("tokenizer.json", file)]), says);
    }
    #[cfg(unix)]
    {
        let dir = folder(&[]);
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("tokenizer.json")).unwrap();
        refused(&dir, "not a plain file");
    }
}

#[test]
fn a_chat_can_be_piped() {
    let dir = folder(&[("chat_template.jinja", chatml().into())]);
    let path = dir.path().to_str().unwrap();
    let options = ["--temp", "0", "-n", "5", "--ignore-eos", "--devices", "hostx2", "--system", "Hm."];
    let one = |text| good(&[&["run", path, "--chat", "-p", text], options.as_slice()].concat(), "").0;
    let input = "First\n\n/stats\nSecond\n/help\n/reset\nFirst\n/quit\nnever said\n";
    let (out, err) = good(&[&["chat", path], options.as_slice()].concat(), input);
    let answer = one("First");
    assert!(out.starts_with(&answer) && out.ends_with(&answer) && out.len() > 2 * answer.len(), "{out:?} {answer:?}");
    assert!(err.contains("1 turns") && err.contains("0 of them cached") && err.contains("/reset  forget"), "{err}");
    assert!(err.lines().last().unwrap().starts_with("3 turns") && err.contains("15 tokens"), "{err}");
    assert!(!err.contains("> "), "no prompts where nobody types: {err}");
    // The end of the input ends the chat, with or without a line end before it.
    assert_eq!(good(&[&["chat", path], options.as_slice()].concat(), "First").0, answer);
    assert_eq!(good(&[&["chat", path], options.as_slice()].concat(), "").0, "");
    let (code, _, err) = run(&[&["chat", path], options.as_slice()].concat(), "/fly\n");
    assert!(code == 2 && err.contains("/fly is no command") && err.contains("/reset"), "{err}");
    let (code, _, err) = run(&["chat", path, "-c", "24", "--devices", "host"], "This is much too long for that.\n");
    assert!(code == 2 && err.contains("the context of 24") && err.contains("-c"), "{err}");
}

#[test]
fn chats_that_cannot_be() {
    let llama = "tests/fixtures/llama-uneven";
    for command in [&["chat", llama][..], &["run", llama, "--chat", "-p", "x"]] {
        let host = [command, &["--devices", "host"]].concat();
        bad(&host, 3, &["llama-uneven", "no chat template", "--template FILE"]);
        bad(&[host.as_slice(), &["--template", "nowhere.jinja"]].concat(), 2, &["nowhere.jinja"]);
        let template = |source: &str, says: &[&str]| {
            let dir = folder(&[("t.jinja", source.into())]);
            let file = dir.path().join("t.jinja");
            bad(
                &[host.as_slice(), &["--template", file.to_str().unwrap()]].concat(),
                3,
                &[&["t.jinja"], says].concat(),
            );
        };
        template("{{ raise_exception('I will not') }}", &["I will not"]);
        template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", &["without end"]);
        template("a\n{% if %}", &["line 2"]);
        let odd = folder(&[
            ("chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}".into()),
            ("tokenizer_config.json", json!({"bos_token": "<begin>"})),
        ]);
        let args = [&[command[0], odd.path().to_str().unwrap()], &command[2..], &["--devices", "host"]].concat();
        bad(&args, 3, &["chat_template.jinja", "bos_token", "\"<begin>\"", "no token"]);
    }
    let gemma = ["chat", "demo", "--template", "tests/fixtures/templates/gemma.jinja", "--devices", "host"];
    bad(&[gemma.as_slice(), &["--system", "s"]].concat(), 3, &["System role not supported"]);
    bad(&["chat", "tests/fixtures/bert", "--devices", "host"], 2, &["predicts no tokens"]);
}

#[test]
fn sampling_flags_that_make_no_sense_are_usage() {
    let flags = [
        "--temp",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repeat-penalty",
        "--presence-penalty",
        "--frequency-penalty",
        "--repeat-last-n",
        "--seed",
        "--tokens",
    ];
    for command in [&["run", "demo", "-p", "x"][..], &["chat", "demo", "--template", CHATML]] {
        for flag in flags {
            for value in ["-1e9", "NaN", "1e39", "99999999999999999999", "x", ""] {
                bad(&[command, &["--devices", "host", flag, value]].concat(), 2, &[flag]);
            }
        }
        bad(&[command, &["--devices", "host", "--top-p", "0"]].concat(), 2, &["top-p 0"]);
        bad(&[command, &["--devices", "host", "--repeat-penalty", "0"]].concat(), 2, &["repeat-penalty 0"]);
        bad(&[command, &["--devices", "host", "--stop", ""]].concat(), 2, &["--stop"]);
    }
    bad(&["run", "demo", "-p", "x", "--logprobs", "-1"], 2, &["--logprobs"]);
}

#[test]
fn penalties_and_stop_strings_reach_the_text() {
    let run = |more: &[&'static str]| {
        let args = ["run", "demo", "-p", "ROMEO:\n", "--temp", "0", "-n", "40", "--devices", "host"];
        good(&[args.as_slice(), more].concat(), "").0
    };
    let plain = run(&[]);
    let at = plain.find(" the").expect(&plain);
    assert_eq!(run(&["--stop", "zzz", "--stop", " the"]), plain[..at].to_string() + "\n");
    let penalised = run(&["--repeat-penalty", "1.5", "--repeat-last-n", "999"]);
    assert_ne!(penalised, plain);
    assert_eq!(run(&["--repeat-penalty", "1.5", "--repeat-last-n", "0"]), plain);
    assert_ne!(run(&["--frequency-penalty", "2"]), plain);
}

#[test]
fn logprobs_are_the_models_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("logits.safetensors");
    let logits = file.to_str().unwrap();
    let args = [
        "run",
        "tests/fixtures/llama-uneven",
        "-p",
        PROMPT,
        "--tokens",
        "6",
        "--ignore-eos",
        "--seed",
        "3",
        "--devices",
        "hostx2",
    ];
    let plain = good(&args, "").0;
    let (out, _) = good(&[args.as_slice(), &["--logprobs", "384", "--logits", logits]].concat(), "");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    // The line of the last token says why there are no more, first in vLLM's words and then in more detail.
    assert_eq!(lines[5]["finish_reason"], "length");
    assert_eq!((&lines[5]["stop_reason"], &lines[5]["ended"]), (&Value::Null, &"length".into()));
    assert!(lines[..5].iter().all(|line| line.get("finish_reason").is_none()), "{out}");
    let text: String = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(text + "\n", plain);
    for line in &lines {
        let top: Vec<f64> = line["top"].as_array().unwrap().iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!((top.iter().map(|logprob| logprob.exp()).sum::<f64>() - 1.0).abs() < 1e-4);
        assert!(top.is_sorted_by(|a, b| a >= b));
        let own = line["top"].as_array().unwrap().iter().find(|t| t["id"] == line["id"]).unwrap();
        assert_eq!((&own["logprob"], &own["token"]), (&line["logprob"], &line["token"]));
    }
    // The first token's log-probabilities are the log-softmax of the prompt's last logits, at any temperature.
    let bytes = fs::read(file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let all: Vec<f32> = bytemuck::pod_collect_to_vec(tensors.tensor("logits").unwrap().data());
    let last = &all[all.len() - 384..];
    let total: f64 = last.iter().map(|&x| f64::from(x).exp()).sum();
    let best = argmax(last);
    let top = &lines[0]["top"][0];
    assert_eq!(top["id"], best);
    assert!((top["logprob"].as_f64().unwrap() - (f64::from(last[best]) - total.ln())).abs() < 1e-4);
    let (few, _) = good(&[args.as_slice(), &["--logprobs", "2"]].concat(), "");
    let few: Vec<Value> = few.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(few[3]["top"].as_array().unwrap()[..], lines[3]["top"].as_array().unwrap()[..2]);
}

/// `--exact`: one seed gives one text on any number of devices.
#[test]
fn a_seed_gives_one_text_on_any_number_of_devices() {
    let text = |devices: &str| {
        let args =
            ["run", "demo", "-p", "ROMEO:\n", "-n", "24", "--temp", "0.8", "--seed", "11", "--exact", "--devices"];
        good(&[args.as_slice(), &[devices]].concat(), "").0
    };
    let host = text("host");
    assert!(host.len() > 24);
    for devices in ["hostx2", "hostx3"] {
        assert_eq!(text(devices), host, "{devices}");
    }
    for adapter in adapters() {
        let one = text(&adapter.index.to_string());
        for n in [2, 3] {
            assert_eq!(text(&format!("{}x{n}", adapter.index)), one, "{} of {}", n, adapter.name);
        }
    }
}

/// Ctrl-C stops an answer that is being generated. Otherwise it ends the chat.
#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_then_the_chat() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Command, Stdio};
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("fanfold"));
    command.args(["chat", "demo", "--template", CHATML, "--devices", "host", "--ignore-eos", "--temp", "0"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut input, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let pid = child.id().to_string();
    let interrupt = || assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    for turn in 0..2 {
        writeln!(input, "Speak, turn {turn}.").unwrap();
        // The context has room for hundreds of tokens more.
        out.read_exact(&mut [0; 3]).unwrap();
        interrupt();
        assert_eq!(said.next().unwrap().unwrap(), "(ended: interrupted)");
    }
    // The chat now waits for a line, or soon will.
    std::thread::sleep(std::time::Duration::from_millis(500));
    interrupt();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(input);
}

#[test]
fn templates_are_documented_files() {
    // The fixtures are made by the script beside them. A template without expectations would test nothing.
    let expected = fs::read_to_string(fixture("templates").join("expected.json")).unwrap();
    for entry in fs::read_dir(fixture("templates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let named = Path::new(&name).extension().is_none_or(|e| e != "jinja") || expected.contains(&name);
        assert!(named, "{name} is not in expected.json");
    }
}
