//! Every kind of broken model folder is refused with a typed error that names the file, the tensor and the byte.

use fanfold::Error;
use fanfold::generate::GenerateError;
use fanfold::import::ImportError;
use fanfold::import::{self, FileTensors, Folder, Head, Tensors, safetensors};
use fanfold::model::Model;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const MODEL: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn open(files: &[(&str, &[u8])]) -> ImportError {
    import_error(Folder::open(folder(files).path()))
}

#[track_caller]
fn import_error<T: std::fmt::Debug>(result: Result<T, impl Into<Error>>) -> ImportError {
    match result.map_err(Into::into) {
        Err(Error::Import(error)) => error,
        other => panic!("expected an import error, got {other:?}"),
    }
}

/// Checks for a fault of the file as a whole: `at` is the byte, `says` a part of the message.
#[track_caller]
fn file_fault(bytes: &[u8], at: u64, says: &str) {
    let error = open(&[(MODEL, bytes)]);
    assert!(matches!(&error, ImportError::File { offset, .. } if *offset == at), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(MODEL) && message.contains(says), "{message}");
    assert!(message.contains(&format!("(at byte {at})")), "{message}");
}

/// Checks for a fault of the tensor `name`, whose data or header entry is at byte `at`.
#[track_caller]
fn tensor_fault(error: &ImportError, name: &str, at: u64, says: &str) {
    assert!(
        matches!(error, ImportError::Tensor { tensor, offset, .. } if tensor == name && *offset == at),
        "{error:?}, expected byte {at}"
    );
    let message = error.to_string();
    assert!(message.contains(".safetensors") && message.contains(&format!("tensor {name:?}")), "{message}");
    assert!(message.contains(says) && message.contains(&format!("(at byte {at})")), "{message}");
}

#[track_caller]
fn header_fault(header: &str, data: usize, name: &str, relative: u64, says: &str) {
    let error = open(&[(MODEL, &file(header, data))]);
    tensor_fault(&error, name, 8 + header.len() as u64 + relative, says);
}

#[track_caller]
fn folder_fault(error: &ImportError, says: &[&str]) {
    assert!(matches!(error, ImportError::Folder { .. }), "{error:?}");
    for word in says {
        assert!(error.to_string().contains(word), "{error} lacks {word:?}");
    }
}

#[test]
fn an_empty_file() {
    file_fault(b"", 0, "the file is empty");
}

/// A file that was shortened or rewritten after it was opened and before its weights are read, as by a download that
/// starts again. Reading bytes that are no longer mapped would end the process.
#[test]
fn a_file_that_changes_while_it_is_in_use() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama-uneven");
    for (change, says) in [("shorten", "bytes when it was opened and has 1000 now"), ("rewrite", "was written to")] {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", MODEL] {
            fs::copy(source.join(name), dir.path().join(name)).unwrap();
        }
        let model = std::sync::Arc::new(Model::open(dir.path()).unwrap());
        let file = fs::OpenOptions::new().write(true).open(dir.path().join(MODEL)).unwrap();
        match change {
            "shorten" => file.set_len(1000).unwrap(),
            _ => file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap(),
        }
        let plan = fanfold::plan::plan(model.graph(), fanfold::Strategy::Single, &[1.0]).unwrap();
        let devices: Vec<Box<dyn fanfold::device::Device>> = vec![Box::new(fanfold::device::host::HostDevice::new())];
        let options = fanfold::EngineOptions::default();
        let opened = fanfold::Engine::open(model, &plan, devices, options, std::sync::Arc::new(|_| ()));
        let Err(GenerateError::Session(fanfold::session::SessionError::Rank { cause, .. })) = opened.map(|_| ()) else {
            panic!("{change}: no rank failed")
        };
        let why = Error::from((*cause).clone());
        assert!(matches!(why, Error::Import(ImportError::Io { .. })), "{cause:?}");
        assert!(cause.to_string().contains(says) && cause.to_string().contains(MODEL), "{cause}");
    }
}

