//! Random weights from a configuration: any family runs on them, any cut sees the same weights, and none is read
//! twice.

mod common;

use common::{adapters, all_logits, fixture, hosts, mixed, ratios, values};
use fanfold::device::Device;
use fanfold::generate::Engine;
use fanfold::import::ImportError;
use fanfold::import::{Folder, Head};
use fanfold::model::{Model, Pooling};
use fanfold::plan::{Strategy, plan};
use fanfold::program::Room;
use fanfold::tensor::{DType, relative_error};
use std::path::PathBuf;
use std::sync::Arc;

/// The configuration of every fixture model.
fn configs() -> Vec<PathBuf> {
    let folders = std::fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path());
    let mut configs: Vec<_> = folders.map(|path| path.join("config.json")).filter(|path| path.exists()).collect();
    configs.sort();
    assert!(configs.len() >= 5, "{configs:?}");
    configs
}

fn output(model: &Arc<Model>, strategy: Strategy, devices: Vec<Box<dyn Device>>) -> Vec<f32> {
    let plan = plan(model.graph(), strategy, &ratios(devices.len())).unwrap();
    let mut engine = Engine::open(model.clone(), &plan, devices, all_logits(), Arc::new(|_| ())).unwrap();
    let tokens: Vec<u32> = (5..24).collect();
    let tensor = if model.info().generates { engine.feed(&tokens) } else { engine.embed(&tokens) }.unwrap();
    values(&tensor).to_vec()
}

#[test]
fn every_family_runs_on_random_weights() {
    let adapters = adapters();
    for config in configs() {
        let mut head = Head::Default;
        if !Model::random(&config, DType::F16, 1, head).unwrap().info().generates {
            head = Head::Hidden(Pooling::None);
        }
        let model = Arc::new(Model::random(&config, DType::F16, 1, head).unwrap());
        let folder = Model::from_folder(Folder::open(config.parent().unwrap()).unwrap(), head).unwrap();
        assert_eq!(model.parameters(), folder.parameters(), "{config:?}");
        assert_eq!(model.weight_bytes() % 2, 0);
        let whole = output(&model, Strategy::Single, hosts(1));
        let size = whole.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(whole.iter().all(|x| x.is_finite()) && size > 0.01 && size < 1000.0, "{config:?}: {size}");
        // A tensor that is read once as a whole equals the tensor read in parts.
        let read = model.bytes_read();
        assert!(read >= 2 * model.parameters() && read <= model.weight_bytes(), "{config:?}: {read}");
        let alike = |devices| {
            let error = relative_error(&output(&model, Strategy::Tensor, devices), &whole);
            assert!(error <= 1e-4, "{config:?}: error {error:e}");
        };
        alike(hosts(3));
        // Loading in blocks belongs to the device and not to the family, so one family is enough.
        if config.parent().unwrap().ends_with("llama-uneven") && !adapters.is_empty() {
            alike(mixed(&adapters, 2));
        }
        let other = Arc::new(Model::random(&config, DType::F16, 2, head).unwrap());
        assert!(relative_error(&output(&other, Strategy::Single, hosts(1)), &whole) > 0.1, "{config:?}");
    }
}

#[test]
fn configurations_that_no_machine_holds() {
    let text = std::fs::read_to_string(fixture("llama-uneven").join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("any name.json");
    let refused = |changes: &[(&str, u64)]| {
        let mut config = config.clone();
        changes.iter().for_each(|(field, value)| config[*field] = (*value).into());
        std::fs::write(&path, config.to_string()).unwrap();
        match Model::random(&path, DType::F16, 0, Head::Default).map(|_| ()) {
            Err(error) => error.to_string(),
            other => panic!("{changes:?}: {other:?}"),
        }
    };
    for says in [
        refused(&[("hidden_size", 1 << 31), ("vocab_size", 1 << 31)]),
        refused(&[("num_attention_heads", 1 << 31), ("num_key_value_heads", 1 << 31)]),
    ] {
        assert!(says.contains("any name.json") && says.contains("larger than any machine holds"), "{says}");
    }
    let says = refused(&[("hidden_size", 1 << 40)]);
    assert!(says.contains("hidden_size: expected a whole number from 1 to 2^31"), "{says}");
    let says = refused(&[("head_dim", 1 << 31)]);
    assert!(says.contains("head_dim: 2147483648 is wider than any head"), "{says}");
    let says = refused(&[("num_hidden_layers", 1 << 31)]);
    assert!(says.contains("any name.json: num_hidden_layers: 2147483648 layers"), "{says}");
    let gpt2 = std::fs::read_to_string(fixture("gpt2").join("config.json")).unwrap();
    let mut gpt2: serde_json::Value = serde_json::from_str(&gpt2).unwrap();
    gpt2["n_layer"] = (1u64 << 31).into();
    std::fs::write(&path, gpt2.to_string()).unwrap();
    let says = Model::random(&path, DType::F16, 0, Head::Default).map(|_| ()).unwrap_err().to_string();
    assert!(says.contains("any name.json: n_layer or num_hidden_layers: 2147483648 layers"), "{says}");
    // The largest sizes: the memory is computed without overflow, and nothing is allocated.
    let mut config = config.clone();
    for (field, value) in [("intermediate_size", 1u64 << 31), ("max_position_embeddings", 1 << 31)] {
        config[field] = value.into();
    }
    std::fs::write(&path, config.to_string()).unwrap();
    let model = Model::random(&path, DType::F16, 0, Head::Default).unwrap();
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0, 1.0]).unwrap();
    let options = all_logits().context(1 << 24).chunk(1 << 24);
    let rooms: Vec<Room> = (0..2).map(|rank| Room::new("a", Some(1 << 40), rank)).collect();
    let (program, limits) = fanfold::generate::prepare(&model, &plan, &options, &rooms).unwrap();
    let error = program.check(&limits, &rooms).unwrap_err().to_string();
    assert!(error.contains("does not fit"), "{error}");
}

