//! The rule theorem: for any op, any factor that its rule allows and any cut, evaluating the shards and redistributing
//! them equals evaluating the whole. One property over all ops, stated over rules; no op is named here.

mod common;

use common::{adapters, hosts, one_node, plan_of, run_graph};
use fanfold::device::gpu::GpuOptions;
use fanfold::device::select::{self, DeviceChoice};
use fanfold::format::Format;
use fanfold::graph::Graph;
use fanfold::kernel::Numerics;
use fanfold::ops::sample::Role;
use fanfold::ops::{Binary, BinaryFunction, Linear, Normalization, NormalizationKind, Softmax, Unary, UnaryFunction};
use fanfold::plan::{NodeCut, Plan, Strategy};
use fanfold::program::{Instr, lower};
use fanfold::proof::{check_columns, check_cuts_on, check_rule, random_cut};
use fanfold::random::Random;
use fanfold::shape::Dim;
use fanfold::sharding::{Cut, Factor, ShardingRule};
use fanfold::tensor::{DType, Tensor, relative_error};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::HashMap;

/// A cut of a factor of the only node.
fn entry(factor: &Factor, cut: Cut) -> NodeCut {
    NodeCut { node: "node".into(), factor: factor.name.clone(), cut }
}

fn cuttable(rule: &ShardingRule) -> Vec<String> {
    let name = |factor: &Factor| factor.name.clone() + if factor.decided { " (on one rank)" } else { "" };
    rule.cuttable().into_iter().map(|f| name(&rule.factors()[f])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cut_ops_equal_whole_ops(seed: u64) {
        for (_, make) in fanfold::ops::samples() {
            let checked = check_rule(&make, [seed]);
            prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
        }
    }

    #[test]
    fn random_graphs_under_random_plans_equal_whole_graphs(seed: u64) {
        let mut random = Random::new(seed);
        let (graph, weights, inputs) = random_graph(&mut random);
        let env = fanfold::shape::Env::prompt(1);
        let whole = run_graph(&graph, &weights, &inputs, env, None, 1, hosts(1));
        let world = random.range(1, 8);
        let mut nodes = Vec::new();
        for node in graph.nodes() {
            let legal = node.rule.cuttable();
            if legal.is_empty() || random.range(0, 2) == 0 {
                continue;
            }
            let f = random.pick(&legal);
            let factor = &node.rule.factors()[f];
            let cut = random_cut(&mut random, factor, world);
            nodes.push(NodeCut { node: node.name.clone(), factor: factor.name.clone(), cut });
        }
        let plan = Plan {
            fanfold: 1, model: graph.fingerprint(), world_size: world, ratios: vec![1.0; world],
            strategy: Strategy::Tensor, nodes,
        };
        let sharded = common::run_plan(&graph, &weights, &inputs, env, &plan, hosts(world));
        let error = relative_error(sharded.as_f32().unwrap(), whole.as_f32().unwrap());
        prop_assert!(error <= 1e-5, "error {error:e} under {}", plan.to_json());
    }
}

/// The theorem above with the shards on GPUs: every op, every factor, uneven and empty cuts, against the whole on the
/// host.
#[test]
fn cut_ops_on_gpus_equal_the_host() {
    let adapters = adapters();
    let mut cases = 0;
    for seed in (0..6).filter(|_| !adapters.is_empty()) {
        for (_, make) in fanfold::ops::samples() {
            // The devices of one case belong to different drivers.
            let next = Cell::new(seed as usize);
            let open = || {
                let adapter = adapters[next.replace(next.get() + 1) % adapters.len()].clone();
                select::open(&DeviceChoice::Gpu(adapter), &GpuOptions::default())
            };
            cases += check_cuts_on(&make, [seed], &open, 1e-5).unwrap_or_else(|error| panic!("{error}"));
        }
    }
    println!("{cases} cuts on {} adapters", adapters.len());
    assert!(adapters.is_empty() || cases >= 300, "only {cases} cases");
}

/// A factor that is not summed may be cut without changing a bit: on any single driver, in either order of sums, for
/// every op.
#[test]
fn column_cuts_of_every_op_are_exact() {
    let adapters = adapters();
    let mut cases = 0;
    for (seed, adapter) in adapters.iter().enumerate() {
        for numerics in [Numerics::Sequential, Numerics::Lanes] {
            let options = GpuOptions { numerics: Some(numerics), ..GpuOptions::default() };
            let open = || select::open(&DeviceChoice::Gpu(adapter.clone()), &options);
            for (_, make) in fanfold::ops::samples() {
                let checked = check_columns(&make, [seed as u64], &open);
                cases += checked.unwrap_or_else(|error| panic!("{adapter}, {numerics}: {error}"));
            }
        }
    }
    assert!(adapters.is_empty() || cases >= 40, "only {cases} cases");
}

/// A chain of random ops with residuals, on `[b, s, width]`.
fn random_graph(random: &mut Random) -> (Graph, HashMap<String, Tensor>, HashMap<String, Tensor>) {
    let (b, s, mut width) = (random.range(1, 3), random.range(1, 4), random.range(1, 12));
    let mut graph = Graph::new();
    let (mut weights, mut inputs) = (HashMap::new(), HashMap::new());
    inputs.insert("x".to_string(), random.tensor(DType::F32, &[b, s, width]));
    let mut x = graph.input("x", [b.into(), s.into(), width.into()], DType::F32).unwrap();
    for layer in 0..random.range(2, 7) {
        let name = format!("node{layer}");
        let mut weight = |graph: &mut Graph, random: &mut Random, part: &str, shape: &[usize]| {
            let name = format!("w{layer}{part}");
            weights.insert(name.clone(), random.tensor(DType::F32, shape));
            let dims: Vec<_> = shape.iter().map(|&n| n.into()).collect();
            graph.weight(&name, dims, DType::F32).unwrap()
        };
        x = match random.range(0, 6) {
            0 | 1 => {
                let out = random.range(1, 12);
                let mut ins = vec![x, weight(&mut graph, random, "", &[out, width])];
                if random.range(0, 1) == 0 {
                    ins.push(weight(&mut graph, random, "bias", &[out]));
                }
                width = out;
                graph.node(&name, Linear, &ins).unwrap()
            }
            2 => {
                // Two products added: Partial may pass through the sum.
                let ins = ["a", "b"].map(|part| {
                    let w = weight(&mut graph, random, part, &[width, width]);
                    graph.node(&format!("{name}{part}"), Linear, &[x, w]).unwrap()
                });
                graph.node(&name, Binary { function: BinaryFunction::Add }, &ins).unwrap()
            }
            3 => {
                let w = weight(&mut graph, random, "", &[width, width]);
                let y = graph.node(&format!("{name}y"), Linear, &[x, w]).unwrap();
                let function = random.pick(&[BinaryFunction::Add, BinaryFunction::Mul]);
                graph.node(&name, Binary { function }, &[x, y]).unwrap()
            }
            4 => {
                let w = weight(&mut graph, random, "", &[width]);
                let op = Normalization { kind: NormalizationKind::Rms, epsilon: 1e-2, offset: 0.0 };
                graph.node(&name, op, &[x, w]).unwrap()
            }
            5 => graph.node(&name, Unary { function: UnaryFunction::Silu }, &[x]).unwrap(),
            _ => graph.node(&name, Softmax, &[x]).unwrap(),
        };
    }
    graph.output("y", x).unwrap();
    (graph, weights, inputs)
}

/// A factor that is marked whole only to pass the tests above would show here.
#[test]
fn which_factors_may_be_cut() {
    let mut lines = Vec::new();
    for (name, sample) in fanfold::ops::samples() {
        // A rule's letters may depend on the rank of its inputs: the union over many samples is what an op allows.
        let mut rules: Vec<String> = (0..200)
            .map(|seed| {
                let sample = sample(&mut Random::new(seed));
                let shapes: Vec<_> =
                    sample.inputs.iter().map(|(_, t)| t.shape().iter().map(|&n| n.into()).collect()).collect();
                let rule = sample.op.rule(&shapes).unwrap();
                format!("{rule}  cut: {}", cuttable(&rule).join(" "))
            })
            .collect();
        rules.sort();
        rules.dedup();
        lines.push(format!("{name}\n  {}", rules.join("\n  ")));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

/// Whatever a plan states or omits about an op with a discrete choice, one rank chooses and the others receive the
/// result.
#[test]
fn a_decision_is_made_on_one_rank() {
    let mut decisions = 0;
    for (name, sample) in fanfold::ops::samples() {
        let mut random = Random::new(11);
        for _ in 0..20 {
            let (graph, ..) = one_node(&sample(&mut random));
            let rule = &graph.nodes()[0].rule;
            let Some(f) = (0..rule.factors().len()).find(|&f| rule.factors()[f].decided) else { continue };
            let factor = &rule.factors()[f];
            let world = random.range(2, 8);
            let mut plan = plan_of(&graph, None, world);
            let stated = (random.range(0, 1) == 1).then(|| random_cut(&mut random, factor, world));
            plan.nodes.extend(stated.iter().map(|cut| entry(factor, cut.clone())));
            let owner = stated.map_or(0, |cut| (0..world).find(|&rank| !cut.range(rank).is_empty()).unwrap());
            let program = lower(&graph, &plan).unwrap();
            for rank in &program.ranks {
                let computes = rank.instrs.iter().filter_map(|instr| match instr {
                    Instr::Compute { node, extents, .. } if node == "node" => Some(extents),
                    _ => None,
                });
                let part: Vec<Dim> = computes.map(|e| e.iter().find(|e| e.name == factor.name).unwrap().len).collect();
                assert_eq!(part == [factor.extent], rank.rank == owner, "{name}: {part:?} on rank {}", rank.rank);
                // A rank with no part of the choice may skip the op if no rank asks it for the result.
                assert!(
                    rank.rank == owner || part.iter().all(|n| *n == Dim::Fixed(0)),
                    "{name}: {part:?} on rank {}",
                    rank.rank
                );
            }
            // Any other cut is refused: of another factor, or of this one into two parts or onto two ranks.
            let extent = factor.extent.fixed().unwrap();
            let twice = Cut::new((0..world).map(|rank| if rank < 2 { 0..extent } else { extent..extent }).collect());
            let (lead, rest) = (Cut::undivided(1, world), Cut::by_ratio(extent, &vec![1.0; world]).unwrap());
            let mut refused = vec![entry(factor, twice)];
            refused.extend((extent > 1).then(|| entry(factor, rest)));
            refused
                .extend(rule.factors().iter().filter(|other| !other.decided).map(|other| entry(other, lead.clone())));
            for cut in refused {
                plan.nodes = vec![cut];
                assert!(lower(&graph, &plan).is_err(), "{name}: {}", plan.to_json());
            }
            decisions += 1;
        }
    }
    assert!(decisions >= 20, "no op decides");
}

#[test]
fn every_role_is_sampled_and_every_format() {
    let sampled = |seed| {
        let samples = fanfold::ops::samples().into_iter();
        samples.flat_map(move |(_, sample)| sample(&mut Random::new(seed)).inputs.into_iter().map(|(role, _)| role))
    };
    let roles: Vec<Role> = (0..40).flat_map(sampled).collect();
    let weights = Format::NUMBERS.into_iter().chain([Format::U32]).map(Role::Weight);
    for role in [Role::Input, Role::State].into_iter().chain(weights) {
        assert!(roles.contains(&role), "{role:?}");
    }
}
