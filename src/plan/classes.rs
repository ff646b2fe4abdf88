//! Classes: dimensions of several ops that are cut together, so that no exchange is needed between the ops.
//!
//! For example, the output columns of a query projection, the attention heads that read them and the input rows of
//! the output projection form one class. The granules of a class are the pieces into which every member can be cut:
//! with 6 heads over 192 columns there are 6. This module deliberately does not decide which class is cut. Read
//! `strategy.rs` next for who does.

use crate::graph::{Graph, ValueId};
use crate::plan::PlanError;
use crate::sharding::{Cut, gcd};
use std::collections::HashMap;

/// A member of a class, `(number of the node, number of the factor in its rule)`.
pub type Member = (usize, usize);

/// Factors that are cut together.
#[derive(Clone, Debug)]
pub struct Class {
    /// The members, in the order of their nodes.
    pub members: Vec<Member>,
    /// How many granules there are: the greatest common divisor of the members' lengths, a length along which a stored weight
    /// has blocks counted in blocks. 0 when a length is known only in a call.
    pub granules: usize,
    /// `(class, member of it, group, member of this)`: this class follows the cut of another one, divided by `group`,
    /// as KV heads follow query heads.
    pub follows: Option<(usize, Member, usize, Member)>,
    /// Whether a member is a dimension of a weight.
    pub weighted: bool,
    /// Whether some member may not be cut by itself (and is not cut as the image of another one).
    pub whole: bool,
}

/// The classes of a graph, in the order in which they first appear.
#[derive(Clone, Debug)]
pub struct Classes {
    classes: Vec<Class>,
    of: HashMap<Member, usize>,
}

impl Classes {
    /// The classes of `graph`.
    pub fn of(graph: &Graph) -> Classes {
        let mut union = Union::default();
        let mut weighted: Vec<Member> = Vec::new();
        // For each dimension of each value one factor that leads it; every other factor that leads the same dimension
        // is joined to its class.
        let mut lead: HashMap<(ValueId, usize), Member> = HashMap::new();
        for (n, node) in graph.nodes().iter().enumerate() {
            for f in 0..node.rule.factors().len() {
                union.add((n, f));
            }
            let inputs = node.inputs.iter().enumerate().map(|(i, &v)| (Some(i), v));
            for (port, value) in inputs.chain([(None, node.output)]) {
                for (dim, f, _) in node.rule.leading(port) {
                    // The result of a discrete choice is sent to its readers in any case, so it joins no class.
                    if port.is_none() && node.rule.factors()[f].decided {
                        continue;
                    }
                    match lead.get(&(value, dim)) {
                        Some(&member) => union.join(member, (n, f)),
                        None => {
                            lead.insert((value, dim), (n, f));
                        }
                    }
                    if graph.value(value).format().is_some() {
                        weighted.push((n, f));
                    }
                }
            }
        }
        let mut classes: Vec<Class> = Vec::new();
        let mut of: HashMap<Member, usize> = HashMap::new();
        let mut by_root: HashMap<Member, usize> = HashMap::new();
        for (n, node) in graph.nodes().iter().enumerate() {
            let cuttable = node.rule.cuttable();
            for (f, factor) in node.rule.factors().iter().enumerate() {
                // The factor of a discrete choice is not divided: it is one granule, whatever its length.
                let length = factor.extent.fixed().map(|length| length / factor.granule);
                let granules = if factor.decided { Some(1) } else { length };
                let class = *by_root.entry(union.root((n, f))).or_insert_with(|| {
                    let granules = granules.unwrap_or(0);
                    let new = Class { members: Vec::new(), granules, follows: None, weighted: false, whole: false };
                    classes.push(new);
                    classes.len() - 1
                });
                let entry = &mut classes[class];
                entry.members.push((n, f));
                entry.granules = match granules {
                    Some(granules) if entry.granules > 0 => gcd(entry.granules, granules),
                    _ => 0,
                };
                entry.whole |= factor.image.is_none() && !cuttable.contains(&f);
                of.insert((n, f), class);
            }
        }
        for member in weighted {
            classes[of[&member]].weighted = true;
        }
        for (n, node) in graph.nodes().iter().enumerate() {
            for (f, factor) in node.rule.factors().iter().enumerate() {
                if let Some((source, group)) = factor.image {
                    let (class, followed) = (of[&(n, f)], of[&(n, source)]);
                    if class != followed && classes[followed].follows.is_none() {
                        classes[class].follows.get_or_insert((followed, (n, source), group, (n, f)));
                    }
                }
            }
        }
        Classes { classes, of }
    }

    /// All classes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Class)> {
        self.classes.iter().enumerate()
    }

    /// The class of this number.
    pub fn get(&self, class: usize) -> &Class {
        &self.classes[class]
    }

    /// The number of the class that a factor is in.
    pub fn class_of(&self, member: Member) -> usize {
        self.of[&member]
    }

    /// The cut of `member` when its class is cut in proportion to `ratios`; `None` when the class cannot be cut so.
    pub fn cut(&self, graph: &Graph, member: Member, ratios: &[f64]) -> Result<Option<Cut>, PlanError> {
        let extent = |(n, f): Member| graph.nodes()[n].rule.factors()[f].extent.fixed().unwrap_or(0);
        let class = &self.classes[self.of[&member]];
        let (cut, pieces) = match class.follows {
            None => (Cut::by_ratio(class.granules, ratios)?, class.granules),
            Some((_, source, group, image)) => {
                let Some(cut) = self.cut(graph, source, ratios)? else { return Ok(None) };
                (cut.image(group), extent(image))
            }
        };
        let (length, granule) = (extent(member), graph.nodes()[member.0].rule.factors()[member.1].granule);
        let cut = (pieces > 0 && length.is_multiple_of(pieces)).then(|| cut.scale(length / pieces));
        // The image of another class's cut may fall into a block.
        Ok(cut.filter(|cut| cut.keeps(granule)))
    }
}

/// Disjoint sets of members (union-find).
#[derive(Default)]
struct Union {
    parent: HashMap<Member, Member>,
}

impl Union {
    fn add(&mut self, member: Member) {
        self.parent.insert(member, member);
    }

    fn root(&mut self, member: Member) -> Member {
        let mut root = member;
        while let Some(&up) = self.parent.get(&root).filter(|&&up| up != root) {
            root = up;
        }
        self.parent.insert(member, root);
        root
    }

    fn join(&mut self, a: Member, b: Member) {
        let (a, b) = (self.root(a), self.root(b));
        // The earlier member stays the root, so that classes keep the order of the graph.
        self.parent.insert(a.max(b), a.min(b));
    }
}
