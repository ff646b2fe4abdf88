//! Sharding rules: an op's dimensions in einops' notation, from which every way to split the op is derived.
//!
//! A rule deliberately knows no graph and no other op. A compound dimension such as `(h d)` is cut at its leading
//! factor, an image follows the cut of another factor, and cutting a factor that is contracted away makes the output
//! Partial. Read [`crate::ops`] next for the rules that ops state.

use super::cut::gcd;
use super::{Cut, Placement};
use crate::sharding::ShardingError;

use crate::shape::{Dim, Env, Shape, display_shape};
use serde::Serialize;
use std::fmt;

/// One dimension of an op, shared by its inputs and its output: `k` in `b k, n k -> b n`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Factor {
    /// Its letter in the rule.
    pub name: String,
    /// Its length.
    pub extent: Dim,
    /// Whether it may never be cut, such as the axis of a softmax or a norm.
    pub whole: bool,
    /// Whether a discrete choice is made over it, such as which experts a token goes to. One rank then holds all of
    /// it and the others nothing, whatever a plan says.
    pub decided: bool,
    /// `(f, group)`: its intervals are those of factor `f`, divided by `group`. KV heads follow query heads.
    pub image: Option<(usize, usize)>,
    /// Its intervals begin and end at multiples of this: 1, unless a stored weight's blocks lie along it.
    pub granule: usize,
}

/// The part of one factor that a rank works on, as kernels and the host evaluation receive it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[doc(hidden)]
pub struct Extent {
    /// The factor's letter.
    pub name: String,
    /// Where the rank's part starts in the whole factor.
    pub offset: usize,
    /// The part's length.
    pub len: Dim,
    /// The whole's length.
    pub global: Dim,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.len, self.global) {
            (len, global) if len == global => write!(f, "{}={len}", self.name),
            (Dim::Fixed(len), global) => write!(f, "{}={}..{} of {global}", self.name, self.offset, self.offset + len),
            (len, global) => write!(f, "{}={}+{len} of {global}", self.name, self.offset),
        }
    }
}

impl Extent {
    /// `(offset, len, global)` under `env`.
    pub fn resolve(&self, env: &Env) -> (usize, usize, usize) {
        (self.offset, self.len.resolve(env), self.global.resolve(env))
    }
}

/// One dimension of a tensor as the factors it is made of, outermost first: `(h d)` is `[h, d]`.
type Axis = Vec<usize>;

/// How an op's dimensions relate, and so every way in which it may be split.
///
/// It is written in einops' notation (`b s k, n k -> b s n` for a matrix product) and bound to the shapes of one
/// node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardingRule {
    op: &'static str,
    factors: Vec<Factor>,
    inputs: Vec<Vec<Axis>>,
    output: Vec<Axis>,
    addends: Vec<usize>,
    linear: Vec<Vec<usize>>,
}

/// A rule that is being stated. [`RuleBuilder::bind`] finishes it.
#[derive(Clone, Debug)]
pub struct RuleBuilder {
    rule: ShardingRule,
    sizes: Vec<Option<Dim>>,
    error: Option<ShardingError>,
}

impl RuleBuilder {
    fn factor(&mut self, name: &str) -> usize {
        let known = self.rule.factors.iter().position(|f| f.name == name);
        known.unwrap_or_else(|| {
            let (name, extent) = (name.to_string(), Dim::Fixed(1));
            self.rule.factors.push(Factor { name, extent, whole: false, decided: false, image: None, granule: 1 });
            self.sizes.push(None);
            self.rule.factors.len() - 1
        })
    }

