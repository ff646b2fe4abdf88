//! Weights in another format than their files': the same answer however the model is split, blocks that are never divided,
//! and clear errors where a format cannot hold what it is given.

mod common;

use common::{adapters, all_logits, engine_of, fixture, gpus, hosts};
use fanfold::Model;
use fanfold::format::{Format, Stored};
use fanfold::graph::Graph;
use fanfold::import::Head;
use fanfold::model::ModelInfo;
use fanfold::ops::{Gather, Linear};
use fanfold::plan::{Plan, Strategy, plan};
use fanfold::program::{WeightPart, lower};
use fanfold::session::{Options, Session};
use fanfold::shape::{Env, Symbol};
use fanfold::tensor::{DType, Region, Tensor, relative_error};
use fanfold::weights::{SourceError, Weights};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A model of random weights with the settings of a fixture and `changes`, its matrices in `format`.
fn random(name: &str, changes: &[(&str, usize)], format: Format) -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (field, value) in changes {
        config[field] = (*value).into();
    }
    let path = folder.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    Arc::new(Model::random(&path, DType::F32, 3, Head::Default).unwrap().with_weights(format))
}

/// Models all of whose matrices have rows of whole blocks, and each with another kind of layer.
fn models(format: Format) -> Vec<Arc<Model>> {
    let narrow =
        [("hidden_size", 64), ("intermediate_size", 96), ("num_attention_heads", 4), ("num_key_value_heads", 2)];
    vec![
        random("llama-uneven", &[("intermediate_size", 256)], format),
        random("mixtral", &[narrow.as_slice(), &[("head_dim", 24)]].concat(), format),
        random("gpt2", &[("n_embd", 96), ("n_head", 3), ("n_inner", 160)], format),
    ]
}

fn logits(model: &Arc<Model>, plan: &Plan, devices: Vec<Box<dyn fanfold::device::Device>>) -> Vec<f32> {
    let tokens: Vec<u32> = (0..21).map(|i| (i * 37 + 5) % model.info().vocabulary as u32).collect();
    engine_of(model, plan, devices).feed(&tokens).unwrap().as_f32().unwrap().to_vec()
}

#[test]
fn a_quantised_model_is_the_same_however_it_is_split() {
    for model in models(Format::Q8_0) {
        assert!(model.graph().matrices().all(|matrix| matrix.format() == Some(Format::Q8_0)));
        let whole = logits(&model, &plan(model.graph(), Strategy::Single, &[1.0]).unwrap(), hosts(1));
        for strategy in [Strategy::Tensor, Strategy::Column, Strategy::Row] {
            for ratios in [[3.0, 1.0, 2.0], [0.0, 5.0, 2.0], [1.0, 1.0, 1.0]] {
                let plan = plan(model.graph(), strategy, &ratios).unwrap();
                let error = relative_error(&logits(&model, &plan, hosts(3)), &whole);
                assert!(error < 1e-6, "{} {strategy} {ratios:?}: {error}", model.info().family);
            }
        }
    }
}

#[test]
fn gpus_agree_with_the_host_and_column_cuts_with_the_whole() {
    for adapter in adapters() {
        for model in models(Format::Q8_0) {
            let single = plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
            let whole = logits(&model, &single, gpus(&adapter, 1));
            let error = relative_error(&whole, &logits(&model, &single, hosts(1)));
            assert!(error < 1e-5, "{} on {}: {error}", model.info().family, adapter.name);
            let plan = plan(model.graph(), Strategy::Column, &[3.0, 1.0, 2.0]).unwrap();
            assert!(logits(&model, &plan, gpus(&adapter, 3)) == whole, "{} on {}", model.info().family, adapter.name);
        }
    }
}

/// A format is near what it replaces, and not the same: the conversion really takes place.
#[test]
fn a_format_is_near_the_model_that_it_stores() {
    let single = |model: &Arc<Model>| plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
    let of = |model: &Arc<Model>| logits(model, &single(model), hosts(1));
    let reference: Vec<Vec<f32>> = models(Format::F32).iter().map(of).collect();
    for (format, error) in [(Format::F16, 2e-3), (Format::BF16, 2e-2), (Format::Q8_0, 2e-2)] {
        for (model, expected) in models(format).iter().zip(&reference) {
            // Rounding may send a token to another expert, after which nothing is near.
            if model.info().family != "mixtral" {
                let found = relative_error(&of(model), expected);
                assert!(found < error && found > 0.0, "{} {format}: {found}", model.info().family);
            }
        }
    }
}

#[test]
fn ranks_hold_whole_blocks_and_load_no_more_than_their_part() {
    for model in models(Format::Q8_0) {
        for strategy in [Strategy::Tensor, Strategy::Column, Strategy::Row] {
            let program = lower(model.graph(), &plan(model.graph(), strategy, &[3.0, 1.0, 2.0]).unwrap()).unwrap();
            for weight in program.ranks.iter().flat_map(|rank| &rank.weights) {
                let WeightPart::Region(region) = &weight.part else { continue };
                let last = weight.shape.len() - 1;
                for (_, range) in region.0.iter().filter(|(dim, _)| *dim == last) {
                    let block = weight.format.block();
                    assert!(range.start % block == 0 && range.end % block == 0, "{} {range:?}", weight.name);
                }
            }
        }
    }
}

