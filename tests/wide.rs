//! A vocabulary of a real model's size, 152,064 x 1024 in f16: 297 MiB, which exceeds the 128 MiB that lavapipe binds at
//! once. It is split over several bindings on one device, and over two devices as well.

mod common;

use common::{adapters, gpus};
use fanfold::graph::{Graph, Weights};
use fanfold::ops::{Gather, Linear};
use fanfold::plan::{Strategy, plan};
use fanfold::program::lower;
use fanfold::session::{Options, Session};
use fanfold::tensor::{DType, Env, Region, Symbol, Tensor, relative_error};
use half::f16;
use std::sync::Arc;
use std::time::Duration;

const ROWS: usize = 152_064;
const WIDTH: usize = 1024;

/// A table that is never held whole on the host: its elements follow from where they are.
struct Synthetic;

fn element(row: usize, column: usize) -> f32 {
    let hash = (row as u32).wrapping_mul(0x9E37_79B9) ^ (column as u32).wrapping_mul(0x85EB_CA6B);
    let hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    f16::from_f32(((hash >> 16) as f32 / 65_536.0) - 0.5).to_f32()
}

impl Weights for Synthetic {
    fn read(&self, _name: &str, _shape: &[usize], region: &Region) -> fanfold::Result<Tensor> {
        let rows = region.0[0].clone();
        let values = rows.flat_map(|row| region.0[1].clone().map(move |column| f16::from_f32(element(row, column))));
        let values: Vec<f16> = values.collect();
        Tensor::from_bytes(DType::F16, region.shape(), bytemuck::cast_slice(&values))
    }
}

#[test]
fn a_real_vocabulary_fits_small_bindings() {
    let Some(adapter) = adapters().into_iter().min_by_key(|adapter| adapter.max_binding) else { return };
    let mut graph = Graph::new();
    let ids = graph.input("ids", [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32).unwrap();
    let table = graph.weight("table", [ROWS.into(), WIDTH.into()], DType::F16).unwrap();
    let rows = graph.node("embed", Gather, &[table, ids]).unwrap();
    let logits = graph.node("head", Linear, &[rows, table]).unwrap();
    graph.output("logits", logits).unwrap();
    // One row of each piece, and both ends.
    let tokens: Vec<u32> = vec![0, 70_000, 152_063];
    for ratios in [vec![1.0], vec![2.0, 1.0]] {
        let plan = plan(&graph, Strategy::Tensor, &ratios).unwrap();
        let program = lower(&graph, &plan).unwrap();
        let options = Options { limits: Env::prompt(tokens.len()).into(), deadline: Duration::from_secs(60) };
        let devices = gpus(&adapter, ratios.len());
        let mut session = Session::open(program, devices, Arc::new(Synthetic), options, Arc::new(|_| ())).unwrap();
        let input = Tensor::u32([1, tokens.len()], tokens.clone()).unwrap();
        let outputs = session.run(Env::prompt(tokens.len()), [("ids".to_string(), input)].into()).unwrap();
        let logits = outputs["logits"].as_f32().unwrap();
        let columns: Vec<usize> = (0..ROWS).step_by(997).chain([65_535, 65_536, ROWS - 1]).collect();
        for (i, &token) in tokens.iter().enumerate() {
            let dot =
                |n: usize| (0..WIDTH).map(|k| element(token as usize, k) as f64 * element(n, k) as f64).sum::<f64>();
            let expected: Vec<f32> = columns.iter().map(|&n| dot(n) as f32).collect();
            let found: Vec<f32> = columns.iter().map(|&n| logits[i * ROWS + n]).collect();
            let error = relative_error(&found, &expected);
            assert!(error <= 1e-5, "token {token} on {} ranks: error {error:e}", ratios.len());
        }
    }
}