    fn tensor(&mut self, text: &str) -> Result<Vec<Axis>, String> {
        let mut axes: Vec<Axis> = Vec::new();
        let mut open = false;
        for word in text.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
            match word {
                "(" if !open => {
                    axes.push(Vec::new());
                    open = true;
                }
                ")" if open => open = false,
                name if name.chars().all(|c| c.is_ascii_alphanumeric()) => {
                    let factor = self.factor(name);
                    match axes.last_mut() {
                        Some(axis) if open => axis.push(factor),
                        _ => axes.push(vec![factor]),
                    }
                }
                other => return Err(format!("unexpected {other:?}")),
            }
        }
        if open { Err("a parenthesis is not closed".to_string()) } else { Ok(axes) }
    }

    /// States the length of a factor that the inputs' shapes do not determine, such as the number of heads in `(h
    /// d)`.
    pub fn size(mut self, name: &str, extent: impl Into<Dim>) -> RuleBuilder {
        let factor = self.factor(name);
        self.sizes[factor] = Some(extent.into());
        self
    }

    /// Marks factors that may never be cut; `names` are separated by spaces.
    pub fn whole(mut self, names: &str) -> RuleBuilder {
        for name in names.split_whitespace() {
            let factor = self.factor(name);
            self.rule.factors[factor].whole = true;
        }
        self
    }

    /// Marks the factor over which the op makes a discrete choice, such as the experts to route to.
    ///
    /// If every rank chose for itself, ranks could choose differently, since their devices differ in the last bits.
    /// So one rank holds all of the factor and chooses, and the other ranks are sent the parts of the result that
    /// they need.
    #[doc(hidden)]
    pub fn decided(mut self, name: &str) -> RuleBuilder {
        let factor = self.factor(name);
        self.rule.factors[factor].decided = true;
        self
    }

    /// States that the op is linear in these inputs taken together, so that Partial inputs give a Partial output.
    pub fn linear(mut self, inputs: &[usize]) -> RuleBuilder {
        self.rule.linear.push(inputs.to_vec());
        self
    }

    /// States that this input, such as a bias, is added to a contraction. Under a cut of the contracted factor it is
    /// added on rank 0 only: the other ranks' partial sums are added to it later.
    pub fn addend(mut self, input: usize) -> RuleBuilder {
        self.rule.addends.push(input);
        self
    }

    /// States that the intervals of `name` are those of `of`, divided by `group`.
    pub fn image(mut self, name: &str, of: &str, group: usize) -> RuleBuilder {
        let (factor, of) = (self.factor(name), self.factor(of));
        self.rule.factors[factor].image = Some((of, group));
        self
    }

    /// Binds the rule to the shapes of a node's inputs.
    ///
    /// Errors when the number of inputs or of dimensions is not the rule's, when a factor would have two lengths, or
    /// when a compound dimension does not divide.
    pub fn bind(mut self, inputs: &[Shape]) -> Result<ShardingRule, ShardingError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let op = self.rule.op;
        let refuse = |reason: String| ShardingError::Inputs { op, reason };
        if inputs.len() != self.rule.inputs.len() {
            let expected = self.rule.inputs.len();
            return Err(refuse(format!("takes {expected} inputs, {} given", inputs.len())));
        }
        for (i, (shape, axes)) in inputs.iter().zip(&self.rule.inputs).enumerate() {
            if shape.len() != axes.len() {
                let reason = format!("input {i} has shape {}, the rule is {}", display_shape(shape), self.rule);
                return Err(refuse(reason));
            }
        }
        // Single factors first: they give the lengths by which compound dimensions are divided.
        for compound in [false, true] {
            for (i, shape) in inputs.iter().enumerate() {
                for (axis, &dim) in self.rule.inputs[i].iter().zip(shape) {
                    if (axis.len() > 1) != compound {
                        continue;
                    }
                    let unknown: Vec<usize> = axis.iter().copied().filter(|&f| self.sizes[f].is_none()).collect();
                    let known =
                        axis.iter().filter_map(|&f| self.sizes[f]).try_fold(1usize, |n, d| n.checked_mul(d.fixed()?));
                    match (unknown.as_slice(), axis.as_slice(), known, dim) {
                        ([], &[f], _, dim) if self.sizes[f] == Some(dim) => {}
                        ([], &[f], _, dim) => {
                            let factor = self.rule.factors[f].name.clone();
                            let first = self.sizes[f].map(|d| d.to_string()).unwrap_or_default();
                            return Err(ShardingError::Extent { op, factor, first, second: dim.to_string() });
                        }
                        (&[f], [_], _, dim) => self.sizes[f] = Some(dim),
                        ([], _, Some(n), Dim::Fixed(m)) if n == m => {}
                        (&[f], _, Some(n), Dim::Fixed(m)) if n > 0 && m % n == 0 => {
                            self.sizes[f] = Some(Dim::Fixed(m / n))
                        }
                        _ => {
                            let shape = display_shape(shape);
                            return Err(refuse(format!("input {i} of shape {shape} does not divide as {}", self.rule)));
                        }
                    }
                }
            }
        }
        for (f, size) in self.sizes.iter().enumerate() {
            match size {
                Some(extent) => self.rule.factors[f].extent = *extent,
                None => return Err(refuse(format!("the length of {} is not told", self.rule.factors[f].name))),
            }
        }
        for axis in self.rule.output.iter().filter(|axis| axis.len() != 1) {
            let factors: Vec<&Factor> = axis.iter().map(|&f| &self.rule.factors[f]).collect();
            let product = factors.iter().try_fold(1usize, |n, factor| n.checked_mul(factor.extent.fixed()?));
            if product.is_none() {
                let lengths: Vec<String> = factors.iter().map(|f| format!("{} = {}", f.name, f.extent)).collect();
                let reason = format!(
                    "an output dimension of {} cannot be joined into one: only lengths that the model fixes can, and \
                     their product must be countable",
                    lengths.join(", ")
                );
                return Err(refuse(reason));
            }
        }
        Ok(self.rule)
    }
}

