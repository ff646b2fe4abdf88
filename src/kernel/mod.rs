//! Kernels as plain data: a shader, how it is specialised, and how it is launched; and the generation of its WGSL
//! text.
//!
//! This file deliberately knows no wgpu and no op: ops choose kernels, a device compiles them. Read `shaders/` next
//! for the sources, and [`crate::device::gpu`] for who runs a [`Launch`].

use crate::format::Format;
use serde::Serialize;
use std::borrow::Cow;

mod schedule;
mod sides;
mod tail;

#[doc(hidden)]
pub use schedule::{Schedule, Schedules, SizeClass};
#[doc(hidden)]
pub use sides::PerSide;
use sides::WORDS;
use tail::STEP;
pub use tail::{Step, Tail};

/// A WGSL shader: its name, for messages, and its text.
///
/// Two shaders are equal when their texts are, whatever they are called. A line `#import NAME` stands for a module of
/// `shaders/common/`, in a shader of one's own too:
///
/// | `NAME` | brings |
/// |---|---|
/// | `grid` | `number_of(group, groups, lane)`: the number of an invocation, 64 to a workgroup, in the grid of [`linear_grid`] |
/// | `functions` | `hyperbolic_tangent`, `sigmoid`, `relu`, `silu`, `gelu`, `gelu_tanh`, with no overflow on any driver |
/// | `weight` | `four_of_row(row, j, len)` and `eight_of_row(row, j, len)`: elements of a matrix's row as f32, however its elements lie; `unscaled_of_row` and `scale_of_row`: the same in two factors; see [`Kernel::weight`] |
/// | `terms` | `row_of_x(r, j)`: four terms of a row of an activation |
/// | `spread` | `hold` and `term`: the terms of a row that the eight lanes of a workgroup need in turn, loaded once where subgroups allow it |
/// | `product` | sums over `k` of blocks of rows, in an order that depends on `k` and the format alone; needs `weight`, `terms` and `spread` |
/// | `put` | `put(i, value)`: stores element `i` of the output `y`, after the elementwise ops that were joined to the kernel |
/// | `sides` | what a kernel reads its buffers through that may run side by side with others of its kind; see `sides.rs` |
/// | `w_at` | `w_at(i)`: an element of `w`, for a kernel that runs alone |
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
    /// A shader of your own. A device compiles it with all runtime checks of wgpu: an index out of bounds reads or
    /// writes some element of the same binding or nothing, and workgroup memory starts as zeros. A loop without an
    /// end is not undefined behaviour, but it may run until the device's deadline.
    pub fn new(name: impl Into<Cow<'static, str>>, source: impl Into<Cow<'static, str>>) -> Shader {
        Shader { name: name.into(), source: source.into(), trusted: false }
    }

    /// A shader of this crate, a file of `shaders/`. Its loops are known to end, so they are compiled without the
    /// counter that bounds them.
    ///
    /// Private to the crate, because compiling a shader that way is `unsafe`.
    pub(crate) const fn built_in(name: &'static str, source: &'static str) -> Shader {
        Shader { name: Cow::Borrowed(name), source: Cow::Borrowed(source), trusted: true }
    }

    /// The shader's name, for messages; for a shader of this crate the file name without its ending.
    #[doc(hidden)]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The WGSL text, with its `#import` lines.
    #[doc(hidden)]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the shader is compiled without a bound on its loops.
    pub(crate) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Marks the shader to be compiled with all checks.
    ///
    /// An op of the user's own may launch a shader of this crate with aliases, a function and parameters that this
    /// crate never checked. With those the shader's loops may not end.
    pub(crate) fn distrust(&mut self) {
        self.trusted = false;
    }
}

impl PartialEq for Shader {
    fn eq(&self, other: &Shader) -> bool {
        // The name does not count: two shaders are equal when their text is, and both are checked or both are not.
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

/// How a matrix lies in memory that a kernel reads four elements at a time: which module `#import weight` brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub enum Rows {
    /// In this format, as [`Format::device_row`] lays out a row.
    Stored(Format),
    /// The same, in rows whose length is a multiple of eight: a kernel loads eight elements at a time.
    Wide(Format),
    /// In f32 without padding, with rows whose length is not a multiple of four: an activation used as the matrix.
    Loose,
}

impl Rows {
    fn module(self) -> &'static str {
        match self {
            Rows::Stored(format) => format.module(false),
            Rows::Wide(format) => format.module(true),
            Rows::Loose => "weight_loose",
        }
    }
}

