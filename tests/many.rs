//! Many texts on the command line: embedded, ranked and continued together, with the results that each has alone.

mod common;

use assert_cmd::Command;
use common::fixture;
use fanfold::model::Model;
use serde_json::{Value, json};
use std::fs;

const BERT: &str = "tests/fixtures/bert";
const RERANK: &str = "tests/fixtures/bert-rerank";
const LLAMA: &str = "tests/fixtures/llama-uneven";

/// Runs the program, which must end with `code`. Returns its stdout and stderr.
#[track_caller]
fn fanfold(args: &[&str], stdin: &str, code: i32) -> (String, String) {
    let mut command = Command::cargo_bin("fanfold").unwrap();
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).write_stdin(stdin);
    let output = command.assert().code(code).get_output().clone();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn texts_of_a_file_are_embedded_as_each_alone() {
    let lines = ["To be, or not to be", "that is the question", "whether", "'tis nobler in the mind to suffer"];
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), lines.join("\r\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let (together, told) = fanfold(&["embed", BERT, "-f", path, "--json", "--devices", "hostx2"], "", 0);
    assert!(told.contains("4 texts, ") && told.contains(" tokens in "), "{told}");
    for (line, row) in lines.iter().zip(rows(&together)) {
        let (alone, _) = fanfold(&["embed", BERT, line, "--json", "--devices", "host"], "", 0);
        let numbers =
            |row: &Value| -> Vec<f32> { row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect() };
        let error = fanfold::tensor::relative_error(&numbers(&row), &numbers(&rows(&alone)[0]));
        assert!(error <= 1e-5, "{line}: {error:e}");
    }
    let (piped, _) =
        fanfold(&["embed", BERT, "-f", "-", "--batch", "1", "--json", "--devices", "host"], "whether\n", 0);
    assert_eq!(rows(&piped).len(), 1);
}

#[test]
fn long_texts_are_refused_or_cut_as_wanted() {
    let long = "To be, or not to be. ".repeat(40);
    let (_, told) = fanfold(&["embed", BERT, "short", &long, "--devices", "host"], "", 2);
    assert!(told.contains("do not fit the context"), "{told}");
    let (cut, _) = fanfold(&["embed", BERT, "short", &long, "--truncate", "--json", "--devices", "host"], "", 0);
    assert_eq!(rows(&cut).len(), 2);
}

/// A copy of a fixture with additional files.
fn beside(name: &str, files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = common::altered(name, &[]);
    fs::copy(fixture("sentence").join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    for (file, content) in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }
    folder
}

/// One row per line, blank lines included, with any kind of line end.
#[test]
fn a_line_of_a_file_is_a_text() {
    let folder = beside("bert", &[]);
    let model = folder.path().to_str().unwrap();
    let embed = |text: &str| {
        let (rows, _) = fanfold(&["embed", model, "-f", "-", "--json", "--devices", "host"], text, 0);
        serde_json::from_str::<Vec<Value>>(&rows).unwrap()
    };
    let alone = |text: &str| {
        let (rows, _) = fanfold(&["embed", model, text, "--json", "--devices", "host", "--batch", "1"], "", 0);
        serde_json::from_str::<Vec<Value>>(&rows).unwrap()[0].clone()
    };
    // Texts of the same length, so that padding is equal.
    let (first, none, last) = (alone("one"), alone(""), alone("two"));
    for text in ["one\n\ntwo\n", "one\r\n\r\ntwo\r\n", "one\n\ntwo"] {
        assert_eq!(embed(text), [first.clone(), none.clone(), last.clone()], "{text:?}");
    }
    assert_eq!(embed("\n"), [none]);
    let pairs = ["rank", RERANK, "a query", "-f", "-", "--json", "--devices", "host"];
    let (ranked, _) = fanfold(&pairs, "one\n\ntwo\n", 0);
    let mut ranked: Vec<Value> = rows(&ranked).iter().map(|row| json!([row["index"], row["text"]])).collect();
    ranked.sort_by_key(|row| row[0].as_u64());
    assert_eq!(ranked, [json!([0, "one"]), json!([1, ""]), json!([2, "two"])]);
    // A tokenizer that adds no special tokens gives no ids for an empty text.
    let (_, told) = fanfold(&["embed", BERT, "-f", "-", "--devices", "host"], "one\n\n", 2);
    assert!(told.contains("standard input, line 2") && told.contains("no token"), "{told}");
    let (_, told) = fanfold(&["embed", BERT, "one", "", "--devices", "host"], "", 2);
    assert!(told.contains("text 2 on the command line"), "{told}");
}

