//! Fixture models against what transformers computed, on one device and on several.

mod common;

use common::{Expected, engine, fixture, hosts, ratios, values};
use fanfold::import::Model;
use fanfold::plan::Strategy;
use fanfold::tensor::relative_error;
use fanfold::verify::argmax;
use std::sync::Arc;

const DECODERS: [&str; 4] = ["llama-uneven", "qwen2-bias-tied", "qwen3-qknorm", "gpt2"];
const STRATEGIES: [Strategy; 3] = [Strategy::Tensor, Strategy::Column, Strategy::Row];

/// Logits within 1e-4 and the greedy continuation identical.
fn check_decoder(name: &str, strategy: Strategy, world: usize, devices: Vec<Box<dyn fanfold::device::Device>>) {
    let model = Arc::new(Model::open(fixture(name)).unwrap());
    let expected = Expected::of(name);
    let mut engine = engine(&model, strategy, &ratios(world), devices);
    for prompt in 0..2 {
        engine.reset();
        let logits = engine.feed(&expected.u32(&format!("ids_{prompt}"))).unwrap();
        let error = relative_error(values(&logits), &expected.f32(&format!("logits_{prompt}")));
        assert!(error <= 1e-4, "{name} {strategy} on {world}: error {error:e}");
        let width = logits.shape()[1];
        let mut last = values(&logits)[values(&logits).len() - width..].to_vec();
        for (step, wanted) in expected.u32(&format!("greedy_{prompt}")).into_iter().enumerate() {
            let token = argmax(&last) as u32;
            assert_eq!(token, wanted, "{name} {strategy} on {world}, step {step}");
            last = values(&engine.feed(&[token]).unwrap()).to_vec();
        }
    }
}

fn check_encoder(strategy: Strategy, world: usize, devices: Vec<Box<dyn fanfold::device::Device>>) {
    let model = Arc::new(Model::open(fixture("bert")).unwrap());
    let expected = Expected::of("bert");
    let mut engine = engine(&model, strategy, &ratios(world), devices);
    for text in 0..2 {
        let hidden = engine.embed(&expected.u32(&format!("ids_{text}"))).unwrap();
        let error = relative_error(values(&hidden), &expected.f32(&format!("hidden_{text}")));
        assert!(error <= 1e-4, "bert {strategy} on {world}: error {error:e}");
    }
}

#[test]
fn decoders_match_transformers_on_host() {
    for name in DECODERS {
        for strategy in STRATEGIES {
            for world in [1, 2, 3, 5] {
                check_decoder(name, strategy, world, hosts(world));
            }
        }
    }
}

#[test]
fn encoders_match_transformers_on_host() {
    for strategy in STRATEGIES {
        for world in [1, 2, 3, 5] {
            check_encoder(strategy, world, hosts(world));
        }
    }
}
