//! A user's own ops: when two are equal, how they are serialised, and that a faulty shader harms nothing else.

mod common;

use common::{adapters, hosts};
use fanfold::device::gpu::{AdapterInfo, GpuDevice, GpuOptions};
use fanfold::device::{Counters, Device, DeviceError};
use fanfold::graph::{Graph, GraphError};
use fanfold::kernel::{Binding, Kernel, Launch, Shader, linear_grid};
use fanfold::ops::sample::{Role, Sample};
use fanfold::ops::*;
use fanfold::plan::Plan;
use fanfold::program::lower;
use fanfold::proof::{OpProofError, check_columns, check_device, check_op, check_rule};
use fanfold::random::Random;
use fanfold::session::{Options, Session, SessionError, Tensors};
use fanfold::shape::{Dim, Env, Shape};
use fanfold::sharding::ShardingRule;
use fanfold::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// An op that copies, with whatever kernel it is given.
#[derive(Debug, serde::Serialize)]
struct Copied {
    shader: String,
    /// Words of the parameter block after the number of elements.
    words: Vec<u32>,
    /// Whether the kernel is the crate's own for Relu, with a function of this op in it.
    borrowed: bool,
    /// Whether the op states that its output overwrites its input.
    overwrites: bool,
}

impl Copied {
    fn by(body: &str) -> Copied {
        let head = "
            @group(0) @binding(0) var<uniform> n: vec4<u32>;
            @group(0) @binding(1) var<storage, read> x: array<f32>;
            @group(0) @binding(2) var<storage, read_write> y: array<f32>;
            @compute @workgroup_size(1) fn main() {";
        Copied { shader: format!("{head}{body}\n}}"), words: vec![0; 3], borrowed: false, overwrites: false }
    }
}

impl Operator for Copied {
    fn name(&self) -> &'static str {
        "Copied"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        Ok(ShardingRule::of("Copied", "k -> k").bind(inputs)?)
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        Ok(context.inputs[0].clone())
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        if self.borrowed {
            return Unary { function: UnaryFunction::Relu }.launches(context);
        }
        let n = context.numel();
        Ok(vec![Launch {
            kernel: Kernel::new(Shader::new("copied", self.shader.clone()), "main"),
            params: [vec![n as u32], self.words.clone()].concat(),
            bindings: vec![Binding::input(0), Binding::Output],
            groups: [(n > 0) as u32, 1, 1],
        }])
    }

    fn in_place(&self) -> Option<usize> {
        self.overwrites.then_some(0)
    }
}

fn gpu(adapter: &AdapterInfo) -> Box<dyn Device> {
    Box::new(GpuDevice::open(adapter, &GpuOptions::default()).unwrap())
}

/// `x` copied by the op, then its Relu, and then `x` itself doubled: a write of the op to another buffer would show
/// there.
fn run(op: Copied, device: Box<dyn Device>) -> Result<(Tensors, Counters), SessionError> {
    let mut graph = Graph::new();
    let x = graph.input("x", [4.into()], DType::F32).unwrap();
    let copied = graph.node("copied", op, &[x]).unwrap();
    let relu = graph.node("relu", Unary { function: UnaryFunction::Relu }, &[copied]).unwrap();
    let twice = graph.node("twice", Unary { function: UnaryFunction::Scale(2.0) }, &[x]).unwrap();
    for (name, value) in [("copied", copied), ("relu", relu), ("twice", twice)] {
        graph.output(name, value).unwrap();
    }
    let env = Env::prompt(1);
    let program = lower(&graph, &Plan::whole(&graph, 1).build().unwrap()).unwrap();
    let mut session =
        Session::open(program, vec![device], Arc::new(HashMap::new()), Options::new(env), Arc::new(|_| ()))?;
    let x = Tensor::f32([4], vec![0.5, -1.0, 2.0, 3.0]).unwrap();
    let found = session.run(env, HashMap::from([("x".to_string(), x)]))?;
    Ok((found, session.report()?[0].counters))
}

#[test]
fn a_shader_that_leaves_its_buffers_harms_nobody() {
    let copy = "for (var i = 0u; i < n.x; i++) { y[i] = x[i]; }";
    for adapter in adapters() {
        let (right, _) = run(Copied::by(copy), gpu(&adapter)).unwrap();
        assert_eq!(right["copied"].as_f32().unwrap(), [0.5, -1.0, 2.0, 3.0]);
        // Indices far outside both buffers and just after them. Such a write may end in the last element of its own
        // buffer.
        for at in ["n.x", "n.x * 70000u", "n.x - 5u"] {
            let (wild, _) = run(Copied::by(&format!("{copy} y[{at}] = x[{at}];")), gpu(&adapter)).unwrap();
            let copied = wild["copied"].as_f32().unwrap();
            assert_eq!(copied[..3], [0.5, -1.0, 2.0], "{at} on {adapter}");
            assert!(copied[3].is_finite(), "{at} on {adapter}");
            assert_eq!(wild["twice"], right["twice"], "{at} on {adapter}");
        }
    }
}

