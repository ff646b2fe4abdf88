//! Folders as sentence-transformers, peft and AutoModel save them: every file that changes a vector is obeyed, or
//! refused by its name.
#![cfg(feature = "text")]

mod common;

use common::{Expected, altered, engine, fixture, hosts, values};
use fanfold::Model;
use fanfold::generate::{Engine, Preparer, Prompt};
use fanfold::import::ImportError;
use fanfold::import::{Folder, Head};
use fanfold::model::{Pooling, TextSettings};
use fanfold::plan::Strategy;
use fanfold::tensor::relative_error;
use fanfold::text::Tokenizer;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// A folder with `fixture`'s model in the subfolder `inner`, and with other files.
fn folder(name: &str, inner: &str, files: &Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(inner);
    fs::create_dir_all(&home).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), home.join(file)).unwrap();
    }
    fs::copy(fixture("sentence").join("tokenizer.json"), home.join("tokenizer.json")).unwrap();
    for (file, content) in files.as_object().unwrap() {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut content = content.clone();
        if path.exists() {
            let mut whole: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            whole.extend(content.as_object().unwrap().clone());
            content = whole.into();
        }
        fs::write(path, content.to_string()).unwrap();
    }
    folder
}

fn open(folder: &Path, head: Head) -> (Engine, Tokenizer) {
    let model = Arc::new(Model::from_folder(Folder::open(folder).unwrap(), head).unwrap());
    let path = model.file_path("tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(&path, &model.file("tokenizer.json").unwrap().unwrap()).unwrap();
    (engine(&model, Strategy::Single, &[1.0], hosts(1)), tokenizer)
}

/// The result of one call of a case: a vector, a score, or pairs of a label's name and a number.
fn answer(kind: &str, engine: &mut Engine, tokenizer: &Tokenizer, call: &Value) -> (Vec<String>, Vec<f32>) {
    let info = engine.model().info().clone();
    let prompt = match (call.get("prompt"), call.get("prompt_name")) {
        (Some(text), _) => Prompt::Text(text.as_str().unwrap()),
        (_, Some(name)) => Prompt::Named(name.as_str().unwrap()),
        _ => Prompt::Default,
    };
    let settings = if kind == "classify" { info.texts.of_tokenizer() } else { info.texts };
    let preparer = Preparer::new(&settings, tokenizer.clone(), prompt, None).unwrap();
    let prepared = match &call["text"] {
        Value::Array(pair) => preparer.pair(pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        text => preparer.text(text.as_str().unwrap()),
    };
    let text = [prepared.unwrap().text];
    match kind {
        "embed" => (Vec::new(), values(&engine.embed_all(&text, |_| ()).unwrap()[0]).to_vec()),
        "score" => {
            let logits = engine.scores_all(&text, |_| ()).unwrap();
            (Vec::new(), vec![info.scores.unwrap().activation.apply(values(&logits[0])[0])])
        }
        _ => {
            let logits = engine.scores_all(&text, |_| ()).unwrap();
            let scores = info.scores.unwrap().probability.apply(values(&logits[0]));
            let mut rows: Vec<(String, f32)> =
                info.labels.into_iter().zip(scores.into_iter().map(|score| score as f32)).collect();
            rows.sort_by(|a, b| b.1.total_cmp(&a.1));
            rows.into_iter().unzip()
        }
    }
}

/// `tests/fixtures/sentence/make.py` describes the cases and makes the numbers.
#[test]
fn vectors_and_scores_are_those_of_sentence_transformers() {
    let cases = fs::read(fixture("sentence").join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    let mut compared = 0;
    for case in &cases {
        let (name, kind) = (case["case"].as_str().unwrap(), case["kind"].as_str().unwrap());
        let folder = folder(case["fixture"].as_str().unwrap(), case["inner"].as_str().unwrap(), &case["files"]);
        let head = if kind == "embed" { Head::Embedding } else { Head::Default };
        let (mut engine, tokenizer) = open(folder.path(), head);
        for (call, expected) in case["calls"].as_array().unwrap().iter().zip(case["expected"].as_array().unwrap()) {
            let expected = expected.as_array().unwrap().iter();
            let number = |value: &Value| value.as_f64().unwrap() as f32;
            let (labels, wanted): (Vec<String>, Vec<f32>) = match kind {
                "classify" => expected.map(|row| (row[0].as_str().unwrap().to_string(), number(&row[1]))).unzip(),
                _ => (Vec::new(), expected.map(number).collect()),
            };
            let (named, found) = answer(kind, &mut engine, &tokenizer, call);
            assert_eq!((named, found.len()), (labels, wanted.len()), "{name}: {call}");
            let error = relative_error(&found, &wanted);
            assert!(error <= 1e-5, "{name}: {call}: error {error:e}");
            compared += 1;
        }
    }
    assert!(compared >= 50, "{compared} calls are compared");
}

/// The files of a folder that pools, with the files `more`.
fn pooled(more: Value) -> Value {
    let mut files = json!({
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 72, "pooling_mode_mean_tokens": true},
    });
    files.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    files
}

/// A folder whose third module has the class `class`.
fn third(class: &str) -> Value {
    let mut files = pooled(json!({}));
    files["modules.json"].as_array_mut().unwrap().push(json!({"idx": 2, "name": "2", "path": "2_X", "type": class}));
    files
}

#[test]
fn what_would_change_a_vector_and_is_not_supported_is_refused_by_its_name() {
    let settings = |more: Value| pooled(json!({"sentence_bert_config.json": more}));
    let of_model = |more: Value| pooled(json!({"config_sentence_transformers.json": more}));
    let pooling = |more: Value| pooled(json!({"1_Pooling/config.json": more}));
    let ours = "sentence_transformers.models";
    for (files, says) in [
        (third(&format!("{ours}.Dense")), "Dense"),
        (third(&format!("{ours}.LayerNorm")), "LayerNorm"),
        (third(&format!("{ours}.WeightedLayerPooling")), "WeightedLayerPooling"),
        (third(&format!("{ours}.Pooling")), "Pooling as module 2"),
        // Code of the folder itself, whatever its name.
        (third("custom.Normalize"), "custom.Normalize"),
        (pooled(json!({"modules.json": [{"path": "", "type": "custom_st.Transformer"}]})), "custom_st.Transformer"),
        (
            pooled(json!({"modules.json": [{"path": "", "type": format!("{ours}.Transformer"), "rank": 8}]})),
            "can be ignored: modules.json:0.rank",
        ),
        (pooling(json!({"pooling_mode_max_tokens": true})), "pooling \"max\""),
        (pooling(json!({"pooling_mode": ["cls", "mean"]})), "\"cls and mean\""),
        (
            pooling(json!({"pooling_mode": "mean", "word_embedding_dimension": 72, "embedding_dimension": 71})),
            "word_embedding_dimension: 72, and embedding_dimension is 71",
        ),
        (pooling(json!({"word_embedding_dimension": 384})), "384, and the model's hidden states are 72 wide"),
        (pooling(json!({"include_promt": false})), "can be ignored: 1_Pooling/config.json:include_promt"),
        (settings(json!({"max_seq_length": 0})), "max_seq_length: expected a whole number"),
        (settings(json!({"max_seq_lenght": 8})), "can be ignored: sentence_bert_config.json:max_seq_lenght"),
        (settings(json!({"transformer_task": "text-generation"})), "transformer_task: \"text-generation\""),
        (settings(json!({"query_expansion": {"length": 32}})), "query_expansion"),
        (settings(json!({"tokenizer_args": {"do_lower_case": true}})), "tokenizer_args.do_lower_case"),
        (settings(json!({"processing_kwargs": {"text": {"max_length": 9}}})), "processing_kwargs.text"),
        (settings(json!({"modality_config": {"message": {"method": "forward"}}})), "modality_config.message"),
        (
            settings(json!({"modality_config": {"text": {"method": "get_text_features"}}})),
            "modality_config.text.method",
        ),
        (of_model(json!({"default_prompt_name": "ask"})), "default_prompt_name: \"ask\" is none of the prompts"),
        (of_model(json!({"prompts": {"ask": 7}})), "prompts.ask"),
        (of_model(json!({"model_type": "SparseEncoder"})), "model_type: \"SparseEncoder\""),
        (of_model(json!({"similarity_fn_name": "maxsim"})), "similarity_fn_name: \"maxsim\""),
        (of_model(json!({"query_prefix": "[Q] "})), "can be ignored: config_sentence_transformers.json:query_prefix"),
        (pooled(json!({"tokenizer_config.json": {"truncation_side": "middle"}})), "truncation_side: \"middle\""),
    ] {
        let folder = folder("bert", "", &files);
        match Model::open(folder.path()) {
            Err(error) => assert!(error.to_string().contains(says), "{files}: {error} lacks {says:?}"),
            Ok(_) => panic!("{files} is accepted"),
        }
    }
}

/// transformers builds BERT's tokenizer from tokenizer_config.json, and fanfold from tokenizer.json.
#[test]
fn two_files_that_disagree_on_letters() {
    let tokenizer = fs::read(fixture("sentence").join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&tokenizer).unwrap();
    tokenizer["normalizer"] = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true});
    let with = |config: Value| {
        let folder = folder("bert", "", &json!({"tokenizer.json": tokenizer, "tokenizer_config.json": config}));
        Model::open(folder.path()).map(|model| model.info().family.clone()).map_err(|error| error.to_string())
    };
    assert!(with(json!({"do_lower_case": true, "strip_accents": null, "tokenizer_class": "BertTokenizer"})).is_ok());
    assert!(with(json!({"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"})).is_ok());
    let error = with(json!({"do_lower_case": false, "tokenizer_class": "BertTokenizer"})).unwrap_err();
    assert!(error.contains("tokenizer_config.json: do_lower_case: false, and in tokenizer.json"), "{error}");
}

