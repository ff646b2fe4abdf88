//! A plan: for every node, which factor is cut and where. It is plain data that a person can read and edit.
//!
//! A plan deliberately names no device. Nor does it say which exchanges happen, since they follow from the cuts. Read
//! [`classes`] for how one cut comes to serve many ops, and [`crate::program`] for what a plan is lowered to.

mod builder;
mod error;

pub use builder::{PlanBuilder, Shares};
pub use error::PlanError;

#[doc(hidden)]
pub mod classes;
mod strategy;

pub use strategy::plan;

use crate::graph::{Graph, Node};
use crate::sharding::Cut;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most ranks that a plan may have.
#[doc(hidden)]
pub const MAX_RANKS: usize = 16;

/// How a plan is derived from a graph and ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// One device runs everything.
    Single,
    /// Every weight is cut along its output dimension and the outputs are stacked (column parallel). Bit for bit the
    /// result of one device; one exchange per product.
    Column,
    /// Every weight is cut along its input dimension and the partial outputs are added (row parallel). One exchange
    /// per product.
    Row,
    /// Column then row, so that a pair of products needs one exchange (Megatron-LM, Shoeybi et al. 2019).
    Tensor,
}

impl Strategy {
    /// All strategies with their names.
    #[doc(hidden)]
    pub const ALL: [(&'static str, Strategy); 4] = [
        ("single", Strategy::Single),
        ("column", Strategy::Column),
        ("row", Strategy::Row),
        ("tensor", Strategy::Tensor),
    ];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Strategy::ALL.iter().find(|(_, s)| s == self).map_or("", |(name, _)| name);
        f.pad(name)
    }
}

/// How one graph runs on `world_size` ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this format: 1.
    pub fanfold: u32,
    /// [`Graph::fingerprint`] of the graph it is for.
    pub model: String,
    /// How many ranks.
    pub world_size: usize,
    /// Each rank's share of the work, in any unit.
    pub ratios: Vec<f64>,
    /// The strategy that it was derived by. A plan that is edited by hand keeps the word.
    pub strategy: Strategy,
    /// The nodes that are cut. Every other node runs whole on every rank.
    pub nodes: Vec<NodeCut>,
}

/// One node's cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCut {
    /// The node's name.
    pub node: String,
    /// The letter of the factor in its rule.
    pub factor: String,
    /// `[start, end]` for each rank, in units of the factor.
    pub cut: Cut,
}

impl Plan {
    /// Reads a plan from JSON. Whether it fits a graph is checked by [`Plan::resolve`].
    ///
    /// Errors when the text is no plan of version 1, or was made by an older fanfold.
    pub fn from_json(text: &str) -> Result<Plan, PlanError> {
        let plan: Plan = serde_json::from_str(text).map_err(|e| PlanError::Format(e.to_string()))?;
        if plan.fanfold != 1 {
            return Err(PlanError::Format(format!("version {} is not known, only 1", plan.fanfold)));
        }
        plan.check_age()?;
        Ok(plan)
    }

    /// Errors when the plan names its model by 16 hexadecimal digits, as plans did before [`Graph::fingerprint`] had 32.
    fn check_age(&self) -> Result<(), PlanError> {
        let older = self.model.len() == 16 && self.model.bytes().all(|digit| digit.is_ascii_hexdigit());
        if older { Err(PlanError::Older) } else { Ok(()) }
    }

