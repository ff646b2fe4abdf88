//! Mixtures of experts: which rank decides where a token goes, what the ranks exchange for it, and what each rank
//! holds.

mod common;

use common::{Expected, engine_of, fixture, hosts, ratios, values};
use fanfold::device::host::HostDevice;
use fanfold::device::{Counters, Device};
use fanfold::model::Model;
use fanfold::plan::{Plan, Strategy, plan};
use fanfold::program::{Instr, Program, RankProgram, lower};
use fanfold::shape::{Env, Limits, resolve};
use fanfold::sharding::Redistribute;
use fanfold::tensor::relative_error;
use fanfold::weights::Weights;
use std::sync::Arc;

const MODELS: [&str; 3] = ["mixtral", "qwen2-moe", "qwen3-moe"];

fn open(name: &str) -> Arc<Model> {
    Arc::new(Model::open(fixture(name)).unwrap())
}

/// A device whose results for a router's logits are wrong by far more than those of any real device.
struct Unlike {
    device: HostDevice,
    program: Option<Arc<RankProgram>>,
    env: Option<Env>,
}

impl Unlike {
    fn boxed() -> Box<dyn Device> {
        Box::new(Unlike { device: HostDevice::new(), program: None, env: None })
    }
}

impl Device for Unlike {
    fn name(&self) -> &str {
        "unlike"
    }

    fn load(
        &mut self,
        program: Arc<RankProgram>,
        limits: &Limits,
        weights: &Arc<dyn Weights>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), fanfold::device::DeviceError> {
        self.program = Some(program.clone());
        self.device.load(program, limits, weights, progress)
    }

    fn begin(&mut self, env: &Env) -> Result<(), fanfold::device::DeviceError> {
        self.env = Some(*env);
        self.device.begin(env)
    }

