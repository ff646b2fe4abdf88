//! The tests that the crate holds its own ops to, for any op: cut in every way its rule allows, and run on any device.
//!
//! A case is one node with random inputs. The host evaluates it whole; its parts, on hosts or on other devices, must put
//! together to the same. It deliberately knows no op by name. Read [`crate::ops::Operator`] for how an op is written and
//! `examples/own_op.rs` for one that is tested so.

use super::selftest::Open;
use crate::device::Device;
use crate::device::host::HostDevice;
use crate::error::Error;
use crate::graph::Graph;
use crate::ops::sample::{Role, Sample};
use crate::plan::{NodeCut, Plan};
use crate::program::lower;
use crate::random::Random;
use crate::session::{Options, Session, Tensors};
use crate::shape::{Dim, Env};
use crate::sharding::{Cut, Factor};
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// How much the result of a cut sum, or of another device, may differ: relative to the largest element, or to 1.
const TOLERANCE: f64 = 1e-5;

/// The most ranks that a case is cut over: on hosts, and on devices that are opened for each.
const MAX_WORLD: [usize; 2] = [8, 3];

/// Why an op does not pass.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpProofError {
    /// The op's parts put together are not the whole.
    #[error("{op}: {how}, the result differs by {error:.1e} at element {element}, {allowed:.0e} is allowed")]
    Differs {
        /// The op's name.
        op: String,
        /// What was run: `whole on lavapipe`, or `factor n cut 0..3|3..7`.
        how: String,
        /// The largest difference, relative to the largest element or to 1.
        error: f64,
        /// The element that differs by so much, counted row-major.
        element: usize,
        /// The largest difference allowed.
        allowed: f64,
    },
    /// The case did not run.
    #[error("{op}: {how}: {cause}")]
    Failed {
        /// The op's name.
        op: String,
        /// What was run.
        how: String,
        /// Why not.
        cause: Error,
    },
}

/// Checks an op on `cases` random cases, which `sample` makes; returns how many cuts were tried.
///
/// Each case is cut along every factor that its rule lets be cut, over 1 to 8 ranks at random places, some of them empty, and
/// evaluated on hosts. Cuts that add nothing must give the same bits, cuts of a sum the same numbers within 1e-5. Where
/// `open` opens a device, the case also runs on it, whole and cut over up to 3 of them, against the host's result.
///
/// Errors at the first difference, with the op, the factor and the cut, and when a case does not run.
pub fn check_op(
    sample: &dyn Fn(&mut Random) -> Sample,
    cases: usize,
    open: Option<&Open<'_>>,
) -> Result<usize, OpProofError> {
    let mut random = Random::new(0);
    (0..cases).try_fold(0, |cuts, _| Ok(cuts + check_case(&sample(&mut random), &mut random, open)?))
}

/// Checks one case as [`check_op`] does; returns how many cuts were tried. Errors as [`check_op`].
#[doc(hidden)]
pub fn check_case(sample: &Sample, random: &mut Random, open: Option<&Open<'_>>) -> Result<usize, OpProofError> {
    let op = sample.op.name();
    let failed = |how: &str, cause: Error| OpProofError::Failed { op: op.into(), how: how.into(), cause };
    let case = Case::new(sample).map_err(|cause| failed("as a graph", cause))?;
    let whole = case.run(None, hosts(1)).map_err(|cause| failed("whole on the host", cause))?;
    let differs = |how: String, found: &Tensor, allowed: f64| match difference(found, &whole) {
        Some((error, element)) if error > allowed => {
            Err(OpProofError::Differs { op: op.into(), how, error, element, allowed })
        }
        _ => Ok(()),
    };
    let opened = |world: usize| -> Result<Vec<Box<dyn Device>>, Error> {
        open.map_or_else(|| Ok(hosts(world)), |open| (0..world).map(|_| Ok(open()?)).collect())
    };
    if open.is_some() {
        let found = opened(1).and_then(|devices| case.run(None, devices));
        differs("whole on the device".into(), &found.map_err(|e| failed("whole on the device", e))?, TOLERANCE)?;
    }
    let rule = &case.graph.nodes()[0].rule;
    let factors = rule.cuttable();
    for &f in &factors {
        let factor = &rule.factors()[f];
        let world = random.range(1, MAX_WORLD[usize::from(open.is_some())]);
        let cut = random_cut(random, factor, world);
        let how = format!("factor {} cut {cut}", factor.name);
        let entry = NodeCut { node: NODE.into(), factor: factor.name.clone(), cut };
        let found = opened(world).and_then(|devices| case.run(Some(entry), devices));
        let found = found.map_err(|cause| failed(&how, cause))?;
        // Each partial sum is rounded to f32 before it is added, which one sum in f64 is not.
        let exact = open.is_none() && !rule.contracted(f);
        differs(how, &found, if exact { 0.0 } else { TOLERANCE })?;
    }
    Ok(factors.len())
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
    graph: Graph,
    weights: HashMap<String, Tensor>,
    inputs: Tensors,
    env: Env,
}