/// In which order kernels add up sums. The order decides the last bits of a result.
///
/// A device uses one order for everything it computes. It is chosen by the adapter and never by the shape of a shard, so
/// that a column cut leaves the bits as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// One invocation adds all terms of a sum, one after another. Software drivers are fast this way: their lanes are the
    /// vector lanes of a processor, and workgroup memory costs them 20 times what it saves.
    Sequential,
    /// The lanes of a workgroup share a sum: each adds two groups of four terms of every 256 terms (a norm: every 256th term), and
    /// a fixed tree adds up the lanes. Neighbouring lanes read neighbouring addresses, as a GPU's memory wants it. A product
    /// of more than eight rows is computed in tiles, and adds its terms one after another.
    Lanes,
}

impl Numerics {
    /// Its name: `sequential` or `lanes`.
    #[doc(hidden)]
    pub const fn name(self) -> &'static str {
        match self {
            Numerics::Sequential => "sequential",
            Numerics::Lanes => "lanes",
        }
    }
}

impl std::fmt::Display for Numerics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A shader with everything that specialises it. Its derived `Hash` is the key of the pipeline cache.
///
/// None of it may depend on how a tensor is sharded: shard extents are run-time parameters. A driver that knew them
/// at compile time could fuse multiplications and additions differently from cut to cut, and bits would change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Kernel {
    /// The shader.
    pub shader: Shader,
    /// The name of the entry point.
    pub entry: Cow<'static, str>,
    /// The modules of `shaders/common/` that stand behind an import with several: `(import, module)`. See
    /// [`Kernel::weight`].
    pub modules: Vec<(&'static str, &'static str)>,
    /// The elementwise function that `apply` calls, if any: one of the shader's own functions, or one of
    /// `shaders/common/functions.wgsl`.
    pub function: Option<Cow<'static, str>>,
    /// WGSL type aliases to generate: `(name, type)`.
    pub aliases: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// WGSL `override` constants: `(name, value)`.
    pub constants: Vec<(Cow<'static, str>, u32)>,
    /// Elementwise ops that are applied to each result before it is stored, for a shader that stores through `#import put`.
    pub tail: Option<Tail>,
    /// The buffers that each side has its own of, for a shader that can run side by side with others of its kind.
    #[doc(hidden)]
    pub per_side: Vec<PerSide>,
    /// The tails of the other sides, where several run as one dispatch: one for each side but the first.
    #[doc(hidden)]
    pub beside: Vec<Option<Tail>>,
}

/// The buffer that one binding of a launch refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// An input of the op, read only.
    Input {
        /// The index of the input.
        input: usize,
        /// The index of its buffer: a weight larger than the device's largest binding is split over several.
        piece: usize,
    },
    /// The output of the op, read and written.
    Output,
    /// Memory that the launches of one op share, of the size that the op asked for. What is in it before is undefined.
    #[doc(hidden)]
    Scratch {
        /// Whether the kernel writes it, or only reads what an earlier launch wrote.
        written: bool,
    },
    /// The uniform that changes with every call: `past`, the positions that the KV cache already holds.
    Run,
    /// The parameter block of the kernel's tail.
    #[doc(hidden)]
    TailWords,
    /// The value that the step of this number of the kernel's tail reads.
    #[doc(hidden)]
    TailValue(usize),
}

impl Binding {
    /// The first buffer of an input: all of it, unless it is a weight split over several.
    pub const fn input(input: usize) -> Binding {
        Binding::Input { input, piece: 0 }
    }
}

/// Launches of one kernel that run as one dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dispatched {
    /// The kernel, which holds the tail of every side.
    pub(crate) kernel: Kernel,
    /// The 32-bit words of the parameter block.
    pub(crate) params: Vec<u32>,
    /// The bindings of each side with their numbers in the shader. What all sides read stands with the first.
    pub(crate) bindings: Vec<Vec<(u32, Binding)>>,
    /// The number of workgroups per dimension.
    pub(crate) groups: [u32; 3],
}

/// One dispatch of a kernel.
///
/// Binding 0 of the shader is a uniform that holds `params`; `bindings` are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// The 32-bit words of the parameter block.
    pub params: Vec<u32>,
    /// The buffers that the kernel reads and writes.
    pub bindings: Vec<Binding>,
    /// The number of workgroups per dimension.
    pub groups: [u32; 3],
}

impl Launch {
    /// All its bindings, those of its kernel's tail included, each with its number in the shader.
    fn numbered(&self) -> Vec<(u32, Binding)> {
        let own = (1u32..).zip(self.bindings.iter().copied());
        own.chain(self.kernel.tail.iter().flat_map(Tail::bindings)).collect()
    }
}

impl Dispatched {
    /// A launch that runs alone.
    pub(crate) fn alone(launch: Launch) -> Dispatched {
        let bindings = vec![launch.numbered()];
        Dispatched { kernel: launch.kernel, params: launch.params, bindings, groups: launch.groups }
    }

