//! Plans made by hand, node by node.
//!
//! It cuts what it is told to cut and deliberately decides nothing by itself. Read `strategy.rs` for plans that are derived
//! from the rules.

use super::{NodeCut, Plan, PlanError, Strategy};
use crate::graph::Graph;
use crate::sharding::Cut;
use std::ops::Range;

/// How a factor is divided over the ranks: at given places, or in proportion.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Shares {
    /// An interval per rank.
    Intervals(Cut),
    /// A ratio per rank, in any unit.
    Ratios(Vec<f64>),
}

impl From<Cut> for Shares {
    fn from(cut: Cut) -> Shares {
        Shares::Intervals(cut)
    }
}

impl<const N: usize> From<[f64; N]> for Shares {
    fn from(ratios: [f64; N]) -> Shares {
        Shares::Ratios(ratios.to_vec())
    }
}

impl<const N: usize> From<[Range<usize>; N]> for Shares {
    fn from(intervals: [Range<usize>; N]) -> Shares {
        Shares::Intervals(Cut::new(intervals.to_vec()))
    }
}

impl From<&[f64]> for Shares {
    fn from(ratios: &[f64]) -> Shares {
        Shares::Ratios(ratios.to_vec())
    }
}

/// A plan in the making, see [`Plan::whole`].
#[derive(Clone, Debug)]
pub struct PlanBuilder<'g> {
    graph: &'g Graph,
    plan: Plan,
    error: Option<PlanError>,
}

impl Plan {
    /// A plan by which every node of `graph` runs whole on each of `world_size` ranks, to which cuts are added.
    ///
    /// ```
    /// use fanfold::{graph::Graph, ops::Linear, plan::Plan, tensor::DType};
    ///
    /// # fn main() -> fanfold::Result<()> {
    /// let mut graph = Graph::new();
    /// let x = graph.input("x", [4.into(), 8.into()], DType::F32)?;
    /// let w = graph.weight("w", [6.into(), 8.into()], DType::F32)?;
    /// let y = graph.node("l0", Linear, &[x, w])?;
    /// graph.output("y", y)?;
    /// // Column-parallel: the rows of `w` lie 2 : 1 on two ranks.
    /// let plan = Plan::whole(&graph, 2).cut("l0", "n", [2.0, 1.0]).build()?;
    /// assert_eq!(plan.nodes[0].cut.range(0), 0..4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn whole(graph: &Graph, world_size: usize) -> PlanBuilder<'_> {
        let plan = Plan {
            fanfold: 1,
            model: graph.fingerprint(),
            world_size,
            ratios: vec![1.0; world_size],
            strategy: if world_size == 1 { Strategy::Single } else { Strategy::Tensor },
            nodes: Vec::new(),
        };
        PlanBuilder { graph, plan, error: None }
    }
}

impl PlanBuilder<'_> {
    /// Cuts the node called `node` along the factor `factor` of its rule, as `shares` say.
    ///
    /// What is wrong with it is told by [`PlanBuilder::build`].
    pub fn cut(mut self, node: &str, factor: &str, shares: impl Into<Shares>) -> Self {
        match self.entry(node, factor, shares.into()) {
            Ok(entry) => self.plan.nodes.push(entry),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// The finished plan.
    ///
    /// Errors when there is no such node or factor, when the factor may not be cut or not so, when a node is cut twice, and
    /// when there are more ranks than [`MAX_RANKS`](super::MAX_RANKS).
    pub fn build(self) -> Result<Plan, PlanError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.plan.resolve(self.graph)?;
        Ok(self.plan)
    }

    fn entry(&self, node: &str, factor: &str, shares: Shares) -> Result<NodeCut, PlanError> {
        let fail = |cause: PlanError| PlanError::Node { node: node.to_string(), cause: Box::new(cause) };
        let unknown = |problem: String| fail(PlanError::Content(problem));
        let found = self.graph.nodes().iter().find(|known| known.name == node);
        let rule = &found.ok_or_else(|| unknown("the model has no such node".to_string()))?.rule;
        let index = rule.factor(factor).ok_or_else(|| unknown(format!("the rule {rule} has no factor {factor:?}")))?;
        let cut = match shares {
            Shares::Intervals(cut) => cut,
            Shares::Ratios(ratios) => {
                let granule = rule.factors()[index].granule;
                let extent = rule.factors()[index].extent.fixed();
                let extent = extent.ok_or_else(|| {
                    unknown(format!("the factor {factor:?} has a length that only a call knows, and cannot be cut"))
                })?;
                Cut::by_ratio(extent / granule, &ratios).map_err(|cause| fail(cause.into()))?.scale(granule)
            }
        };
        rule.check(index, &cut, self.plan.world_size).map_err(|cause| fail(cause.into()))?;
        Ok(NodeCut { node: node.to_string(), factor: factor.to_string(), cut })
    }
}
