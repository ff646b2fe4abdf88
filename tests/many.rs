//! Many texts on the command line: embedded, ranked and continued together as they are alone.

mod common;

use assert_cmd::Command;
use common::fixture;
use fanfold::import::Model;
use serde_json::Value;
use std::fs;

const BERT: &str = "tests/fixtures/bert";
const RERANK: &str = "tests/fixtures/bert-rerank";
const LLAMA: &str = "tests/fixtures/llama-uneven";

/// What it writes on stdout and on stderr where it ends with `code`.
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
    fs::write(file.path(), lines.join("\n\n") + "\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (together, told) = fanfold(&["embed", BERT, "-f", path, "--json", "--devices", "hostx2"], "", 0);
    assert!(told.contains("4 texts at ") && told.contains(" tokens at "), "{told}");
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

/// The scores of a cross-encoder as the library gives them, and their order.
#[test]
fn documents_are_ranked_by_their_scores() {
    let documents = ["Cats sleep.", "Plants eat light.", "A third document, longer than the others by some words."];
    let query = "how do plants eat?";
    let args = |more: &[&'static str]| -> Vec<&'static str> {
        [&["rank", RERANK, query], &documents[..], &["--devices", "hostx3"], more].concat()
    };
    let (json, told) = fanfold(&args(&["--json"]), "", 0);
    assert!(told.contains("3 texts at "), "{told}");
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
        [(BERT, "cross-encoder"), (LLAMA, "cross-encoder"), ("tests/fixtures/roberta-labels", "3 classes")]
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
    assert!(told.contains("3 prompts, 36 tokens at "), "{told}");
    let mut expected = String::new();
    for prompt in prompts {
        let (alone, _) = fanfold(&[&["run", LLAMA, "-p", prompt], &common[..]].concat(), "", 0);
        expected += &format!("==> {prompt} <==\n{alone}\n");
    }
    assert_eq!(together, expected);
    let (_, told) = fanfold(&["run", LLAMA, "-p", "a", "-p", "b", "--logprobs", "1", "--devices", "host"], "", 2);
    assert!(told.contains("take one text"), "{told}");
}