#[test]
fn prompts_and_lengths_of_a_folder_are_its_texts() {
    let modules = json!([
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]);
    let folder = beside(
        "bert",
        &[
            ("modules.json", modules),
            ("1_Pooling/config.json", json!({"pooling_mode_mean_tokens": true})),
            ("sentence_bert_config.json", json!({"max_seq_length": 16})),
            (
                "config_sentence_transformers.json",
                json!({"prompts": {"ask": "Question: ", "find": "Find "}, "default_prompt_name": "ask"}),
            ),
        ],
    );
    let model = folder.path().to_str().unwrap();
    let embed = |more: &[&str]| fanfold(&[&["embed", model, "--json", "--devices", "host"], more].concat(), "", 0);
    let asked = embed(&["who goes"]).0;
    assert_eq!(asked, embed(&["Question: who goes", "--prompt", ""]).0);
    assert_eq!(asked, embed(&["who goes", "--prompt", "Question: "]).0);
    assert_eq!(embed(&["who goes", "--prompt-name", "find"]).0, embed(&["who goes", "--prompt", "Find "]).0);
    let long = "To be, or not to be, that is the question";
    let (cut, told) = embed(&[long, "short"]);
    assert!(told.contains("1 of 2 texts are longer than 16 tokens, and were cut"), "{told}");
    let (other, _) = embed(&[&format!("{long}, is it?"), "short"]);
    assert_eq!(cut, other);
    let base = ["embed", model, "x", "--devices", "host"];
    let (_, told) = fanfold(&[&base[..], &["--prompt-name", "answer"]].concat(), "", 2);
    assert!(told.contains("\"answer\"") && told.contains("ask, find"), "{told}");
    fanfold(&[&base[..], &["--prompt-name", "ask", "--prompt", "x"]].concat(), "", 2);
    // Texts are cut further if the context is shorter, and only if the user allows it.
    let (_, told) = fanfold(&["embed", model, long, "-c", "8", "--devices", "host"], "", 2);
    assert!(told.contains("do not fit the context"), "{told}");
    let (_, told) = embed(&[long, "-c", "8", "--truncate"]);
    assert!(told.contains("longer than 8 tokens"), "{told}");
    // The prompt is also put before a query.
    let rerank = beside("bert-rerank", &[]);
    let rank = |more: &[&str]| {
        let base = ["rank", rerank.path().to_str().unwrap(), "--json", "--devices", "host"];
        fanfold(&[&base[..], more].concat(), "", 0).0
    };
    assert_eq!(rank(&["why", "so", "--prompt", "Tell me "]), rank(&["Tell me why", "so"]));
}

/// In f32 a sigmoid is 1 from 17 on: the order must be that of the logits.
#[test]
fn documents_that_a_reranker_is_sure_of_are_told_apart() {
    let documents =
        ["Speak, speak.", "You are all resolved rather to die than to famish?", "Resolved. resolved.", "So."];
    let order = |folder: &str| -> Vec<u64> {
        let args = [&["rank", folder, "a query"], &documents[..], &["--json", "--devices", "host"]].concat();
        rows(&fanfold(&args, "", 0).0).iter().map(|row| row["index"].as_u64().unwrap()).collect()
    };
    let plain = order(RERANK);
    assert_ne!(plain, [0, 1, 2, 3], "a useless test");
    let folder = common::altered("bert-rerank", &[("sentence_transformers", Value::Null)]);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("bert-rerank").join(file), folder.path().join(file)).unwrap();
    }
    let mut bytes = fs::read(fixture("bert-rerank").join("model.safetensors")).unwrap();
    let (weight, bias) = {
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let at = |name: &str| {
            let data = file.tensor(name).unwrap().data();
            assert_eq!(file.tensor(name).unwrap().dtype(), safetensors::Dtype::BF16);
            let start = data.as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + data.len()
        };
        (at("classifier.weight"), at("classifier.bias"))
    };
    // The weights are scaled by more than a thousand: bf16 has the exponent of f32, to which 10 is added. The bias
    // lifts all logits far above 17.
    for pair in bytes[weight].chunks_exact_mut(2) {
        let bits = u16::from_le_bytes([pair[0], pair[1]]);
        pair.copy_from_slice(&(if bits & 0x7FFF == 0 { bits } else { bits + (10 << 7) }).to_le_bytes());
    }
    bytes[bias].copy_from_slice(&((1e5f32.to_bits() >> 16) as u16).to_le_bytes());
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    assert_eq!(order(folder.path().to_str().unwrap()), plain);
}