    fn execute(&mut self, index: usize) -> Result<(), fanfold::device::DeviceError> {
        self.device.execute(index)?;
        let program = self.program.clone().unwrap();
        match &program.instrs[index] {
            Instr::Compute { node, output, .. } if node.ends_with(".gate") => {
                let mut bytes = Vec::new();
                self.device.read(*output, &mut |found| bytes.extend_from_slice(found))?;
                let experts = *resolve(&program.values[*output].shape, &self.env.unwrap()).last().unwrap();
                let mut logits: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
                logits.iter_mut().step_by(experts.max(1)).for_each(|logit| *logit += 9.0);
                self.device.write(*output, bytemuck::cast_slice(&logits))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, value: usize, bytes: &[u8]) -> Result<(), fanfold::device::DeviceError> {
        self.device.write(value, bytes)
    }

    fn read(&mut self, value: usize, with: &mut dyn FnMut(&[u8])) -> Result<(), fanfold::device::DeviceError> {
        self.device.read(value, with)
    }

    fn counters(&self) -> Counters {
        self.device.counters()
    }
}

/// Ranks that would choose other experts have no influence. Only the deciding rank can change the answer.
#[test]
fn unlike_ranks_go_by_one_decision() {
    for name in MODELS {
        let model = open(name);
        for (strategy, whole) in [(Strategy::Tensor, true), (Strategy::Tensor, false), (Strategy::Row, true)] {
            let mut plan = plan(model.graph(), strategy, &ratios(3)).unwrap();
            if whole {
                // Every rank holds all logits, and so could choose by itself.
                plan.nodes.retain(|entry| !entry.node.ends_with(".gate") && !entry.node.ends_with(".routing"));
            }
            let ids = Expected::of(name).u32("ids_1");
            let logits = |devices| values(&engine_of(&model, &plan, devices).feed(&ids).unwrap()).to_vec();
            let (alike, host) = (logits(hosts(3)), || hosts(1).remove(0));
            assert_eq!(
                logits(vec![host(), Unlike::boxed(), Unlike::boxed()]),
                alike,
                "{name} {strategy}, whole: {whole}"
            );
            let other = logits(vec![Unlike::boxed(), host(), host()]);
            assert!(relative_error(&other, &alike) > 1e-2, "{name} {strategy}: what the first decides changes nothing");
        }
    }
}

/// The ranks that compute the routing of the first mixture, and the exchanges of its result: who sends to how many
/// ranks.
fn decision(model: &Model, plan: &Plan) -> (Vec<usize>, Vec<(Redistribute, Vec<usize>)>) {
    let graph = model.graph();
    let routing = graph.nodes().iter().find(|node| node.op.name() == "Routing").unwrap();
    let program = lower(graph, plan).unwrap();
    let computes = |rank: &&RankProgram| {
        rank.instrs.iter().any(|instr| match instr {
            // The value has this name, and so does a slice of it.
            Instr::Compute { node, op, extents, .. } if op.name() == "Routing" => {
                *node == routing.name && extents.iter().all(|e| e.len.fixed() != Some(0))
            }
            _ => false,
        })
    };
    let deciding = program.ranks.iter().filter(computes).map(|rank| rank.rank).collect();
    let exchanges = |rank: &RankProgram| -> Vec<(Redistribute, usize)> {
        let sent = rank.instrs.iter().filter_map(|instr| match instr {
            Instr::Exchange { node, kind, send, .. } if *node == routing.name => {
                Some((*kind, send.iter().flatten().count()))
            }
            _ => None,
        });
        sent.collect()
    };
    let by_rank: Vec<_> = program.ranks.iter().map(exchanges).collect();
    let of = |i: usize| (by_rank[0][i].0, by_rank.iter().map(|sent| sent[i].1).collect());
    (deciding, (0..by_rank[0].len()).map(of).collect())
}

#[test]
fn one_rank_decides_and_sends() {
    let model = open("mixtral");
    let plan_of = |strategy, ratios: &[f64]| plan(model.graph(), strategy, ratios).unwrap();
    // The rank with the largest share decides, and sends each rank the gates of its experts: 5 over 2, 3 and 0.
    let strongest = decision(&model, &plan_of(Strategy::Tensor, &[2.0, 3.0, 0.0]));
    assert_eq!(strongest, (vec![1], vec![(Redistribute::AllToAll, vec![0, 2, 0])]));
    // In a plan that does not cut it, the first rank decides.
    let mut edited = plan_of(Strategy::Tensor, &[2.0, 3.0, 0.0]);
    edited.nodes.retain(|entry| !entry.node.ends_with(".routing"));
    assert_eq!(decision(&model, &edited), (vec![0], vec![(Redistribute::AllToAll, vec![2, 0, 0])]));
    // Ranks that need all gates get all of them: a broadcast.
    let (deciding, exchanges) = decision(&model, &plan_of(Strategy::Row, &[1.0; 3]));
    assert_eq!((deciding, &exchanges[0]), (vec![0], &(Redistribute::AllGather, vec![3, 0, 0])));
    // With one rank there is no exchange.
    assert_eq!(decision(&model, &plan_of(Strategy::Single, &[1.0])), (vec![0], vec![]));
}

/// The exchanges of the last layer, which is a mixture in every model.
fn exchanges(program: &Program, layers: usize) -> Vec<String> {
    let layer = format!("model.layers.{}.", layers - 1);
    let of = |instr: &Instr| match instr {
        Instr::Exchange { node, kind, .. } => node.strip_prefix(&layer).map(|part| format!("{kind} {part}")),
        _ => None,
    };
    program.ranks[0].instrs.iter().filter_map(of).collect()
}

/// Experts cut over ranks cost one sum for the block, as an MLP does, in addition to the exchange of the decision.
#[test]
fn a_mixture_exchanges_little() {
    for (name, sum) in
        [("mixtral", "block_sparse_moe.experts.w2"), ("qwen3-moe", "mlp.experts.down_proj"), ("qwen2-moe", "mlp.sum")]
    {
        let model = open(name);
        let layers = model.graph().nodes().iter().filter(|node| node.name.ends_with("input_layernorm")).count();
        let plan = plan(model.graph(), Strategy::Tensor, &ratios(3)).unwrap();
        let found = exchanges(&lower(model.graph(), &plan).unwrap(), layers);
        let routing = format!("all_to_all {}.routing", sum.split('.').next().unwrap());
        let all = ["all_reduce self_attn.o_proj".to_string(), routing, format!("all_reduce {sum}")];
        assert_eq!(found, all, "{name}");
    }
}

/// Experts are distributed whole, and a rank reads only its own from the files. Some ranks may have none.
#[test]
fn ranks_hold_their_experts() {
    let model = open("qwen3-moe");
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 9]).unwrap();
    let program = lower(model.graph(), &plan).unwrap();
    let env = Env::prompt(1);
    let held = |rank: &RankProgram| {
        let experts = rank.weights.iter().filter(|shard| shard.name.contains(".experts."));
        let mut counts: Vec<usize> = experts.map(|shard| shard.local_shape(&env)[0]).collect();
        counts.dedup();
        counts
    };
    let counts: Vec<Vec<usize>> = program.ranks.iter().map(held).collect();
    assert_eq!(counts, [vec![vec![1]; 7], vec![vec![0]; 2]].concat());
    let engine = engine_of(&model, &plan, hosts(9));
    let local = |shard: &fanfold::program::WeightShard| {
        shard.format.bytes(shard.local_shape(&env).iter().product::<usize>()) as usize
    };
    let shards = program.ranks.iter().flat_map(|rank| &rank.weights).filter(|shard| !shard.name.starts_with("rope."));
    assert_eq!(model.bytes_read(), shards.map(local).sum::<usize>() as u64);
    drop(engine);
}

