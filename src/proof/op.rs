//! The tests that this crate's own ops have to pass, open to any op: it is cut in every way that its rule allows, and
//! run on any device.
//!
//! A case is one node with random inputs. The host evaluates it whole; the shards, computed on hosts or on other
//! devices and put together, must give the same result. This file deliberately knows no op by name. Read
//! [`crate::ops::Operator`] for how an op is written and `examples/own_op.rs` for one that is tested this way.

use super::selftest::Open;
use crate::device::Device;
use crate::device::host::HostDevice;
use crate::error::Error;
use crate::graph::{Graph, GraphError};
use crate::ops::sample::{Role, Sample};
use crate::plan::{NodeCut, Plan};
use crate::program::lower;
use crate::random::Random;
use crate::session::{Options, Session, Tensors};
use crate::shape::{Dim, Env};
use crate::sharding::{Cut, Factor};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

/// The largest difference allowed for a sum that is cut, and by default for the result of another device: relative to
/// the largest element or to 1, whichever is more.
const TOLERANCE: f64 = 1e-5;

/// Numbers of ranks that a case is cut over on hosts.
const HOSTS: RangeInclusive<usize> = 1..=8;

/// Numbers of ranks that a case is cut over on devices. A device takes long to open, so the case of one rank is left
/// out.
const DEVICES: RangeInclusive<usize> = 2..=4;

/// Why an op did not pass.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpProofError {
    /// A case gave another result in one way of running it than in another.
    #[error(
        "{op}, case {seed}, {how}: element {element} is {found:?}, not {expected:?}; the largest error is {error:.1e}, \
         {allowed:.0e} is allowed"
    )]
    Differs {
        /// The op's name.
        op: String,
        /// The seed of the case.
        seed: u64,
        /// What was run: `whole on the device`, or `factor n cut 0..3|3..7`.
        how: String,
        /// The index of the first element that differs by more than is allowed, row-major.
        element: usize,
        /// The element's value.
        found: f64,
        /// The value expected.
        expected: f64,
        /// The largest difference of any element, relative to the largest element or to 1.
        error: f64,
        /// The largest difference allowed; 0 demands the same bits.
        allowed: f64,
    },
    /// The result has another shape or dtype than the rule says.
    #[error("{op}, case {seed}, {how}: the result is {found}, not {expected}")]
    Form {
        /// The op's name.
        op: String,
        /// The seed of the case.
        seed: u64,
        /// What was run.
        how: String,
        /// The result's dtype and shape.
        found: String,
        /// The dtype and shape expected.
        expected: String,
    },
    /// A case failed to run.
    #[error("{op}, case {seed}, {how}: {cause}")]
    Failed {
        /// The op's name.
        op: String,
        /// The seed of the case.
        seed: u64,
        /// What was run.
        how: String,
        /// The error of the run.
        cause: Box<Error>,
    },
}

/// Runs all checks of an op on a random case for each of `seeds`, built by `make`; returns how many cuts were tried.
///
/// Runs [`check_rule`], and with `open` also [`check_device`], [`check_cuts_on`] and [`check_columns`] on the devices
/// that it opens, with a tolerance of 1e-5. Errors at the first difference, naming the op, the case, the factor and
/// the cut, and when a case fails to run.
pub fn check_op(
    make: &dyn Fn(&mut Random) -> Sample,
    seeds: Range<u64>,
    open: Option<&Open<'_>>,
) -> Result<usize, OpProofError> {
    let mut cuts = check_rule(make, seeds.clone())?;
    if let Some(open) = open {
        check_device(make, seeds.clone(), open, TOLERANCE)?;
        cuts += check_cuts_on(make, seeds.clone(), open, TOLERANCE)?;
        cuts += check_columns(make, seeds, open)?;
    }
    Ok(cuts)
}

