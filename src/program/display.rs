//! A rank's program as text, one line per weight and instruction: what `plan -v` shows.
//!
//! It deliberately shows no memory. Read `instr.rs` for what an instruction is.

use super::instr::{Fused, Instr, Place, RankProgram, WeightPart};
use crate::kernel::Layout;
use crate::shape::display_shape;
use std::fmt;

impl fmt::Display for RankProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |v: usize| format!("%{v}");
        if let Some(numerics) = self.numerics {
            writeln!(f, "sums {numerics}")?;
        }
        for (id, weight) in self.weights.iter().enumerate() {
            let part = match &weight.part {
                WeightPart::Zero => " zero".to_string(),
                WeightPart::Region(region) => {
                    region.0.iter().map(|(dim, r)| format!(" dim {dim} {}..{}", r.start, r.end)).collect()
                }
            };
            // A vector lies densely in any case.
            let dense = weight.layout == Layout::Dense && weight.shape.len() > 1;
            let dense = if dense { " dense" } else { "" };
            let shape = display_shape(&weight.shape);
            writeln!(f, "weight {id:<3} {} {}{shape}{dense}{part}", weight.name, weight.format)?;
        }
        for instr in &self.instrs {
            match instr {
                Instr::Input { name, value: v } => writeln!(f, "{:<5}= input {name}", value(*v))?,
                Instr::Zero { output } => {
                    writeln!(f, "{:<5}= zero # {}", value(*output), self.values[*output].name)?;
                }
                Instr::Compute { node, op, inputs, output, extents, fused } => {
                    let inputs: Vec<String> = inputs
                        .iter()
                        .map(|&v| match self.values[v].place {
                            Place::Buffer(_) => value(v),
                            Place::Weight(w) => format!("weight {w}"),
                            Place::State(s) => format!("state {s}"),
                        })
                        .collect();
                    let extents: Vec<String> = extents.iter().map(|e| e.to_string()).collect();
                    let (inputs, extents) = (inputs.join(", "), extents.join(" "));
                    // An op with a mark can be computed together with the one before it.
                    let mark = match fused {
                        Fused::Alone => "",
                        Fused::Tail => "+ ",
                        Fused::Beside => "| ",
                    };
                    writeln!(f, "{:<5}= {mark}{} {inputs} [{extents}] # {node}", value(*output), op.name())?;
                }
                Instr::Exchange { node, kind, from, to, .. } => {
                    writeln!(
                        f,
                        "{:<5}= {kind} {} {} -> {} # {node}",
                        value(*to),
                        value(*from),
                        display_shape(&self.values[*from].shape),
                        display_shape(&self.values[*to].shape)
                    )?;
                }
                Instr::Output { name, value: v, region } => {
                    let region: String =
                        region.0.iter().map(|(dim, r)| format!(" dim {dim} {}..{}", r.start, r.end)).collect();
                    writeln!(f, "output {name} {}{region}", value(*v))?;
                }
            }
        }
        Ok(())
    }
}