#[test]
fn a_classifier_names_its_labels() {
    let classify = |more: &[&str]| {
        fanfold(&[&["classify", "tests/fixtures/roberta-labels", "--devices", "host"], more].concat(), "", 0).0
    };
    let told = rows(&classify(&["who goes there", "to be", "--json"]));
    assert_eq!(told.len(), 2);
    for row in &told {
        let row = row.as_array().unwrap();
        let mut labels: Vec<&str> = row.iter().map(|entry| entry["label"].as_str().unwrap()).collect();
        let scores: Vec<f64> = row.iter().map(|entry| entry["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{scores:?}");
        labels.sort();
        assert_eq!(labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    }
    let best = rows(&classify(&["who goes there", "--json", "--top", "1"]));
    assert_eq!(best[0].as_array().unwrap()[..], told[0].as_array().unwrap()[..1]);
    let line = classify(&["who goes there"]);
    let (labels, text) = line.trim_end().split_once('\t').unwrap();
    assert_eq!((text, labels.matches("LABEL_").count()), ("who goes there", 3));
    assert!(labels.contains(best[0][0]["label"].as_str().unwrap()), "{labels}");
    // Pairs, with one second text for all or one for each.
    let pair = classify(&["who", "what", "--pair", "goes", "--json"]);
    assert_eq!(pair, classify(&["who", "what", "--pair", "goes", "--pair", "goes", "--json"]));
    assert_ne!(pair, classify(&["who", "what", "--json"]));
    let labels = "tests/fixtures/roberta-labels";
    for (args, says) in [
        (vec!["classify", labels, "a", "b", "c", "--pair", "x", "--pair", "y"], "--pair is given 2 times for 3 texts"),
        (vec!["classify", BERT, "a"], "has no classification head"),
        (vec!["classify", LLAMA, "a"], "has no classification head"),
        (vec!["rank", labels, "a", "b"], "use `fanfold classify`"),
    ] {
        let (_, told) = fanfold(&[&args[..], &["--devices", "host"]].concat(), "", 2);
        assert!(told.contains(says), "{told}");
    }
}

#[test]
fn a_decoder_without_its_head_says_so() {
    let folder = common::altered("llama-uneven", &[("architectures", json!(["LlamaModel"]))]);
    fs::copy(fixture("llama-uneven").join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let bytes = fs::read(fixture("llama-uneven").join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<_> = file.tensors().into_iter().filter(|(name, _)| name != "lm_head.weight").collect();
    safetensors::serialize_to_file(kept, None, &folder.path().join("model.safetensors")).unwrap();
    let model = folder.path().to_str().unwrap();
    let (_, told) = fanfold(&["run", model, "-p", "x", "--devices", "host"], "", 2);
    assert!(told.contains("its files hold no lm_head.weight") && told.contains("fanfold embed"), "{told}");
    let embed = |model: &str| fanfold(&["embed", model, "who goes there", "--json", "--devices", "host"], "", 0).0;
    assert_eq!(embed(model), embed(LLAMA));
}

/// The scores of a cross-encoder from the library, and their order.
#[test]
fn documents_are_ranked_by_their_scores() {
    let documents = ["Cats sleep.", "Plants eat light.", "A third document, longer than the others by some words."];
    let query = "how do plants eat?";
    let args = |more: &[&'static str]| -> Vec<&'static str> {
        [&["rank", RERANK, query], &documents[..], &["--devices", "hostx3"], more].concat()
    };
    let (json, told) = fanfold(&args(&["--json"]), "", 0);
    assert!(told.contains("3 texts, "), "{told}");
    let ranked = rows(&json);
    let scores: Vec<f64> = ranked.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]), "{scores:?}");
    let mut numbers: Vec<u64> = ranked.iter().map(|row| row["index"].as_u64().unwrap()).collect();
    let best = documents[numbers[0] as usize];
    assert_eq!(ranked[0]["text"], best);
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    for row in &ranked {
        let document = row["text"].as_str().unwrap();
        let (alone, _) = fanfold(&["rank", RERANK, query, document, "--json", "--devices", "host"], "", 0);
        let (a, b) = (rows(&alone)[0]["score"].as_f64().unwrap(), row["score"].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-5, "{document}: {a} alone, {b} among others");
    }
    let (text, _) = fanfold(&args(&["--top", "1"]), "", 0);
    assert!(text.lines().count() == 1 && text.contains(best), "{text}");
    let labels = Model::open(fixture("bert-rerank")).unwrap().info().scores.unwrap().labels;
    assert_eq!(labels, 1);
}

#[test]
fn what_scores_no_pairs_does_not_rank() {
    for (model, says) in
        [(BERT, "cross-encoder"), (LLAMA, "cross-encoder"), ("tests/fixtures/roberta-labels", "3 labels")]
    {
        let (_, told) = fanfold(&["rank", model, "query", "document", "--devices", "host"], "", 2);
        assert!(told.contains(says), "{told}");
    }
    let (_, told) = fanfold(&["rank", RERANK, "query", "--devices", "host"], "", 2);
    assert!(told.contains("no texts"), "{told}");
}

#[test]
fn several_prompts_are_continued_at_once() {
    let common = ["--temp", "0", "--ignore-eos", "-n", "12", "--devices", "hostx2"];
    let prompts = ["ROMEO: But soft, what light", "A", "To be, or not to be, that"];
    let given: Vec<&str> = prompts.iter().flat_map(|prompt| ["-p", prompt]).collect();
    let (together, told) = fanfold(&[&["run", LLAMA], &given[..], &common].concat(), "", 0);
    assert!(told.contains("3 prompts, in all 36 tokens in "), "{told}");
    let mut expected = String::new();
    for prompt in prompts {
        let (alone, _) = fanfold(&[&["run", LLAMA, "-p", prompt], &common[..]].concat(), "", 0);
        expected += &format!("==> {prompt} <==\n{alone}\n");
    }
    assert_eq!(together, expected);
    let (_, told) = fanfold(&["run", LLAMA, "-p", "a", "-p", "b", "--logprobs", "1", "--devices", "host"], "", 2);
    assert!(told.contains("take one text"), "{told}");
}
