//! Graphs that no importer makes: any value as any input, any value as an output. The host and every GPU agree, whole
//! and cut, or the graph is refused when it is built, with an error that gives the reason.

mod common;

use common::{adapters, hosts, mixed};
use fanfold::device::Device;
use fanfold::error::Error;
use fanfold::graph::GraphError;
use fanfold::graph::{Graph, ValueId};
use fanfold::import::StoredWeights;
use fanfold::model::{Model, ModelInfo};
use fanfold::ops::OpError;
use fanfold::ops::{
    Attention, Binary, BinaryFunction, Gather, Linear, Operator, Reshape, RotaryEmbedding, Slice, Softmax,
    TensorScatter, Transpose, Unary, UnaryFunction,
};
use fanfold::plan::{NodeCut, Plan, Strategy};
use fanfold::program::{Size, lower};
use fanfold::random::Random;
use fanfold::session::{Options, Session, Tensors};
use fanfold::shape::{Dim, Env, Limits, Symbol};
use fanfold::sharding::Cut;
use fanfold::sharding::ShardingError;
use fanfold::tensor::{DType, Tensor, relative_error};
use fanfold::weights::Weights;
use fanfold::{Engine, EngineOptions};
use std::collections::HashMap;
use std::sync::Arc;

/// A graph under construction, with the inputs to run it on.
#[derive(Default)]
struct Case {
    graph: Graph,
    weights: HashMap<String, Tensor>,
    inputs: Tensors,
}

const ADD: Binary = Binary { function: BinaryFunction::Add };
const SILU: Unary = Unary { function: UnaryFunction::Silu };

fn dims(tensor: &Tensor) -> Vec<Dim> {
    tensor.shape().iter().map(|&n| n.into()).collect()
}

impl Case {
    fn input(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.graph.input(name, dims(&tensor), tensor.dtype()).unwrap();
        self.inputs.insert(name.into(), tensor);
        id
    }

    fn weight(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.graph.weight(name, dims(&tensor), tensor.dtype()).unwrap();
        self.weights.insert(name.into(), tensor);
        id
    }

    /// Adds a node whose result is an output.
    fn shown(&mut self, name: &str, op: impl Into<fanfold::ops::Op>, inputs: &[ValueId]) -> ValueId {
        let value = self.graph.node(name, op, inputs).unwrap();
        self.graph.output(name, value).unwrap();
        value
    }

    fn plan(&self, world: usize, cuts: &[(&str, &str, Cut)]) -> Plan {
        let cut = |(node, factor, cut): &(&str, &str, Cut)| NodeCut {
            node: node.to_string(),
            factor: factor.to_string(),
            cut: cut.clone(),
        };
        Plan {
            fanfold: 1,
            model: self.graph.fingerprint(),
            world_size: world,
            ratios: vec![1.0; world],
            strategy: Strategy::Tensor,
            nodes: cuts.iter().map(cut).collect(),
        }
    }

    fn session(&self, plan: &Plan, limits: impl Into<Limits>, devices: Vec<Box<dyn Device>>) -> Session {
        let options = Options::new(limits);
        let weights = Arc::new(self.weights.clone());
        Session::open(lower(&self.graph, plan).unwrap(), devices, weights, options, Arc::new(|_| ())).unwrap()
    }

    /// The outputs on the host, after checking that every GPU, and GPUs and hosts under `cuts`, give the same.
    #[track_caller]
    fn agreed(&self, cuts: &[(&str, &str, Cut)]) -> Tensors {
        let env = Env::prompt(1);
        let run = |plan: &Plan, devices| self.session(plan, env, devices).run(env, self.inputs.clone()).unwrap();
        let whole = self.plan(1, &[]);
        let expected = run(&whole, hosts(1));
        let check = |what: &str, found: Tensors| {
            for (name, expected) in &expected {
                let found = &found[name];
                assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name} {what}");
                match expected.as_f32() {
                    Ok(expected) => {
                        let error = relative_error(found.as_f32().unwrap(), expected);
                        assert!(error <= 1e-5, "{name} {what}: error {error:e}");
                    }
                    Err(_) => assert_eq!(found, expected, "{name} {what}"),
                }
            }
        };
        let world = cuts.first().map_or(1, |(_, _, cut)| cut.world_size());
        let cut = self.plan(world, cuts);
        check("on hosts", run(&cut, hosts(world)));
        for adapter in adapters() {
            check(&format!("on {adapter}"), run(&whole, mixed(std::slice::from_ref(&adapter), 1)));
        }
        if !adapters().is_empty() {
            check("cut, on GPUs", run(&cut, mixed(&adapters(), world)));
        }
        expected
    }
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::f32(shape, values.to_vec()).unwrap()
}