/// A graph of one product whose weight is in Q8_0.
fn product() -> Graph {
    let mut graph = Graph::new();
    let x = graph.input("x", [2.into(), 96.into()], DType::F32).unwrap();
    let w = graph.weight("w", [5.into(), 96.into()], Format::Q8_0).unwrap();
    let y = graph.node("product", Linear, &[x, w]).unwrap();
    graph.output("y", y).unwrap();
    graph
}

#[test]
fn a_cut_by_hand_through_a_block_is_refused_with_the_way_out() {
    let graph = product();
    let error = Plan::whole(&graph, 2).cut("product", "k", [0..40, 40..96]).build().unwrap_err().to_string();
    assert!(error.contains("multiples of 32"), "{error}");
    let plan = Plan::whole(&graph, 2).cut("product", "k", [1.0, 1.0]).build().unwrap();
    assert_eq!(plan.nodes[0].cut.to_string(), "0..64|64..96");
    let mut other = Graph::new();
    let error = other.weight("w", [4.into(), 40.into()], Format::Q8_0).unwrap_err().to_string();
    assert!(error.contains("blocks of 32"), "{error}");
}

/// A source that stores blocks. It refuses to give single elements, as nothing should ask for them.
struct Blocks(Vec<u8>);

impl Weights for Blocks {
    fn read(&self, name: &str, _: &[usize], _: &Region) -> Result<Tensor, SourceError> {
        Err(SourceError::Missing { name: name.to_string() })
    }

    fn read_stored(&self, _: &str, shape: &[usize], region: &Region, format: Format) -> Result<Stored, SourceError> {
        assert_eq!(format, Format::Q8_0);
        let row = format.bytes(shape[1]) as usize;
        let (start, end) = (format.bytes(region.0[1].start) as usize, format.bytes(region.0[1].end) as usize);
        let rows = region.0[0].clone().flat_map(|n| &self.0[n * row..][start..end]);
        Ok(Stored::new(format, region.shape(), rows.copied().collect()).unwrap())
    }
}

#[test]
fn a_source_of_blocks_is_read_as_it_is() {
    // Every block has the scale 1/2, and the bytes -3, -2, -1 and so on: the elements are known exactly.
    let block: Vec<u8> = [0x00, 0x38].into_iter().chain((0..32).map(|i| (i - 3) as i8 as u8)).collect();
    let weights: Arc<dyn Weights> = Arc::new(Blocks(block.repeat(15)));
    let graph = product();
    let x = Tensor::f32([2, 96], vec![1.0; 192]).unwrap();
    let expected = vec![0.5 * 3.0 * (0..32).map(|i| (i - 3) as f32).sum::<f32>(); 10];
    let places = std::iter::once(None).chain(adapters().into_iter().map(Some));
    for place in places.collect::<Vec<_>>() {
        for factor in ["k", "n"] {
            let plan = Plan::whole(&graph, 2).cut("product", factor, [2.0, 1.0]).build().unwrap();
            let devices = place.as_ref().map_or_else(|| hosts(2), |adapter| gpus(adapter, 2));
            let program = lower(&graph, &plan).unwrap();
            let options = Options::new(Env::prompt(1));
            let mut session = Session::open(program, devices, weights.clone(), options, Arc::new(|_| ())).unwrap();
            let found = session.run(Env::prompt(1), HashMap::from([("x".to_string(), x.clone())])).unwrap();
            assert_eq!(found["y"].as_f32().unwrap(), expected);
        }
    }
}

#[test]
fn a_number_that_a_format_cannot_hold_is_an_error_that_names_its_weight() {
    let mut graph = Graph::new();
    let ids = graph.input("input_ids", [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32).unwrap();
    let table = graph.weight("table", [8.into(), 32.into()], DType::F32).unwrap();
    let x = graph.node("embedding", Gather, &[table, ids]).unwrap();
    let logits = graph.node("head", Linear, &[x, table]).unwrap();
    graph.output("logits", logits).unwrap();
    let mut values = vec![1.0; 256];
    values[77] = 1e9;
    let weights = Arc::new(HashMap::from([("table".to_string(), Tensor::f32([8, 32], values).unwrap())]));
    for format in [Format::F16, Format::Q8_0] {
        let model = Model::from_graph(graph.clone(), weights.clone(), ModelInfo::decoder(8, 16)).unwrap();
        let model = Arc::new(model.with_weights(format));
        let plan = plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
        let opened = fanfold::Engine::open(model, &plan, hosts(1), all_logits(), Arc::new(|_| ()));
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("table") && error.contains(format.name()), "{error}");
    }
}
