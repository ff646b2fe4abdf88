//! Tails: elementwise ops that a kernel of another op applies to each of its results before it stores them.
//!
//! It generates the WGSL function `put`, through which kernels that can have a tail store. It deliberately does not decide
//! which ops are joined: read `program/passes/join.rs` for that.

use super::Binding;
use std::fmt::Write as _;

/// One step of a tail: what is done to each element of a result.
///
/// A step changes no bit: it computes what a kernel of its own would, on the same f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub enum Step {
    /// A function of the element, with a name of `shaders/common/functions.wgsl`.
    Map(&'static str),
    /// The element times a constant: one word, the bits of an f32.
    Scale,
    /// `constant * tanh(element / constant)`: one word, the bits of an f32.
    Softcap,
    /// Plus the element of the same index of another value.
    Add,
    /// Times the element of the same index of another value.
    Mul,
    /// Stored into a state of `[batch, capacity, width]`, at the position of its row of `[batch, seq, width]` after those that
    /// the state already holds: three words, `seq`, `capacity` and `width`. It is the last step.
    Scatter,
}

impl Step {
    /// Words of the tail's parameter block that it reads.
    const fn words(self) -> usize {
        match self {
            Step::Map(_) | Step::Add | Step::Mul => 0,
            Step::Scale | Step::Softcap => 1,
            Step::Scatter => 3,
        }
    }

    /// Whether it calls a function of `shaders/common/functions.wgsl`.
    pub(super) const fn calls_functions(self) -> bool {
        matches!(self, Step::Map(_) | Step::Softcap)
    }

    /// Whether it reads another value.
    const fn reads(self) -> bool {
        matches!(self, Step::Add | Step::Mul)
    }

    /// Whether its result is a product. A driver may round a product and a sum that follows it together, so that an addition in
    /// the same kernel could change bits.
    pub(crate) const fn is_product(self) -> bool {
        match self {
            Step::Map(_) | Step::Scale | Step::Softcap | Step::Mul => true,
            Step::Add | Step::Scatter => false,
        }
    }
}

/// The number of a tail's first binding. Shaders that can have a tail have fewer bindings of their own.
pub(super) const FIRST: u32 = 8;

/// Where several launches of one kernel run side by side, each has a tail of its own. The bindings of side number `n` have the numbers
/// of the first side's plus this times `n`.
pub(super) const STEP: u32 = 32;

/// What stands behind a name of side number `side`: nothing for the first.
pub(super) fn suffix(side: usize) -> String {
    if side == 0 { String::new() } else { side.to_string() }
}

/// What stands behind the name of a side's own `put`, which the `put` of all sides calls.
pub(super) fn suffix_of_put(side: usize) -> String {
    format!("_{side}")
}

/// The steps of a tail, in their order.
///
/// Its bindings are the parameter block, if any step has words, then the uniform of the call, if it scatters, then the value of each
/// step that reads one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct Tail(pub Vec<Step>);

impl Tail {
    /// The bindings of a kernel with this tail, each with its number.
    pub(super) fn bindings(&self) -> Vec<(u32, Binding)> {
        let words = self.has_words().then_some(Binding::TailWords);
        let run = self.scatters().then_some(Binding::Run);
        let values = self.0.iter().enumerate().filter(|(_, step)| step.reads()).map(|(n, _)| Binding::TailValue(n));
        (FIRST..).zip(words.into_iter().chain(run).chain(values)).collect()
    }

    /// Whether any step has words.
    fn has_words(&self) -> bool {
        self.0.iter().any(|step| step.words() > 0)
    }

    /// Whether the last step scatters.
    fn scatters(&self) -> bool {
        self.0.contains(&Step::Scatter)
    }

    /// The WGSL of its bindings and of `put`.
    ///
    /// With several sides, each has a tail of its own, whose names end with the number of the side.
    pub(super) fn source(&self, side: usize) -> String {
        let (mut text, mut body) = (String::new(), String::new());
        let of = suffix(side);
        for (number, binding) in self.bindings() {
            let number = number + STEP * side as u32;
            let declaration = match binding {
                Binding::TailWords => {
                    let words: usize = self.0.iter().map(|step| step.words()).sum();
                    let fields: Vec<String> = (0..words).map(|word| format!("w{word}: u32")).collect();
                    let _ = writeln!(text, "struct TailWords{of} {{ {} }}", fields.join(", "));
                    format!("<uniform> tail{of}: TailWords{of}")
                }
                Binding::Run => {
                    let _ = writeln!(text, "struct TailRun{of} {{ past: u32 }}");
                    format!("<uniform> tail_run{of}: TailRun{of}")
                }
                Binding::TailValue(n) => format!("<storage, read> other{n}_{side}: array<f32>"),
                Binding::Input { .. } | Binding::Output | Binding::Scratch { .. } => continue,
            };
            let _ = writeln!(text, "@group(0) @binding({number}) var{declaration};");
        }
        let mut word = 0;
        let mut stores = format!("    y{of}[i] = v;\n");
        for (n, step) in self.0.iter().enumerate() {
            let constant = format!("bitcast<f32>(tail{of}.w{word})");
            match step {
                Step::Map(function) => _ = writeln!(body, "    v = {function}(v);"),
                Step::Scale => _ = writeln!(body, "    v = {constant} * v;"),
                Step::Softcap => _ = writeln!(body, "    v = {constant} * hyperbolic_tangent(v / {constant});"),
                Step::Add => _ = writeln!(body, "    v = v + other{n}_{side}[i];"),
                Step::Mul => _ = writeln!(body, "    v = v * other{n}_{side}[i];"),
                Step::Scatter => {
                    let [seq, capacity, width] = [word, word + 1, word + 2].map(|word| format!("tail{of}.w{word}"));
                    stores = format!(
                        "    let row = i / {width};\n    let position = tail_run{of}.past + row % {seq};\n    \
                         if (position < {capacity}) {{\n        \
                         y{of}[(row / {seq} * {capacity} + position) * {width} + i % {width}] = v;\n    }}\n"
                    );
                }
            }
            word += step.words();
        }
        let name = suffix_of_put(side);
        text + &format!("fn put{name}(i: u32, value: f32) {{\n    var v = value;\n{body}{stores}}}\n")
    }
}

/// The WGSL of a side's `put` without a tail.
pub(super) fn plain(side: usize) -> String {
    let (name, of) = (suffix_of_put(side), suffix(side));
    format!("fn put{name}(i: u32, value: f32) {{\n    y{of}[i] = value;\n}}\n")
}
