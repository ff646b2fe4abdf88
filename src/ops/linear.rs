//! Linear: a matrix product with a weight that lies `[N, K]`, and an optional bias (ONNX Gemm with transB).
//!
//! Cutting `n` is column-parallel, cutting `k` row-parallel, cutting `b` or `s` data-parallel; none has code here.
//! The file knows no layer that uses it. Read `shaders/linear.wgsl` next.

use super::error::OpError;
use crate::random::Random;

use super::operator::{EvalContext, LaunchContext, Operand, Operator, arity, leading};
use super::sample::{Role, Sample, Samples, weight};

use crate::kernel::{
    Binding, Kernel, Launch, Numerics, PerSide, SHARING, Schedule, Schedules, Shader, SizeClass, Step,
};
use crate::shape::Shape;
use crate::sharding::ShardingRule;
use crate::tensor::{DType, Tensor};
use std::ops::Range;

const SHADER: Shader = Shader::built_in("linear", include_str!("../../shaders/linear.wgsl"));

/// A linear layer: `y[.., n] = sum over k of x[.., k] * w[n, k] (+ bias[n])`.
///
/// | | |
/// |---|---|
/// | rule | `b s k, n k -> b s n`, with a bias `b s k, n k, n -> b s n`; any number of leading dimensions |
/// | inputs | `x` `[.., K]` f32; `w` `[N, K]`, f32, f16 or bf16; optionally `bias` `[N]` |
/// | output | `[.., N]` f32 |
/// | may be cut | `n` (column parallel: outputs are stacked), `k` (row parallel: partial outputs are added, the bias on rank 0), the leading dimensions (data parallel) |
/// | ONNX | the name is fanfold's own: Gemm with `transB = 1` on a matrix, or MatMul with a transposed weight and Add |
/// | source | T. Dettmers, "How to Parallelize Deep Learning on GPUs, part 2: Model Parallelism" |
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Linear;

impl Linear {
    pub(super) const SAMPLES: &'static Samples = &[("Linear", sample)];
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn rule(&self, inputs: &[Shape]) -> Result<ShardingRule, OpError> {
        arity("Linear", inputs, 2..4, "2 or 3")?;
        let lead = leading(inputs[0].len().saturating_sub(1));
        let rule = match inputs.len() {
            2 => ShardingRule::of("Linear", &format!("{lead} k, n k -> {lead} n")).linear(&[0]).linear(&[1]),
            _ => ShardingRule::of("Linear", &format!("{lead} k, n k, n -> {lead} n")).linear(&[0, 2]).addend(2),
        };
        Ok(rule.bind(inputs)?)
    }

    fn operations(&self) -> u64 {
        2
    }

    fn takes_tail(&self, _first: Step) -> bool {
        true
    }

    fn beside(&self) -> Option<&'static [usize]> {
        Some(&[0])
    }

    fn operand(&self, input: usize) -> Operand {
        match input {
            1 => Operand::Matrix,
            _ => Operand::Numbers,
        }
    }

    fn evaluate(&self, context: &EvalContext<'_>) -> Result<Tensor, OpError> {
        let (x, w) = (context.inputs[0].as_f32()?, context.inputs[1].as_f32()?);
        let bias = context.inputs.get(2).map(|b| b.as_f32()).transpose()?;
        let (n, k) = (context.extent("n").len, context.extent("k").len);
        context.fill(|i| {
            let (row, column) = (i / n, i % n);
            let (x, w) = (&x[row * k..][..k], &w[column * k..][..k]);
            let sum: f64 = x.iter().zip(w).map(|(&x, &w)| x as f64 * w as f64).sum();
            sum + bias.map_or(0.0, |b| b[column] as f64)
        })
    }

    fn launches(&self, context: &LaunchContext<'_>) -> Result<Vec<Launch>, OpError> {
        let mut offered = self.schedules(context)?.offered;
        Ok(if offered.is_empty() { Vec::new() } else { offered.swap_remove(0).launches })
    }

    fn schedules(&self, context: &LaunchContext<'_>) -> Result<Schedules, OpError> {
        let (n, k) = (context.extent("n").len, context.extent("k").len);
        if context.numel() == 0 {
            return Ok(Schedules::only(Vec::new()));
        }
        let rows = context.numel() / n;
        let offered = blocks(context, rows).into_iter().map(|blocks| schedule(context, rows, &blocks)).collect();
        Ok(Schedules { class: SizeClass::new(k, rows, n), offered })
    }
}

/// The number of large tiles from which on they are guessed to be faster than small ones: measured on an H200, which has 132 processors.
const MANY_TILES: usize = 100;

/// The blocks of the output that workgroups compute.
struct Blocks {
    /// The shader's entry point.
    entry: &'static str,
    /// Columns of the output to a workgroup.
    columns: usize,
    /// Rows of the output to a workgroup.
    rows: usize,
    /// The entry point's constants.
    constants: Vec<(&'static str, u32)>,
    /// Whether the lanes of a workgroup share what they load of `x`, where their subgroups allow it.
    shared: bool,
}

impl Blocks {
    /// `rows` rows and four columns to an invocation, eight of which are a workgroup.
    fn sequential(rows: usize, shared: bool) -> Blocks {
        Blocks { entry: "sequential", columns: 32, rows, constants: vec![("ROWS", rows as u32)], shared }
    }

    /// `rows` rows and `columns` columns to each of the eight groups of lanes of a workgroup, which load `ahead` steps at a time.
    fn lanes(rows: usize, columns: usize, ahead: usize) -> Blocks {
        let constants = vec![("ROWS", rows as u32), ("COLUMNS", columns as u32), ("AHEAD", ahead as u32)];
        Blocks { entry: "gemv_lanes", columns: 8 * columns, rows, constants, shared: false }
    }