/// Checks on the host that an op's rule is true: shards, put together as the rule says, equal the whole. Returns how
/// many cuts were tried.
///
/// Each case is cut along every factor that its rule allows, over 1 to 8 ranks at random places, so that some ranks
/// hold nothing, and evaluated by [`Operator::evaluate`](crate::ops::Operator::evaluate). A cut along a factor that
/// the output keeps must give the bits of the whole. A cut along a contracted factor makes partial sums, each rounded
/// to f32 before they are added; it may differ by 1e-5.
///
/// Errors as [`check_op`].
pub fn check_rule(
    make: &dyn Fn(&mut Random) -> Sample,
    seeds: impl IntoIterator<Item = u64>,
) -> Result<usize, OpProofError> {
    each(make, seeds, |case, random| {
        let whole = case.run("whole on the host", None, hosts(1))?;
        case.cuts(
            random,
            HOSTS,
            |_| true,
            |how, entry, world, contracted| {
                let found = case.run(how, Some(entry), hosts(world))?;
                case.compare(how, &found, &whole, if contracted { TOLERANCE } else { 0.0 })
            },
        )
    })
}

/// Checks an op's kernels against its host evaluation: runs each case whole on the device that `open` opens. Returns
/// the largest error.
///
/// Elements may differ by `tolerance`, relative to the largest element of the result or to 1; this crate's own ops
/// stay within 1e-5. Errors as [`check_op`].
pub fn check_device(
    make: &dyn Fn(&mut Random) -> Sample,
    seeds: impl IntoIterator<Item = u64>,
    open: &Open<'_>,
    tolerance: f64,
) -> Result<f64, OpProofError> {
    let mut largest = 0f64;
    each(make, seeds, |case, _| {
        let how = "whole on the device";
        let whole = case.run("whole on the host", None, hosts(1))?;
        let found = case.run(how, None, case.open(how, open, 1)?)?;
        case.compare(how, &found, &whole, tolerance)?;
        largest = largest.max(difference(&found, &whole, tolerance).map_or(0.0, |d| d.largest));
        Ok(0)
    })?;
    Ok(largest)
}

/// Checks an op's kernels on shards: cuts as [`check_rule`] does, over 2 to 4 devices that `open` opens one by one,
/// and compares with the whole on the host within `tolerance`. Returns how many cuts were tried.
///
/// The devices of one case may be of several kinds. Errors as [`check_op`].
#[doc(hidden)]
pub fn check_cuts_on(
    make: &dyn Fn(&mut Random) -> Sample,
    seeds: impl IntoIterator<Item = u64>,
    open: &Open<'_>,
    tolerance: f64,
) -> Result<usize, OpProofError> {
    each(make, seeds, |case, random| {
        let whole = case.run("whole on the host", None, hosts(1))?;
        case.cuts(
            random,
            DEVICES,
            |_| true,
            |how, entry, world, _| {
                let found = case.run(how, Some(entry), case.open(how, open, world)?)?;
                case.compare(how, &found, &whole, tolerance)
            },
        )
    })
}

/// Checks that column cuts are exact: cut along any factor that the output keeps, the shards on 2 to 4 devices have
/// the bits of the whole on one. Returns how many cuts were tried.
///
/// An op passes if its kernel, its constants and its order of summation do not depend on the length of a kept factor.
/// `open` must open devices of one kind. Errors as [`check_op`].
pub fn check_columns(
    make: &dyn Fn(&mut Random) -> Sample,
    seeds: impl IntoIterator<Item = u64>,
    open: &Open<'_>,
) -> Result<usize, OpProofError> {
    each(make, seeds, |case, random| {
        let how = "whole on the device";
        let whole = case.run(how, None, case.open(how, open, 1)?)?;
        case.cuts(
            random,
            DEVICES,
            |contracted| !contracted,
            |how, entry, world, _| {
                let found = case.run(how, Some(entry), case.open(how, open, world)?)?;
                case.compare(how, &found, &whole, 0.0)
            },
        )
    })
}