fn counted(shape: &[usize]) -> Tensor {
    f32s(shape, &(0..shape.iter().product()).map(|i: usize| i as f32).collect::<Vec<_>>())
}

fn thirds(n: usize) -> Cut {
    Cut::by_ratio(n, &[1.0, 2.0, 1.0]).unwrap()
}

#[test]
fn a_product_of_two_activations() {
    let (mut case, mut random) = (Case::default(), Random::new(1));
    let ids = case.input("ids", Tensor::u32([1, 4], vec![3, 0, 10, 9]).unwrap());
    let mut cuts = Vec::new();
    for k in [1, 3, 4, 5, 6, 8, 13] {
        let x = case.input(&format!("x {k}"), random.tensor(DType::F32, &[1, 5, k]));
        let y = case.input(&format!("y {k}"), random.tensor(DType::F32, &[11, k]));
        let silu = case.graph.node(&format!("silu {k}"), SILU, &[y]).unwrap();
        let names = ["product", "of itself", "rows"].map(|name| format!("{name} {k}"));
        case.shown(&names[0], Linear, &[x, silu]);
        case.shown(&names[1], Linear, &[silu, silu]);
        case.shown(&names[2], Gather, &[silu, ids]);
        cuts.extend(names.into_iter().zip([("n", thirds(11)), ("k", thirds(k)), ("v", thirds(11))]));
    }
    let cuts: Vec<_> = cuts.iter().map(|(name, (factor, cut))| (name.as_str(), *factor, cut.clone())).collect();
    case.agreed(&cuts);
}

#[test]
fn a_weight_stands_wherever_an_activation_does() {
    let (mut case, mut random) = (Case::default(), Random::new(3));
    let mut cuts = Vec::new();
    let x = case.input("x", random.tensor(DType::F32, &[2, 3, 6]));
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let name = |name: &str| format!("{name} {dtype}");
        let table = case.weight(&name("table"), random.tensor(dtype, &[2, 3, 6]));
        case.shown(&name("sum"), ADD, &[x, table]);
        case.shown(&name("other sum"), ADD, &[table, table]);
        case.shown(&name("softmax"), Softmax, &[table]);
        case.shown(&name("transposed"), Transpose { order: vec![1, 2, 0] }, &[table]);
        case.shown(&name("sliced"), Slice { axis: 2, start: Some(1), len: Dim::Fixed(3) }, &[table]);
        // The same weight as a matrix, in its stored layout, and under another shape.
        let w = case.weight(&name("w"), random.tensor(dtype, &[9, 6]));
        case.shown(&name("product"), Linear, &[table, w]);
        case.shown(&name("sum of matrix"), ADD, &[w, w]);
        let view = case.shown(&name("view"), Reshape::new("(a b) c -> a b c", &[("a", 3)]), &[w]);
        case.shown(&name("read under the other shape"), ADD, &[view, view]);
        case.shown(&name("still read under its own"), SILU, &[w]);
        let square = case.graph.node(&name("square"), Reshape::new("a b c -> (a b) c", &[]), &[view]).unwrap();
        case.shown(&name("product with the view"), Linear, &[table, square]);
        cuts.extend([
            (name("sum"), "k", thirds(6)),
            (name("product"), "k", thirds(6)),
            (name("view"), "a", Cut::new(vec![0..1, 1..1, 1..3])),
            (name("product with the view"), "n", thirds(9)),
        ]);
    }
    let cuts: Vec<_> = cuts.iter().map(|(name, factor, cut)| (name.as_str(), *factor, cut.clone())).collect();
    let found = case.agreed(&cuts);
    assert_eq!(found["product f16"], found["product with the view f16"]);
    assert_eq!(found["view bf16"].dtype(), DType::F32);
}