    /// Adds a side that runs `launch`. `None` when the launch is of another kernel, or has other words where all sides share
    /// theirs. The caller makes sure that what all sides read is the same for both.
    pub(crate) fn with(mut self, launch: &Launch) -> Option<Dispatched> {
        let Launch { kernel, params, groups, .. } = launch;
        let first = Kernel { beside: Vec::new(), tail: kernel.tail.clone(), ..self.kernel.clone() };
        let shared = params.len().checked_sub(WORDS)?;
        let alike = first == *kernel && !kernel.per_side.is_empty() && self.params.starts_with(&params[..shared]);
        if !alike || groups[1..] != self.groups[1..] {
            return None;
        }
        let side = self.bindings.len() as u32;
        let own = |number: u32| number >= tail::FIRST || kernel.per_side.iter().any(|own| own.binding == number);
        let numbered = launch.numbered().into_iter().filter(|&(number, _)| own(number));
        self.bindings.push(numbered.map(|(number, binding)| (number + STEP * side, binding)).collect());
        self.params.extend_from_slice(&params[shared..]);
        self.kernel.beside.push(kernel.tail.clone());
        self.groups[0] = self.groups[0].checked_add(groups[0])?;
        Some(self)
    }

    /// The bindings of all sides with their numbers in the shader.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, Binding)> {
        self.bindings.iter().flatten().copied()
    }
}

/// The fewest lanes of a subgroup with which the eight lanes of a workgroup can share what they load.
pub(crate) const SHARING: u32 = 8;

const COMMON: &[(&str, &str)] = &[
    ("grid", include_str!("../../shaders/common/grid.wgsl")),
    ("w_at", include_str!("../../shaders/common/w_at.wgsl")),
    ("weight_f32", include_str!("../../shaders/common/weight_f32.wgsl")),
    ("weight_f16", include_str!("../../shaders/common/weight_f16.wgsl")),
    ("weight_bf16", include_str!("../../shaders/common/weight_bf16.wgsl")),
    ("weight_f16_wide", include_str!("../../shaders/common/weight_f16_wide.wgsl")),
    ("weight_bf16_wide", include_str!("../../shaders/common/weight_bf16_wide.wgsl")),
    ("unscaled", include_str!("../../shaders/common/unscaled.wgsl")),
    ("eight_by_fours", include_str!("../../shaders/common/eight_by_fours.wgsl")),
    ("terms_by_four", include_str!("../../shaders/common/terms_by_four.wgsl")),
    ("terms_by_one", include_str!("../../shaders/common/terms_by_one.wgsl")),
    ("spread_by_lanes", include_str!("../../shaders/common/spread_by_lanes.wgsl")),
    ("spread_none", include_str!("../../shaders/common/spread_none.wgsl")),
    ("weight_q8_0", include_str!("../../shaders/common/weight_q8_0.wgsl")),
    ("weight_loose", include_str!("../../shaders/common/weight_loose.wgsl")),
    ("functions", include_str!("../../shaders/common/functions.wgsl")),
    ("product", include_str!("../../shaders/common/product.wgsl")),
    ("online_softmax", include_str!("../../shaders/common/online_softmax.wgsl")),
];

impl Kernel {
    /// A kernel without specialisation.
    pub fn new(shader: Shader, entry: impl Into<Cow<'static, str>>) -> Kernel {
        let (modules, function, aliases, constants, tail) = Default::default();
        let (per_side, beside) = Default::default();
        Kernel { shader, entry: entry.into(), modules, function, aliases, constants, tail, per_side, beside }
    }

    /// Makes `#import weight` bring in the module that reads a matrix laid out as `rows`.
    pub fn weight(mut self, rows: Rows) -> Kernel {
        self.modules.push(("weight", rows.module()));
        self
    }

    /// Makes `#import terms` bring in the module that reads rows of `len` elements of f32 in groups of four.
    #[doc(hidden)]
    pub fn terms(mut self, len: usize) -> Kernel {
        self.modules.push(("terms", if len.is_multiple_of(4) { "terms_by_four" } else { "terms_by_one" }));
        self
    }

    /// Makes `#import spread` bring in the module by which the eight lanes of a workgroup share the terms that they load, on a
    /// device whose subgroups have at least `subgroup` lanes.
    #[doc(hidden)]
    pub fn spread(mut self, subgroup: u32) -> Kernel {
        self.modules.push(("spread", if subgroup >= SHARING { "spread_by_lanes" } else { "spread_none" }));
        self
    }

    /// Says which buffers each side has its own of, so that launches of this kernel can run as one dispatch.
    #[doc(hidden)]
    pub fn sides(mut self, per_side: &[PerSide]) -> Kernel {
        self.per_side = per_side.to_vec();
        self
    }

    /// Adds a function `apply(x: f32) -> f32` that calls the one named `function`.
    #[doc(hidden)]
    pub fn function(mut self, function: impl Into<Cow<'static, str>>) -> Kernel {
        self.function = Some(function.into());
        self
    }

