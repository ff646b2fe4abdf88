//! Strategies: plans that are derived from sharding rules.
//!
//! A strategy names no op and no model family. It chooses among the factors that a rule allows, by whether they are
//! contracted and whether they are a weight's. It deliberately does not search and weighs no costs. Read
//! [`super::classes`] first.

use super::classes::Classes;
use super::{MAX_RANKS, NodeCut, Plan, Strategy};
use crate::plan::PlanError;
use crate::sharding::ShardingError;

use crate::graph::{Graph, Source};
use std::collections::HashSet;

/// The plan that `strategy` makes for `graph`, over one rank per ratio.
///
/// Errors on no ranks or more than [`MAX_RANKS`], on ratios that are negative or all zero, and on
/// [`Strategy::Single`] with more than one rank.
pub fn plan(graph: &Graph, strategy: Strategy, ratios: &[f64]) -> Result<Plan, PlanError> {
    let world_size = ratios.len();
    if world_size == 0 || world_size > MAX_RANKS {
        return Err(ShardingError::Ratios(format!("{world_size} ranks; there may be 1 to {MAX_RANKS}")).into());
    }
    if strategy == Strategy::Single && world_size > 1 {
        return Err(ShardingError::Ratios(format!("strategy single runs on one device, {world_size} are given")).into());
    }
    crate::sharding::Cut::by_ratio(0, ratios)?;
    let classes = Classes::of(graph);
    let factors = match strategy {
        _ if world_size == 1 => vec![None; graph.nodes().len()],
        Strategy::Single => vec![None; graph.nodes().len()],
        Strategy::Column => column(graph, &classes),
        Strategy::Row => row(graph, &classes),
        Strategy::Tensor => tensor(graph, &classes),
    };
    let mut nodes = Vec::new();
    for (n, factor) in factors.into_iter().enumerate() {
        let Some(f) = factor else { continue };
        if let Some(cut) = classes.cut(graph, (n, f), ratios)? {
            let node = &graph.nodes()[n];
            nodes.push(NodeCut { node: node.name.clone(), factor: node.rule.factors()[f].name.clone(), cut });
        }
    }
    Ok(Plan { fanfold: 1, model: graph.fingerprint(), world_size, ratios: ratios.to_vec(), strategy, nodes })
}

/// The factors of node `n` that may be cut and whose class has a known length.
fn candidates<'a>(graph: &'a Graph, classes: &'a Classes, n: usize) -> impl Iterator<Item = usize> + 'a {
    let known = move |f: &usize| classes.get(classes.class_of((n, *f))).granules > 0;
    graph.nodes()[n].rule.cuttable().into_iter().filter(known)
}

/// Whether factor `f` of node `n` leads a dimension of a weight matrix that the node reads.
fn of_matrix(graph: &Graph, n: usize, f: usize) -> bool {
    let node = &graph.nodes()[n];
    node.inputs.iter().enumerate().any(|(i, &value)| {
        let value = graph.value(value);
        value.format().is_some() && value.shape.len() > 1 && node.rule.leading(Some(i)).iter().any(|&(_, g, _)| g == f)
    })
}

/// The classes that cut a state, and those that such classes follow: the heads of a KV cache.
fn of_states(graph: &Graph, classes: &Classes) -> HashSet<usize> {
    let mut found = HashSet::new();
    for (n, node) in graph.nodes().iter().enumerate() {
        for (i, _) in node.inputs.iter().enumerate().filter(|(_, value)| graph.state_of(**value).is_some()) {
            found.extend(node.rule.leading(Some(i)).iter().map(|&(_, f, _)| classes.class_of((n, f))));
        }
    }
    let followed: Vec<usize> = found.iter().filter_map(|&class| Some(classes.get(class).follows?.0)).collect();
    found.extend(followed);
    found
}

/// Every product along its output, and what follows along the same dimension for as long as it can.
///
/// Where a norm needs the whole in between, what fills a state and what reads it are cut again behind it: otherwise
/// every rank would keep all of the state.
fn column(graph: &Graph, classes: &Classes) -> Vec<Option<usize>> {
    let states = of_states(graph, classes);
    let mut opened: HashSet<usize> = HashSet::new();
    let mut chosen: Vec<Option<usize>> = Vec::new();
    for (n, node) in graph.nodes().iter().enumerate() {
        let free = || candidates(graph, classes, n).filter(|&f| !node.rule.contracted(f));
        let continues = |f: &usize| {
            let class = classes.class_of((n, *f));
            let reopens = states.contains(&class) && opened.contains(&class);
            reopens
                || node.inputs.iter().any(|&value| match graph.value(value).source {
                    Source::Node(source) => chosen[source.0].is_some_and(|g| classes.class_of((source.0, g)) == class),
                    _ => false,
                })
        };
        let choice = free().find(|&f| of_matrix(graph, n, f)).or_else(|| free().find(continues));
        opened.extend(choice.map(|f| classes.class_of((n, f))));
        chosen.push(choice);
    }
    chosen
}

/// Every product along its input; everything else whole.
fn row(graph: &Graph, classes: &Classes) -> Vec<Option<usize>> {
    let choose = |n: usize| {
        let rule = &graph.nodes()[n].rule;
        candidates(graph, classes, n).find(|&f| rule.contracted(f) && of_matrix(graph, n, f))
    };
    (0..graph.nodes().len()).map(choose).collect()
}

/// Whole classes at a time, from the product that opens one to the product that closes it: column then row.
///
/// A class is taken when every member may be cut and no node of it is taken yet, in the order of the graph. Then, among
/// those left, when all but some whole members may: a norm of all heads together is run whole between two exchanges,
/// which keeps the products and the state on either side cut.
fn tensor(graph: &Graph, classes: &Classes) -> Vec<Option<usize>> {
    let mut chosen: Vec<Option<usize>> = vec![None; graph.nodes().len()];
    let ids = || classes.iter().map(|(id, _)| id);
    for (id, around) in ids().map(|id| (id, false)).chain(ids().map(|id| (id, true))) {
        let class = classes.get(id);
        if class.follows.is_some() {
            continue;
        }
        let group: Vec<_> = classes
            .iter()
            .filter(|(other, c)| *other == id || c.follows.is_some_and(|(followed, ..)| followed == id))
            .map(|(_, c)| c)
            .collect();
        // An image is cut with its own node's factor, so it needs no choice of its own.
        let image = |&(n, f): &(usize, usize)| graph.nodes()[n].rule.factors()[f].image.is_some();
        let whole = |&(n, f): &(usize, usize)| !graph.nodes()[n].rule.cuttable().contains(&f);
        let members: Vec<(usize, usize)> = group.iter().flat_map(|c| c.members.iter().copied()).collect();
        let members: Vec<(usize, usize)> = members.into_iter().filter(|m| !(image(m) || around && whole(m))).collect();
        let weighted = group.iter().any(|c| c.weighted);
        // Cutting on both sides of a replicated node costs an all-gather. With a single granule only one rank would
        // hold anything, so that exchange would buy nothing.
        let shared = !around || class.granules > 1;
        let cuttable = shared && group.iter().all(|c| (around || !c.whole) && c.granules > 0);
        let mut nodes: Vec<usize> = members.iter().map(|m| m.0).collect();
        nodes.sort_unstable();
        let once = nodes.windows(2).all(|pair| pair[0] != pair[1]);
        if weighted && cuttable && once && nodes.iter().all(|&n| chosen[n].is_none()) {
            for (n, f) in members {
                chosen[n] = Some(f);
            }
        }
    }
    chosen
}
