//! The rates of single kernels on every adapter: products in GB/s of weights and in GFLOP/s, norms and attention in µs.
//!
//! `cargo bench --bench kernels -- [ADAPTER] [sequential|lanes] [NAME]`: of the cases those whose name begins with NAME. A case is a chain of equal ops, each of which reads the one before, over weights
//! of their own, so that no cache holds them; its time is that of a long chain less that of a short one, so that what a call
//! costs beside its ops falls out. Numbers are the median of the rounds and their range. Nothing here is a test.

use fanfold::device::gpu::{AdapterInfo, GpuDevice, GpuOptions, adapters};
use fanfold::format::Format;
use fanfold::graph::{Graph, ValueId};
use fanfold::kernel::{Binding, Kernel, Launch, Numerics, Shader};
use fanfold::measure::Repeated;
use fanfold::ops::{
    Attention, EvalContext, LaunchContext, Linear, Normalization, NormalizationKind, OpError, Operand, Operator,
};
use fanfold::plan::Plan;
use fanfold::program::lower;
use fanfold::random::Random;
use fanfold::session::{Options, Session, Tensors};
use fanfold::shape::{Env, Limits, Shape};
use fanfold::sharding::ShardingRule;
use fanfold::tensor::{DType, Tensor};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a chain is timed.
const ROUNDS: usize = 7;

/// One case: the name, the format of its weights, the shape of the chain's value, and how a link is added to it.
#[derive(Clone)]
struct Case {
    name: String,
    format: Format,
    shape: [usize; 3],
    /// Positions that a cache holds, for attention; else 0.
    positions: usize,
    link: Link,
    /// Bytes of weights or of keys and values that one link reads, and its floating-point operations.
    bytes: f64,
    operations: f64,
}

#[derive(Clone, Copy)]
enum Link {
    Product,
    Norm,
    Attention(Attention),
    Ceiling(Ceiling),
}

/// What the adapter can do at most, whatever a kernel computes: an op that only multiplies and adds, and one that only reads.
#[derive(Clone, Copy, Debug, serde::Serialize)]
enum Ceiling {
    /// Fused multiplications and additions of f32 in the registers of so many invocations.
    Fma(usize),
    /// Reads of 16 bytes by each invocation, neighbours on neighbouring addresses.
    Read,
}

/// Steps of an invocation of [`Ceiling::Fma`], and its multiplications, as many as additions, in each.
const STEPS: usize = 256;
const PER_STEP: usize = 8 * 4 * 4;

impl Operator for Ceiling {
    fn name(&self) -> &'static str {
        match self {
            Ceiling::Fma(_) => "Peak of multiply-add",
            Ceiling::Read => "Peak of reading",
        }
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        Ok(ShardingRule::of(self.name(), "b s k, n k -> b s k").whole("k").whole("n").bind(inputs)?)
    }

    fn operand(&self, input: usize) -> Operand {
        if input == 0 { Operand::Numbers } else { Operand::Matrix }
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        Ok(context.inputs[0].clone())
    }

    /// Every link stores what it computed only where it is a number that does not occur, so that nothing of it is left out.
    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let head = "
            @group(0) @binding(0) var<uniform> params: vec4<u32>;
            @group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
            @group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
            @group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
            @compute @workgroup_size(256) fn main(
                @builtin(workgroup_id) group: vec3<u32>,
                @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32,
            ) {
                let i = 256u * (group.x + group.y * groups.x) + local;
                let scale = x[local % params.y];";
        let step = (0..8)
            .map(|_| "a = fma(a, scale, scale); b = fma(b, scale, scale); c = fma(c, scale, scale); d = fma(d, scale, scale);")
            .collect::<String>();
        let body = match self {
            Ceiling::Fma(_) => format!(
                "var a = scale + f32(i); var b = a + 1.0; var c = a + 2.0; var d = a + 3.0;
                 for (var step = 0u; step < params.x; step++) {{ {step} }}
                 let sum = a + b + c + d;"
            ),
            Ceiling::Read => "var sum = scale;
                for (var at = 1024u * (i / 256u) + local; at < min(1024u * (i / 256u) + 1024u, params.x); at += 256u) {
                    sum += w[at];
                }"
            .to_string(),
        };
        let end = "if (i < params.y) { y[i] = select(x[i], sum, sum == vec4<f32>(1e30)); }
            else if (all(sum == vec4<f32>(1e30))) { y[0] = sum; } }";
        let elements = context.inputs[1].iter().product::<usize>() / 4;
        let (steps, groups) = match self {
            Ceiling::Fma(invocations) => (STEPS, invocations / 256),
            Ceiling::Read => (elements, elements.div_ceil(1024)),
        };
        let wide = groups.min(1 << 15);
        Ok(vec![Launch {
            kernel: Kernel::new(Shader::new(self.name(), format!("{head}{body}{end}")), "main"),
            params: [steps, context.numel() / 4, 0, 0].map(|word| word as u32).to_vec(),
            bindings: vec![Binding::input(0), Binding::input(1), Binding::Output],
            groups: [wide as u32, groups.div_ceil(wide) as u32, 1],
        }])
    }
}