#[test]
fn a_field_of_any_file_can_be_left_out_by_a_person_who_knows() {
    let more = json!({"1_Pooling/config.json": {"pooling_mode": "cls", "rank": 8, "include_prompt": false}});
    let mut files = pooled(more);
    files["modules.json"][0]["rank"] = json!(8);
    let folder = folder("bert", "", &files);
    let ignoring = |fields: &[&str]| {
        let folder = Folder::open(folder.path()).unwrap().ignoring(fields)?;
        Model::from_folder(folder, Head::Embedding)
    };
    let model = ignoring(&["1_Pooling/config.json:rank", "modules.json:0.rank"]).unwrap();
    assert!(model.info().pooling == Pooling::Cls && model.info().texts.skip_prompt);
    let other = ["1_Pooling/config.json:rank", "modules.json:0.rank", "1_Pooling/config.json:include_prompt"];
    assert!(!ignoring(&other).unwrap().info().texts.skip_prompt);
    for (fields, says) in [
        (vec!["1_Pooling/config.json:rank"], "modules.json: these fields are not understood"),
        (vec!["1_Pooling/config.json:size"], "1_Pooling/config.json: size: is to be ignored, and is not there"),
        (vec!["modules.json:1.rank"], "modules.json: 1.rank: is to be ignored, and is not there"),
        (vec!["modules.json:9.rank"], "modules.json: 9.rank: is to be ignored, and is not there"),
        (vec!["modules.json:rank"], "modules.json: rank: is to be ignored, and is not there"),
        (vec!["2_Pooling/config.json:rank"], "holds no 2_Pooling/config.json"),
        (vec!["../config.json:rank"], "leads out of the folder"),
    ] {
        let error = ignoring(&fields).map(|model| model.info().family.clone()).unwrap_err().to_string();
        assert!(error.contains(says), "{fields:?}: {error}");
    }
}