    /// Tiles of `edge` rows by as many columns.
    fn tiles(entry: &'static str, edge: usize) -> Blocks {
        Blocks { entry, columns: edge, rows: edge, constants: Vec::new(), shared: false }
    }

    fn name(&self) -> String {
        let shared = if self.shared { " shared" } else { "" };
        let ahead = self.constants.iter().find(|(name, steps)| *name == "AHEAD" && *steps > 1);
        let ahead = ahead.map(|(_, steps)| format!(" {steps} ahead")).unwrap_or_default();
        format!("{} {}x{}{shared}{ahead}", self.entry, self.rows, self.columns)
    }
}

/// The blocks that are offered for `rows` rows on this rank, the best guess first.
///
/// The order of sums depends on the device's numerics and on the rows of the whole call, so that a rank that holds a share
/// of the rows adds up as the whole does. All blocks that are offered together have one order.
fn blocks(context: &LaunchContext<'_>, rows: usize) -> Vec<Blocks> {
    let lead = context.output.len() - 1;
    let all: usize = leading(lead).split_whitespace().map(|factor| context.extent(factor).global).product();
    match (context.numerics, all) {
        (Numerics::Sequential, _) => {
            // Rows beyond the last would be computed and not stored.
            let most = rows.next_power_of_two().min(8);
            let shared = context.sharing_lanes() >= SHARING;
            let by = |shared: bool| {
                (0..4)
                    .map(|step| most >> step)
                    .filter(|&rows| rows > 0)
                    .map(move |rows| Blocks::sequential(rows, shared))
            };
            let apart = by(false);
            if shared { by(true).chain(apart).collect() } else { apart.collect() }
        }
        (Numerics::Lanes, ..=8) => {
            let offered: &[(usize, usize, usize)] = match rows {
                1 => &[(1, 2, 1), (1, 2, 2), (1, 2, 4), (1, 1, 4), (1, 4, 2), (1, 4, 1), (1, 8, 1)],
                2 => &[(2, 2, 1), (2, 2, 2), (2, 1, 4), (2, 4, 1), (1, 2, 4)],
                3..=4 => &[(2, 2, 1), (2, 2, 2), (2, 4, 1), (4, 2, 1), (4, 1, 2)],
                _ => &[(4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2), (8, 1, 1)],
            };
            offered.iter().map(|&(rows, columns, ahead)| Blocks::lanes(rows, columns, ahead)).collect()
        }
        (Numerics::Lanes, _) => {
            let (small, large) = (Blocks::tiles("gemm_tiles_64", 64), Blocks::tiles("gemm_tiles_128", 128));
            // Large tiles are faster where there are enough of them for all processors of a large GPU.
            let tiles = rows.div_ceil(large.rows) * context.extent("n").len.div_ceil(large.columns);
            if tiles < MANY_TILES { vec![small, large] } else { vec![large, small] }
        }
    }
}

/// The launches, one for each buffer that holds a part of the weight, that compute `rows` rows in `blocks`.
fn schedule(context: &LaunchContext<'_>, rows: usize, blocks: &Blocks) -> Schedule {
    let (n, k) = (context.extent("n").len, context.extent("k").len);
    let lanes = if blocks.shared { context.sharing_lanes() } else { 0 };
    let biased = context.inputs.len() == 3;
    // Without a bias `x` is bound in its place, which counts as a buffer of each side as well.
    let per_side = [PerSide::read(2, "w", "Packed"), PerSide::read(3, "bias", "f32"), PerSide::output(4)];
    let kernel = Kernel::new(SHADER, blocks.entry).sides(&per_side);
    let mut kernel = kernel.weight(context.wide_rows(1, k)).spread(lanes).terms(k);
    for (name, value) in &blocks.constants {
        kernel = kernel.constant(*name, *value);
    }
    let launch = |(piece, range): (usize, &Range<usize>)| {
        let groups = [range.len().div_ceil(blocks.columns), rows.div_ceil(blocks.rows), 1].map(|n| n as u32);
        let words = [rows, k, biased as usize, 0, range.len(), range.start, n, groups[0] as usize];
        Launch {
            kernel: kernel.clone(),
            params: words.map(|word| word as u32).to_vec(),
            bindings: vec![
                Binding::input(0),
                Binding::Input { input: 1, piece },
                Binding::input(if biased { 2 } else { 0 }),
                Binding::Output,
            ],
            groups,
        }
    };
    Schedule { name: blocks.name(), launches: context.pieces[1].iter().enumerate().map(launch).collect() }
}

fn sample(random: &mut Random) -> Sample {
    let (b, s, n, k) = match random.range(0, 13) {
        // More than one tile of rows and columns, and more than one step of the lanes over k.
        0 => (random.range(1, 2), random.range(60, 90), random.range(60, 140), random.range(1, 40)),
        // The same, with rows that every format can store.
        4 => (random.range(1, 2), random.range(60, 90), random.range(60, 140), 32),
        1 => (1, random.range(1, 9), random.range(1, 40), random.range(120, 400)),
        5 | 6 => (1, 1, random.range(1, 40), random.range(1, 40)),
        // Rows that every format can store.
        2 | 3 => (1, random.range(1, 12), random.range(1, 40), 32 * random.range(1, 9)),
        _ => (random.range(1, 3), random.range(1, 9), random.range(1, 40), random.range(1, 40)),
    };
    let dtype = random.pick(&[DType::F32, DType::F16, DType::BF16]);
    let mut inputs = vec![(Role::Input, random.tensor(DType::F32, &[b, s, k])), weight(random.tensor(dtype, &[n, k]))];
    if random.range(0, 1) == 1 {
        inputs.push(weight(random.tensor(dtype, &[n])));
    }
    Sample::new(Linear, inputs).mixed(random)
}