impl Case {
    fn new(sample: &Sample) -> Result<Case, Error> {
        let mut graph = Graph::new();
        let (mut weights, mut inputs) = (HashMap::new(), Tensors::new());
        let mut ids = Vec::new();
        for (i, (role, tensor)) in sample.inputs.iter().enumerate() {
            let name = format!("in{i}");
            let shape: Vec<Dim> = tensor.shape().iter().map(|&n| n.into()).collect();
            // A state starts as zeros, so a case gives its contents with the call.
            ids.push(match role {
                Role::Weight => graph.weight(&name, shape, tensor.dtype())?,
                Role::Input | Role::State => graph.input(&name, shape, tensor.dtype())?,
            });
            let tensors = if *role == Role::Weight { &mut weights } else { &mut inputs };
            tensors.insert(name, tensor.clone());
        }
        let output = graph.node(NODE, sample.op.clone(), &ids)?;
        graph.output("out", output)?;
        Ok(Case { graph, weights, inputs, env: Env { past: sample.past, ..Env::prompt(1) } })
    }

    /// The output of one rank per device, the node cut as `cut` says.
    fn run(&self, cut: Option<NodeCut>, devices: Vec<Box<dyn Device>>) -> Result<Tensor, Error> {
        let mut plan = Plan::whole(&self.graph, devices.len()).build()?;
        plan.nodes.extend(cut);
        let limits = Env { capacity: self.env.past + self.env.seq, ..self.env };
        let options = Options::new(limits);
        let weights = Arc::new(self.weights.clone());
        let mut session = Session::open(lower(&self.graph, &plan)?, devices, weights, options, Arc::new(|_| ()))?;
        let outputs = session.run(self.env, self.inputs.clone())?;
        Ok(outputs.into_values().next().unwrap_or_else(|| Tensor::zeros(crate::tensor::DType::F32, [0])))
    }
}

fn hosts(n: usize) -> Vec<Box<dyn Device>> {
    (0..n).map(|_| Box::new(HostDevice::new()) as Box<dyn Device>).collect()
}

/// The largest difference, relative to the largest element of `whole` or to 1, and where it is; `None` for the same bits.
///
/// The 1 is there because Silu of -100 is 4e-42, which a GPU may call 0.
fn difference(found: &Tensor, whole: &Tensor) -> Option<(f64, usize)> {
    if found == whole {
        return None;
    }
    let (Ok(a), Ok(b)) = (found.as_f32(), whole.as_f32()) else { return Some((f64::INFINITY, 0)) };
    if found.shape() != whole.shape() {
        return Some((f64::INFINITY, 0));
    }
    let scale = b.iter().fold(1.0f64, |max, &x| max.max(f64::from(x).abs()));
    let each = a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).abs() / scale);
    // A NaN is the largest difference there is.
    let each = each.map(|error| if error.is_nan() { f64::INFINITY } else { error });
    each.zip(0..).max_by(|a, b| a.0.total_cmp(&b.0))
}