fn ceiling(op: Ceiling, width: usize) -> Case {
    let (bytes, operations) = match op {
        Ceiling::Fma(invocations) => (0.0, (2 * invocations * STEPS * PER_STEP) as f64),
        Ceiling::Read => ((4 * width * width) as f64, 0.0),
    };
    Case {
        name: op.name().to_string(),
        format: Format::F32,
        shape: [1, 1, width],
        positions: 0,
        link: Link::Ceiling(op),
        bytes,
        operations,
    }
}

fn chain(case: &Case, links: usize) -> Graph {
    let mut graph = Graph::new();
    let [b, s, k] = case.shape;
    let mut x = graph.input("x", [b.into(), s.into(), k.into()], DType::F32).unwrap();
    for i in 0..links {
        x = link(&mut graph, case, i, x);
    }
    graph.output("y", x).unwrap();
    graph
}

fn link(graph: &mut Graph, case: &Case, i: usize, x: ValueId) -> ValueId {
    let k = case.shape[2];
    let name = format!("node{i}");
    let mut weight = |part: &str, shape: &[usize], format: Format| {
        let dims: Vec<_> = shape.iter().map(|&n| n.into()).collect();
        graph.weight(&format!("{name}.{part}"), dims, format).unwrap()
    };
    match case.link {
        Link::Product => {
            let w = weight("w", &[k, k], case.format);
            graph.node(&name, Linear, &[x, w]).unwrap()
        }
        Link::Ceiling(op) => {
            // The multiplications need no matrix.
            let rows = if matches!(op, Ceiling::Read) { k } else { 1 };
            let w = weight("w", &[rows, k], case.format);
            graph.node(&name, op, &[x, w]).unwrap()
        }
        Link::Norm => {
            let w = weight("w", &[k], Format::F32);
            let op = Normalization { kind: NormalizationKind::Rms, epsilon: 1e-5, offset: 0.0 };
            graph.node(&name, op, &[x, w]).unwrap()
        }
        Link::Attention(op) => {
            let width = k / op.heads * op.kv_heads;
            let shape = [case.shape[0], case.positions, width];
            let (keys, values) = (weight("k", &shape, case.format), weight("v", &shape, case.format));
            graph.node(&name, op, &[x, keys, values]).unwrap()
        }
    }
}

/// Seconds of one run of a chain, one per round.
fn times(info: &AdapterInfo, numerics: Numerics, case: &Case, links: usize) -> Vec<f64> {
    let graph = chain(case, links);
    let program = lower(&graph, &Plan::whole(&graph, 1).build().unwrap()).unwrap();
    // Attention takes its queries to stand at the end of the positions that the cache holds.
    let past = case.positions.saturating_sub(case.shape[1]);
    let env = Env { past, capacity: case.positions.max(1), ..Env::prompt(1) };
    let options = GpuOptions { numerics: Some(numerics), submission: 1 << 40, ..GpuOptions::default() };
    let device = Box::new(GpuDevice::open(info, &options).unwrap());
    let limits: Limits = Env { past: 0, ..env }.into();
    let options = Options::new(limits).deadline(Duration::from_secs(120));
    let weights = Arc::new(Repeated);
    let mut session = Session::open(program, vec![device], weights, options, Arc::new(|_| ())).unwrap();
    let x = Random::new(1).tensor(DType::F32, &case.shape);
    let inputs: Tensors = [("x".to_string(), x)].into();
    let mut run = || {
        let started = Instant::now();
        session.run(env, inputs.clone()).unwrap();
        started.elapsed().as_secs_f64()
    };
    (0..2).for_each(|_| {
        run();
    });
    (0..ROUNDS).map(|_| run()).collect()
}

fn product(rows: usize, width: usize, format: Format) -> Case {
    Case {
        name: format!("Linear {rows} x {width} x {width} {format}"),
        format,
        shape: [1, rows, width],
        positions: 0,
        link: Link::Product,
        bytes: format.bytes(width * width) as f64,
        operations: 2.0 * (rows * width * width) as f64,
    }
}