#[test]
fn a_truncated_file() {
    file_fault(&[1, 0, 0], 3, "truncated");
    file_fault(&file("{}", 0)[..9], 9, "its header should have 2 bytes, 1 are there");
    let header = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    header_fault(header, 15, "a", 0, "truncated");
}

#[test]
fn an_absurd_header_length() {
    for length in [u64::MAX, 1 << 62, 100_000_001] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(b"{}");
        file_fault(&bytes, 0, &format!("header length of {length} is absurd"));
    }
    file_fault(b"version https://example.org/git-lfs/v1\noid sha256:00\n", 0, "Git LFS pointer");
}

#[test]
fn a_header_that_is_not_json() {
    file_fault(&file("", 0), 8, "not valid JSON");
    file_fault(&file("{!}", 0), 9, "the header is not valid JSON");
    tensor_fault(&open(&[(MODEL, &file("{\"a\": !}", 0))]), "a", 14, "the header is not valid JSON");
    file_fault(&file("{}  x", 0), 12, "trailing characters");
    file_fault(&file("[]", 0), 8, "expected an object of tensors");
    file_fault(&file(&format!("{{\"__metadata__\": {}", "[".repeat(100_000)), 0), 100_024, "not valid JSON");
}

#[test]
fn a_header_entry_that_makes_no_sense() {
    for (entry, says) in [
        (r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, "-1"),
        (r#"{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}"#, "1.5"),
        (r#"{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}"#, "not as expected"),
        (r#"{"dtype":"F32","shape":[1]}"#, "missing field `data_offsets`"),
        (r#"{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}"#, "duplicate field `dtype`"),
        ("7", "not as expected"),
        ("{\"dtype\":\"F32\",", "not valid JSON"),
    ] {
        let error = open(&[(MODEL, &file(&format!("{{\"a\":{entry}}}"), 4))]);
        let ImportError::Tensor { offset, .. } = error else { panic!("{error:?}") };
        assert!(offset > 12 && offset < 100, "{offset}");
        tensor_fault(&error, "a", offset, says);
    }
}

#[test]
fn overlapping_offsets() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    header_fault(header, 12, "b", 4, r#"overlaps that of tensor "a""#);
}

#[test]
fn offsets_out_of_range() {
    let entry = |range: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{range}}}}}"#);
    header_fault(&entry("[0,16]"), 8, "a", 0, "leave the file, which has 8 bytes of data");
    header_fault(&entry("[8,0]"), 8, "a", 8, "ends before it begins");
    header_fault(&entry("[0,18446744073709551615]"), 8, "a", 0, "leave the file");
    let error = open(&[(MODEL, &file(&entry("[18446744073709551607,18446744073709551615]"), 8))]);
    tensor_fault(&error, "a", u64::MAX, "leave the file");
}

#[test]
fn bytes_that_belong_to_no_tensor() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#;
    header_fault(header, 12, "b", 8, "the 4 bytes before its data belong to no tensor");
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    file_fault(&file(header, 10), 8 + header.len() as u64 + 4, "the last 6 bytes belong to no tensor");
}

#[test]
fn a_shape_whose_product_overflows() {
    for shape in ["[4294967296,4294967296,2]", "[4611686018427387904,2]", "[0,18446744073709551615,2]"] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}"#);
        header_fault(&header, 4, "a", 0, "overflows");
    }
}

#[test]
fn a_length_that_is_not_the_shape_times_the_type() {
    let header = r#"{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,16]}}"#;
    header_fault(header, 16, "a", 0, "shape [2, 3] of F16 takes 12 bytes, its data_offsets [0, 16] hold 16");
    let header = r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#;
    header_fault(header, 1, "a", 0, "shape [3] of F4 takes 2 bytes");
}