#[test]
fn any_value_is_an_output() {
    let mut case = Case::default();
    let x = case.input("x", counted(&[1, 2, 3]));
    let ids = case.input("ids", Tensor::u32([1, 5], vec![4, 3, 2, 1, 0]).unwrap());
    let w = case.weight("w", counted(&[5, 3]).rounded(DType::F16));
    let v = case.weight("v", counted(&[3]).rounded(DType::BF16));
    let state = case.graph.state("state", [Symbol::Batch.into(), Symbol::Capacity.into(), 3.into()]).unwrap();
    for (name, value) in [("x", x), ("again", x), ("ids", ids), ("w", w), ("v", v), ("state", state)] {
        case.graph.output(name, value).unwrap();
    }
    case.shown("view of x", Reshape::new("a b c -> a (b c)", &[]), &[x]);
    case.shown("view of ids", Reshape::new("a b -> a b ()", &[]), &[ids]);
    case.shown("view of w", Reshape::new("a b -> () a b", &[]), &[w]);
    case.shown("view of the state", Reshape::new("b c (h d) -> b c h d", &[("h", 3)]), &[state]);
    // Ops that move elements accept token ids, cut or not.
    let some = case.shown("some ids", Slice { axis: 1, start: Some(1), len: Dim::Fixed(3) }, &[ids]);
    let turned = case.shown("turned ids", Transpose { order: vec![1, 0] }, &[some]);
    case.shown("rows", Gather, &[w, turned]);
    // No node reads this value.
    case.graph.node("unused", SILU, &[x]).unwrap();
    let found = case.agreed(&[
        ("rows", "d", thirds(3)),
        ("turned ids", "s", thirds(3)),
        ("view of w", "a", thirds(5)),
        ("view of ids", "b", thirds(5)),
    ]);
    assert_eq!(found["again"], counted(&[1, 2, 3]));
    assert_eq!(found["w"], counted(&[5, 3]));
    assert_eq!(found["v"], counted(&[3]));
    assert_eq!(found["state"], f32s(&[1, 1, 3], &[0.0; 3]));
    assert_eq!(found["turned ids"], Tensor::u32([3, 1], vec![3, 2, 1]).unwrap());
    assert_eq!(found["rows"], f32s(&[3, 1, 3], &[9.0, 10.0, 11.0, 6.0, 7.0, 8.0, 3.0, 4.0, 5.0]));
}

#[test]
fn what_is_no_state_is_copied_before_it_is_written() {
    let mut case = Case::default();
    let x = case.input("x", counted(&[1, 4, 2]));
    let w = case.weight("w", counted(&[1, 4, 2]).rounded(DType::F16));
    let made = case.shown("made", SILU, &[x]);
    let update = case.input("update", f32s(&[1, 2, 2], &[-1.0; 4]));
    for (name, value) in [("into x", x), ("into w", w), ("into made", made)] {
        let written = case.shown(name, TensorScatter { heads: 2 }, &[value, update]);
        // A second call: the state is read as the first call left it.
        let short = case.input(&format!("short {name}"), f32s(&[1, 1, 2], &[-2.0; 2]));
        case.shown(&format!("{name} twice"), TensorScatter { heads: 2 }, &[written, short]);
        case.shown(&format!("{name} read"), ADD, &[value, value]);
    }
    let found =
        case.agreed(&[("into x", "h", Cut::new(vec![0..1, 1..2])), ("into w", "h", Cut::new(vec![0..2, 2..2]))]);
    let doubled: Vec<f32> = (0..8).map(|i| 2.0 * i as f32).collect();
    assert_eq!(found["into x read"], f32s(&[1, 4, 2], &doubled));
    assert_eq!(found["into w read"], f32s(&[1, 4, 2], &doubled));
    assert_eq!(found["into w"], f32s(&[1, 4, 2], &[-1.0, -1.0, -1.0, -1.0, 4.0, 5.0, 6.0, 7.0]));
    assert_eq!(found["into w twice"], f32s(&[1, 4, 2], &[-2.0, -2.0, -1.0, -1.0, 4.0, 5.0, 6.0, 7.0]));
}