    /// The plan as JSON, one line per node so that it can be edited.
    pub fn to_json(&self) -> String {
        fn line(value: &impl Serialize) -> String {
            serde_json::to_string(value).unwrap_or_default()
        }
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("    {}", line(node))).collect();
        format!(
            "{{\n  \"fanfold\": {},\n  \"model\": {:?},\n  \"world_size\": {},\n  \"ratios\": {},\n  \"strategy\": {},\n  \"nodes\": [\n{}\n  ]\n}}\n",
            self.fanfold,
            self.model,
            self.world_size,
            line(&self.ratios),
            line(&self.strategy),
            nodes.join(",\n")
        )
    }

    /// The plan of the ranks that take part, and their numbers in this one: of the ratios 0 : 2 : 1 the ranks 1 and 2.
    ///
    /// A rank with an empty share of every node that is cut would only repeat what others compute. An engine leaves it out, so
    /// that the first of the others owns what one rank must: decisions, biases of sums, and outputs that all hold.
    ///
    /// Errors as [`Plan::resolve`], about this plan: in the other one ranks have other numbers.
    #[doc(hidden)]
    pub fn taking_part(&self, graph: &Graph) -> Result<(Plan, Vec<usize>), PlanError> {
        self.resolve(graph)?;
        let has_share = |rank: &usize| self.nodes.iter().any(|node| !node.cut.range(*rank).is_empty());
        let mut ranks: Vec<usize> = (0..self.world_size).filter(has_share).collect();
        if ranks.is_empty() {
            // Nothing is cut: one rank computes everything.
            ranks.push(0);
        }
        let mut plan = self.clone();
        plan.world_size = ranks.len();
        plan.ratios = ranks.iter().filter_map(|&rank| self.ratios.get(rank).copied()).collect();
        plan.nodes.iter_mut().for_each(|node| node.cut = node.cut.of_ranks(&ranks));
        Ok((plan, ranks))
    }

    /// The factor and cut of every node of `graph`, `None` where a node runs whole.
    ///
    /// Errors when the plan is for another graph or of an older fanfold, names a node or factor that does not exist, or cuts what its rule
    /// does not allow.
    #[doc(hidden)]
    pub fn resolve<'a>(&'a self, graph: &Graph) -> Result<Vec<Option<(usize, &'a Cut)>>, PlanError> {
        self.check_age()?;
        let model = graph.fingerprint();
        if self.model != model {
            return Err(PlanError::Model { plan: self.model.clone(), model });
        }
        if self.world_size == 0 || self.world_size > MAX_RANKS {
            let reason = format!("the plan is for {} ranks; there may be 1 to {MAX_RANKS}", self.world_size);
            return Err(PlanError::Content(reason));
        }
        let mut resolved = vec![None; graph.nodes().len()];
        for entry in &self.nodes {
            let fail = |cause| PlanError::Node { node: entry.node.clone(), cause: Box::new(cause) };
            let unknown = |problem: String| fail(PlanError::Content(problem));
            let index = graph.nodes().iter().position(|n| n.name == entry.node);
            let index = index.ok_or_else(|| unknown("the model has no such node".to_string()))?;
            let rule = &graph.nodes()[index].rule;
            let factor = rule.factor(&entry.factor);
            let factor = factor.ok_or_else(|| unknown(format!("the rule {rule} has no factor {:?}", entry.factor)))?;
            rule.check(factor, &entry.cut, self.world_size).map_err(|cause| fail(cause.into()))?;
            if resolved[index].replace((factor, &entry.cut)).is_some() {
                return Err(unknown("is cut twice".to_string()));
            }
        }
        Ok(resolved)
    }

    /// Errors unless every cut is exact by nature: one that is not contracted away and so changes no sum.
    #[doc(hidden)]
    pub fn check_exact(&self, graph: &Graph) -> Result<(), PlanError> {
        let resolved = self.resolve(graph)?;
        let contracted = |(node, cut): (&Node, &Option<(usize, &Cut)>)| match cut {
            Some((factor, _)) if node.rule.contracted(*factor) => Some((node.name.clone(), *factor)),
            _ => None,
        };
        match graph.nodes().iter().zip(&resolved).find_map(contracted) {
            None => Ok(()),
            Some((node, _)) => Err(PlanError::Inexact(format!(
                "node {node} adds partial sums of several ranks, in another order than one device; column cuts alone add none"
            ))),
        }
    }
}
