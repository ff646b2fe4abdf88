//! Sides: launches of one kernel that run as one dispatch, each in workgroups of its own and on buffers of its own.
//!
//! For example, the products with the weights of queries, keys and values read one activation, and run side by side: the GPU is
//! launched once and is busy with all three. This file generates the WGSL through which a shader reads the buffers of the side
//! that its workgroup belongs to. It deliberately does not decide what runs side by side: read `program/passes/beside.rs` for that.

use super::tail::{self, STEP, Tail, suffix, suffix_of_put};
use std::fmt::Write as _;

/// A buffer that each side has its own of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct PerSide {
    /// The number of its binding in the shader.
    pub binding: u32,
    /// The name of its variable. The kernel reads it through a function of that name with `_at` behind it; the output, `y`, is
    /// only stored to, through `put`.
    pub name: &'static str,
    /// The type of its elements.
    pub element: &'static str,
}

impl PerSide {
    /// A buffer that the kernel reads.
    pub const fn read(binding: u32, name: &'static str, element: &'static str) -> PerSide {
        PerSide { binding, name, element }
    }

    /// The output.
    pub const fn output(binding: u32) -> PerSide {
        PerSide { binding, name: OUTPUT, element: "f32" }
    }
}

/// The name of the output.
const OUTPUT: &str = "y";

/// 32-bit words at the end of a parameter block that each side has its own of. The last of them is the number of its workgroups.
pub(crate) const WORDS: usize = 4;

/// What `#import sides` stands for: the number of sides, the buffers of the others beside the first, and the functions that
/// read those of the workgroup's own side.
///
/// The shader's parameter block ends with `sides: array<vec4<u32>, SIDES>`. An entry point calls `within_side` with the number of
/// its workgroup before anything else.
pub(super) fn source(own: &[PerSide], count: usize) -> String {
    let mut text = format!("const SIDES = {count}u;\n");
    if count == 1 {
        text += "const side = 0u;\nfn within_side(group: u32) -> u32 {\n    return group;\n}\n";
    } else {
        text += "var<private> side: u32;\nfn within_side(group: u32) -> u32 {\n    var within = group;\n    \
                 side = 0u;\n    while (side < SIDES - 1u && within >= params.sides[side].w) {\n        \
                 within -= params.sides[side].w;\n        side++;\n    }\n    return within;\n}\n";
    }
    for PerSide { binding, name, element } in own {
        let access = if *name == OUTPUT { "read_write" } else { "read" };
        for side in 1..count {
            let number = binding + STEP * side as u32;
            let _ =
                writeln!(text, "@group(0) @binding({number}) var<storage, {access}> {name}{side}: array<{element}>;");
        }
        if *name != OUTPUT {
            let _ = write!(
                text,
                "fn {name}_at(i: u32) -> {element} {{\n{}}}\n",
                choose(count, |side| { format!("return {name}{}[i];", suffix(side)) })
            );
        }
    }
    text
}

/// What `#import put` stands for where several sides have tails of their own.
pub(super) fn puts(tails: &[Option<&Tail>]) -> String {
    let mut text = String::new();
    for (side, tail) in tails.iter().enumerate() {
        text += &tail.map_or_else(|| tail::plain(side), |tail| tail.source(side));
    }
    let call = |side: usize| format!("put{}(i, value);", suffix_of_put(side));
    text + "fn put(i: u32, value: f32) {\n" + &choose(tails.len(), call) + "}\n"
}

/// A statement for each of `count` sides, of which a workgroup runs that of its own side.
fn choose(count: usize, statement: impl Fn(usize) -> String) -> String {
    if count == 1 {
        return format!("    {}\n", statement(0));
    }
    let mut text = "    switch side {\n".to_string();
    for side in 1..count {
        let _ = writeln!(text, "        case {side}u: {{ {} }}", statement(side));
    }
    text + &format!("        default: {{ {} }}\n    }}\n", statement(0))
}