impl fmt::Display for ShardingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensor = |axes: &Vec<Axis>| -> String {
            let axis = |axis: &Axis| {
                let names: Vec<&str> = axis.iter().map(|&f| self.factors[f].name.as_str()).collect();
                if names.len() == 1 { names[0].to_string() } else { format!("({})", names.join(" ")) }
            };
            axes.iter().map(axis).collect::<Vec<_>>().join(" ")
        };
        let inputs: Vec<String> = self.inputs.iter().map(tensor).collect();
        write!(f, "{} -> {}", inputs.join(", "), tensor(&self.output))
    }
}

impl ShardingRule {
    /// Begins the rule of `op`, stated in einops' notation.
    pub fn of(op: &'static str, pattern: &str) -> RuleBuilder {
        let rule = ShardingRule {
            op,
            factors: Vec::new(),
            inputs: Vec::new(),
            output: Vec::new(),
            addends: Vec::new(),
            linear: Vec::new(),
        };
        let mut builder = RuleBuilder { rule, sizes: Vec::new(), error: None };
        let mut parse = || -> Result<(), String> {
            let (inputs, output) = pattern.split_once("->").ok_or("it has no arrow")?;
            for input in inputs.split(',') {
                let axes = builder.tensor(input)?;
                builder.rule.inputs.push(axes);
            }
            builder.rule.output = builder.tensor(output)?;
            Ok(())
        };
        if let Err(reason) = parse() {
            builder.error = Some(ShardingError::Pattern { pattern: pattern.to_string(), reason });
        }
        builder
    }

    /// The name of the op.
    #[doc(hidden)]
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// All factors, in the order in which the rule names them.
    #[doc(hidden)]
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// The number of the factor `name`.
    #[doc(hidden)]
    pub fn factor(&self, name: &str) -> Option<usize> {
        self.factors.iter().position(|f| f.name == name)
    }

    /// The shape of the output.
    #[doc(hidden)]
    pub fn output_shape(&self) -> Shape {
        self.output.iter().map(|axis| self.axis_len(axis, |f| self.factors[f].extent)).collect()
    }

    fn axis_len(&self, axis: &Axis, len: impl Fn(usize) -> Dim) -> Dim {
        match axis.as_slice() {
            [f] => len(*f),
            // `bind` lets only fixed lengths into a compound dimension.
            axis => Dim::Fixed(axis.iter().map(|&f| len(f).fixed().unwrap_or(0)).product()),
        }
    }

