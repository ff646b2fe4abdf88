//! A kernel as plain data: which shader, how it is specialised, and the launch of it; and the expansion of its source.
//!
//! It deliberately knows no wgpu and no op: ops choose kernels, a device compiles them. Read `shaders/` next for the
//! sources, and [`crate::device::gpu`] for what becomes of a [`Launch`].

use crate::tensor::DType;
use serde::Serialize;
use std::borrow::Cow;

/// A WGSL shader: its name, for messages, and its text.
///
/// Two shaders are equal when their texts are, whatever they are called. A line `#import NAME` stands for a module of
/// `shaders/common/`, in a shader of one's own too:
///
/// | `NAME` | brings |
/// |---|---|
/// | `grid` | `number_of(group, groups, lane)`: the number of an invocation, 64 to a workgroup, in the grid of [`linear_grid`] |
/// | `functions` | `hyperbolic_tangent`, `sigmoid`, `relu`, `silu`, `gelu`, `gelu_tanh`, with no overflow on any driver |
/// | `weight` | `four_of_row(row, j, len)`: four elements of a matrix's row as f32, however its elements lie, see [`Kernel::weight`] |
/// | `product` | sums over `k` of blocks of rows, in an order that depends on `k` alone; needs `weight` |
/// | `online_softmax` | a softmax over scores that come sixteen at a time; needs `functions` |
///
/// The head of each file says which names it expects the shader to define.
#[derive(Clone, Debug)]
pub struct Shader {
    name: Cow<'static, str>,
    source: Cow<'static, str>,
    trusted: bool,
}

impl Shader {
    /// A shader of one's own, written by hand or generated. A device compiles it with all runtime checks of wgpu: an index out
    /// of bounds reads or writes an element of the same binding or nothing, workgroup memory starts as zeros, and a loop
    /// without an end is no undefined behaviour, though it may last until the device's deadline.
    pub fn new(name: impl Into<Cow<'static, str>>, source: impl Into<Cow<'static, str>>) -> Shader {
        Shader { name: name.into(), source: source.into(), trusted: false }
    }

    /// One of the crate's own, a file of `shaders/`: its loops are known to end, so they run without a counter.
    ///
    /// Private to the crate because compiling it that way is `unsafe`.
    pub(crate) const fn built_in(name: &'static str, source: &'static str) -> Shader {
        Shader { name: Cow::Borrowed(name), source: Cow::Borrowed(source), trusted: true }
    }

    /// Its name; of the crate's own the file's stem.
    #[doc(hidden)]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its text, imports not yet expanded.
    #[doc(hidden)]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it is compiled without a bound on its loops.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The same text, to be compiled with all checks.
    ///
    /// Whoever launches one of the crate's own shaders in an op of their own chooses its aliases, function and parameters, and
    /// with these its loops no longer need to end.
    pub(crate) fn distrust(&mut self) {
        self.trusted = false;
    }
}

impl PartialEq for Shader {
    fn eq(&self, other: &Shader) -> bool {
        // The same text compiled with and without checks is not the same shader.
        self.source == other.source && self.trusted == other.trusted
    }
}

impl Eq for Shader {}

impl std::hash::Hash for Shader {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.trusted.hash(state);
    }
}

/// How the rows of a matrix lie that a kernel reads in fours: what `#import weight` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub enum Rows {
    /// In this type, each row padded to a multiple of four elements.
    Padded(DType),
    /// In f32 and one after another, of a length that is no multiple of four: activations that stand for a weight.
    Loose,
}

impl Rows {
    fn module(self) -> String {
        match self {
            Rows::Padded(dtype) => format!("weight_{dtype}"),
            Rows::Loose => "weight_loose".to_string(),
        }
    }
}

/// A shader with everything that specialises it. Its derived `Hash` is the key of the pipeline cache.
///
/// None of it may depend on how a tensor is sharded: shard extents are run-time parameters, or a driver could contract
/// arithmetic differently from cut to cut and bits would change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Kernel {
    /// The source.
    pub shader: Shader,
    /// The entry point.
    pub entry: Cow<'static, str>,
    /// How the matrix lies that it reads in fours, if any: what `#import weight` stands for.
    pub weight: Option<Rows>,
    /// The elementwise function that `apply` stands for, if any: one of the shader's own, or of
    /// `shaders/common/functions.wgsl`.
    pub function: Option<Cow<'static, str>>,
    /// WGSL type aliases to generate: `(name, type)`.
    pub aliases: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// WGSL `override` constants: `(name, value)`.
    pub constants: Vec<(Cow<'static, str>, u32)>,
}

/// What one binding of a launch is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// An input of the op, read only. `piece` counts the buffers that a wide weight is split over.
    Input {
        /// Which input.
        input: usize,
        /// Which buffer of it.
        piece: usize,
    },
    /// The output, read and written.
    Output,
    /// The uniform that changes with every call: `past`, the positions already in the state.
    Run,
}

impl Binding {
    /// All of an input that lies in one buffer.
    pub const fn input(input: usize) -> Binding {
        Binding::Input { input, piece: 0 }
    }
}