/// The parameters of a mixture are those of all its experts.
#[test]
fn all_experts_count_as_parameters() {
    for name in MODELS {
        let file = std::fs::read(fixture(name).join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let elements: usize = tensors.tensors().iter().map(|(_, t)| t.shape().iter().product::<usize>()).sum();
        assert_eq!(open(name).parameters(), elements as u64, "{name}");
    }
}

/// A copy of a fixture with another value for one field of its configuration.
fn with(name: &str, field: &str, value: serde_json::Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(fixture(name).join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[field] = value;
    std::fs::write(&path, config.to_string()).unwrap();
    match Model::open(folder.path()) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn settings_that_make_no_sense() {
    use serde_json::json;
    let refused = |name: &str, field: &str, value: serde_json::Value, says: &str| {
        let error = with(name, field, value.clone());
        assert!(error.contains(says), "{name} with {field} {value}: {error:?}, expected {says:?}");
    };
    refused("mixtral", "num_experts_per_tok", json!(6), "6 of 5 experts");
    refused("mixtral", "num_experts_per_tok", json!(0), "num_experts_per_tok: expected a whole number from 1");
    refused("mixtral", "num_local_experts", json!(-1), "expected a whole number from 1");
    refused("mixtral", "num_local_experts", json!(null), "found null; left out, it is 8");
    refused("qwen2-moe", "mlp_only_layers", json!([3]), "names layer 3 of 3");
    refused("qwen2-moe", "mlp_only_layers", json!([-1]), "expected a list of whole numbers");
    refused("qwen2-moe", "decoder_sparse_step", json!(0), "decoder_sparse_step: expected a whole number from 1");
    refused("qwen3-moe", "norm_topk_prob", json!("yes"), "norm_topk_prob: expected true or false");
    // One expert more than the files have: the error names every part of it.
    let error = with("mixtral", "num_local_experts", json!(6));
    for part in ["w1", "w2", "w3"] {
        let tensor = format!("model.layers.1.block_sparse_moe.experts.5.{part}.weight: missing");
        assert!(error.contains(&tensor), "{error}");
    }
    assert!(error.contains("block_sparse_moe.gate.weight: [5, 42], expected [6, 42]"), "{error}");
    // Fields that only training reads change nothing.
    assert_eq!(with("mixtral", "router_aux_loss_coef", json!(0.5)), "");
    assert_eq!(with("mixtral", "output_router_logits", json!(true)), "");
}
