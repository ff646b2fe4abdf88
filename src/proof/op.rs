//! The tests that the crate holds its own ops to, for any op: cut in every way its rule allows, and run on any device.
//!
//! A case is one node with random inputs. The host evaluates it whole; its parts, on hosts or on other devices, must put
//! together to the same. It deliberately knows no op by name. Read [`crate::ops::Operator`] for how an op is written and
//! `examples/own_op.rs` for one that is tested so.

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

/// How much a cut sum on hosts, or by default the result of another device, may differ: relative to the largest element, or to 1.
const TOLERANCE: f64 = 1e-5;

/// How many ranks a case is cut over on hosts.
const HOSTS: RangeInclusive<usize> = 1..=8;

/// How many ranks a case is cut over on devices. These take long to open, so none is opened for a cut that cuts nothing.
const DEVICES: RangeInclusive<usize> = 2..=4;

/// Why an op does not pass.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpProofError {
    /// The results of two ways to evaluate a case differ.
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
        /// The first element that differs by more than is allowed, counted row-major.
        element: usize,
        /// What it is.
        found: f64,
        /// What it should be.
        expected: f64,
        /// The largest difference, relative to the largest element or to 1.
        error: f64,
        /// The largest difference allowed; 0 asks for the same bits.
        allowed: f64,
    },
    /// The result is of another shape or element type than the rule says.
    #[error("{op}, case {seed}, {how}: the result is {found}, not {expected}")]
    Form {
        /// The op's name.
        op: String,
        /// The seed of the case.
        seed: u64,
        /// What was run.
        how: String,
        /// Its type and shape.
        found: String,
        /// The type and shape that it should be of.
        expected: String,
    },
    /// A case did not run.
    #[error("{op}, case {seed}, {how}: {cause}")]
    Failed {
        /// The op's name.
        op: String,
        /// The seed of the case.
        seed: u64,
        /// What was run.
        how: String,
        /// Why not.
        cause: Box<Error>,
    },
}

/// All checks of an op at once, on a random case for each of `seeds`, which `make` makes; returns how many cuts were tried.
///
/// [`check_rule`] first. Where `open` opens a device, [`check_device`], [`check_cuts_on`] and [`check_columns`] follow, with a
/// tolerance of 1e-5. Errors at the first difference, with the op, the case, the factor and the cut, and when a case does not
/// run.
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

/// The rule theorem: the parts of an op put together are the whole. Returns how many cuts were tried.
///
/// Each case is cut along every factor that its rule lets be cut, over 1 to 8 ranks at random places, so that some ranks have
/// nothing, and evaluated by [`Operator::evaluate`](crate::ops::Operator::evaluate). A cut that adds nothing must give the
/// whole's bits, one of a sum the same numbers within 1e-5, since each part is rounded to f32 before it is added.
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

/// The kernel against the host: each case whole on the device that `open` opens. Returns the largest error.
///
/// Elements may differ by `tolerance`, relative to the largest element of the result or to 1; 1e-5 is what the crate's own ops
/// keep. Errors as [`check_op`].
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

/// The kernel on parts: as [`check_rule`], over 2 to 4 devices that `open` opens one by one, against the host's whole within
/// `tolerance`. Returns how many cuts were tried.
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

/// Column cuts are exact: cut along any factor that is kept in the output, the parts on 2 to 4 devices have the bits of the
/// whole on one. Returns how many cuts were tried.
///
/// It holds for a kernel whose order of reduction, variant and constants do not depend on how much of a kept factor there is.
/// `open` opens devices of one kind. Errors as [`check_op`].
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

/// Runs `check` on the case of each seed, and adds up what it counts.
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

/// A cut of `factor` over `world` ranks at random places, empty intervals included; all on one rank where the factor is
/// what a discrete choice is made over.
#[doc(hidden)]
pub fn random_cut(random: &mut Random, factor: &Factor, world: usize) -> Cut {
    let extent = factor.extent.fixed().unwrap_or(0);
    let mut bounds: Vec<usize> = if factor.decided {
        let owner = random.range(0, world - 1);
        (1..world).map(|rank| if rank <= owner { 0 } else { extent }).collect()
    } else {
        (1..world).map(|_| random.range(0, extent)).collect()
    };
    bounds.sort_unstable();
    let starts = [vec![0], bounds.clone()].concat();
    let ends = [bounds, vec![extent]].concat();
    Cut::new(starts.into_iter().zip(ends).map(|(start, end)| start..end).collect())
}

const NODE: &str = "node";

/// A graph of one node, with what it is run on.
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
            // A state starts as zeros, so a case gives its contents with the call.
            ids.push(match role {
                Role::Weight => self.graph.weight(&name, shape, tensor.dtype())?,
                Role::Input | Role::State => self.graph.input(&name, shape, tensor.dtype())?,
            });
            let tensors = if *role == Role::Weight { &mut self.weights } else { &mut self.inputs };
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

    /// The output of one rank per device, the node cut as `cut` says.
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

    /// Calls `check` with a random cut of each factor of the node that may be cut and that `wanted` wants, given whether it is
    /// contracted: with the words for it, the cut, its ranks, and the same.
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

/// By how much two results differ.
struct Difference {
    /// The largest difference, relative to the largest element or to 1.
    largest: f64,
    /// The first element that differs by more than is allowed, what it is and what it should be.
    first: Option<(usize, f64, f64)>,
}

/// By how much two tensors of one shape and type differ, where `allowed` is allowed; `None` for the same bits.
///
/// The scale is at least 1 because Silu of -100 is 4e-42, which a GPU may call 0.
fn difference(found: &Tensor, expected: &Tensor, allowed: f64) -> Option<Difference> {
    if found == expected {
        return None;
    }
    // What a node makes is f32 or u32.
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
        // A NaN is the largest difference there is.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        largest = largest.max(error);
        if error > allowed || allowed == 0.0 && one != two {
            first = first.or(Some((element, x, y)));
        }
    }
    Some(Difference { largest, first })
}