fn norm(rows: usize, width: usize) -> Case {
    Case {
        name: format!("RMSNormalization {rows} x {width}"),
        format: Format::F32,
        shape: [1, rows, width],
        positions: 0,
        link: Link::Norm,
        bytes: (2 * rows * width * 4) as f64,
        operations: 0.0,
    }
}

/// Attention of `rows` queries over `positions`, with `heads` heads of `d` elements, of which each `group` share keys and values.
fn attention(rows: usize, positions: usize, d: usize, heads: usize, group: usize) -> Case {
    let (width, kv_heads) = (heads * d, heads / group);
    let (window, softcap) = (None, None);
    let op = Attention { heads, kv_heads, scale: 0.1, causal: true, window, softcap };
    Case {
        name: format!("Attention {rows} queries, {positions} positions, {heads} heads of {d} over {kv_heads}"),
        format: Format::F32,
        shape: [1, rows, width],
        positions,
        link: Link::Attention(op),
        bytes: (2 * positions * kv_heads * d * 4) as f64,
        operations: 4.0 * (rows * positions * width) as f64,
    }
}

/// The shapes of a model of 8 B parameters for a GPU, and smaller ones for a software driver.
fn cases(software: bool) -> Vec<Case> {
    use Format::{F16, F32, Q8_0};
    let matrix_vector = [1, 2, 4, 8].into_iter().flat_map(|rows| [F16, Q8_0].map(|format| product(rows, 4096, format)));
    let (ceilings, norms, products, attentions) = match software {
        true => (
            [ceiling(Ceiling::Fma(1 << 14), 2048), ceiling(Ceiling::Read, 2048)],
            [norm(1, 896), norm(64, 896)],
            [(64, 2048, F16), (64, 2048, Q8_0), (64, 2048, F32)].to_vec(),
            [attention(1, 4096, 64, 14, 7), attention(1, 512, 64, 14, 7), attention(64, 512, 64, 14, 7)].to_vec(),
        ),
        false => (
            [ceiling(Ceiling::Fma(1 << 19), 4096), ceiling(Ceiling::Read, 8192)],
            [norm(1, 4096), norm(512, 4096)],
            [
                (64, 4096, F16),
                (512, 4096, F16),
                (512, 4096, Q8_0),
                (1, 4096, F32),
                (512, 4096, F32),
                (4096, 4096, F32),
                (4096, 4096, F16),
            ]
            .to_vec(),
            [
                attention(1, 512, 64, 64, 4),
                attention(1, 4096, 64, 64, 4),
                attention(1, 4096, 128, 32, 4),
                attention(512, 512, 64, 64, 4),
            ]
            .to_vec(),
        ),
    };
    let products = products.into_iter().map(|(rows, width, format)| product(rows, width, format));
    ceilings.into_iter().chain(matrix_vector).chain(products).chain(norms).chain(attentions).collect()
}

fn main() {
    // Cargo adds an option of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen: Option<usize> = words.iter().find_map(|word| word.parse().ok());
    let orders = [Numerics::Sequential, Numerics::Lanes];
    let order = words.iter().find(|word| orders.iter().any(|numerics| numerics.name() == **word));
    let name = words.iter().find(|word| word.parse::<usize>().is_err() && Some(*word) != order);
    for info in adapters().into_iter().filter(|info| chosen.is_none_or(|index| info.index == index)) {
        println!("{info}");
        let (short, long) = if info.is_software() { (1, 5) } else { (4, 36) };
        for case in
            cases(info.is_software()).into_iter().filter(|case| name.is_none_or(|name| case.name.starts_with(name)))
        {
            for numerics in orders.into_iter().filter(|numerics| order.is_none_or(|order| order == numerics.name())) {
                let (few, many) = (times(&info, numerics, &case, short), times(&info, numerics, &case, long));
                let median = |mut times: Vec<f64>| {
                    times.sort_by(f64::total_cmp);
                    (times[times.len() / 2], times[0], times[times.len() - 1])
                };
                let ((few, ..), (many, fastest, slowest)) = (median(few), median(many));
                let each = (many - few) / (long - short) as f64;
                println!(
                    "  {:60} {numerics:10} {:9.1} us (chain {:.0} to {:.0} us) {:8.1} GB/s {:9.1} GFLOP/s",
                    case.name,
                    each * 1e6,
                    fastest * 1e6,
                    slowest * 1e6,
                    case.bytes / each / 1e9,
                    case.operations / each / 1e9,
                );
            }
        }
    }
}