/// Checks that the error is the device's, and that it names the node and the op.
#[track_caller]
fn refused(op: Copied, adapter: &AdapterInfo, says: &str) {
    let error = run(op, gpu(adapter)).map(|_| ()).unwrap_err();
    let SessionError::Rank { cause, .. } = &error else { panic!("{error}") };
    let SessionError::Device(DeviceError::Node { node, cause }) = &**cause else { panic!("{error}") };
    assert_eq!(node, "copied");
    assert!(matches!(**cause, DeviceError::Refused { .. }), "{cause:?}");
    let error = error.to_string();
    assert!(["node copied", "op Copied", says].iter().all(|word| error.contains(word)), "{error} lacks {says}");
}

#[test]
fn a_shader_that_cannot_run_is_an_error_with_its_node_and_op() {
    for adapter in adapters() {
        refused(Copied::by("this is no WGSL"), &adapter, "copied/main");
        refused(Copied::by("y[0] = missing;"), &adapter, "missing");
        refused(Copied::by("}\n#import nowhere\nfn f() {"), &adapter, "nowhere");
        refused(Copied { shader: Copied::by("").shader.replace("main", "other"), ..Copied::by("") }, &adapter, "main");
        // A buffer of four elements where the shader needs 99, a block of four words where it needs 64, and one buffer
        // that is read and written in the same dispatch.
        let wide = Copied::by("y[0] = x[0];").shader.replace("read> x: array<f32>", "read> x: array<f32, 99>");
        refused(Copied { shader: wide, ..Copied::by("") }, &adapter, "copied");
        let block = Copied::by("y[0] = f32(n[9].x);").shader.replace("n: vec4<u32>", "n: array<vec4<u32>, 16>");
        refused(Copied { shader: block, ..Copied::by("") }, &adapter, "copied");
        refused(Copied { overwrites: true, ..Copied::by("y[0] = x[0];") }, &adapter, "copied");
    }
}

/// The crate's own shaders run with fewer checks than others, but only in the crate's own ops: another op that
/// launches them chooses aliases and functions in them.
#[test]
fn a_shader_of_the_crate_in_an_op_of_ones_own_is_compiled_anew_with_all_checks() {
    let copy = "for (var i = 0u; i < n.x; i++) { y[i] = x[i]; }";
    for adapter in adapters() {
        // Copy, Relu and Scale are three pipelines; Relu's kernel with and without checks, and Scale, are three again.
        let (found, counters) = run(Copied { borrowed: true, ..Copied::by(copy) }, gpu(&adapter)).unwrap();
        assert_eq!(found["copied"].as_f32().unwrap(), [0.5, 0.0, 2.0, 3.0]);
        assert_eq!(counters.pipelines, run(Copied::by(copy), gpu(&adapter)).unwrap().1.pipelines);
        assert_eq!(counters.pipelines, 3);
    }
}

#[test]
fn ops_are_told_apart_by_name_and_attributes_and_shaders_by_text() {
    let copied = |body: &str| Op::from(Copied::by(body));
    assert_eq!(copied("a"), copied("a"));
    assert_ne!(copied("a"), copied("b"));
    assert_ne!(copied("a"), Op::from(Softmax));
    assert_ne!(Op::from(Unary { function: UnaryFunction::Silu }), Op::from(Unary { function: UnaryFunction::Gelu }));
    assert_ne!(
        Op::from(Unary { function: UnaryFunction::Scale(1.0) }),
        Op::from(Unary { function: UnaryFunction::Scale(1.0 + f32::EPSILON) })
    );
    assert_eq!(Shader::new("one", "text"), Shader::new("two", "text"));
    assert_ne!(Shader::new("one", "text"), Shader::new("one", "other text"));
    let graph = |body: &str| {
        let mut graph = Graph::new();
        let x = graph.input("x", [4.into()], DType::F32).unwrap();
        graph.node("copied", Copied::by(body), &[x]).unwrap();
        graph.fingerprint()
    };
    assert_eq!(graph("a"), graph("a"));
    assert_ne!(graph("a"), graph("b"));
}