/// Runs `check` on the case of each seed and adds up the cuts that it counts.
fn each(
    make: &dyn Fn(&mut Random) -> Sample,
    seeds: impl IntoIterator<Item = u64>,
    mut check: impl FnMut(&Case, &mut Random) -> Result<usize, OpProofError>,
) -> Result<usize, OpProofError> {
    seeds.into_iter().try_fold(0, |count, seed| {
        let mut random = Random::new(seed);
        let sample = make(&mut random);
        Ok(count + check(&Case::new(&sample, seed)?, &mut random)?)
    })
}

/// A cut of `factor` over `world` ranks at random places, empty intervals included. A factor that a discrete choice is
/// made over, such as the experts of a top-k, stays whole on one random rank.
#[doc(hidden)]
pub fn random_cut(random: &mut Random, factor: &Factor, world: usize) -> Cut {
    let extent = factor.extent.fixed().unwrap_or(0);
    let mut bounds: Vec<usize> = if factor.decided {
        let owner = random.range(0, world - 1);
        (1..world).map(|rank| if rank <= owner { 0 } else { extent }).collect()
    } else {
        (1..world).map(|_| factor.granule * random.range(0, extent / factor.granule)).collect()
    };
    bounds.sort_unstable();
    let starts = [vec![0], bounds.clone()].concat();
    let ends = [bounds, vec![extent]].concat();
    Cut::new(starts.into_iter().zip(ends).map(|(start, end)| start..end).collect())
}

const NODE: &str = "node";

/// A graph of one node, with the inputs to run it on.
struct Case {
    op: &'static str,
    seed: u64,
    graph: Graph,
    weights: HashMap<String, Tensor>,
    inputs: Tensors,
    env: Env,
}

impl Case {
    fn new(sample: &Sample, seed: u64) -> Result<Case, OpProofError> {
        let env = Env { past: sample.past, ..Env::prompt(1) };
        let (weights, inputs) = Default::default();
        let mut case = Case { op: sample.op.name(), seed, graph: Graph::new(), weights, inputs, env };
        match case.build(sample) {
            Ok(()) => Ok(case),
            Err(cause) => Err(case.failed("as a graph", cause)),
        }
    }

    fn build(&mut self, sample: &Sample) -> Result<(), GraphError> {
        let mut ids = Vec::new();
        for (i, (role, tensor)) in sample.inputs.iter().enumerate() {
            let name = format!("in{i}");
            let shape: Vec<Dim> = tensor.shape().iter().map(|&n| n.into()).collect();
            // A KV cache starts as zeros. A case needs random contents, so it passes them as an input.
            let (id, tensors) = match *role {
                Role::Weight(format) => (self.graph.weight(&name, shape, format)?, &mut self.weights),
                Role::Input | Role::State => (self.graph.input(&name, shape, tensor.dtype())?, &mut self.inputs),
            };
            ids.push(id);
            tensors.insert(name, tensor.clone());
        }
        let output = self.graph.node(NODE, sample.op.clone(), &ids)?;
        self.graph.output("out", output)
    }

    fn failed(&self, how: &str, cause: impl Into<Error>) -> OpProofError {
        OpProofError::Failed { op: self.op.into(), seed: self.seed, how: how.into(), cause: Box::new(cause.into()) }
    }

    fn open(&self, how: &str, open: &Open<'_>, n: usize) -> Result<Vec<Box<dyn Device>>, OpProofError> {
        (0..n).map(|_| open().map_err(|cause| self.failed(how, cause))).collect()
    }

    /// Runs the node, cut as `cut` says, on one rank per device; returns the output.
    fn run(&self, how: &str, cut: Option<NodeCut>, devices: Vec<Box<dyn Device>>) -> Result<Tensor, OpProofError> {
        let run = || {
            let mut plan = Plan::whole(&self.graph, devices.len()).build()?;
            plan.nodes.extend(cut);
            let limits = Env { capacity: self.env.past + self.env.seq, ..self.env };
            let options = Options::new(limits);
            let weights = Arc::new(self.weights.clone());
            let mut session = Session::open(lower(&self.graph, &plan)?, devices, weights, options, Arc::new(|_| ()))?;
            Ok(session.run(self.env, self.inputs.clone())?.into_values().next())
        };
        // The graph has one output.
        let output = run().map_err(|cause: Error| self.failed(how, cause))?;
        Ok(output.unwrap_or_else(|| Tensor::zeros(DType::F32, [0])))
    }