/// The error about a prompt that the folder does not have lists the prompts that it has.
#[test]
fn a_prompt_that_is_not_there() {
    let tokenizer = fixture("sentence").join("tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(&tokenizer, &fs::read(&tokenizer).unwrap()).unwrap();
    let mut settings = TextSettings::default();
    let error = |settings: &TextSettings| {
        Preparer::new(settings, tokenizer.clone(), Prompt::Named("answer"), None).unwrap_err().to_string()
    };
    assert!(error(&settings).contains("no prompt named \"answer\": it has none"), "{}", error(&settings));
    settings.prompts = vec![("ask".into(), "Q: ".into()), ("file".into(), String::new())];
    assert!(error(&settings).contains("it has ask, file"), "{}", error(&settings));
    // A length below the number of special tokens is not valid.
    settings.max_tokens = Some(1);
    assert!(Preparer::new(&settings, tokenizer.clone(), Prompt::Default, None).is_err());
    settings.max_tokens = Some(2);
    let preparer = Preparer::new(&settings, tokenizer.clone(), Prompt::Default, None).unwrap();
    let prepared = preparer.text("who goes there").unwrap();
    assert!(prepared.cut && prepared.text.tokens == [0, 0], "{prepared:?}");
    assert!(preparer.pair("who", "there").is_err());
}

/// Saves the tensors of a fixture again, each under the name that `rename` returns, and with the tensors `more`.
fn resave(name: &str, into: &Path, rename: impl Fn(&str) -> Option<String>, more: &[(&str, Vec<u8>)]) {
    let bytes = fs::read(fixture(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensors().into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor)));
    let mut tensors: Vec<_> = kept.collect();
    for (name, data) in more {
        let (_, like) = file.tensors().into_iter().find(|(_, tensor)| tensor.data().len() == data.len()).unwrap();
        let view = safetensors::tensor::TensorView::new(like.dtype(), like.shape().to_vec(), data).unwrap();
        tensors.push((name.to_string(), view));
    }
    safetensors::serialize_to_file(tensors, None, &into.join("model.safetensors")).unwrap();
}