/// No count in a configuration leads to a loop or an allocation of its size.
#[test]
fn absurd_counts_end_soon() {
    let text = std::fs::read("tests/fixtures/configs.json").unwrap();
    let families: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    // The result does not matter here: a model that no machine can hold may be planned.
    let planned = |config: &serde_json::Value| -> fanfold::Result<()> {
        std::fs::write(&path, config.to_string()).unwrap();
        let model = Model::random(&path, DType::F16, 0, Head::Default)?;
        let plan = plan(model.graph(), Strategy::Tensor, &[1.0, 2.0])?;
        let options = all_logits().context(usize::MAX).chunk(usize::MAX);
        let rooms: Vec<Room> = (0..2).map(|rank| Room::new("a", Some(1 << 60), rank)).collect();
        let (program, limits) = fanfold::generate::prepare(&model, &plan, &options, &rooms)?;
        Ok(program.check(&limits, &rooms)?)
    };
    let start = std::time::Instant::now();
    let mut tried = 0;
    for (family, mut whole) in families {
        let small = if family == "gemma3" { &mut whole["text_config"] } else { &mut whole };
        for layers in ["num_hidden_layers", "n_layer", "n_layers"] {
            if small[layers].is_u64() {
                small[layers] = 2.into();
            }
        }
        small.as_object_mut().unwrap().remove("layer_types");
        let counts: Vec<String> =
            small.as_object().unwrap().iter().filter(|(_, v)| v.is_u64()).map(|(k, _)| k.clone()).collect();
        let mut at_once = whole.clone();
        for field in &counts {
            for value in [1u64 << 31, 1 << 16, 1025] {
                let mut config = whole.clone();
                let place = if family == "gemma3" { &mut config["text_config"] } else { &mut config };
                place[field.as_str()] = serde_json::Value::from(value);
                _ = planned(&config);
                tried += 1;
            }
            let place = if family == "gemma3" { &mut at_once["text_config"] } else { &mut at_once };
            if !field.contains("layer") {
                place[field.as_str()] = serde_json::Value::from(1u64 << 31);
            }
        }
        _ = planned(&at_once);
    }
    let took = start.elapsed();
    assert!(tried > 400 && took.as_secs() < 60, "{tried} in {took:?}");
    // Every expert is a tensor: the error names the field with too large a number.
    let experts = |family: &str, field: &str, count: u64| {
        let families: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let mut config = families[family].clone();
        config[field] = count.into();
        planned(&config).unwrap_err().to_string()
    };
    for (family, field) in
        [("mixtral", "num_local_experts"), ("qwen2_moe", "num_experts"), ("qwen3_moe", "num_local_experts")]
    {
        for count in [1u64 << 31, 4000] {
            let says = experts(family, field, count);
            assert!(says.contains(field) && says.contains(&format!("{count} experts in each of")), "{says}");
        }
    }
}

#[test]
fn a_path_that_is_no_configuration() {
    for (path, says) in [("nowhere.json", "nowhere.json"), ("Cargo.toml", "Cargo.toml"), ("tests", "not a plain file")]
    {
        match Model::random(path, DType::F16, 0, Head::Default).map(|_| ()) {
            Err(error @ (ImportError::Io { .. } | ImportError::File { .. })) => {
                assert!(error.to_string().contains(says), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}
