//! What tests share: fixture models with their expected outputs, and engines over them.
#![allow(dead_code)]

use fanfold::device::Device;
use fanfold::device::host::HostDevice;
use fanfold::generate::{Engine, EngineOptions};
use fanfold::import::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::tensor::Tensor;
use std::path::PathBuf;
use std::sync::Arc;

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tensors of a fixture's expected.safetensors.
pub struct Expected(Vec<u8>);

impl Expected {
    pub fn of(name: &str) -> Expected {
        Expected(std::fs::read(fixture(name).join("expected.safetensors")).unwrap())
    }

    pub fn f32(&self, tensor: &str) -> Vec<f32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        bytemuck::pod_collect_to_vec(file.tensor(tensor).unwrap().data())
    }

    pub fn u32(&self, tensor: &str) -> Vec<u32> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        bytemuck::pod_collect_to_vec(file.tensor(tensor).unwrap().data())
    }
}

pub fn hosts(n: usize) -> Vec<Box<dyn Device>> {
    (0..n).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect()
}

pub fn all_logits() -> EngineOptions {
    EngineOptions { context: 128, chunk: 13, all_logits: true, ..EngineOptions::default() }
}

/// `ratios` of the devices, uneven.
pub fn ratios(n: usize) -> Vec<f64> {
    [[3.0, 2.0, 1.0, 1.0, 2.0].as_slice(), &[1.0; 11]].concat()[..n].to_vec()
}

pub fn engine(model: &Arc<Model>, strategy: Strategy, ratios: &[f64], devices: Vec<Box<dyn Device>>) -> Engine {
    let strategy = if ratios.len() == 1 { Strategy::Single } else { strategy };
    let plan = plan(model.graph(), strategy, ratios).unwrap();
    Engine::open(model.clone(), &plan, devices, all_logits(), Arc::new(|_| ())).unwrap()
}

pub fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_f32().unwrap()
}
