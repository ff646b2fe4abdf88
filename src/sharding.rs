//! How one op may be divided over ranks: factors, sharding rules, cuts and placements. Pure mathematics.
//!
//! It deliberately knows no op, no graph and no device: an op states its dimensions once, and every way to split it
//! is derived here. Read [`crate::ops`] next for the rules that ops state, then [`crate::plan`] for who chooses.
//!
//! The idea is T. Dettmers' ("How to Parallelize Deep Learning on GPUs, part 2: Model Parallelism"): cut a weight
//! along its second dimension and stack the partial outputs, or along its first and add them. Factors and their
//! notation follow Shardy and einops, placements follow PyTorch's DTensor.

use crate::error::{Result, ShardingError};
use crate::tensor::{Dim, Env, Shape, display_shape};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// Where a factor is cut: one interval per rank, of any sizes, empty ones allowed.
///
/// Intervals rise with the rank and cover the factor. They may overlap only where a factor is the image of another
/// (grouped heads); an overlap belongs to its lowest rank and is never summed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<[usize; 2]>", into = "Vec<[usize; 2]>")]
pub struct Cut {
    ranges: Vec<Range<usize>>,
}

impl From<Vec<[usize; 2]>> for Cut {
    fn from(pairs: Vec<[usize; 2]>) -> Cut {
        Cut::new(pairs.into_iter().map(|[start, end]| start..end).collect())
    }
}

impl From<Cut> for Vec<[usize; 2]> {
    fn from(cut: Cut) -> Self {
        cut.ranges.into_iter().map(|r| [r.start, r.end]).collect()
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.ranges.iter().map(|r| format!("{}..{}", r.start, r.end)).collect();
        f.pad(&ranges.join("|"))
    }
}

impl Cut {
    /// A cut with these intervals. Whether it does for a factor is checked by [`ShardingRule::check`].
    pub fn new(ranges: Vec<Range<usize>>) -> Cut {
        Cut { ranges }
    }

    /// `pieces` granules divided in proportion to `ratios`, one per rank, rounded by largest remainder.
    ///
    /// Ties go to the lower rank. Errors on negative or non-finite ratios, or when none is positive.
    pub fn by_ratio(pieces: usize, ratios: &[f64]) -> Result<Cut> {
        let sum: f64 = ratios.iter().sum();
        if ratios.iter().any(|r| !r.is_finite() || *r < 0.0) || sum <= 0.0 || !sum.is_finite() {
            return Err(crate::error::PlanError::Ratios(format!(
                "{ratios:?}: every one must be a number of at least 0 and one must be more"
            ))
            .into());
        }
        let shares: Vec<f64> = ratios.iter().map(|r| pieces as f64 * r / sum).collect();
        let mut counts: Vec<usize> = shares.iter().map(|s| s.floor() as usize).collect();
        let mut order: Vec<usize> = (0..ratios.len()).filter(|&r| ratios[r] > 0.0).collect();
        order.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()).then(a.cmp(&b)));
        let missing = pieces.saturating_sub(counts.iter().sum());
        for &rank in order.iter().cycle().take(missing) {
            counts[rank] += 1;
        }
        let mut start = 0;
        Ok(Cut::new(
            counts
                .into_iter()
                .map(|n| {
                    let range = start..start + n;
                    start = range.end;
                    range
                })
                .collect(),
        ))
    }

    /// Every rank holds all of `extent`.
    pub fn whole(extent: usize, world_size: usize) -> Cut {
        Cut::new(vec![0..extent; world_size])
    }

    /// The ranks it divides over.
    pub fn world_size(&self) -> usize {
        self.ranges.len()
    }

    /// What `rank` holds.
    pub fn range(&self, rank: usize) -> Range<usize> {
        self.ranges[rank].clone()
    }

    /// What `rank` holds and no lower rank does: overlaps belong to the lowest rank.
    pub fn owned(&self, rank: usize) -> Range<usize> {
        let range = self.range(rank);
        let before = self.ranges[..rank].iter().filter(|r| !r.is_empty()).map(|r| r.end).max().unwrap_or(0);
        range.start.max(before).min(range.end)..range.end
    }

    /// The same cut in units `n` times finer: from heads to columns.
    pub fn scale(&self, n: usize) -> Cut {
        Cut::new(self.ranges.iter().map(|r| r.start * n..r.end * n).collect())
    }

    /// The image under division by `group`: from query heads to the KV heads they read. Neighbours may overlap.
    pub fn image(&self, group: usize) -> Cut {
        let image =
            |r: &Range<usize>| r.start / group..if r.is_empty() { r.start / group } else { r.end.div_ceil(group) };
        Cut::new(self.ranges.iter().map(image).collect())
    }

    /// What is wrong with it as a cut of `extent` over `world_size` ranks, if anything.
    ///
    /// `partition` forbids overlaps: what is contracted must not be counted twice.
    fn problem(&self, extent: usize, partition: bool) -> Option<String> {
        let mut covered = 0;
        let mut start = 0;
        for (rank, range) in self.ranges.iter().enumerate() {
            if range.start > range.end || range.end > extent {
                return Some(format!("leaves 0..{extent} at rank {rank}"));
            }
            if range.is_empty() {
                continue;
            }
            if range.start > covered {
                return Some(format!("leaves {covered}..{} to no rank", range.start));
            }
            if range.start < start || range.end < covered {
                return Some(format!("falls back at rank {rank}: intervals must rise with the rank"));
            }
            if partition && range.start < covered {
                return Some(format!("gives {}..{covered} to two ranks: what is summed must not overlap", range.start));
            }
            (start, covered) = (range.start, range.end);
        }
        (covered < extent).then(|| format!("leaves {covered}..{extent} to no rank"))
    }
}

