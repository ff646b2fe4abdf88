//! Decoders: the settings that are refused, and how much of the fused weights a rank reads.

mod common;

use common::{engine, fixture, hosts, ratios, refused};
use fanfold::model::Model;
use fanfold::plan::{Strategy, plan};
use fanfold::program::{Instr, RankProgram, WeightPart, WeightShard, lower};
use fanfold::shape::Env;
use serde_json::json;
use std::sync::Arc;

#[test]
fn settings_that_would_make_another_model() {
    refused("falcon", &[("alibi", json!(true))], &["alibi", "only rotary positions"]);
    refused("falcon", &[("num_ln_in_parallel_attn", json!(2))], &["num_ln_in_parallel_attn"]);
    refused("falcon-grouped", &[("num_ln_in_parallel_attn", json!(3))], &["num_ln_in_parallel_attn", "3 norms"]);
    refused("falcon-grouped", &[("num_kv_heads", json!(4))], &["num_kv_heads", "4 does not divide 6 query heads"]);
    refused("falcon-grouped", &[("parallel_attn", json!(false))], &["parallel_attn"]);
    refused("gpt-neox", &[("num_attention_heads", json!(5))], &["num_attention_heads", "5 does not divide"]);
    refused("starcoder2", &[("num_key_value_heads", json!(null))], &["num_key_value_heads", "found null", "it is 2"]);
    // If one layout of a fused weight is taken for another, the shape shows it.
    let says = ["transformer.h.0.self_attention.query_key_value.weight: [72, 56], expected [168, 56]"];
    refused("falcon", &[("multi_query", json!(false))], &says);
}

/// The ranks of a plan read exactly the bytes of their shards, whatever the layout in the file.
#[test]
fn fused_weights_are_read_by_the_shard() {
    for name in ["gpt2", "gpt-neox", "falcon", "falcon-grouped"] {
        for strategy in [Strategy::Tensor, Strategy::Column, Strategy::Row] {
            let model = Arc::new(Model::open(fixture(name)).unwrap());
            let plan = plan(model.graph(), strategy, &ratios(5)).unwrap();
            let program = lower(model.graph(), &plan).unwrap();
            // A value that only rank 0 adds is zeros on the other ranks, which are not read from any file.
            let read = |shard: &&WeightShard| !matches!(shard.part, WeightPart::Zero);
            let shards = program.ranks.iter().flat_map(|rank| &rank.weights).filter(read);
            let bytes = shards
                .filter(|shard| !shard.name.starts_with("rope."))
                .map(|shard| shard.format.bytes(shard.local_shape(&Env::prompt(1)).iter().product::<usize>()) as usize);
            let expected: usize = bytes.sum();
            drop(engine(&model, strategy, &ratios(5), hosts(5)));
            assert_eq!(model.bytes_read(), expected as u64, "{name} {strategy}");
        }
    }
}

/// The exchanges of the first layer, by the values that they exchange.
fn exchanges(rank: &RankProgram) -> Vec<String> {
    let of = |instr: &Instr| match instr {
        Instr::Exchange { node, kind, .. } => Some(format!("{kind} {node}")),
        _ => None,
    };
    rank.instrs.iter().filter_map(of).filter(|text| text.contains(".0.")).collect()
}

/// A norm over all heads together costs an exchange of its inputs, and the state stays cut by heads.
#[test]
fn olmo2_is_cut_around_its_whole_norms() {
    let model = Model::open(fixture("olmo2")).unwrap();
    for (strategy, wanted) in [
        (
            Strategy::Tensor,
            [
                "all_gather model.layers.0.self_attn.q_proj",
                "all_gather model.layers.0.self_attn.k_proj",
                "all_reduce model.layers.0.self_attn.o_proj",
                "all_reduce model.layers.0.mlp.down_proj",
            ]
            .as_slice(),
        ),
        (Strategy::Column, &[]),
    ] {
        let plan = plan(model.graph(), strategy, &[1.0; 3]).unwrap();
        let program = lower(model.graph(), &plan).unwrap();
        for rank in &program.ranks {
            if !wanted.is_empty() {
                assert_eq!(exchanges(rank), wanted);
            }
            let states: Vec<_> = rank.states.iter().map(|shape| shape[2].fixed().unwrap()).collect();
            assert_eq!(states, [10; 4], "{strategy}: a state of one of the three KV heads");
        }
    }
}

/// If attention and MLP are in parallel, their partial sums are added before they are exchanged: one exchange for
/// both.
#[test]
fn parallel_blocks_need_one_exchange() {
    for (name, node) in [("gpt-neox", "gpt_neox.layers.0.mlp.residual"), ("falcon", "transformer.h.0.mlp.residual")] {
        let model = Model::open(fixture(name)).unwrap();
        let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 3]).unwrap();
        let program = lower(model.graph(), &plan).unwrap();
        let found = exchanges(&program.ranks[1]);
        assert_eq!(found.len(), 1, "{found:?} {node}");
        assert!(found[0].starts_with("all_reduce"), "{found:?}");
    }
}