/// A state that is read by two nodes and written once, for fewer sequences than the limit, in two calls.
#[test]
fn a_state_is_kept_for_all_who_read_it() {
    let mut case = Case::default();
    let shape = |n: usize| vec![Symbol::Batch.into(), Symbol::Seq.into(), n.into()];
    let new = case.graph.input("new", shape(4), DType::F32).unwrap();
    let cache: Vec<Dim> = vec![Symbol::Batch.into(), Symbol::Capacity.into(), 4.into()];
    let state = case.graph.state("state", cache).unwrap();
    let before = case.shown("before", ADD, &[state, state]);
    let written = case.shown("written", TensorScatter { heads: 2 }, &[state, new]);
    let op = Attention { heads: 4, kv_heads: 2, scale: 1.0, causal: true, window: None, softcap: None };
    let query = case.graph.input("query", shape(8), DType::F32).unwrap();
    case.shown("attention", op, &[query, written, written]);
    case.shown("view", Reshape::new("b c (h d) -> b c h d", &[("h", 2)]), &[written]);
    case.shown("after", ADD, &[written, before]);
    let limits = Env { batch: 3, seq: 2, keep: 1, past: 0, capacity: 5 };
    let cuts = [("written", "h", Cut::new(vec![0..1, 1..2])), ("attention", "h", Cut::new(vec![0..2, 2..4]))];
    let calls: Vec<(Env, Tensors)> = [(2, 2, 0), (2, 1, 2), (2, 2, 3)]
        .into_iter()
        .map(|(batch, seq, past)| {
            let input = |n| Random::new((n + past) as u64).tensor(DType::F32, &[batch, seq, n]);
            let inputs = [("new", 4), ("query", 8)].map(|(name, n)| (name.to_string(), input(n)));
            (Env { batch, seq, keep: 1, past, capacity: 5 }, Tensors::from(inputs))
        })
        .collect();
    let run = |plan: &Plan, devices: Vec<Box<dyn Device>>| -> Vec<Tensors> {
        let mut session = case.session(plan, limits, devices);
        calls.iter().map(|(env, inputs)| session.run(*env, inputs.clone()).unwrap()).collect()
    };
    let whole = case.plan(1, &[]);
    let expected = run(&whole, hosts(1));
    let filled = |call: usize| expected[call]["written"].as_f32().unwrap().iter().filter(|x| **x != 0.0).count();
    assert_eq!([filled(0), filled(1), filled(2)], [16, 24, 40]);
    assert_eq!(expected[1]["before"].as_f32().unwrap().iter().filter(|x| **x != 0.0).count(), 16);
    // A reader of the state that is cut, before a node that runs whole: a typed error, like any two cuts of one state.
    assert!(lower(&case.graph, &case.plan(2, &cuts)).is_err());
    for adapter in adapters() {
        let found = run(&whole, mixed(&[adapter], 1));
        for (found, expected) in found.iter().zip(&expected) {
            for (name, expected) in expected {
                let error = relative_error(found[name].as_f32().unwrap(), expected.as_f32().unwrap());
                assert!(error <= 1e-5, "{name}: error {error:e}");
            }
        }
    }
}