#[test]
fn duplicate_tensor_names() {
    let a = r#""dtype":"F32","shape":[1],"data_offsets""#;
    let header = format!(r#"{{"a":{{{a}:[0,4]}},"b":{{{a}:[4,8]}},"\u0061":{{{a}:[8,12]}}}}"#);
    header_fault(&header, 12, "a", 8, "the header names it twice");
}

#[test]
fn an_unsupported_type_is_told_only_when_used() {
    for (file_type, size) in [("I64", 8), ("BOOL", 1), ("F8_E4M3", 1), ("Q4_0", 3)] {
        let header = format!(
            r#"{{"w":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"ids":{{"dtype":"{file_type}","shape":[1],"data_offsets":[4,{}]}}}}"#,
            4 + size
        );
        let dir = folder(&[(MODEL, &file(&header, 4 + size))]);
        let weights = FileTensors::open(&Folder::open(dir.path()).unwrap());
        let w = weights.view(weights.find("w").unwrap()).unwrap();
        assert_eq!(weights.read(&w).unwrap().as_f32().unwrap(), [0.0]);
        let ids = weights.find("ids").unwrap();
        let at = 8 + header.len() as u64 + 4;
        let error = import_error(weights.read(&weights.view(ids).unwrap()));
        tensor_fault(&error, "ids", at, &format!("type {file_type:?} are not supported; supported: F32, F16, BF16"));
        tensor_fault(&import_error(weights.dtype(ids)), "ids", at, "supported");
        assert_eq!(weights.bytes_read(), 4);
    }
}

#[test]
fn a_tensor_of_no_elements_is_legal() {
    let header = r#"{"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let dir = folder(&[(MODEL, &file(header, 4))]);
    let weights = FileTensors::open(&Folder::open(dir.path()).unwrap());
    let view = weights.view(weights.find("a").unwrap()).unwrap();
    assert_eq!(weights.read(&view).unwrap().shape(), [0, 3]);
}

fn shard(tensor: &str) -> Vec<u8> {
    file(&format!(r#"{{"{tensor}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#), 4)
}

fn index(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(tensor, file)| format!("{tensor:?}:{file:?}")).collect();
    format!(r#"{{"metadata":{{"total_size":8}},"weight_map":{{{}}}}}"#, pairs.join(","))
}

/// Checks for a fault at the place where the index contains `at`.
#[track_caller]
fn index_fault(index: &str, files: &[(&str, &[u8])], tensor: &str, at: &str, says: &str) {
    let error = open(&[files, &[(INDEX, index.as_bytes())]].concat());
    let offset = index.find(&format!("{at:?}")).unwrap() as u64;
    tensor_fault(&error, tensor, offset, says);
    assert!(error.to_string().contains(INDEX), "{error}");
}

#[test]
fn a_sharded_model_opens() {
    let map = index(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
    let dir = folder(&[(INDEX, map.as_bytes()), ("1.safetensors", &shard("a")), ("2.safetensors", &shard("b"))]);
    let folder = Folder::open(dir.path()).unwrap();
    assert_eq!(folder.tensor_names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(folder.weight_bytes(), 8);
}

#[test]
fn an_index_that_names_a_file_outside_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.safetensors"), shard("a")).unwrap();
    let absolute = outside.path().join("x.safetensors").to_string_lossy().into_owned();
    for name in ["../x.safetensors", &absolute, "sub/x.safetensors", "..", "", "sub\\x.safetensors", "C:x.safetensors"]
    {
        index_fault(&index(&[("a", name)]), &[], "a", name, "is not a plain name within the folder");
    }
    index_fault(&index(&[("a", "x.bin")]), &[], "a", "x.bin", "is not .safetensors");
}

#[test]
fn an_index_that_names_a_missing_file() {
    let map = index(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
    let says = r#"names the file "2.safetensors", which is not in the folder"#;
    index_fault(&map, &[("1.safetensors", &shard("a"))], "b", "2.safetensors", says);
}

#[test]
fn an_index_that_names_a_missing_tensor() {
    let map = index(&[("a", "1.safetensors"), ("b", "1.safetensors")]);
    let says = r#"names the file "1.safetensors", which has no such tensor"#;
    index_fault(&map, &[("1.safetensors", &shard("a"))], "b", "b", says);
    // A tensor that is in the other file is not in this one.
    let map = index(&[("a", "2.safetensors"), ("b", "1.safetensors")]);
    let files: [(&str, &[u8]); 2] = [("1.safetensors", &shard("a")), ("2.safetensors", &shard("b"))];
    index_fault(&map, &files, "a", "a", "has no such tensor");
}

#[test]
fn an_index_that_names_a_tensor_twice() {
    let map = index(&[("a", "1.safetensors"), ("a", "2.safetensors")]);
    index_fault(&map, &[], "a", "a", r#"is named twice: in "1.safetensors" and in "2.safetensors""#);
}

#[test]
fn a_tensor_in_two_files() {
    let both = file(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        8,
    );
    let map = index(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
    let error = open(&[(INDEX, map.as_bytes()), ("1.safetensors", &shard("a")), ("2.safetensors", &both)]);
    tensor_fault(&error, "a", both.len() as u64 - 8, "1.safetensors");
    assert!(error.to_string().contains("2.safetensors: tensor"), "{error}");
}

#[test]
fn an_index_that_is_not_one() {
    for (text, says) in [
        ("", "not valid JSON"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map":{"a":1}}"#, "not as expected"),
        (r#"{"weight_map":{}}"#, "names no tensor"),
    ] {
        let error = open(&[(INDEX, text.as_bytes())]);
        assert!(matches!(error, ImportError::File { .. }), "{error:?}");
        assert!(error.to_string().contains(INDEX) && error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_folder_of_another_format() {
    for name in ["pytorch_model.bin", "consolidated.00.pth", "model.PT"] {
        folder_fault(&open(&[(name, b"x")]), &[name]);
        folder_fault(&open(&[(name, b"x")]), &["pickle", "Only safetensors is read", "save_pretrained"]);
    }
    folder_fault(&open(&[("model-q4.gguf", b"GGUF")]), &["model-q4.gguf", "Only safetensors is read"]);
    folder_fault(&open(&[("adapter.safetensors", b"x")]), &["adapter.safetensors", MODEL, INDEX]);
    folder_fault(&open(&[]), &[MODEL, INDEX]);
    let empty = tempfile::tempdir().unwrap();
    folder_fault(&import_error(Folder::open(empty.path())), &["is empty", MODEL]);
}

#[test]
fn a_path_that_is_no_folder() {
    let dir = folder(&[(MODEL, &file("{}", 0)), ("m.gguf", b"GGUF"), ("m.bin", b"x")]);
    let at = |name: &str| import_error(Folder::open(dir.path().join(name)));
    folder_fault(&at("nowhere"), &["nowhere: does not exist"]);
    folder_fault(&at(MODEL), &["is a file; give the folder that holds it"]);
    folder_fault(&at("m.gguf"), &["GGUF"]);
    folder_fault(&at("m.bin"), &["pickle"]);
    folder_fault(&at("config.json"), &["is a file"]);
}

#[test]
fn a_folder_without_settings() {
    let dir = folder(&[(MODEL, &file("{}", 0))]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    folder_fault(&import_error(Folder::open(dir.path())), &["holds no config.json"]);
    for (text, at) in [("", 0), ("[]", 0), ("{\"a\":}", 5), ("{\"a\":1", 5), (&"[".repeat(1000), 0)] {
        fs::write(dir.path().join("config.json"), text).unwrap();
        let error = import_error(Folder::open(dir.path()));
        assert!(matches!(&error, ImportError::File { offset, .. } if *offset == at), "{text:.20} {error:?}");
        assert!(error.to_string().contains("config.json: not"), "{error}");
    }
}

#[test]
fn a_file_that_is_too_long_or_no_file() {
    let dir = folder(&[(MODEL, &file("{}", 0))]);
    let config = dir.path().join("config.json");
    // The file is sparse: no byte of it is written, and none may be read.
    fs::File::create(&config).unwrap().set_len(1 << 40).unwrap();
    let error = import_error(Folder::open(dir.path()));
    assert!(matches!(&error, ImportError::File { .. }) && error.to_string().contains("1099511627776 bytes"), "{error}");
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    let error = import_error(Folder::open(dir.path()));
    assert!(matches!(&error, ImportError::Io { .. }) && error.to_string().contains("config.json: not a plain file"));
}

#[test]
fn a_file_name_from_a_file_cannot_leave_the_folder() {
    let dir = folder(&[(MODEL, &file("{}", 0))]);
    fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    fs::write(dir.path().join("1_Pooling/config.json"), "{}").unwrap();
    fs::write(dir.path().join("modules.json"), r#"[{"idx":0},{"idx":1}]"#).unwrap();
    let folder = Folder::open(dir.path()).unwrap();
    assert!(folder.json("1_Pooling/config.json").unwrap().is_some());
    assert_eq!(folder.json_list("modules.json").unwrap().unwrap()[1].usize("idx").unwrap(), 1);
    assert!(folder.json("generation_config.json").unwrap().is_none());
    for name in ["../config.json", "/etc/hostname", "1_Pooling/../../x", ""] {
        folder_fault(&import_error(folder.json(name)), &[&format!("{name:?} leads out of the folder")]);
    }
}

type Fields = serde_json::Map<String, serde_json::Value>;

/// The configuration that transformers writes for a model of each family.
fn configs() -> Fields {
    serde_json::from_slice(&fs::read("tests/fixtures/configs.json").unwrap()).unwrap()
}

/// A model of `family` without files, with the fields of `more` added to its configuration or replacing fields of it.
fn configured(family: &str, more: &str) -> fanfold::Result<Model> {
    let mut config = configs()[family].clone();
    config.as_object_mut().unwrap().extend(serde_json::from_str::<Fields>(more).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    Ok(Model::random(&path, fanfold::tensor::DType::F16, 0, Head::Default)?)
}

/// Every field that transformers writes for a family is understood, and a misspelt field is not.
#[test]
fn the_fields_of_every_familys_configuration_are_understood() {
    for family in configs().keys() {
        configured(family, "{}").unwrap_or_else(|error| panic!("{family}: {error}"));
        let misspelt = configured(family, r#"{"slidding_window": 64, "rotary_scale": [1.5]}"#);
        let error = import_error(misspelt.map(|model| model.info().family.clone()));
        let message = error.to_string();
        assert!(matches!(error, ImportError::NotUnderstood { .. }), "{family}: {message}");
        assert!(message.contains("\n  rotary_scale: [1.5]\n  slidding_window: 64\n"), "{family}: {message}");
        assert!(message.contains("can be ignored: rotary_scale,slidding_window"), "{family}: {message}");
    }
}

/// Fields that well known files have in addition to those that transformers writes today, and older spellings of some.
#[test]
fn what_well_known_files_add_is_understood() {
    for (family, more) in [
        (
            "llama",
            r#"{"rope_interleaved": false, "is_llama_config": true, "pretraining_tp": 1, "torch_dtype": "bfloat16",
                "transformers.js_config": {"dtype": "q4"}, "rope_parameters": null, "rope_theta": 500000.0,
                "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192, "rope_type": "llama3"}}"#,
        ),
        ("qwen2", r#"{"use_mrope": false, "sliding_window": 131072, "_name_or_path": "x"}"#),
        (
            "qwen2",
            r#"{"rope_parameters": null, "rope_theta": 1e6, "layer_types": null,
            "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}}"#,
        ),
        ("qwen3", r#"{"max_window_layers": 0, "layer_types": null, "use_sliding_window": true}"#),
        ("mistral", r#"{"sliding_window": null, "head_dim": 128}"#),
        ("gemma2", r#"{"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid", "layer_types": null}"#),
        (
            "gemma3_text",
            r#"{"rope_parameters": null, "rope_theta": 1000000, "rope_local_base_freq": 10000, "layer_types": null,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window_pattern": 6}"#,
        ),
        (
            "phi3",
            r#"{"attention_bias": false, "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": false,
                "mlp_bias": false, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}"#,
        ),
        ("gpt2", r#"{"n_ctx": 1024, "task_specific_params": {"text-generation": {"do_sample": true}}}"#),
        (
            "bert",
            r#"{"gradient_checkpointing": false, "directionality": "bidi", "pooler_type": "first_token_transform"}"#,
        ),
        (
            "bert",
            r#"{"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0"}}"#,
        ),
        ("distilbert", r#"{"tie_weights_": true}"#),
        (
            "starcoder2",
            r#"{"activation_function": "gelu", "layer_norm_epsilon": 1e-05, "mlp_type": "default", "sliding_window": 4096,
                "norm_type": "layer_norm", "attention_softmax_in_fp32": true, "scale_attn_weights": true,
                "scale_attention_softmax_in_fp32": true, "rope_parameters": null, "rope_theta": 999999.4}"#,
        ),
        ("gpt_neox", r#"{"rope_parameters": null, "rotary_emb_base": 10000, "rotary_pct": 0.25}"#),
        ("mixtral", r#"{"rope_parameters": null, "rope_theta": 1e6, "output_router_logits": false}"#),
        // As first published, before transformers saved the files again.
        ("llama", r#"{"max_sequence_length": 2048, "pad_token_id": -1, "bias": false}"#),
        (
            "llama",
            r#"{"rope_parameters": null, "rope_scaling": {"factor": 16.0, "finetuned": true, "type": "yarn",
                "original_max_position_embeddings": 4096}}"#,
        ),
        ("gpt2", r#"{"n_ctx": 1024, "n_special": 0, "predict_special_tokens": true, "output_past": true}"#),
        ("gpt2", r#"{"hidden_size": 768, "num_hidden_layers": 12.0, "_num_labels": 1, "eos_token_ids": 0}"#),
        ("xlm-roberta", r#"{"output_past": true}"#),
        ("roberta", r#"{"output_past": true, "pad_token_id": -1, "eos_token_ids": 0}"#),
        ("distilbert", r#"{"output_past": true, "finetuning_task": "sst-2"}"#),
        ("bert", r#"{"export_model_type": "transformer", "do_lower_case": true}"#),
        ("falcon", r#"{"apply_residual_connection_post_layernorm": false, "n_embed": 4544, "head_dim": 64}"#),
        ("gemma2", r#"{"hidden_act": "gelu_pytorch_tanh", "sliding_window_size": 4096}"#),
        ("gemma3", r#"{"boi_token_id": 255999, "eoi_token_id": 256000, "image_token_id": 262144}"#),
        (
            "qwen3_moe",
            r#"{"max_window_layers": 48, "qkv_bias": false, "use_qk_norm": true, "shared_expert_intermediate_size": 0}"#,
        ),
        (
            "gpt_neox",
            r#"{"rope_parameters": null, "rotary_emb_base": 10000, "rotary_pct": 0.25, "rope_theta": 10000.0,
                "partial_rotary_factor": 0.25, "num_steps": "global_step320000", "is_decoder": true}"#,
        ),
        ("starcoder2", r#"{"eos_token_id": 50256, "bos_token_id": 50256, "vocab_size": 49152}"#),
    ] {
        configured(family, more).unwrap_or_else(|error| panic!("{family}: {error}"));
    }
}

/// Python reads and writes numbers that are not JSON. No setting accepts one.
#[test]
fn a_number_that_only_python_has_is_named_with_its_field() {
    let refused = |family: &str, field: &str, constant: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let text =
            format!(r#"{{"model_type": "{family}", "time_step_limit": [0.0, Infinity], "{field}": {constant}}}"#);
        fs::write(&path, text).unwrap();
        let model = Model::random(&path, fanfold::tensor::DType::F16, 0, Head::Default);
        import_error(model.map(|model| model.info().family.clone())).to_string()
    };
    assert!(refused("mamba9", "x", "NaN").contains("model_type \"mamba9\" is not supported"));
    for (constant, field) in [("Infinity", "rms_norm_eps"), ("-Infinity", "vocab_size"), ("NaN", "rope_theta")] {
        let message = refused("llama", field, constant);
        assert!(message.contains(field) && message.ends_with(&format!("found {constant}")), "{message}");
    }
    assert!(refused("llama", "rope_scaling", "NaN").ends_with("rope_scaling: expected an object, found NaN"));
    assert!(refused("llama", "use_cache", "NaN").contains("\n  time_step_limit: [0.0,Infinity]\n"));
}

/// Settings of decoders that contradict each other or have invalid values.
#[test]
fn a_decoder_that_cannot_be() {
    for (family, more, says) in [
        ("mistral", r#"{"sliding_window": 0}"#, "sliding_window: expected a whole number from 1"),
        ("mistral", r#"{"sliding_window": -4}"#, "sliding_window: expected a whole number from 1"),
        ("mistral", r#"{"layer_types": ["full_attention"]}"#, "layer_types: [\"full_attention\"]"),
        ("mistral", r#"{"partial_rotary_factor": 0.5}"#, "partial_rotary_factor: only 1 is supported in this family"),
        ("gemma2", r#"{"attn_logit_softcapping": -30.0}"#, "attn_logit_softcapping: expected a number above zero"),
        ("gemma2", r#"{"final_logit_softcapping": "no"}"#, "final_logit_softcapping: expected a number above zero"),
        ("gemma2", r#"{"query_pre_attn_scalar": 0}"#, "query_pre_attn_scalar: expected a number above zero"),
        ("gemma2", r#"{"layer_types": ["full_attention"]}"#, "layer_types: has 1 entries, and there are 26 layers"),
        ("gemma2", r#"{"sliding_window": null}"#, "sliding_window: is missing, and there are layers that slide"),
        ("gemma2", r#"{"use_bidirectional_attention": true}"#, "use_bidirectional_attention: only false"),
        ("gemma3_text", r#"{"num_hidden_layers": 1, "layer_types": ["chunked_attention"]}"#, "layer type"),
        ("gemma3_text", r#"{"attn_logit_softcapping": 50.0}"#, "attn_logit_softcapping: only null is supported"),
        (
            "gemma3_text",
            r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"theta": 1e4}}}"#,
            "\n  rope_parameters.sliding_attention.theta: 10000.0\n",
        ),
        ("gemma3", r#"{"text_config": 5}"#, "text_config: expected an object, found 5"),
        ("qwen2", r#"{"max_window_layers": -1}"#, "max_window_layers: expected a whole number from 0"),
        (
            "qwen2",
            r#"{"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}"#,
            "sliding_window: is missing, and there are layers that slide",
        ),
        ("llama", r#"{"num_hidden_layers": 5000}"#, "num_hidden_layers: 5000 layers; there may be 1024"),
        (
            "llama",
            r#"{"rope_parameters": {"rope_type": "ntk"}}"#,
            "rope type \"ntk\" is not supported; supported: default",
        ),
        ("llama", r#"{"rope_parameters": {"rope_type": "linear", "factr": 2}}"#, "rope_parameters.factor: is missing"),
        ("llama", r#"{"rope_parameters": {"factor": 2}}"#, "\n  rope_parameters.factor: 2\n"),
        ("llama", r#"{"rope_scaling": {"type": "linear", "factor": 2}}"#, "\n  rope_parameters: {"),
        (
            "llama",
            r#"{"quantization_config": {"bits": 4}}"#,
            "quantization_config: quantised weights are not supported",
        ),
        ("llama", r#"{"mlp_bias": "yes"}"#, "mlp_bias: expected true or false"),
        (
            "phi3",
            r#"{"partial_rotary_factor": 0.7, "rope_parameters": null}"#,
            "0.7 of heads of 96 turns 67 dimensions",
        ),
        ("phi3", r#"{"lm_head_bias": true}"#, "\n  lm_head_bias: true\n"),
        (
            "phi3",
            r#"{"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}"#,
            "rope_scaling or rope_parameters: only longrope is supported in this family",
        ),
        ("qwen3_moe", r#"{"use_qk_norm": false}"#, "\n  use_qk_norm: false\n"),
        ("qwen3_moe", r#"{"qkv_bias": true}"#, "\n  qkv_bias: true\n"),
        ("qwen3_moe", r#"{"shared_expert_intermediate_size": 512}"#, "\n  shared_expert_intermediate_size: 512\n"),
        ("qwen2", r#"{"qkv_bias": false}"#, "\n  qkv_bias: false\n"),
        ("llama", r#"{"max_window_layers": 28}"#, "\n  max_window_layers: 28\n"),
        (
            "falcon",
            r#"{"apply_residual_connection_post_layernorm": true}"#,
            "\n  apply_residual_connection_post_layernorm: true\n",
        ),
        ("falcon", r#"{"n_embed": 4096}"#, "\n  n_embed: 4096\n"),
        ("gemma2", r#"{"sliding_window_size": 512}"#, "\n  sliding_window_size: 512\n"),
        (
            "gpt_neox",
            r#"{"rope_parameters": null, "rotary_emb_base": 10000, "rope_theta": 20000.0}"#,
            "\n  rope_theta: 20000.0\n",
        ),
        ("llama", r#"{"rope_theta": 20000.0}"#, "\n  rope_theta: 20000.0\n"),
        (
            "qwen2",
            r#"{"dual_chunk_attention_config": {"chunk_size": 262144}}"#,
            "\n  dual_chunk_attention_config: {\"chunk_size\":262144} (attention in chunks, which is not supported; leaving",
        ),
        (
            "qwen3",
            r#"{"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "attn_factor": 0.8, "rope_theta": 1e6}}"#,
            "\n  rope_parameters.attn_factor: 0.8 (multiplies attention in other programs; transformers reads",
        ),
        ("roberta", r#"{"pad_token_id": null}"#, "pad_token_id: positions are counted from it"),
        ("roberta", r#"{"pad_token_id": -2}"#, "pad_token_id: positions are counted from it"),
        (
            "llama",
            r#"{"vocab_size": null}"#,
            "vocab_size: expected a whole number from 1 to 2^31, found null; left out",
        ),
    ] {
        let message = import_error(configured(family, more).map(|model| model.info().family.clone())).to_string();
        assert!(message.contains(says), "{family} {more}: {message}");
    }
}

#[test]
fn the_embedded_model_and_the_fixtures_open() {
    let demo = import::demo().unwrap();
    assert_eq!(demo.config().str("model_type").unwrap(), "llama");
    assert!(demo.bytes("tokenizer.json").unwrap().is_some());
    for name in ["llama-uneven", "mistral", "qwen2-bias-tied", "qwen3-qknorm", "gpt2", "bert"] {
        let folder = Folder::open(Path::new("tests/fixtures").join(name)).unwrap();
        let weights = FileTensors::open(&folder);
        for id in weights.ids() {
            if weights.dtype(id).is_ok() {
                weights.read(&weights.view(id).unwrap()).unwrap();
            }
        }
        assert!(weights.bytes_read() > 0 && weights.bytes_read() <= folder.weight_bytes());
    }
}

fn fixture() -> Vec<u8> {
    fs::read("tests/fixtures/llama-uneven/model.safetensors").unwrap()
}

/// Every accepted file is safe to use: names are distinct, and ranges are inside the file and match the shapes.
fn check_entries(bytes: &[u8], entries: &[safetensors::Entry]) {
    let mut reached = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut names = std::collections::HashSet::new();
    for entry in entries {
        assert!(names.insert(&entry.name));
        assert_eq!(entry.range.start, reached);
        reached = entry.range.end;
        if let Some(dtype) = entry.dtype() {
            assert_eq!(entry.shape.iter().product::<usize>() * dtype.size(), entry.range.len());
        }
    }
    assert_eq!(reached, bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_header_is_more_than_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        prefix in prop::option::weighted(0.2, (0usize..8, any::<u8>())),
        cut in prop::option::weighted(0.3, any::<(bool, prop::sample::Index)>()),
    ) {
        static FIXTURE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(fixture);
        let mut bytes = FIXTURE.clone();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (at, byte) in changes {
            bytes[8 + at.index(header)] = byte;
        }
        if let Some((at, byte)) = prefix {
            bytes[at] = byte;
        }
        if let Some((in_header, kept)) = cut {
            let limit = if in_header { header + 8 } else { bytes.len() };
            bytes.truncate(kept.index(limit));
        }
        match safetensors::parse(Path::new("mutated.safetensors"), &bytes) {
            Ok(entries) => check_entries(&bytes, &entries),
            Err(error @ (ImportError::File { .. } | ImportError::Tensor { .. })) => {
                prop_assert!(error.to_string().starts_with("mutated.safetensors: "));
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