/// One dispatch.
///
/// Binding 0 of the shader is the uniform that holds `params`; `bindings` follow from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What runs.
    pub kernel: Kernel,
    /// The words of its parameter block.
    pub params: Vec<u32>,
    /// What it reads and writes.
    pub bindings: Vec<Binding>,
    /// Workgroups per dimension.
    pub groups: [u32; 3],
}

const COMMON: &[(&str, &str)] = &[
    ("grid", include_str!("../shaders/common/grid.wgsl")),
    ("weight_f32", include_str!("../shaders/common/weight_f32.wgsl")),
    ("weight_f16", include_str!("../shaders/common/weight_f16.wgsl")),
    ("weight_bf16", include_str!("../shaders/common/weight_bf16.wgsl")),
    ("weight_loose", include_str!("../shaders/common/weight_loose.wgsl")),
    ("functions", include_str!("../shaders/common/functions.wgsl")),
    ("product", include_str!("../shaders/common/product.wgsl")),
    ("online_softmax", include_str!("../shaders/common/online_softmax.wgsl")),
];

impl Kernel {
    /// A kernel with nothing specialised.
    pub fn new(shader: Shader, entry: impl Into<Cow<'static, str>>) -> Kernel {
        let (weight, function, aliases, constants) = Default::default();
        Kernel { shader, entry: entry.into(), weight, function, aliases, constants }
    }

    /// With `#import weight` for a matrix that lies as `rows` says.
    pub fn weight(mut self, rows: Rows) -> Kernel {
        self.weight = Some(rows);
        self
    }

    /// With a function `apply(x: f32) -> f32` that calls the one named `function`.
    #[doc(hidden)]
    pub fn function(mut self, function: impl Into<Cow<'static, str>>) -> Kernel {
        self.function = Some(function.into());
        self
    }

    /// With `alias name = ty;`.
    #[doc(hidden)]
    pub fn alias(mut self, name: impl Into<Cow<'static, str>>, ty: impl Into<Cow<'static, str>>) -> Kernel {
        self.aliases.push((name.into(), ty.into()));
        self
    }

    /// With `value` for the WGSL `override` constant `name`.
    pub fn constant(mut self, name: impl Into<Cow<'static, str>>, value: u32) -> Kernel {
        self.constants.push((name.into(), value));
        self
    }

    /// The WGSL text: imports expanded, aliases and the elementwise function generated. `Err` names an unknown import.
    #[doc(hidden)]
    pub fn source(&self) -> Result<String, String> {
        let mut text = String::new();
        for (name, ty) in &self.aliases {
            text += &format!("alias {name} = {ty};\n");
        }
        if let Some(function) = &self.function {
            text += &format!("fn apply(x: f32) -> f32 {{ return {function}(x); }}\n");
        }
        for line in self.shader.source.lines() {
            match line.strip_prefix("#import ") {
                None => text += line,
                Some(import) => {
                    let name = match (import.trim(), self.weight) {
                        ("weight", Some(rows)) => rows.module(),
                        (name, _) => name.to_string(),
                    };
                    let module = COMMON.iter().find(|(n, _)| *n == name);
                    text += module.ok_or_else(|| format!("{}: unknown import {name:?}", self.shader.name))?.1;
                }
            }
            text.push('\n');
        }
        Ok(text)
    }
}

/// Workgroups for `n` invocations, `size` to a workgroup, as a grid that keeps each dimension under the limit of 65,535.
///
/// A kernel that uses it numbers its workgroups `x + y * num_workgroups.x` and returns past its last element.
pub fn linear_grid(n: usize, size: usize) -> [u32; 3] {
    const LIMIT: usize = 65_535;
    let groups = n.div_ceil(size);
    let y = groups.div_ceil(LIMIT).max(1);
    let x = groups.div_ceil(y);
    [x as u32, y as u32, 1]
}

/// How a weight lies on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[doc(hidden)]
pub enum Layout {
    /// In the file's type, each row padded to a multiple of four elements, the vector width of every kernel. It may be
    /// split over several buffers. Only ops that read a matrix in fours take it.
    Padded,
    /// In f32 (indices in u32), its elements one after another in one buffer, like an activation: what any op reads.
    Dense,
}

/// The type and shape in which a weight of `dtype` and `shape` lies on a device.
#[doc(hidden)]
pub fn weight_layout(dtype: DType, shape: &[usize], layout: Layout) -> (DType, Vec<usize>) {
    let mut shape = shape.to_vec();
    match (layout, shape.as_mut_slice()) {
        (Layout::Padded, [.., row]) => {
            *row = row.next_multiple_of(4);
            (dtype, shape)
        }
        _ => (dense(dtype), shape),
    }
}

/// The type of a weight's elements where they lie like an activation's.
#[doc(hidden)]
pub fn dense(dtype: DType) -> DType {
    if dtype == DType::U32 { DType::U32 } else { DType::F32 }
}

/// Bytes of a weight as it lies on a device.
#[doc(hidden)]
pub fn weight_bytes(dtype: DType, shape: &[usize], layout: Layout) -> u64 {
    let (dtype, shape) = weight_layout(dtype, shape, layout);
    shape.iter().fold(dtype.size() as u64, |n, &d| n.saturating_mul(d as u64))
}
