//! Snapshots of plans and programs as text; and plans that are read back, refused and edited by hand.

mod common;

use common::{Expected, all_logits, fixture, hosts, values};
use fanfold::generate::{Engine, prepare};
use fanfold::model::Model;
use fanfold::plan::{Plan, PlanBuilder, PlanError, Strategy, plan};
use fanfold::program::ProgramError;
use fanfold::program::{Holding, Room, check, lower};
use fanfold::sharding::Cut;
use fanfold::tensor::relative_error;
use std::sync::Arc;

fn open(name: &str) -> Model {
    if name == "demo" { Model::demo().unwrap() } else { Model::open(fixture(name)).unwrap() }
}

/// Whether a line belongs to a layer after the first; layers are alike.
fn repeats(line: &str) -> bool {
    let mut layer = line
        .split('.')
        .skip_while(|part| !part.ends_with("layers") && !part.ends_with("layer") && !part.ends_with('h'));
    layer.nth(1).is_some_and(|part| part != "0" && part.bytes().all(|b| b.is_ascii_digit()))
}

/// The plan, and the programs of the first and the last rank, with one layer of each.
fn snapshot(name: &str, strategy: Strategy, ratios: &[f64]) {
    let model = open(name);
    let plan = plan(model.graph(), strategy, ratios).unwrap();
    let program = lower(model.graph(), &plan).unwrap();
    let json = plan.to_json();
    // The fingerprint is left out: it does not describe the plan, and changes with any node's name.
    let json = json.lines().filter(|line| !line.contains("\"model\"") && !repeats(line));
    let mut text: String = json.map(|line| format!("{line}\n")).collect();
    for rank in [program.ranks.first(), program.ranks.last()].into_iter().flatten() {
        text += &format!("\nrank {}\n", rank.rank);
        text.extend(rank.to_string().lines().filter(|line| !repeats(line)).map(|line| format!("{line}\n")));
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
        insta::assert_snapshot!(format!("{name}-{strategy}-{}", ratios.len()), text);
    });
}

#[test]
fn the_demo_over_three_unequal_ranks() {
    snapshot("demo", Strategy::Tensor, &[5.0, 2.0, 1.0]);
}

#[test]
fn llama_over_five_ranks_by_every_strategy() {
    for strategy in [Strategy::Tensor, Strategy::Column, Strategy::Row] {
        snapshot("llama-uneven", strategy, &[1.0; 5]);
    }
}

#[test]
fn one_kv_head_under_seven_query_heads_over_five_ranks() {
    snapshot("qwen2-bias-tied", Strategy::Tensor, &[1.0; 5]);
}

#[test]
fn gpt2_over_three_ranks() {
    snapshot("gpt2", Strategy::Tensor, &[1.0; 3]);
}

#[test]
fn bert_over_two_ranks() {
    snapshot("bert", Strategy::Tensor, &[1.0; 2]);
}

#[test]
fn a_mixture_of_experts_over_three_ranks() {
    snapshot("mixtral", Strategy::Tensor, &[2.0, 1.0, 1.0]);
}

#[test]
fn a_plan_survives_json() {
    for name in ["demo", "llama-uneven", "qwen2-bias-tied", "qwen3-qknorm", "gpt2", "bert"] {
        let model = open(name);
        for (_, strategy) in Strategy::ALL {
            let ratios: &[f64] = if strategy == Strategy::Single { &[1.0] } else { &[0.1, 2.5, 0.0, 1.0 / 3.0] };
            let plan = plan(model.graph(), strategy, ratios).unwrap();
            assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan, "{name} {strategy}");
        }
    }
}

fn llama() -> (Arc<Model>, Plan) {
    let model = open("llama-uneven");
    let plan = plan(model.graph(), Strategy::Tensor, &[1.0; 2]).unwrap();
    (Arc::new(model), plan)
}