/// `Op` was an enum with these variants. The serialised form of a program has not changed since.
#[derive(serde::Serialize)]
enum Tagged {
    Linear(Linear),
    Gather(Gather),
    Normalization(Normalization),
    RotaryEmbedding(RotaryEmbedding),
    Attention(Attention),
    TensorScatter(TensorScatter),
    Unary(Unary),
    Binary(Binary),
    Softmax(Softmax),
    Reshape(Reshape),
    Transpose(Transpose),
    Slice(Slice),
    Reduce(Reduce),
    Routing(Routing),
    Experts(Experts),
}

#[test]
fn every_family_is_serialised_under_its_type_with_its_fields_in_order() {
    macro_rules! same {
        ($($family:ident: $op:expr),* $(,)?) => {
            $(assert_eq!(
                serde_json::to_string(&Op::from($op.clone())).unwrap(),
                serde_json::to_string(&Tagged::$family($op)).unwrap()
            );)*
        };
    }
    same! {
        Linear: Linear,
        Gather: Gather,
        Normalization: Normalization { kind: NormalizationKind::Rms, epsilon: 1e-6, offset: 0.1 },
        RotaryEmbedding: RotaryEmbedding { heads: 3 },
        Attention: Attention { heads: 4, kv_heads: 2, scale: 0.3, causal: true, window: Some(5), softcap: Some(1e-7) },
        TensorScatter: TensorScatter { heads: 2 },
        Unary: Unary { function: UnaryFunction::Softcap(30.1) },
        Unary: Unary { function: UnaryFunction::Gelu },
        Binary: Binary { function: BinaryFunction::Mul },
        Softmax: Softmax,
        Reshape: Reshape::new("b s (h d) -> b s h d", &[("d", 2)]),
        Transpose: Transpose { order: vec![1, 0] },
        Slice: Slice { axis: 1, start: None, len: Dim::Fixed(2) },
        Reduce: Reduce { kind: ReduceKind::Sum, axis: 0 },
        Routing: Routing { top: 2, normalize: true },
        Experts: Experts { kind: ExpertsKind::Down },
    }
    assert_eq!(serde_json::to_string(&Op::from(Softmax)).unwrap(), r#"{"Softmax":null}"#);
    let copied = Copied { shader: "a".into(), ..Copied::by("") };
    let text = r#"{"Copied":{"shader":"a","words":[0,0,0],"borrowed":false,"overwrites":false}}"#;
    assert_eq!(serde_json::to_string(&Op::from(copied)).unwrap(), text);
}

/// Clamp with a generated shader and the crate's modules, or a faulty version of it.
#[derive(Clone, Debug, serde::Serialize)]
struct Limit {
    high: f32,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
enum Fault {
    None,
    /// The rule allows a cut of a dimension that each element needs whole.
    Rule,
    /// The kernel computes something else.
    Kernel,
    /// The kernel depends on the number of columns of a rank.
    Columns,
}

impl Operator for Limit {
    fn name(&self) -> &'static str {
        "Limit"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        Ok(ShardingRule::of("Limit", "s k -> s k").bind(inputs)?)
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let x = context.inputs[0].as_f32()?;
        let more = if self.fault == Fault::Rule { x.len() as f64 } else { 0.0 };
        context.fill(|i| f64::from(x[i].clamp(0.0, self.high)) + more)
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let (n, columns) = (context.numel(), context.extent("k").len);
        let entry = format!("limit_{}", format!("{:?}", self.fault).to_lowercase());
        let result = match self.fault {
            Fault::None | Fault::Rule => "min(apply(x[i]), bitcast<f32>(params.y))",
            Fault::Kernel => "min(apply(x[i]), bitcast<f32>(params.y)) + 0.01",
            Fault::Columns => "min(apply(x[i]), bitcast<f32>(params.y)) * (1.0 + f32(params.z) * 1e-7)",
        };
        let source = format!(
            "@group(0) @binding(0) var<uniform> params: vec3<u32>;
             @group(0) @binding(1) var<storage, read> x: array<Element>;
             @group(0) @binding(2) var<storage, read_write> y: array<Element>;
             override WIDTH: u32;
#import grid
#import functions
             @compute @workgroup_size(64) fn {entry}(
                @builtin(workgroup_id) group: vec3<u32>,
                @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32,
             ) {{
                let i = number_of(group, groups, lane);
                if (i < params.x * WIDTH) {{ y[i] = {result}; }}
             }}"
        );
        let kernel = Kernel::new(Shader::new("limit".to_string(), source), entry);
        let launch = Launch {
            kernel: kernel.function("relu").alias("Element", "f32").constant("WIDTH", 1),
            params: vec![n as u32, self.high.to_bits(), columns as u32],
            bindings: vec![Binding::input(0), Binding::Output],
            groups: linear_grid(n, 64),
        };
        Ok(if n == 0 { Vec::new() } else { vec![launch] })
    }
}

fn limit(fault: Fault) -> impl Fn(&mut Random) -> Sample {
    move |random: &mut Random| {
        let shape = [random.range(1, 5), random.range(2, 80)];
        let inputs = vec![(Role::Input, random.tensor(DType::F32, &shape))];
        Sample::new(Limit { high: 0.75, fault }, inputs).mixed(random)
    }
}

#[test]
fn an_op_of_ones_own_passes_what_the_crates_ops_pass() {
    assert!(check_op(&limit(Fault::None), 0..20, None).unwrap() == 40);
    for adapter in adapters() {
        let open = || Ok(gpu(&adapter));
        assert!(check_op(&limit(Fault::None), 0..2, Some(&open)).unwrap() == 12);
    }
}

#[test]
fn a_rule_that_allows_too_much_is_found_out_with_factor_and_cut() {
    let error = check_rule(&limit(Fault::Rule), 0..20).unwrap_err();
    let OpProofError::Differs { op, how, element, found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!(op, "Limit");
    assert!(how.starts_with("factor "), "{how}");
    assert!(found < expected && *element == 0, "{error}");
    let text = error.to_string();
    assert!(["Limit", "cut 0..", &format!("{found:?}")].iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn a_kernel_that_computes_something_else_is_found_out() {
    for adapter in adapters() {
        let open = || Ok(gpu(&adapter));
        let error = check_device(&limit(Fault::Kernel), 0..4, &open, 1e-5).unwrap_err();
        assert!(matches!(error, OpProofError::Differs { element: 0, .. }), "{error}");
        assert!(check_device(&limit(Fault::Kernel), 0..4, &open, 0.1).unwrap() > 1e-3);
        // Within the tolerance, but without the bits of the whole.
        assert!(check_device(&limit(Fault::Columns), 0..4, &open, 1e-4).is_ok());
        let error = check_columns(&limit(Fault::Columns), 0..4, &open).unwrap_err();
        assert!(error.to_string().contains("factor k cut"), "{error}");
    }
}

/// Attributes that JSON cannot express.
#[derive(Debug, serde::Serialize)]
struct Unwritable(BTreeMap<(u8, u8), u8>);

impl Operator for Unwritable {
    fn name(&self) -> &'static str {
        "Unwritable"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        Ok(ShardingRule::of("Unwritable", "k -> k").bind(inputs)?)
    }

    fn operand(&self, _: usize) -> Operand {
        Operand::Numbers
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        Ok(context.inputs[0].clone())
    }

    fn launches(&self, _: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        Ok(Vec::new())
    }
}

#[test]
fn an_op_whose_attributes_cannot_be_written_enters_no_graph() {
    let mut graph = Graph::new();
    let x = graph.input("x", [4.into()], DType::F32).unwrap();
    let error = graph.node("here", Unwritable(BTreeMap::from([((0, 0), 0)])), &[x]).unwrap_err();
    assert!(matches!(error, GraphError::Node { .. }), "{error:?}");
    let text = error.to_string();
    assert!(["node here", "Unwritable", "JSON"].iter().all(|word| text.contains(word)), "{text}");
    assert!(graph.nodes().is_empty());
}

/// The host runs a user's own op like any other, and the printed program shows the op's name.
#[test]
fn a_program_names_an_op_of_ones_own() {
    let mut graph = Graph::new();
    let x = graph.input("x", [4.into()], DType::F32).unwrap();
    let y = graph.node("copied", Copied::by(""), &[x]).unwrap();
    graph.output("y", y).unwrap();
    let plan = Plan::whole(&graph, 2).cut("copied", "k", [3.0, 1.0]).build().unwrap();
    let program = lower(&graph, &plan).unwrap();
    assert!(program.ranks[1].to_string().contains("= Copied %1 [k=3..4 of 4] # copied"), "{}", program.ranks[1]);
    assert_eq!(program, lower(&graph, &plan).unwrap());
    let env = Env::prompt(1);
    let mut session =
        Session::open(program, hosts(2), Arc::new(HashMap::new()), Options::new(env), Arc::new(|_| ())).unwrap();
    let x = Tensor::f32([4], vec![0.0, 1.0, 2.0, 3.0]).unwrap();
    assert_eq!(session.run(env, HashMap::from([("x".to_string(), x.clone())])).unwrap()["y"], x);
}
