//! A plan as a picture for a terminal: who holds what, and what it costs to exchange.
//!
//! It deliberately decides nothing and runs nothing: it reads a plan and its program. Read [`crate::plan`] for what is
//! drawn.

use crate::graph::{Graph, Source};
use crate::plan::Plan;
use crate::program::{Instr, Memory, Program};
use crate::sharding::Cut;
use crate::tensor::{Env, resolve};
use std::fmt::Write as _;

/// Columns that a cut is drawn in.
const BAR: usize = 40;

/// `1536` as `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The name of a node with its layer's number left open, so that equal layers are drawn once.
fn pattern(name: &str) -> String {
    let open = |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { "*".to_string() } else { part.to_string() };
    name.split('.').map(open).collect::<Vec<_>>().join(".")
}

/// A cut as one digit per column: the rank that holds it; `+` where several do.
fn bar(cut: &Cut) -> String {
    let extent = (0..cut.world_size()).map(|r| cut.range(r).end).max().unwrap_or(0).max(1);
    let column = |c: usize| {
        let at = (2 * c + 1) * extent / (2 * BAR);
        let mut holders = (0..cut.world_size()).filter(|&r| cut.range(r).contains(&at));
        match (holders.next(), holders.next()) {
            (Some(_), Some(_)) => '+',
            (Some(r), None) => std::char::from_digit(r as u32, 36).unwrap_or('?'),
            (None, _) => ' ',
        }
    };
    (0..BAR).map(column).collect()
}

/// The plan in at most 80 columns: a row per kind of layer, a digit per column for the rank that holds it.
///
/// Only nodes with a weight or a state of their own are drawn; what lies between follows them.
pub fn picture(graph: &Graph, plan: &Plan) -> String {
    let mut rows: Vec<(String, String, String, usize)> = Vec::new();
    for node in graph.nodes() {
        let holds = node.inputs.iter().any(|&v| matches!(graph.value(v).source, Source::Weight | Source::State));
        let Some(entry) = plan.nodes.iter().find(|entry| entry.node == node.name).filter(|_| holds) else { continue };
        let name = pattern(&node.name);
        let contracted = node.rule.factor(&entry.factor).is_some_and(|f| node.rule.contracted(f));
        let how = format!("{} {}", entry.factor, if contracted { "add" } else { "stack" });
        let drawn = bar(&entry.cut);
        match rows.iter_mut().find(|row| row.0 == name && row.1 == how && row.2 == drawn) {
            Some(row) => row.3 += 1,
            None => rows.push((name, how, drawn, 1)),
        }
    }
    let mut text = String::new();
    for (name, how, drawn, times) in rows {
        let short: String = match name.char_indices().rev().nth(19) {
            Some((start, _)) if start > 0 => format!("…{}", &name[start..]),
            _ => name,
        };
        let _ = writeln!(text, "{short:<21} {how:<8} [{drawn}] x{times}");
    }
    text
}

/// The exchanges of one call, by collective: how many, and the bytes each rank sends for one token.
pub fn exchanges(program: &Program, env: &Env) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for instr in program.ranks.first().map(|rank| rank.instrs.as_slice()).unwrap_or_default() {
        if let Instr::Exchange { kind, .. } = instr {
            match kinds.iter_mut().find(|(name, _)| *name == kind.to_string()) {
                Some((_, count)) => *count += 1,
                None => kinds.push((kind.to_string(), 1)),
            }
        }
    }
    let kinds: Vec<String> = kinds.into_iter().map(|(name, count)| format!("{count} {name}")).collect();
    let sent: Vec<String> = (0..program.ranks.len()).map(|rank| bytes(sent_bytes(program, rank, env))).collect();
    if kinds.is_empty() {
        return "no exchange".to_string();
    }
    format!("{} per call; sent for one token: {}", kinds.join(", "), sent.join(", "))
}

/// Bytes that `rank` sends to other ranks in one call under `env`.
pub fn sent_bytes(program: &Program, rank: usize, env: &Env) -> u64 {
    let program = &program.ranks[rank];
    let sent = program.instrs.iter().map(|instr| match instr {
        Instr::Exchange { from, send, .. } => {
            let value = &program.values[*from];
            let shape = resolve(&value.shape, env);
            let others = send.iter().enumerate().filter(|(to, _)| *to != rank).filter_map(|(_, w)| w.as_ref());
            others.map(|w| (w.resolve(&shape).numel() * value.dtype.size()) as u64).sum()
        }
        _ => 0,
    });
    sent.sum()
}

/// What each rank holds, one line each.
pub fn memory(program: &Program, env: &Env, devices: &[(String, Option<u64>)]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<4} {:<22} {:>10} {:>10} {:>10} {:>9}  of",
        "rank", "device", "weights", "kv", "scratch", "staging"
    );
    for (rank, (device, memory)) in program.ranks.iter().zip(devices) {
        let Memory { weights, state, activations, staging } = rank.memory(env);
        let name: String = device.chars().take(22).collect();
        let of = memory.map_or("unknown".to_string(), bytes);
        let _ = writeln!(
            text,
            "{:<4} {name:<22} {:>10} {:>10} {:>10} {:>9}  {of}",
            rank.rank,
            bytes(weights),
            bytes(state),
            bytes(activations),
            bytes(staging)
        );
    }
    text
}