#[track_caller]
fn format_error(text: &str, says: &str) {
    match Plan::from_json(text) {
        Err(PlanError::Format(reason)) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn json_that_is_no_plan() {
    let json = llama().1.to_json();
    format_error(&json.replace("\"fanfold\": 1,", "\"fanfold\": 1, \"speed\": 9,"), "unknown field `speed`");
    format_error(&json.replace("{\"node\":", "{\"note\":1,\"node\":"), "unknown field `note`");
    format_error(&json.replace("\"fanfold\": 1", "\"fanfold\": 2"), "version 2");
    format_error(&json.replace("tensor", "diagonal"), "diagonal");
    format_error(&json.replace("[[0,", "[[-1,"), "-1");
    format_error(&json[..json.len() / 2], "EOF");
    format_error("", "EOF");
}

/// Lowering refuses the plan, and the error names the node.
#[track_caller]
fn refused(change: impl FnOnce(&mut Plan), at: &str, says: &str) {
    let (model, mut plan) = llama();
    change(&mut plan);
    match lower(model.graph(), &plan) {
        Err(ProgramError::Plan(PlanError::Node { node, cause })) => {
            assert_eq!(node, at);
            assert!(cause.to_string().contains(says), "{cause}");
        }
        other => panic!("{:?}", other.map(|_| "lowered")),
    }
}

fn cut(plan: &mut Plan, node: &str, ranges: [std::ops::Range<usize>; 2]) {
    plan.nodes.iter_mut().find(|entry| entry.node == node).unwrap().cut = Cut::new(ranges.to_vec());
}

#[test]
fn cuts_that_a_rule_does_not_allow() {
    let (out, query) = ("model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.q_rope");
    // Elements that are summed must not be counted twice.
    refused(|plan| cut(plan, out, [0..60, 50..96]), out, "overlap");
    refused(|plan| cut(plan, out, [0..50, 60..96]), out, "");
    refused(|plan| cut(plan, out, [0..50, 50..97]), out, "leaves 0..96");
    refused(|plan| cut(plan, query, [0..3, 3..7]), query, "leaves 0..6");
    let missing = |plan: &mut Plan| plan.nodes[0].node = "nowhere".to_string();
    refused(missing, "nowhere", "no such node");
    let factor = |plan: &mut Plan| plan.nodes.iter_mut().find(|n| n.node == out).unwrap().factor = "z".to_string();
    refused(factor, out, "no factor");
    let twice = |plan: &mut Plan| plan.nodes.push(plan.nodes.iter().find(|n| n.node == out).unwrap().clone());
    refused(twice, out, "twice");
    let ranks = |plan: &mut Plan| plan.nodes[0].cut = Cut::new(vec![0..100, 100..200, 200..384]);
    refused(ranks, "model.embed_tokens", "");
}

#[test]
fn a_plan_for_another_model() {
    let (_, plan) = llama();
    assert!(matches!(lower(open("gpt2").graph(), &plan), Err(ProgramError::Plan(PlanError::Model { .. }))));
}

/// Fingerprints used to have 16 digits, and cannot be compared with today's.
#[test]
fn a_plan_of_the_older_form_is_to_be_made_anew() {
    let (model, plan) = llama();
    let older = Plan { model: "0123456789abcdef".into(), ..plan };
    let error = Plan::from_json(&older.to_json()).unwrap_err();
    assert!(matches!(error, PlanError::Older) && error.to_string().contains("older fanfold"), "{error}");
    let error = lower(model.graph(), &older).unwrap_err();
    assert!(matches!(error, ProgramError::Plan(PlanError::Older)), "{error}");
}

/// Plans stay valid across releases as long as this snapshot stays. A change of it makes every user plan anew.
#[test]
fn the_fingerprint_of_a_model_stays_what_it_was() {
    assert_eq!(Model::demo().unwrap().graph().fingerprint(), "fdda76afb3fa165b5d19536a9c8e98d4");
}

#[test]
fn a_plan_by_hand_cuts_what_it_is_told_to() {
    let (model, _) = llama();
    let (graph, down) = (model.graph(), "model.layers.1.mlp.down_proj");
    let whole = Plan::whole(graph, 3).build().unwrap();
    assert_eq!((whole.world_size, whole.nodes.len()), (3, 0));
    let by_ratio = Plan::whole(graph, 2).cut("lm_head", "n", [2.0, 1.0]).build().unwrap();
    let by_place = Plan::whole(graph, 2).cut("lm_head", "n", [0..256, 256..384]).build().unwrap();
    assert_eq!(by_ratio, by_place);
    assert_eq!(Plan::from_json(&by_place.to_json()).unwrap(), by_place);
    let refused = |plan: PlanBuilder<'_>, says: &[&str]| {
        let error = plan.build().unwrap_err().to_string();
        assert!(says.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(Plan::whole(graph, 2).cut("nowhere", "n", [1.0, 1.0]), &["nowhere", "no such node"]);
    refused(Plan::whole(graph, 2).cut(down, "z", [1.0, 1.0]), &[down, "no factor \"z\""]);
    refused(Plan::whole(graph, 2).cut(down, "k", [0..50, 60..250]), &[down, "0..50|60..250 of k", "50..60 to no rank"]);
    refused(Plan::whole(graph, 2).cut(down, "k", [1.0, -1.0]), &[down, "ratios"]);
    refused(Plan::whole(graph, 3).cut(down, "k", [1.0, 1.0]), &[down, "2 intervals for 3 ranks"]);
    refused(Plan::whole(graph, 2).cut(down, "s", [1.0, 1.0]), &[down, "only a call knows"]);
    refused(Plan::whole(graph, 2).cut(down, "k", [1.0, 1.0]).cut(down, "n", [1.0, 1.0]), &[down, "twice"]);
    refused(Plan::whole(graph, 0), &["0 ranks"]);
    refused(Plan::whole(graph, 17), &["17 ranks"]);
}

/// Edits that a person may make to a plan: moving a boundary, leaving a node whole. The answer stays the same.
#[test]
fn plans_edited_by_hand_give_the_same_logits() {
    let (down, head) = ("model.layers.1.mlp.down_proj", "lm_head");
    let edits: [&dyn Fn(&mut Plan); 5] = [
        &|plan| cut(plan, down, [0..1, 1..250]),
        &|plan| cut(plan, head, [0..0, 0..384]),
        &|plan| plan.nodes.retain(|n| n.node != "model.layers.0.mlp.act" && n.node != "model.embed_tokens"),
        // Several ranks may compute the same columns of a value that is not summed.
        &|plan| cut(plan, head, [0..300, 200..384]),
        &|plan| plan.nodes.retain(|n| !n.node.ends_with("o_proj")),
    ];
    let expected = Expected::of("llama-uneven");
    let ids = expected.u32("ids_0");
    for (number, edit) in edits.iter().enumerate() {
        let (model, mut plan) = llama();
        edit(&mut plan);
        let plan = Plan::from_json(&plan.to_json()).unwrap();
        let mut engine = Engine::open(model, &plan, hosts(2), all_logits(), Arc::new(|_| ())).unwrap();
        let error = relative_error(values(&engine.feed(&ids).unwrap()), &expected.f32("logits_0"));
        assert!(error <= 1e-4, "edit {number}: error {error:e}");
    }
}

/// The needs of ranks that share a memory are added; those of ranks with memories of their own are not.
#[test]
fn ranks_that_share_a_memory_are_counted_together() {
    let (model, plan) = llama();
    let rooms = |pools: [usize; 2], memory: u64| pools.map(|pool| Room::new("device", Some(memory), pool));
    let options = all_logits();
    let (program, limits) = prepare(&model, &plan, &options, &rooms([0, 1], 0)).unwrap();
    let needs: Vec<u64> = program.ranks.iter().map(|rank| rank.memory(&limits).total()).collect();
    let (largest, sum) = (*needs.iter().max().unwrap(), needs.iter().sum::<u64>());
    assert!(program.check(&limits, &rooms([0, 1], largest)).is_ok());
    assert!(program.check(&limits, &rooms([7, 7], sum)).is_ok());
    let error = program.check(&limits, &rooms([7, 7], sum - 1)).unwrap_err();
    let ProgramError::DoesNotFit { shortfalls } = &error else { panic!("{error:?}") };
    assert_eq!((shortfalls.len(), shortfalls[0].ranks.as_slice(), shortfalls[0].needed), (1, [0, 1].as_slice(), sum));
    assert!(error.to_string().contains("ranks 0, 1 (device), in one memory together"), "{error}");
    // The whole model in addition to its shards, as `verify` holds it.
    let single = fanfold::plan::plan(model.graph(), Strategy::Single, &[1.0]).unwrap();
    let (whole, _) = prepare(&model, &single, &options, &[]).unwrap();
    let all = sum + whole.ranks[0].memory(&limits).total();
    for (memory, fits) in [(all, true), (all - 1, false)] {
        let rooms = rooms([0, 0], memory);
        let tenants = [program.tenants(&limits, &rooms), whole.tenants(&limits, &rooms[..1])].concat();
        assert_eq!(check(&tenants).is_ok(), fits, "{memory} of {all}");
    }
    // The host stores 16-bit numbers in 32 bits.
    let narrow = open("qwen2-bias-tied");
    let single = fanfold::plan::plan(narrow.graph(), Strategy::Single, &[1.0]).unwrap();
    let (program, limits) = prepare(&narrow, &single, &options, &[]).unwrap();
    let weights = |holding| program.ranks[0].memory_as(&limits, holding).weights;
    assert!(weights(Holding::Widened) > weights(Holding::Laid) * 19 / 10);
    assert!(weights(Holding::Streamed) < weights(Holding::Widened) / 2);
}

/// Ranks without a share take no part: the others give the bits that they give alone, and one of them owns what a single rank
/// must, such as biases of sums, decisions, and outputs that all hold.
#[test]
fn a_rank_without_a_share_takes_no_part() {
    let tokens: Vec<u32> = (1..9).collect();
    for (name, strategy) in [
        ("qwen2-moe", Strategy::Tensor),
        ("qwen2-moe", Strategy::Column),
        ("gpt2", Strategy::Tensor),
        ("gpt2", Strategy::Row),
        ("llama-uneven", Strategy::Column),
    ] {
        let model = Arc::new(open(name));
        let run = |ratios: &[f64]| {
            let plan = plan(model.graph(), strategy, ratios).unwrap();
            let mut engine =
                Engine::open(model.clone(), &plan, hosts(ratios.len()), all_logits(), Arc::new(|_| ())).unwrap();
            let logits = engine.feed(&tokens).unwrap();
            (logits, engine.report().unwrap().len())
        };
        let (expected, _) = run(&[2.0, 1.0]);
        for ratios in [[0.0, 2.0, 1.0], [2.0, 0.0, 1.0], [2.0, 1.0, 0.0]] {
            let (found, ranks) = run(&ratios);
            assert_eq!((&found, ranks), (&expected, 2), "{name} {strategy} {ratios:?}");
        }
    }
    let model = open("llama-uneven");
    let whole = Plan::whole(model.graph(), 3).build().unwrap();
    assert_eq!(whole.taking_part(model.graph()).unwrap().1, [0], "what every rank would repeat is computed once");
}