fn embedded(folder: &Path, head: Head, ids: &[u32]) -> Vec<f32> {
    let model = Arc::new(Model::from_folder(Folder::open(folder).unwrap(), head).unwrap());
    values(&engine(&model, Strategy::Single, &[1.0], hosts(1)).embed(ids).unwrap()).to_vec()
}

/// Every family of decoders as AutoModel saves them: without a head, and without the prefix that the model has inside
/// its class.
#[test]
fn a_decoder_that_embeds_needs_no_head_and_no_prefix() {
    let prefixes = ["model.", "transformer.", "gpt_neox."];
    let heads = ["lm_head.weight", "embed_out.weight"];
    for (name, class) in [
        ("llama-uneven", "LlamaModel"),
        ("mistral", "MistralModel"),
        ("mixtral", "MixtralModel"),
        ("qwen2-window", "Qwen2Model"),
        ("qwen3-window", "Qwen3Model"),
        ("qwen2-moe", "Qwen2MoeModel"),
        ("qwen3-moe", "Qwen3MoeModel"),
        ("gemma2", "Gemma2Model"),
        ("gemma3", "Gemma3TextModel"),
        ("phi3", "Phi3Model"),
        ("olmo2", "Olmo2Model"),
        ("starcoder2", "Starcoder2Model"),
        ("gpt-neox", "GPTNeoXModel"),
        ("falcon", "FalconModel"),
        ("gpt2", "GPT2Model"),
    ] {
        let ids = [5, 17, 300, 4];
        let whole = embedded(&fixture(name), Head::Hidden(Pooling::Last), &ids);
        let folder = altered(name, &[("architectures", json!([class])), ("tie_word_embeddings", json!(false))]);
        let bare =
            |name: &str| prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_string();
        resave(name, folder.path(), |name| (!heads.contains(&name)).then(|| bare(name)), &[]);
        assert_eq!(embedded(folder.path(), Head::Hidden(Pooling::Last), &ids), whole, "{name}");
        let info = Model::open(folder.path()).unwrap().info().clone();
        let missing = info.missing_head.unwrap_or_default();
        assert!(!info.generates && heads.contains(&missing.as_str()), "{name}: {missing:?}");
    }
    // A class with a head was saved. Without the head the folder is incomplete for prediction, but not for embedding.
    let folder = altered("llama-uneven", &[]);
    resave("llama-uneven", folder.path(), |name| (name != heads[0]).then(|| name.to_string()), &[]);
    let error = Model::open(folder.path()).map(|model| model.info().family.clone()).unwrap_err().to_string();
    assert!(error.contains("lm_head.weight: missing"), "{error}");
    let ids = [5, 17];
    let whole = embedded(&fixture("llama-uneven"), Head::Embedding, &ids);
    assert_eq!(embedded(folder.path(), Head::Embedding, &ids), whole);
}

/// Encoders saved inside a class with a head: with a prefix, and with a head that predicts masked words.
#[test]
fn an_encoder_that_embeds_needs_no_prefix_and_no_head() {
    let head = "cls.predictions.transform.LayerNorm.weight";
    for (name, prefix, class) in [
        ("bert", "bert.", "BertForMaskedLM"),
        ("roberta", "roberta.", "RobertaForMaskedLM"),
        ("distilbert", "distilbert.", "DistilBertForMaskedLM"),
    ] {
        let ids = [5, 17, 300, 4];
        let whole = embedded(&fixture(name), Head::Embedding, &ids);
        let folder = altered(name, &[("architectures", json!([class]))]);
        let bytes = fs::read(fixture(name).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, like) = file.tensors().into_iter().find(|(name, _)| name.ends_with("LayerNorm.weight")).unwrap();
        let more = [(head, like.data().to_vec())];
        resave(name, folder.path(), |name| Some(format!("{prefix}{name}")), &more);
        assert_eq!(embedded(folder.path(), Head::Embedding, &ids), whole, "{name}");
    }
}

fn logits(folder: &Path) -> Vec<f32> {
    let model = Arc::new(Model::open(folder).unwrap());
    values(&engine(&model, Strategy::Single, &[1.0], hosts(1)).feed(&[5, 17, 300]).unwrap()).to_vec()
}