    /// `(dim, minor)` for each axis of `axes` whose leading factor is `f`: the dimension, and how many of its
    /// elements one unit of `f` spans.
    fn led_by(&self, axes: &[Axis], f: usize) -> Option<(usize, usize)> {
        let dim = axes.iter().position(|axis| axis.first() == Some(&f))?;
        let minor = axes[dim][1..].iter().map(|&f| self.factors[f].extent.fixed().unwrap_or(1)).product();
        Some((dim, minor))
    }

    /// The factors of an input's (or, for `None`, the output's) dimensions that can carry a cut:
    /// `(dim, factor, elements of the dimension per unit of the factor)`.
    #[doc(hidden)]
    pub fn leading(&self, input: Option<usize>) -> Vec<(usize, usize, usize)> {
        let axes = input.map_or(&self.output, |i| &self.inputs[i]);
        let lead = |(dim, axis): (usize, &Axis)| {
            let f = *axis.first()?;
            self.led_by(axes, f).map(|(_, minor)| (dim, f, minor))
        };
        axes.iter().enumerate().filter_map(lead).collect()
    }

    /// Whether factor `f` is contracted away (it is in no output dimension), so that cutting it makes the output
    /// Partial.
    #[doc(hidden)]
    pub fn contracted(&self, f: usize) -> bool {
        !self.output.iter().flatten().any(|&g| g == f)
    }

    /// The numbers of the factors that may be cut.
    ///
    /// A factor may be cut unless it is marked whole, is the image of another one, or lies inside a compound
    /// dimension, where its intervals would not be contiguous. Of an op that makes a discrete choice only the factor
    /// of the choice may be cut, and its cut only says which rank chooses.
    pub fn cuttable(&self) -> Vec<usize> {
        if let Some(f) = self.decided() {
            return vec![f];
        }
        let follows = |f: usize, g: usize| g == f || self.factors[g].image.is_some_and(|(of, _)| of == f);
        let legal = |f: usize| {
            let factor = &self.factors[f];
            let tensors = || self.inputs.iter().chain([&self.output]);
            let leads = tensors().flatten().all(|axis| axis.iter().skip(1).all(|&g| !follows(f, g)));
            let once =
                tensors().all(|axes| axes.iter().filter(|axis| axis.iter().any(|&g| follows(f, g))).count() <= 1);
            !factor.whole && factor.image.is_none() && leads && once
        };
        (0..self.factors.len()).filter(|&f| legal(f)).collect()
    }

    /// The factor over which a discrete choice is made, if the op makes one.
    fn decided(&self) -> Option<usize> {
        self.factors.iter().position(|factor| factor.decided)
    }

    /// The cut of an op that makes a discrete choice when the plan leaves it whole: rank 0 chooses.
    #[doc(hidden)]
    pub fn decision(&self, world_size: usize) -> Option<(usize, Cut)> {
        let f = self.decided().filter(|_| world_size > 1)?;
        Some((f, Cut::undivided(self.factors[f].extent.fixed()?, world_size)))
    }

    /// Errors when `cut` is not a legal cut of factor `f` over `world_size` ranks.
    #[doc(hidden)]
    pub fn check(&self, f: usize, cut: &Cut, world_size: usize) -> Result<(), ShardingError> {
        let names = |fs: Vec<usize>| fs.iter().map(|&f| self.factors[f].name.as_str()).collect::<Vec<_>>().join(", ");
        // An image may be cut by hand where it is a node's own free factor: its node then computes the overlap.
        if !self.cuttable().contains(&f) {
            return Err(ShardingError::NotCuttable {
                op: self.op,
                factor: self.factors[f].name.clone(),
                rule: self.to_string(),
                allowed: names(self.cuttable()),
            });
        }
        let reason = match self.factors[f].extent {
            _ if cut.world_size() != world_size => {
                Some(format!("has {} intervals for {world_size} ranks", cut.world_size()))
            }
            Dim::Fixed(extent) => cut
                .problem(extent, self.contracted(f))
                .or_else(|| {
                    let divided = self.factors[f].decided && !cut.is_undivided(extent);
                    divided.then(|| "divides a decision: one rank has all of it, the others nothing".to_string())
                })
                .or_else(|| {
                    let granule = self.factors[f].granule;
                    let reason = format!(
                        "divides a block of a stored weight: intervals begin and end at multiples of {granule}"
                    );
                    (!cut.keeps(granule)).then_some(reason)
                }),
            Dim::Symbol(_) => Some("is of a size that only the call knows".to_string()),
        };
        match reason {
            None => Ok(()),
            Some(reason) => {
                Err(ShardingError::Cut { cut: cut.to_string(), factor: self.factors[f].name.clone(), reason })
            }
        }
    }