#[track_caller]
fn refused(result: Result<ValueId, GraphError>, says: &[&str]) {
    let error = result.map(|_| ()).unwrap_err();
    for word in says {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn what_cannot_be_is_refused_when_the_graph_is_built() {
    let mut graph = Graph::new();
    let fixed = |shape: &[usize]| shape.iter().map(|&n| n.into()).collect::<Vec<Dim>>();
    refused(graph.input("half", fixed(&[2]), DType::F16), &["half", "f16", "f32"]);
    refused(graph.input("vast", fixed(&[1 << 40, 1 << 40]), DType::F32), &["vast", "larger than any machine"]);
    let moving: Vec<Dim> = vec![2.into(), Symbol::Batch.into()];
    refused(graph.state("moving", moving), &["moving", "[2, batch]", "capacity"]);
    let per_call: Vec<Dim> = vec![Symbol::Seq.into()];
    refused(graph.state("per call", per_call), &["per call", "[seq]"]);

    let x = graph.input("x", fixed(&[1, 4, 2]), DType::F32).unwrap();
    let ids = graph.input("ids", fixed(&[1, 4]), DType::U32).unwrap();
    let table = graph.weight("table", fixed(&[4, 2]), DType::F16).unwrap();
    let whole = graph.weight("whole", fixed(&[1, 4, 2]), DType::U32).unwrap();
    refused(graph.node("n", Gather, &[table, x]), &["node n", "Gather", "input 1", "f32", "u32"]);
    refused(graph.node("n", SILU, &[ids]), &["input 0", "u32", "numbers"]);
    refused(graph.node("n", ADD, &[x, whole]), &["input 1", "u32"]);
    refused(graph.node("n", Linear, &[x, ids]), &["Linear"]);
    refused(graph.node("n", SILU, &[ValueId(99)]), &["node n", "number 99", "another graph"]);
    assert!(matches!(graph.output("y", ValueId(99)), Err(GraphError::Name { .. })));
    // After all of these the name is still free.
    let empty = graph.weight("empty", fixed(&[0, 1]), DType::F32).unwrap();
    refused(graph.node("n", RotaryEmbedding { heads: 1 }, &[x, empty, empty, ids]), &["hold no position"]);
    graph.node("n", SILU, &[x]).unwrap();

    let state = graph.state("state", fixed(&[1, 4, 2])).unwrap();
    let update = graph.input("update", fixed(&[1, 2, 2]), DType::F32).unwrap();
    let long = graph.input("long", fixed(&[1, 5, 2]), DType::F32).unwrap();
    let scatter = TensorScatter { heads: 1 };
    let view = graph.node("view", Reshape::new("a b c -> (a b) () c", &[]), &[state]).unwrap();
    let back = graph.node("back", Reshape::new("(a b) () c -> a b c", &[("a", 1)]), &[view]).unwrap();
    refused(graph.node("t", scatter, &[state, state]), &["state", "both reads and overwrites"]);
    refused(graph.node("t", scatter, &[state, back]), &["both reads and overwrites"]);
    refused(graph.node("t", scatter, &[back, update]), &["under another shape"]);
    refused(graph.node("t", scatter, &[state, long]), &["5 new positions", "4"]);
    let written = graph.node("t", scatter, &[state, update]).unwrap();
    refused(graph.node("late", SILU, &[state]), &["state", "overwritten by node t"]);
    refused(graph.node("late", SILU, &[view]), &["view", "overwritten by node t"]);
    refused(graph.node("late", scatter, &[state, update]), &["overwritten by node t"]);
    let error = graph.output("y", state).unwrap_err().to_string();
    assert!(error.contains("overwritten by node t"), "{error}");
    graph.output("written", written).unwrap();
    refused(graph.node("late", scatter, &[written, update]), &["is an output"]);
}

#[test]
fn lengths_that_only_a_call_knows() {
    // Joining them into one dimension would need a product of symbols.
    let mut graph = Graph::new();
    let shape: Vec<Dim> = vec![Symbol::Batch.into(), Symbol::Seq.into(), 4.into()];
    let x = graph.input("x", shape, DType::F32).unwrap();
    let joined = graph.node("joined", Reshape::new("b s d -> (b s) d", &[]), &[x]);
    let Err(GraphError::Node { cause, .. }) = joined else { panic!("{joined:?}") };
    assert!(matches!(*cause, GraphError::Op(OpError::Sharding(ShardingError::Inputs { .. }))), "{cause}");
    assert!(cause.to_string().contains("b = batch, s = seq"), "{cause}");
    let vast = [1usize << 31, 1 << 31, 4].map(Dim::Fixed).to_vec();
    assert!(Reshape::new("b s d -> (b s d)", &[]).rule(&[vast]).is_err());

    // A slice that is longer than a short call is refused by every device; a longer call runs.
    let mut case = Case { graph, ..Case::default() };
    case.shown("last two", Slice { axis: 1, start: None, len: Dim::Fixed(2) }, &[x]);
    let limits = Env { batch: 2, ..Env::prompt(3) };
    let plan = case.plan(1, &[]);
    let all = || std::iter::once(hosts(1)).chain(adapters().into_iter().map(|a| mixed(&[a], 1)));
    for devices in all() {
        let mut session = case.session(&plan, limits, devices);
        let call = |seq: usize| Tensors::from([("x".to_string(), counted(&[1, seq, 4]))]);
        let found = session.run(Env::prompt(3), call(3)).unwrap().remove("last two").unwrap();
        assert_eq!(found, f32s(&[1, 2, 4], &[4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]));
        let error = session.run(Env::prompt(1), call(1)).unwrap_err().to_string();
        assert!(error.contains("last two"), "{error}");
    }

    // A value that grows with the square of the call's length has enough memory.
    let (b, s) = (Dim::from(Symbol::Batch), Dim::from(Symbol::Seq));
    let limits = Limits { each: Env { batch: 4, ..Env::prompt(10) }, tokens: 20 };
    let max = |shape: &[Dim]| Size::of(shape).max(&limits);
    assert_eq!([max(&[b, s]), max(&[b, s, s]), max(&[b, b, s]), max(&[b]), max(&[s, s])], [20, 200, 80, 4, 100]);
}

/// The values from which a random graph chooses its inputs, by shape and by whether they hold indices.
struct Drawn {
    case: Case,
    random: Random,
    values: Vec<(Vec<usize>, bool, ValueId)>,
}

impl Drawn {
    /// A value of `shape`: an existing one, or a new one from any source.
    fn value(&mut self, shape: &[usize]) -> ValueId {
        let known: Vec<ValueId> =
            self.values.iter().filter(|(s, indices, _)| s == shape && !indices).map(|(_, _, id)| *id).collect();
        if !known.is_empty() && self.random.range(0, 2) > 0 {
            return self.random.pick(&known);
        }
        let name = format!("value {}", self.values.len());
        let source = self.random.range(0, 4);
        let dtype = self.random.pick(&[DType::F32, DType::F16, DType::BF16]);
        let tensor = |random: &mut Random, dtype| random.tensor(dtype, shape);
        let id = match source {
            0 => self.case.graph.state(&name, shape.iter().map(|&n| n.into()).collect::<Vec<Dim>>()).unwrap(),
            1 | 2 => self.case.input(&name, tensor(&mut self.random, DType::F32)),
            _ => self.case.weight(&name, tensor(&mut self.random, dtype)),
        };
        self.values.push((shape.to_vec(), false, id));
        id
    }

    fn indices(&mut self, shape: &[usize], bound: usize) -> ValueId {
        let (name, tensor) = (format!("value {}", self.values.len()), self.random.indices(bound, shape));
        let weight = self.random.range(0, 1) == 0;
        let id = if weight { self.case.weight(&name, tensor) } else { self.case.input(&name, tensor) };
        self.values.push((shape.to_vec(), true, id));
        id
    }

    /// Adds a node of any kind. A value that may not be read any more is refused, and another one is chosen.
    fn node(&mut self) {
        let [b, s, w] = [2, 3, self.random.pick(&[3, 4, 6])];
        let n = self.random.pick(&[3, 4, 6]);
        let rows = [b, s, w];
        let function = self.random.pick(&[BinaryFunction::Add, BinaryFunction::Mul]);
        let (op, inputs): (fanfold::ops::Op, Vec<ValueId>) = match self.random.range(0, 10) {
            0 => (Linear.into(), vec![self.value(&rows), self.value(&[n, w])]),
            1 => (Linear.into(), vec![self.value(&rows), self.value(&[n, w]), self.value(&[n])]),
            2 => (Gather.into(), vec![self.value(&[n, w]), self.indices(&[b, s], n + 1)]),
            3 => (Binary { function }.into(), vec![self.value(&rows), self.value(&rows)]),
            4 => (Binary { function }.into(), vec![self.value(&rows), self.value(&[w])]),
            5 => (Softmax.into(), vec![self.value(&rows)]),
            6 => (TensorScatter { heads: 1 }.into(), vec![self.value(&rows), self.value(&[b, 2, w])]),
            7 => (Reshape::new("b s w -> (b s) w", &[]).into(), vec![self.value(&rows)]),
            8 => (Reshape::new("(b s) w -> b s w", &[("s", s)]).into(), vec![self.value(&[b * s, w])]),
            9 => (Slice { axis: 1, start: Some(1), len: Dim::Fixed(2) }.into(), vec![self.value(&rows)]),
            _ => (Transpose { order: vec![0, 2, 1] }.into(), vec![self.value(&[b, w, s])]),
        };
        let name = format!("value {}", self.values.len());
        if let Ok(output) = self.case.graph.node(&name, op, &inputs) {
            let shape = self.case.graph.value(output).shape.iter().map(|d| d.fixed().unwrap()).collect();
            self.values.push((shape, false, output));
        }
    }
}

/// Random graphs in which any value may be any input; every value that may be an output is one. Whole and cut, host
/// and GPU give the same.
#[test]
fn random_graphs_agree_everywhere() {
    let adapters = adapters();
    let (mut cut_graphs, mut refused) = (0, 0);
    for seed in 0..120 {
        let mut drawn = Drawn { case: Case::default(), random: Random::new(seed), values: Vec::new() };
        for _ in 0..10 {
            drawn.node();
        }
        let Drawn { mut case, mut random, values } = drawn;
        for (i, (_, _, id)) in values.iter().enumerate() {
            // A value that was overwritten cannot be an output.
            let _ = case.graph.output(&format!("out {i}"), *id);
        }
        let env = Env::prompt(1);
        let run = |plan: &Plan, devices| {
            let program = lower(&case.graph, plan)?;
            let options = Options::new(env);
            let weights = Arc::new(case.weights.clone());
            let mut session = Session::open(program, devices, weights, options, Arc::new(|_| ()))?;
            Ok::<_, Error>(session.run(env, case.inputs.clone())?)
        };
        let whole = case.plan(1, &[]);
        let expected = run(&whole, hosts(1)).unwrap();
        let check = |found: Tensors, what: &str| {
            for (name, expected) in &expected {
                match (found[name].as_f32(), expected.as_f32()) {
                    (Ok(found), Ok(expected)) => {
                        let error = relative_error(found, expected);
                        assert!(error <= 1e-5, "seed {seed}, {name} {what}: error {error:e}");
                    }
                    _ => assert_eq!(&found[name], expected, "seed {seed}, {name} {what}"),
                }
            }
        };
        let world = random.range(2, 4);
        let mut plan = case.plan(world, &[]);
        for node in case.graph.nodes() {
            let legal = node.rule.cuttable();
            if legal.is_empty() || random.range(0, 2) == 0 {
                continue;
            }
            let factor = &node.rule.factors()[random.pick(&legal)];
            let mut bounds: Vec<usize> = (1..world).map(|_| random.range(0, factor.extent.fixed().unwrap())).collect();
            bounds.sort_unstable();
            let starts = [vec![0], bounds.clone()].concat();
            let ends = [bounds, vec![factor.extent.fixed().unwrap()]].concat();
            let cut = Cut::new(starts.into_iter().zip(ends).map(|(a, b)| a..b).collect());
            plan.nodes.push(NodeCut { node: node.name.clone(), factor: factor.name.clone(), cut });
        }
        match run(&plan, hosts(world)) {
            Ok(found) => {
                cut_graphs += 1;
                check(found, "cut, on hosts");
            }
            // A state has only one cut.
            Err(Error::Program(error)) => {
                assert!(error.to_string().contains("in another cut"), "seed {seed}: {error}");
                refused += 1;
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
        if seed < 10 && !adapters.is_empty() {
            let adapter = &adapters[seed as usize % adapters.len()];
            check(run(&whole, mixed(std::slice::from_ref(adapter), 1)).unwrap(), "on a GPU");
            if lower(&case.graph, &plan).is_ok() {
                check(run(&plan, mixed(&adapters, world)).unwrap(), "cut, on GPUs");
            }
        }
    }
    assert!(cut_graphs > 20, "{cut_graphs} graphs were cut, {refused} refused");
}

/// A decoder with two weights, which are given in three ways.
#[test]
fn weights_from_memory_and_from_files_give_the_same_model() {
    let mut graph = Graph::new();
    let ids = graph.input("input_ids", [Symbol::Batch.into(), Symbol::Seq.into()], DType::U32).unwrap();
    let table = graph.weight("table", [24.into(), 6.into()], DType::F16).unwrap();
    let head = graph.weight("head", [24.into(), 6.into()], DType::F32).unwrap();
    let x = graph.node("x", Gather, &[table, ids]).unwrap();
    let last = graph.node("last", Slice { axis: 1, start: None, len: Symbol::Keep.into() }, &[x]).unwrap();
    let logits = graph.node("logits", Linear, &[last, head]).unwrap();
    graph.output("logits", logits).unwrap();
    let mut random = Random::new(3);
    let map = HashMap::from([
        ("table".to_string(), random.tensor(DType::F16, &[24, 6])),
        ("head".to_string(), random.tensor(DType::F32, &[24, 6])),
    ]);
    let views = map.iter().map(|(name, tensor)| {
        let dtype = if tensor.dtype() == DType::F16 { safetensors::Dtype::F16 } else { safetensors::Dtype::F32 };
        let view = safetensors::tensor::TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes()).unwrap();
        (name.clone(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let stored = StoredWeights::from_bytes(bytes.clone().into()).unwrap();
    assert_eq!(stored.tensors().count(), 2);
    let error = StoredWeights::open(&[file.path(), file.path()]).unwrap_err().to_string();
    assert!(error.contains("has a tensor of this name, too"), "{error}");
    let sources: [Arc<dyn Weights>; 3] =
        [Arc::new(map.clone()), Arc::new(stored), Arc::new(StoredWeights::open(&[file.path()]).unwrap())];
    let mut answers = Vec::new();
    for weights in sources {
        let model = Arc::new(Model::from_graph(graph.clone(), weights, ModelInfo::decoder(24, 32)).unwrap());
        assert_eq!([model.parameters(), model.weight_bytes()], [288, 144 * 2 + 144 * 4]);
        model.check(&|_| ()).unwrap();
        let plan = fanfold::plan::plan(model.graph(), Strategy::Column, &[2.0, 1.0]).unwrap();
        let mut engine =
            Engine::open(model.clone(), &plan, hosts(2), EngineOptions::default(), Arc::new(|_| ())).unwrap();
        answers.push(engine.feed(&[1, 5, 23]).unwrap());
        assert!(model.bytes_read() >= model.weight_bytes());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.shape() == [1, 24]));
    // A weight that is missing, of another shape or not finite is named by the error.
    let read = |map: HashMap<String, Tensor>, what: &str| {
        let model = Model::from_graph(graph.clone(), Arc::new(map), ModelInfo::decoder(24, 32)).unwrap();
        let error = model.check(&|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    read(
        HashMap::from([map.get_key_value("table").map(|(k, v)| (k.clone(), v.clone())).unwrap()]),
        "\"head\" does not exist",
    );
    let mut other = map.clone();
    other.insert("head".to_string(), random.tensor(DType::F32, &[6, 24]));
    read(other, "\"head\" is stored as [6, 24], the graph declares [24, 6]");
    let mut other = map.clone();
    other.insert("head".to_string(), Tensor::f32([24, 6], vec![f32::NAN; 144]).unwrap());
    read(other, "\"head\" holds NaN");
    assert!(StoredWeights::from_bytes(vec![1, 2, 3].into()).is_err());
    // An input that no engine supplies, and a graph without an output that an engine reads.
    let info = || ModelInfo::decoder(24, 32);
    let mut odd = Graph::new();
    odd.input("pixels", [1.into()], DType::F32).unwrap();
    let error = Model::from_graph(odd, Arc::new(map.clone()), info()).map(drop).unwrap_err().to_string();
    assert!(error.contains("pixels") && error.contains("input_ids"), "{error}");
    let error = Model::from_graph(Graph::new(), Arc::new(map), info()).map(drop).unwrap_err().to_string();
    assert!(error.contains("logits"), "{error}");
}