/// As in transformers from version 5 on: tensors that differ are not tied, whatever the configuration states, and a
/// single one serves as both.
#[test]
fn a_tied_configuration_is_held_against_its_files() {
    for (name, embedding, head) in [
        ("qwen2-bias-tied", "model.embed_tokens.weight", "lm_head.weight"),
        ("gpt2", "wte.weight", "lm_head.weight"),
        ("gpt-neox-serial", "gpt_neox.embed_in.weight", "embed_out.weight"),
    ] {
        let bytes = fs::read(fixture(name).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let found = file.names().into_iter().find(|found| found.ends_with(embedding)).unwrap().to_string();
        let table = file.tensor(&found).unwrap().data().to_vec();
        let tied = logits(&fixture(name));
        let folder = altered(name, &[]);
        let same = |name: &str| Some(name.to_string());
        // Two equal tensors.
        resave(name, folder.path(), same, &[(head, table.clone())]);
        assert_eq!(logits(folder.path()), tied, "{name}");
        let parameters = Model::open(folder.path()).unwrap().parameters();
        assert_eq!(parameters, Model::open(fixture(name)).unwrap().parameters(), "{name}: a table is held twice");
        // A different head, with its rows in another order, so that the logits are, too.
        let row = table.len() / 384;
        let turned: Vec<u8> = table.chunks(row).rev().flatten().copied().collect();
        resave(name, folder.path(), same, &[(head, turned)]);
        let others: Vec<f32> = tied.chunks(384).flat_map(|row| row.iter().rev().copied()).collect();
        assert_eq!(logits(folder.path()), others, "{name}");
        // Only the head is stored.
        resave(name, folder.path(), |name| Some(if name == found { head.to_string() } else { name.to_string() }), &[]);
        assert_eq!(logits(folder.path()), tied, "{name}");
    }
}

#[test]
fn a_decoder_with_another_head_is_refused_by_name() {
    for (name, class) in [
        ("llama-uneven", "LlamaForSequenceClassification"),
        ("qwen2-bias-tied", "Qwen2ForRewardModel"),
        ("qwen3-qknorm", "Qwen3ForTokenClassification"),
        ("gpt2", "GPT2DoubleHeadsModel"),
        ("mistral", "LlamaEncoderModel"),
    ] {
        common::refused(
            name,
            &[("architectures", json!([class]))],
            &[class, "ForCausalLM", "if the field architectures is ignored"],
        );
    }
    // The importer goes by model_type, as transformers does.
    let folder = altered("llama-uneven", &[("architectures", json!(["YiForCausalLM"]))]);
    assert!(Model::open(folder.path()).unwrap().info().generates);
}

#[test]
fn an_adapter_is_never_passed_over() {
    let refused = |folder: &Path, name: &str| match Folder::open(folder) {
        Err(ImportError::Folder { reason, .. }) => {
            assert!(reason.contains(name) && reason.contains("merge_and_unload"), "{reason}");
        }
        other => panic!("{:?}", other.map(|folder| folder.path().to_owned())),
    };
    for name in ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"] {
        // An adapter beside its base model, and alone.
        let folder = altered("llama-uneven", &[]);
        fs::write(folder.path().join(name), "{}").unwrap();
        refused(folder.path(), name);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), "{}").unwrap();
        refused(folder.path(), name);
    }
    let inner = "0_Transformer";
    let modules = json!([{"path": inner, "type": "sentence_transformers.models.Transformer"}]);
    let files = json!({"modules.json": modules, "0_Transformer/adapter_config.json": {}});
    refused(folder("bert", inner, &files).path(), "adapter_config.json");
}

/// A model that pools is compared before pooling: a mean would hide the error of one position.
#[test]
fn a_proof_compares_every_position_of_what_embeds() {
    let folder = folder("bert", "", &third("sentence_transformers.models.Normalize"));
    let model = Arc::new(Model::open(folder.path()).unwrap().with_hidden_states().unwrap());
    let expected = Expected::of("bert");
    let ids = expected.u32("ids_0");
    let mut single = engine(&model, Strategy::Single, &[1.0], hosts(1));
    let mut sharded = engine(&model, Strategy::Tensor, &[2.0, 1.0], hosts(2));
    let states = single.outputs(&ids).unwrap().remove(fanfold::model::STATES).unwrap();
    assert!(relative_error(values(&states), &expected.f32("hidden_0")) <= 1e-4);
    let comparison = fanfold::proof::verify_embedding(&mut sharded, &mut single, &ids).unwrap();
    assert!(comparison.passed() && comparison.positions == ids.len(), "{comparison:?}");
    // Without pooling nothing is scaled either: these are the model's hidden states.
    let unpooled = embedded(folder.path(), Head::Hidden(Pooling::None), &ids);
    assert!(relative_error(&unpooled, &expected.f32("hidden_0")) <= 1e-4);
}