    /// The placements that a cut of factor `f` at `cut` needs of every input, and the placement of the output.
    #[doc(hidden)]
    pub fn placements(&self, f: usize, cut: &Cut) -> (Vec<Placement>, Placement) {
        let place = |axes: &[Axis]| -> Option<Placement> {
            let shard = |f: usize, cut: Cut| {
                self.led_by(axes, f).map(|(dim, minor)| Placement::Shard { dim, cut: cut.scale(minor) })
            };
            let images = self.factors.iter().enumerate().filter_map(|(g, factor)| match factor.image {
                Some((of, group)) if of == f => shard(g, cut.image(group)),
                _ => None,
            });
            shard(f, cut.clone()).into_iter().chain(images).next()
        };
        let inputs = self.inputs.iter().enumerate().map(|(i, axes)| match place(axes) {
            Some(placement) => placement,
            None if self.contracted(f) && self.addends.contains(&i) => Placement::Partial,
            None => Placement::Replicate,
        });
        let output = match place(&self.output) {
            Some(placement) => placement,
            None => Placement::Partial,
        };
        (inputs.collect(), output)
    }

    /// Takes the blocks of stored inputs into the cuts that are legal: `blocks[i]` is the number of elements along the last
    /// dimension of input `i` that are never divided, 1 where each stands by itself.
    #[doc(hidden)]
    pub fn set_blocks(&mut self, blocks: &[usize]) {
        self.factors.iter_mut().for_each(|factor| factor.granule = 1);
        for (i, &block) in blocks.iter().enumerate().filter(|(_, block)| **block > 1) {
            let Some(last) = self.inputs.get(i).and_then(|axes| axes.len().checked_sub(1)) else { continue };
            for (_, f, minor) in self.leading(Some(i)).into_iter().filter(|(dim, ..)| *dim == last) {
                // One unit of the factor spans `minor` elements of the dimension.
                let granule = block / gcd(block, minor);
                // The intervals of an image are those of another factor, divided by a group.
                let (f, granule) = self.factors[f].image.map_or((f, granule), |(of, group)| (of, granule * group));
                let factor = &mut self.factors[f];
                factor.granule = factor.granule / gcd(factor.granule, granule) * granule;
            }
        }
    }

    /// The part of every factor that `rank` works on under `cut`; `None` means that every rank works on the whole.
    #[doc(hidden)]
    pub fn extents(&self, cut: Option<(usize, &Cut)>, rank: usize) -> Vec<Extent> {
        let part = |(g, factor): (usize, &Factor)| {
            let range = cut.and_then(|(f, cut)| match factor.image {
                _ if g == f => Some(cut.range(rank)),
                Some((of, group)) if of == f => Some(cut.image(group).range(rank)),
                _ => None,
            });
            Extent {
                name: factor.name.clone(),
                offset: range.as_ref().map_or(0, |r| r.start),
                len: range.map_or(factor.extent, |r| Dim::Fixed(r.len())),
                global: factor.extent,
            }
        };
        self.factors.iter().enumerate().map(part).collect()
    }

    /// The shape of the output on a rank that works on `extents`.
    #[doc(hidden)]
    pub fn local_output(&self, extents: &[Extent]) -> Shape {
        self.output.iter().map(|axis| self.axis_len(axis, |f| extents[f].len)).collect()
    }