    /// Calls `check` with a random cut of each factor that may be cut and that `wanted` accepts. `wanted` is given
    /// whether the factor is contracted; `check` is given a description, the cut, the number of ranks and whether the
    /// factor is contracted.
    fn cuts(
        &self,
        random: &mut Random,
        ranks: RangeInclusive<usize>,
        wanted: impl Fn(bool) -> bool,
        mut check: impl FnMut(&str, NodeCut, usize, bool) -> Result<(), OpProofError>,
    ) -> Result<usize, OpProofError> {
        let rule = &self.graph.nodes()[0].rule;
        let factors: Vec<usize> = rule.cuttable().into_iter().filter(|&f| wanted(rule.contracted(f))).collect();
        for &f in &factors {
            let factor = &rule.factors()[f];
            let world = random.range(*ranks.start(), *ranks.end());
            let cut = random_cut(random, factor, world);
            let how = format!("factor {} cut {cut}", factor.name);
            let entry = NodeCut { node: NODE.into(), factor: factor.name.clone(), cut };
            check(&how, entry, world, rule.contracted(f))?;
        }
        Ok(factors.len())
    }

    /// Errors when `found` differs from `expected` by more than `allowed`.
    fn compare(&self, how: &str, found: &Tensor, expected: &Tensor, allowed: f64) -> Result<(), OpProofError> {
        let (op, seed, how) = (self.op.to_string(), self.seed, how.to_string());
        let form = |tensor: &Tensor| format!("{} {:?}", tensor.dtype(), tensor.shape());
        if form(found) != form(expected) {
            return Err(OpProofError::Form { op, seed, how, found: form(found), expected: form(expected) });
        }
        match difference(found, expected, allowed) {
            Some(Difference { first: Some((element, found, expected)), largest }) => {
                Err(OpProofError::Differs { op, seed, how, element, found, expected, error: largest, allowed })
            }
            _ => Ok(()),
        }
    }
}

fn hosts(n: usize) -> Vec<Box<dyn Device>> {
    (0..n).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect()
}

/// The difference between two results.
struct Difference {
    /// The largest difference of any element, relative to the largest element or to 1.
    largest: f64,
    /// The first element that differs by more than is allowed: its index, its value and the value expected.
    first: Option<(usize, f64, f64)>,
}

/// The difference of two tensors of equal shape and dtype; `None` when all bits are equal.
///
/// Errors are relative to at least 1, because a result may be as small as 4e-42 (Silu of -100), which a GPU may round
/// to 0.
fn difference(found: &Tensor, expected: &Tensor, allowed: f64) -> Option<Difference> {
    if found == expected {
        return None;
    }
    // Nodes compute f32 or u32.
    let number = |word: [u8; 4]| match expected.dtype() {
        DType::U32 => f64::from(u32::from_le_bytes(word)),
        DType::F32 | DType::F16 | DType::BF16 => f64::from(f32::from_le_bytes(word)),
    };
    let (a, b) = (found.bytes().as_chunks::<4>().0, expected.bytes().as_chunks::<4>().0);
    let scale = b.iter().fold(1.0f64, |max, &word| max.max(number(word).abs()));
    let (mut largest, mut first) = (0f64, None);
    for (element, (&one, &two)) in a.iter().zip(b).enumerate() {
        let (x, y) = (number(one), number(two));
        let error = if one == two { 0.0 } else { (x - y).abs() / scale };
        // A NaN counts as an infinite difference.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        largest = largest.max(error);
        if error > allowed || allowed == 0.0 && one != two {
            first = first.or(Some((element, x, y)));
        }
    }
    Some(Difference { largest, first })
}