/// What the ranks hold of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Placement {
    /// All of it, on every rank.
    Replicate,
    /// One interval of dimension `dim` each.
    Shard {
        /// The dimension.
        dim: usize,
        /// The intervals, in elements of that dimension.
        cut: Cut,
    },
    /// Addends of it: the tensor is their sum over the ranks.
    Partial,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Replicate => f.pad("Replicate"),
            Placement::Shard { dim, cut } => f.pad(&format!("Shard({dim}: {cut})")),
            Placement::Partial => f.pad("Partial(Sum)"),
        }
    }
}

impl Placement {
    /// The shape `rank` holds of a tensor of `shape`.
    pub fn local_shape(&self, shape: &[Dim], rank: usize) -> Shape {
        let mut local = shape.to_vec();
        if let Placement::Shard { dim, cut } = self {
            local[*dim] = Dim::Fixed(cut.range(rank).len());
        }
        local
    }
}

/// How one [`Placement`] becomes another: the collective that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redistribute {
    /// Shard to Replicate: stack the parts.
    AllGather,
    /// Partial to Replicate: add the parts.
    AllReduce,
    /// Partial to Shard: add what each rank keeps.
    ReduceScatter,
    /// Shard to another Shard: exchange the boxes that differ.
    AllToAll,
    /// Replicate to Shard: local, keep a slice.
    AllSlice,
    /// Replicate to Partial: local, one rank keeps it and the others hold zeros.
    Zero,
}

impl Redistribute {
    /// The collective from `from` to `to`, or `None` when they are the same.
    pub fn between(from: &Placement, to: &Placement) -> Option<Redistribute> {
        use Placement::*;
        match (from, to) {
            (a, b) if a == b => None,
            (Replicate, Shard { .. }) => Some(Redistribute::AllSlice),
            (Replicate, _) => Some(Redistribute::Zero),
            (Partial, Shard { .. }) => Some(Redistribute::ReduceScatter),
            (Partial, _) => Some(Redistribute::AllReduce),
            (Shard { .. }, Shard { .. }) => Some(Redistribute::AllToAll),
            (Shard { .. }, _) => Some(Redistribute::AllGather),
        }
    }
}

impl fmt::Display for Redistribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Redistribute::AllGather => "all_gather",
            Redistribute::AllReduce => "all_reduce",
            Redistribute::ReduceScatter => "reduce_scatter",
            Redistribute::AllToAll => "all_to_all",
            Redistribute::AllSlice => "all_slice",
            Redistribute::Zero => "zero",
        })
    }
}

/// One dimension that an op relates across its inputs and its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Its letter in the rule.
    pub name: String,
    /// Its length.
    pub extent: Dim,
    /// Never cut: the axis of a softmax or a norm.
    pub whole: bool,
    /// `(f, group)`: its interval follows factor `f`'s, divided by `group`. KV heads follow query heads.
    pub image: Option<(usize, usize)>,
}

