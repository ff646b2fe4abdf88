//! Encoders and their heads: what a folder's settings mean, and the folders that are refused.

mod common;

use common::{Expected, all_logits, altered, engine, fixture, hosts, refused, values};
use fanfold::generate::GenerateError;
use fanfold::import::{Folder, Head};
use fanfold::model::{Model, Pooling, Probability, ScoreActivation, Scores};
use fanfold::plan::Strategy;
use fanfold::session::SessionError;
use fanfold::tensor::relative_error;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;

fn write(folder: &TempDir, file: &str, json: &Value) {
    let path = folder.path().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_head_that_is_not_supported_is_named_with_those_that_are() {
    for (name, class) in [("bert", "Bert"), ("roberta", "Roberta"), ("distilbert", "DistilBert")] {
        for head in ["ForTokenClassification", "ForQuestionAnswering", "LMHeadModel"] {
            let found = format!("{class}{head}");
            let all = ["Model", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification"];
            let supported = all.map(|head| format!("{class}{head}")).join(", ");
            refused(name, &[("architectures", json!([found]))], &[&found, &supported]);
        }
    }
    // The head of another family is not accepted.
    refused("bert", &[("architectures", json!(["RobertaModel"]))], &["RobertaModel", "BertModel"]);
    for head in [json!(["BertForMaskedLM"]), Value::Null] {
        let folder = altered("bert", &[("architectures", head)]);
        assert!(Model::open(folder.path()).unwrap().info().scores.is_none());
    }
}

#[test]
fn labels_that_contradict_each_other_or_the_files() {
    refused("bert-rerank", &[("num_labels", json!(2))], &["num_labels", "2, and id2label names 1"]);
    refused("bert-rerank", &[("id2label", json!(["a"]))], &["id2label"]);
    refused("bert-rerank", &[("id2label", json!({}))], &["id2label"]);
    refused("bert-rerank", &[("id2label", json!({"1": "a"}))], &["id2label"]);
    let labels = json!({"0": "a", "1": "b", "2": "c", "3": "d"});
    let says = ["classifier.out_proj.weight: [3, 54], expected [4, 54]", "classifier.out_proj.bias: [3], expected [4]"];
    refused("roberta-labels", &[("id2label", labels)], &says);
    // transformers omits a number of labels that equals two.
    let says = ["classifier.weight: [3, 42], expected [2, 42]"];
    refused("distilbert-labels", &[("id2label", Value::Null), ("label2id", Value::Null)], &says);
    let said = altered("distilbert-labels", &[("id2label", Value::Null), ("num_labels", json!(3))]);
    let info = Model::open(said.path()).unwrap().info().clone();
    let (activation, probability) = (ScoreActivation::Identity, Probability::Softmax);
    assert_eq!(info.scores, Some(Scores { labels: 3, activation, probability }));
    assert_eq!(info.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    refused("distilbert-labels", &[("problem_type", json!("guess"))], &["problem_type", "guess", "regression"]);
}

#[test]
fn positions_are_counted_from_behind_the_paddings() {
    let model = Arc::new(Model::open(fixture("roberta")).unwrap());
    // The table has 120 rows, of which those up to the padding token's, 5, stay unused.
    assert_eq!((model.info().first_position, model.info().context), (6, 114));
    let mut engine = engine(&model, Strategy::Single, &[1.0], hosts(1));
    assert!(engine.embed(&[7; 114]).is_ok());
    let error = engine.embed(&[7; 115]).unwrap_err();
    assert!(matches!(error, GenerateError::Context { tokens: 115, capacity: 114, .. }), "{error:?}");
    let table = "embeddings.position_embeddings.weight: [120, 42], expected [121, 42]";
    refused("roberta", &[("max_position_embeddings", json!(121))], &[table]);
    let says = ["max_position_embeddings", "6 rows, and the first position is in row 6"];
    refused("roberta", &[("max_position_embeddings", json!(6))], &says);
    refused("roberta", &[("pad_token_id", json!(4_000_000_000u32))], &["max_position_embeddings"]);
}

#[test]
fn settings_that_would_make_another_model() {
    refused("bert", &[("position_embedding_type", json!("relative_key"))], &["position_embedding_type", "absolute"]);
    refused("xlm-roberta-rerank", &[("is_decoder", json!(true))], &["is_decoder"]);
    refused("roberta", &[("add_cross_attention", json!(true))], &["add_cross_attention"]);
    refused("distilbert", &[("activation", json!("mish"))], &["activation", "mish", "relu"]);
    refused("distilbert", &[("n_heads", json!(5))], &["n_heads", "5 does not divide hidden 56"]);
}

#[test]
fn a_cross_encoders_activation_is_what_sentence_transformers_would_apply() {
    let none: [(&str, Value); 2] = [("sentence_transformers", Value::Null), ("num_labels", Value::Null)];
    let (identity, sigmoid) = ("torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid");
    let new = |name: &str| ("sentence_transformers", json!({"activation_fn": name, "version": "4.0.0"}));
    let old = |name: &str| ("sbert_ce_default_activation_function", json!(name));
    let cases = [
        (vec![], ScoreActivation::Sigmoid),
        (vec![new(identity)], ScoreActivation::Identity),
        (vec![new(sigmoid)], ScoreActivation::Sigmoid),
        (vec![old(identity)], ScoreActivation::Identity),
        (vec![old(identity), new(sigmoid)], ScoreActivation::Sigmoid),
    ];
    for (settings, wanted) in cases {
        let folder = altered("bert-rerank", &[none.to_vec(), settings.clone()].concat());
        let scores = Model::open(folder.path()).unwrap().info().scores.unwrap();
        assert_eq!((scores.labels, scores.activation), (1, wanted), "{settings:?}");
    }
    // With several labels, no activation is applied unless the folder asks for one.
    let several = Model::open(fixture("roberta-labels")).unwrap().info().scores.unwrap();
    assert_eq!((several.labels, several.activation), (3, ScoreActivation::Identity));
    let folder = altered("bert-rerank", &none);
    write(
        &folder,
        "config_sentence_transformers.json",
        &json!({"model_type": "CrossEncoder", "activation_fn": identity}),
    );
    assert_eq!(Model::open(folder.path()).unwrap().info().scores.unwrap().activation, ScoreActivation::Identity);
    refused("bert-rerank", &[none.to_vec(), vec![new("mine.Softer")]].concat(), &["mine.Softer", sigmoid]);
    for (logit, score) in [(0.0, 0.5), (-0.1610, 0.459_837), (100.0, 1.0), (-100.0, 0.0)] {
        assert!((ScoreActivation::Sigmoid.apply(logit) - score).abs() < 1e-6, "{logit}");
        assert_eq!(ScoreActivation::Identity.apply(logit), logit);
    }
}

#[test]
fn token_types_tell_the_texts_of_a_pair_apart() {
    let model = Arc::new(Model::open(fixture("bert-rerank")).unwrap());
    assert_eq!(model.info().token_types, 2);
    let mut engine = engine(&model, Strategy::Single, &[1.0], hosts(1));
    let expected = Expected::of("bert-rerank");
    let (ids, types) = (expected.u32("ids_1"), expected.u32("types_1"));
    let right = engine.scores(&ids, &types).unwrap();
    assert_eq!(right.shape(), [1, 1]);
    let without = engine.scores(&ids, &[]).unwrap();
    let error = relative_error(values(&without), values(&right));
    assert!(error > 1e-2, "types make no difference: {error:e}");
    for (types, says) in
        [(vec![2; ids.len()], "type 2 is outside the model's 2"), (vec![0; 3], "3 types for 56 tokens")]
    {
        let error = engine.scores(&ids, &types).unwrap_err();
        assert!(matches!(error, GenerateError::Session(SessionError::Input { .. })), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let plain = Arc::new(Model::open(fixture("bert")).unwrap());
    let mut plain = common::engine(&plain, Strategy::Single, &[1.0], hosts(1));
    let error = plain.scores(&[1, 2], &[]).unwrap_err();
    assert!(error.to_string().contains("has no classification head"), "{error}");
}

/// The encoder of a reranker can also embed; its head is then not read.
#[test]
fn hidden_states_of_a_folder_with_a_head() {
    let folder = Folder::open(fixture("bert-rerank")).unwrap();
    let model = Arc::new(Model::from_folder(folder, Head::Hidden(Pooling::Cls)).unwrap());
    assert!(model.info().scores.is_none());
    let names: Vec<&str> = model.graph().values().map(|(_, value)| value.name.as_str()).collect();
    assert!(names.iter().all(|name| !name.contains("classifier") && !name.contains("pooler")), "{names:?}");
    let plan = fanfold::plan::plan(model.graph(), Strategy::Tensor, &[2.0, 1.0]).unwrap();
    let mut engine = fanfold::Engine::open(model, &plan, hosts(2), all_logits(), Arc::new(|_| ())).unwrap();
    assert_eq!(engine.embed(&[1, 2, 3]).unwrap().shape(), [1, 42]);
}

/// Files converted from TensorFlow name a normalisation's weight gamma and its bias beta.
#[test]
fn older_names_of_a_normalisations_tensors() {
    let bytes = fs::read(fixture("bert").join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let older = |name: &str| match name.contains("LayerNorm") {
        true => name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
        false => name.to_string(),
    };
    let tensors: Vec<_> = file.tensors().into_iter().map(|(name, tensor)| (older(&name), tensor)).collect();
    let folder = altered("bert", &[]);
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
    let model = Arc::new(Model::open(folder.path()).unwrap());
    let expected = Expected::of("bert");
    let hidden = engine(&model, Strategy::Single, &[1.0], hosts(1)).embed(&expected.u32("ids_0")).unwrap();
    assert!(relative_error(values(&hidden), &expected.f32("hidden_0")) <= 1e-4);
}

#[test]
fn a_sentence_transformers_folder_names_one_pooling() {
    let with = |pooling: Value| {
        let folder = altered("bert", &[]);
        let modules = json!([
            {"type": "sentence_transformers.base.modules.transformer.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        ]);
        write(&folder, "modules.json", &modules);
        write(&folder, "1_Pooling/config.json", &pooling);
        Model::open(folder.path()).map(|model| model.info().pooling)
    };
    assert_eq!(with(json!({"pooling_mode": "mean", "embedding_dimension": 72})).unwrap(), Pooling::Mean);
    assert_eq!(with(json!({"pooling_mode": "cls"})).unwrap(), Pooling::Cls);
    assert_eq!(with(json!({"pooling_mode": "lasttoken"})).unwrap(), Pooling::Last);
    assert_eq!(with(json!({"pooling_mode_mean_sqrt_len_tokens": true})).unwrap(), Pooling::MeanSqrt);
    assert_eq!(with(json!({"pooling_mode_weightedmean_tokens": true})).unwrap(), Pooling::WeightedMean);
    assert_eq!(with(json!({"pooling_mode_mean_tokens": true})).unwrap(), Pooling::Mean);
    assert_eq!(with(json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})).unwrap(), Pooling::Cls);
    // A file that names no pooling mode means the mean, as in sentence-transformers.
    assert_eq!(with(json!({"embedding_dimension": 72})).unwrap(), Pooling::Mean);
    assert_eq!(with(json!({"pooling_mode": ["cls"]})).unwrap(), Pooling::Cls);
    for (pooling, says) in [
        (json!({"pooling_mode": "attention"}), "attention"),
        (json!({"pooling_mode_max_tokens": true}), "max"),
        (json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}), "mean and cls"),
        (json!({"pooling_mode": ["mean", "cls"]}), "mean and cls"),
    ] {
        let error = with(pooling).unwrap_err();
        assert!(error.to_string().contains(says), "{error} lacks {says:?}");
    }
}