    /// Whether Partial inputs at exactly `inputs` give a Partial output: the op is linear in them and adds no other
    /// input.
    #[doc(hidden)]
    pub fn passes_partial(&self, inputs: &[usize]) -> bool {
        self.linear.iter().any(|set| set.len() == inputs.len() && inputs.iter().all(|i| set.contains(i)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        dims.iter().map(|&d| Dim::Fixed(d)).collect()
    }

    #[test]
    fn a_product_is_cut_three_ways_without_code_of_their_own() {
        let rule = ShardingRule::of("Linear", "b s k, n k, n -> b s n").addend(2);
        let rule = rule.bind(&[shape(&[1, 4, 10]), shape(&[6, 10]), shape(&[6])]).unwrap();
        assert_eq!(rule.output_shape(), shape(&[1, 4, 6]));
        let cut = Cut::by_ratio(6, &[2.0, 1.0]).unwrap();
        let (inputs, output) = rule.placements(rule.factor("n").unwrap(), &cut);
        assert_eq!(inputs[0], Placement::Replicate);
        assert_eq!(output, Placement::Shard { dim: 2, cut });
        let cut = Cut::by_ratio(10, &[2.0, 1.0]).unwrap();
        let (inputs, output) = rule.placements(rule.factor("k").unwrap(), &cut);
        assert_eq!(inputs[1], Placement::Shard { dim: 1, cut });
        assert_eq!((&inputs[2], &output), (&Placement::Partial, &Placement::Partial));
    }

    #[test]
    fn compound_dimensions_are_cut_at_their_leading_factor() {
        let rule = ShardingRule::of("Attention", "b s (h d), b t (g d) -> b s (h d)");
        let rule = rule.size("h", 6).size("d", 4).image("g", "h", 2).whole("s t d");
        let rule = rule.bind(&[shape(&[1, 3, 24]), shape(&[1, 3, 12])]).unwrap();
        assert_eq!(rule.cuttable().iter().map(|&f| rule.factors()[f].name.as_str()).collect::<Vec<_>>(), ["b", "h"]);
        let (inputs, _) = rule.placements(rule.factor("h").unwrap(), &Cut::by_ratio(6, &[1.0; 4]).unwrap());
        let Placement::Shard { cut, .. } = &inputs[1] else { panic!("KV heads are not cut") };
        assert_eq!(cut.to_string(), "0..4|4..8|8..12|8..12");
    }

    #[test]
    fn a_decision_is_never_divided() {
        let rule = ShardingRule::of("Routing", "b s e -> b s e").decided("e").bind(&[shape(&[1, 3, 6])]).unwrap();
        let (e, cut) = rule.decision(3).unwrap();
        assert_eq!((rule.cuttable(), cut.to_string().as_str()), (vec![e], "0..6|6..6|6..6"));
        assert!(rule.decision(1).is_none());
        let check = |ranges: [std::ops::Range<usize>; 3]| rule.check(e, &Cut::new(ranges.to_vec()), 3);
        assert!(check([0..0, 0..6, 6..6]).is_ok(), "a plan may say who decides");
        for divided in [[0..3, 3..6, 6..6], [0..6, 0..6, 6..6], [0..6, 5..6, 6..6]] {
            let error = check(divided).unwrap_err().to_string();
            assert!(error.contains("decision"), "{error}");
        }
        assert!(rule.check(rule.factor("s").unwrap(), &Cut::new(vec![0..1, 1..2, 2..3]), 3).is_err());
    }

    #[test]
    fn a_rule_refuses_what_does_not_fit_it() {
        let rule = || ShardingRule::of("Linear", "s k, n k -> s n");
        assert!(rule().bind(&[shape(&[4, 10]), shape(&[6, 11])]).is_err());
        assert!(rule().bind(&[shape(&[4, 10])]).is_err());
        assert!(ShardingRule::of("Bad", "a (b -> a").bind(&[]).is_err());
        let bound = rule().bind(&[shape(&[4, 10]), shape(&[6, 10])]).unwrap();
        let gap = Cut::new(vec![0..2, 3..6]);
        assert!(bound.check(bound.factor("n").unwrap(), &gap, 2).is_err());
    }
}