    /// Adds `alias name = ty;`.
    #[doc(hidden)]
    pub fn alias(mut self, name: impl Into<Cow<'static, str>>, ty: impl Into<Cow<'static, str>>) -> Kernel {
        self.aliases.push((name.into(), ty.into()));
        self
    }

    /// Sets the WGSL `override` constant `name` to `value`.
    pub fn constant(mut self, name: impl Into<Cow<'static, str>>, value: u32) -> Kernel {
        self.constants.push((name.into(), value));
        self
    }

    /// The WGSL text: imports expanded, aliases and the elementwise function generated. Errors when an import is
    /// unknown; the text names it.
    #[doc(hidden)]
    pub fn source(&self) -> Result<String, String> {
        let mut text = String::new();
        // Several may need one module: each is brought in once.
        let mut imported: Vec<&str> = Vec::new();
        for (name, ty) in &self.aliases {
            text += &format!("alias {name} = {ty};\n");
        }
        if let Some(function) = &self.function {
            text += &format!("fn apply(x: f32) -> f32 {{ return {function}(x); }}\n");
        }
        let mut steps = self.tails().flatten().flat_map(|tail| &tail.0);
        let maps = steps.any(|step| step.calls_functions());
        let needed = maps.then_some("#import functions");
        self.expand(&self.shader.source, &mut text, &mut imported)?;
        self.expand(needed.unwrap_or_default(), &mut text, &mut imported)?;
        Ok(text)
    }

    /// The tail of each side, of which there is at least one.
    pub(crate) fn tails(&self) -> impl Iterator<Item = Option<&Tail>> {
        std::iter::once(self.tail.as_ref()).chain(self.beside.iter().map(Option::as_ref))
    }

    /// Appends `source` to `text`, each import in it expanded, which may import others, unless it is among `imported`.
    fn expand<'a>(&self, source: &'a str, text: &mut String, imported: &mut Vec<&'a str>) -> Result<(), String> {
        for line in source.lines() {
            match line.strip_prefix("#import ").map(str::trim) {
                None => *text += line,
                Some("put") => *text += &sides::puts(&self.tails().collect::<Vec<_>>()),
                Some("sides") => {
                    *text += &sides::source(&self.per_side, self.tails().count());
                    // It says how each side reads its own weight.
                    imported.push("w_at");
                }
                Some(import) => {
                    let chosen = self.modules.iter().find(|(of, _)| *of == import);
                    let name = chosen.map_or(import, |(_, module)| *module);
                    let module = COMMON.iter().find(|(n, _)| *n == name);
                    let &(name, module) =
                        module.ok_or_else(|| format!("{}: unknown import {name:?}", self.shader.name))?;
                    if !imported.contains(&name) {
                        imported.push(name);
                        self.expand(module, text, imported)?;
                    }
                }
            }
            text.push('\n');
        }
        Ok(())
    }
}

/// A grid of workgroups for at least `n` invocations, `size` to a workgroup, with each dimension under WebGPU's limit
/// of 65,535.
///
/// A kernel that uses it numbers its workgroups `x + y * num_workgroups.x`, and its invocations past the last element
/// return at once.
pub fn linear_grid(n: usize, size: usize) -> [u32; 3] {
    const LIMIT: usize = 65_535;
    let groups = n.div_ceil(size);
    let y = groups.div_ceil(LIMIT).max(1);
    let x = groups.div_ceil(y);
    [x as u32, y as u32, 1]
}

/// How a weight lies in a device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[doc(hidden)]
pub enum Layout {
    /// In its format, row by row as [`Format::device_row`] lays them out. It may be split between rows over several
    /// buffers. Only ops that read a matrix through `#import weight` accept it.
    Rows,
    /// In f32 (indices in u32) without padding in one buffer, like an activation. Every op reads it.
    Dense,
}

/// The number of rows of a weight of `format` and `shape` in a device's memory, and the bytes of each.
#[doc(hidden)]
pub fn weight_rows(format: Format, shape: &[usize], layout: Layout) -> (usize, usize) {
    let (row, lead) = shape.split_last().map_or((1, &[][..]), |(&row, lead)| (row, lead));
    let bytes = match layout {
        Layout::Rows => format.device_row(row),
        Layout::Dense => row.saturating_mul(format.dtype().size()),
    };
    (lead.iter().fold(1, |n: usize, &d| n.saturating_mul(d)), bytes)
}

/// The bytes that a weight takes in a device's memory.
#[doc(hidden)]
pub fn weight_bytes(format: Format, shape: &[usize], layout: Layout) -> u64 {
    let (rows, row) = weight_rows(format, shape, layout);
    (rows as u64).saturating_mul(row as u64)
}