/// The part of one factor that a rank works on, as a kernel or the host evaluation receives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Extent {
    /// The factor's letter.
    pub name: String,
    /// Where the rank's part starts in the whole.
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
/// Written in einops' notation (`b s k, n k -> b s n`), bound to the shapes of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardingRule {
    op: &'static str,
    factors: Vec<Factor>,
    inputs: Vec<Vec<Axis>>,
    output: Vec<Axis>,
    addends: Vec<usize>,
    linear: Vec<Vec<usize>>,
}

/// A rule that is being stated; [`RuleBuilder::bind`] ends it.
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
            let factor = Factor { name: name.to_string(), extent: Dim::Fixed(1), whole: false, image: None };
            self.rule.factors.push(factor);
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

    /// States the length of factors that the inputs' shapes alone do not tell.
    pub fn size(mut self, name: &str, extent: impl Into<Dim>) -> RuleBuilder {
        let factor = self.factor(name);
        self.sizes[factor] = Some(extent.into());
        self
    }

    /// Factors that are never cut, by name.
    pub fn whole(mut self, names: &str) -> RuleBuilder {
        for name in names.split_whitespace() {
            let factor = self.factor(name);
            self.rule.factors[factor].whole = true;
        }
        self
    }

    /// The op is linear in these inputs taken together: Partial may pass through them.
    pub fn linear(mut self, inputs: &[usize]) -> RuleBuilder {
        self.rule.linear.push(inputs.to_vec());
        self
    }

    /// This input is added to what is contracted, so under a contracted cut it enters on one rank.
    pub fn addend(mut self, input: usize) -> RuleBuilder {
        self.rule.addends.push(input);
        self
    }

    /// `name`'s intervals follow those of `of`, divided by `group`.
    pub fn image(mut self, name: &str, of: &str, group: usize) -> RuleBuilder {
        let (factor, of) = (self.factor(name), self.factor(of));
        self.rule.factors[factor].image = Some((of, group));
        self
    }

    /// Binds the rule to the shapes of a node's inputs.
    ///
    /// Errors when the number of inputs or of dimensions is not the rule's, when a factor would have two lengths, or
    /// when a compound dimension does not divide.
    pub fn bind(mut self, inputs: &[Shape]) -> Result<ShardingRule> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let op = self.rule.op;
        let refuse = |reason: String| ShardingError::Inputs { op, reason };
        if inputs.len() != self.rule.inputs.len() {
            let expected = self.rule.inputs.len();
            return Err(refuse(format!("takes {expected} inputs, {} given", inputs.len())).into());
        }
        for (i, (shape, axes)) in inputs.iter().zip(&self.rule.inputs).enumerate() {
            if shape.len() != axes.len() {
                let reason = format!("input {i} has shape {}, the rule is {}", display_shape(shape), self.rule);
                return Err(refuse(reason).into());
            }
        }
        // Single factors first: they tell the lengths that compound dimensions are divided by.
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
                            return Err(ShardingError::Extent { op, factor, first, second: dim.to_string() }.into());
                        }
                        (&[f], [_], _, dim) => self.sizes[f] = Some(dim),
                        ([], _, Some(n), Dim::Fixed(m)) if n == m => {}
                        (&[f], _, Some(n), Dim::Fixed(m)) if n > 0 && m % n == 0 => {
                            self.sizes[f] = Some(Dim::Fixed(m / n))
                        }
                        _ => {
                            let shape = display_shape(shape);
                            return Err(
                                refuse(format!("input {i} of shape {shape} does not divide as {}", self.rule)).into()
                            );
                        }
                    }
                }
            }
        }
        for (f, size) in self.sizes.iter().enumerate() {
            match size {
                Some(extent) => self.rule.factors[f].extent = *extent,
                None => return Err(refuse(format!("the length of {} is not told", self.rule.factors[f].name)).into()),
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

    /// The op it belongs to.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// Its factors.
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// The factor called `name`.
    pub fn factor(&self, name: &str) -> Option<usize> {
        self.factors.iter().position(|f| f.name == name)
    }

    /// The shape of the output.
    pub fn output_shape(&self) -> Shape {
        self.output.iter().map(|axis| self.axis_len(axis, |f| self.factors[f].extent)).collect()
    }

    fn axis_len(&self, axis: &Axis, len: impl Fn(usize) -> Dim) -> Dim {
        match axis.as_slice() {
            [f] => len(*f),
            // `bind` lets only fixed lengths into a compound dimension of an input; an output made of symbols would
            // need products of symbols, which no op here has.
            axis => Dim::Fixed(axis.iter().map(|&f| len(f).fixed().unwrap_or(0)).product()),
        }
    }

    /// `(dim, minor)` for each axis of `axes` that `f` leads: the dimension and the elements per unit of `f`.
    fn led_by(&self, axes: &[Axis], f: usize) -> Option<(usize, usize)> {
        let dim = axes.iter().position(|axis| axis.first() == Some(&f))?;
        let minor = axes[dim][1..].iter().map(|&f| self.factors[f].extent.fixed().unwrap_or(1)).product();
        Some((dim, minor))
    }

    /// The factors of an input's (or, for `None`, the output's) dimensions that can carry a cut:
    /// `(dim, factor, elements of the dimension per unit of the factor)`.
    pub fn leading(&self, input: Option<usize>) -> Vec<(usize, usize, usize)> {
        let axes = input.map_or(&self.output, |i| &self.inputs[i]);
        let lead = |(dim, axis): (usize, &Axis)| {
            let f = *axis.first()?;
            self.led_by(axes, f).map(|(_, minor)| (dim, f, minor))
        };
        axes.iter().enumerate().filter_map(lead).collect()
    }

    /// Whether `f` is contracted away: cutting it gives Partial.
    pub fn contracted(&self, f: usize) -> bool {
        !self.output.iter().flatten().any(|&g| g == f)
    }

    /// The factors that may be cut.
    ///
    /// A factor may be cut unless it is marked whole, is the image of another, or lies inside a compound dimension,
    /// where its intervals would not be contiguous.
    pub fn cuttable(&self) -> Vec<usize> {
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

    /// Checks that `cut` does for factor `f` over `world_size` ranks.
    pub fn check(&self, f: usize, cut: &Cut, world_size: usize) -> Result<()> {
        let names = |fs: Vec<usize>| fs.iter().map(|&f| self.factors[f].name.as_str()).collect::<Vec<_>>().join(", ");
        // An image may be cut by hand where it is a node's own free factor: its node then computes the overlap.
        if !self.cuttable().contains(&f) {
            return Err(ShardingError::NotCuttable {
                op: self.op,
                factor: self.factors[f].name.clone(),
                rule: self.to_string(),
                allowed: names(self.cuttable()),
            }
            .into());
        }
        let reason = match self.factors[f].extent {
            _ if cut.world_size() != world_size => {
                Some(format!("has {} intervals for {world_size} ranks", cut.world_size()))
            }
            Dim::Fixed(extent) => cut.problem(extent, self.contracted(f)),
            Dim::Symbol(_) => Some("is of a size that only the call knows".to_string()),
        };
        match reason {
            None => Ok(()),
            Some(reason) => {
                Err(ShardingError::Cut { cut: cut.to_string(), factor: self.factors[f].name.clone(), reason }.into())
            }
        }
    }

    /// What cutting `f` at `cut` asks of every input and makes of the output.
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

    /// The part of every factor that `rank` works on under `cut` (`None`: the whole on every rank).
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

    /// The output's shape on a rank that works on `extents`.
    pub fn local_output(&self, extents: &[Extent]) -> Shape {
        self.output.iter().map(|axis| self.axis_len(axis, |f| extents[f].len)).collect()
    }

    /// Whether Partial on exactly `inputs` passes through: the op is linear in them and takes no other addend.
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
    fn ratios_round_by_largest_remainder() {
        let cut = Cut::by_ratio(6, &[5.0, 2.0, 1.0]).unwrap();
        assert_eq!(cut.to_string(), "0..4|4..5|5..6");
        assert_eq!(Cut::by_ratio(3, &[1.0; 5]).unwrap().to_string(), "0..1|1..2|2..3|3..3|3..3");
        assert_eq!(Cut::by_ratio(7, &[0.0, 1.0]).unwrap().to_string(), "0..0|0..7");
        assert!(Cut::by_ratio(7, &[0.0, f64::NAN]).is_err());
        assert!(Cut::by_ratio(7, &[]).is_err());
    }

    #[test]
    fn one_kv_head_serves_five_ranks() {
        let heads = Cut::by_ratio(7, &[1.0; 5]).unwrap();
        let kv = heads.image(7);
        assert_eq!(kv.to_string(), "0..1|0..1|0..1|0..1|0..1");
        assert_eq!((0..5).map(|r| kv.owned(r).len()).collect::<Vec<_>>(), [1, 0, 0, 0, 0]);
        assert_eq!(kv.problem(1, false), None);
        assert!(kv.problem(1, true).is_some());
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
