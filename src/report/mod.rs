//! Shows a plan as text for a terminal: which rank holds which part of each layer, and how many bytes the ranks
//! exchange.
//!
//! It reads a plan and its program. It deliberately decides nothing, runs nothing and knows no terminal: callers give
//! the width. Read [`crate::plan`] for the plan itself.

use crate::graph::{Graph, Source};
use crate::kernel::weight_bytes;
use crate::plan::Plan;
use crate::program::{Instr, Program, RankProgram};
use crate::shape::{Env, Limits, resolve};
use crate::sharding::Cut;
use bytesize::ByteSize;
use std::fmt::Write as _;

/// Width of the column with node names, in characters.
const NAME: usize = 21;
/// Width of everything in a row of the picture but the drawn cut: the node's name, the kind of cut, and how often it
/// occurs.
const BESIDE_BAR: usize = NAME + 19;
/// The least width of a drawn cut.
const NARROWEST_BAR: usize = 20;

/// The node's name with `*` in place of the layer number, so that equal layers are drawn once.
fn pattern(name: &str) -> String {
    let open = |part: &str| if part.bytes().all(|b| b.is_ascii_digit()) { "*".to_string() } else { part.to_string() };
    name.split('.').map(open).collect::<Vec<_>>().join(".")
}

/// The end of `name` in at most [`NAME`] characters, shortened at a dot if possible: `…self_attn.q_proj`.
fn end(name: &str) -> String {
    let length = name.chars().count();
    if length <= NAME {
        return name.to_string();
    }
    let kept: String = name.chars().skip(length - (NAME - 1)).collect();
    // Shorten further, to the next dot, unless the text kept starts right after a dot already or has no dot in it.
    let cut_at_dot = name.ends_with(&format!(".{kept}"));
    match kept.split_once('.') {
        Some((_, parts)) if !cut_at_dot => format!("…{parts}"),
        _ => format!("…{kept}"),
    }
}

/// A cut drawn in `columns` characters: each is the digit of the rank that holds that part, or `+` where several do.
fn bar(cut: &Cut, columns: usize) -> String {
    let extent = (0..cut.world_size()).map(|r| cut.range(r).end).max().unwrap_or(0).max(1);
    let column = |c: usize| {
        let at = (2 * c + 1) * extent / (2 * columns);
        let mut holders = (0..cut.world_size()).filter(|&r| cut.range(r).contains(&at));
        match (holders.next(), holders.next()) {
            (Some(_), Some(_)) => '+',
            (Some(r), None) => std::char::from_digit(r as u32, 36).unwrap_or('?'),
            (None, _) => ' ',
        }
    };
    (0..columns).map(column).collect()
}

/// The plan as a picture of `width` characters, at least 60. Each kind of layer is a row of digits that name the rank
/// which holds that part.
///
/// Only nodes with a weight or a KV cache of their own are drawn: the cuts of the nodes between follow from theirs.
pub fn picture(graph: &Graph, plan: &Plan, width: usize) -> String {
    let columns = width.saturating_sub(BESIDE_BAR).max(NARROWEST_BAR);
    let mut rows: Vec<(String, String, String, usize)> = Vec::new();
    for node in graph.nodes() {
        let holds = node.inputs.iter().any(|&v| matches!(graph.value(v).source, Source::Weight(_) | Source::State));
        let Some(entry) = plan.nodes.iter().find(|entry| entry.node == node.name).filter(|_| holds) else { continue };
        let name = pattern(&node.name);
        let contracted = node.rule.factor(&entry.factor).is_some_and(|f| node.rule.contracted(f));
        let how = format!("{} {}", entry.factor, if contracted { "add" } else { "stack" });
        let drawn = bar(&entry.cut, columns);
        match rows.iter_mut().find(|row| row.0 == name && row.1 == how && row.2 == drawn) {
            Some(row) => row.3 += 1,
            None => rows.push((name, how, drawn, 1)),
        }
    }
    let mut text = String::new();
    for (name, how, drawn, times) in rows {
        let _ = writeln!(text, "{:<NAME$} {how:<8} [{drawn}] x{times}", end(&name));
    }
    text
}

/// The exchanges of one call, as lines of at most `width` characters: how many of each collective, and how many bytes
/// each rank sends. `env` should describe a call with one token.
pub fn exchanges(program: &Program, env: &Env, width: usize) -> String {
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
    if kinds.is_empty() {
        return "no exchange".to_string();
    }
    let sent: Vec<u64> = (0..program.ranks.len()).map(|rank| sent_bytes(program, rank, env)).collect();
    let kinds = kinds.join(", ");
    if sent.windows(2).all(|pair| pair[0] == pair[1]) {
        return format!("{kinds} per call; for one token every rank sends {}", ByteSize::b(sent[0]));
    }
    let sent: Vec<String> = sent.into_iter().map(|bytes| ByteSize::b(bytes).to_string()).collect();
    let mut text = format!("{kinds} per call; the ranks send for one token");
    let mut column = text.chars().count();
    for (rank, part) in sent.iter().enumerate() {
        let end = if rank + 1 < sent.len() { "," } else { "" };
        let part = format!(" {part}{end}");
        if column + part.len() > width {
            text.push_str("\n ");
            column = 1;
        }
        column += part.len();
        text.push_str(&part);
    }
    text
}

/// Bytes that `rank` sends to other ranks in one call of the sizes in `env`.
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

/// A line for every weight that ranks hold more than once, because two nodes need it in different cuts or layouts,
/// with the extra bytes.
///
/// For example, the embedding and the output head share the vocabulary matrix, and a plan may cut it along rows for
/// one and along columns for the other.
pub fn held_twice(program: &Program, limits: &Limits) -> String {
    let mut text = String::new();
    let Some(first) = program.ranks.first() else { return text };
    let bytes_of = |rank: &RankProgram, w: usize| {
        rank.weights.get(w).map_or(0, |w| weight_bytes(w.format, &w.local_shape(limits), w.layout))
    };
    let mut seen: Vec<&str> = Vec::new();
    for weight in &first.weights {
        let name = weight.name.as_str();
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        // Every rank lists the same weights in the same order, so the first rank's positions hold for all.
        let places = (0..first.weights.len()).filter(|&w| first.weights[w].name == name);
        let held: Vec<u64> = places.map(|w| program.ranks.iter().map(|rank| bytes_of(rank, w)).sum()).collect();
        let beyond = held.iter().sum::<u64>() - held.iter().max().copied().unwrap_or(0);
        if beyond > 0 {
            let (times, beyond) = (held.len(), ByteSize::b(beyond));
            let _ = writeln!(text, "{name} is held in {times} cuts, which takes {beyond} more than one");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_drawn_as_wide_as_wanted() {
        let cut = Cut::new(vec![0..3, 3..4]);
        assert_eq!((bar(&cut, 8).as_str(), bar(&cut, 4).as_str()), ("00000011", "0001"));
        assert_eq!(bar(&Cut::new(vec![0..2, 1..2]), 4), "00++");
    }

    #[test]
    fn long_names_are_cut_where_a_part_begins() {
        assert_eq!(end("lm_head"), "lm_head");
        assert_eq!(end("model.layers.*.self_attn.q_proj"), "…*.self_attn.q_proj");
        assert_eq!(end("model.layers.*.self_attn.k_append"), "…*.self_attn.k_append");
        assert_eq!(end("an_unbroken_name_that_is_too_long"), "…ame_that_is_too_long");
        for name in ["é".repeat(30), "a.b".repeat(30)] {
            assert!(end(&name).chars().count() <= NAME);
        }
    }
}
