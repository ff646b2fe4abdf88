//! A mixture of experts in the place of a block's MLP: a router, and the gated MLPs of all experts as stacked
//! weights.
//!
//! Files hold one tensor per expert and projection; the graph's weight is the stack of them. It deliberately knows no
//! `model_type`. Read `mixtral.rs` for the plain case, `qwen2_moe.rs` for one with an expert that all tokens share.

use crate::graph::ValueId;
use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Block, BuildModule};
use crate::import::blocks::layers;
use crate::import::files::config::Config;
use crate::import::files::tensors::View;
use crate::ops::{Experts, ExpertsKind, Routing, UnaryFunction};

/// The most expert tensors that are accepted, in all layers together. The largest models known have some 70,000.
const MAX_EXPERT_TENSORS: usize = 1 << 18;

/// A module that is `mixed` in the layers for which `sparse` is true, and `dense` in the others.
pub(crate) fn by_layer(sparse: Vec<bool>, mixed: BuildModule, dense: BuildModule) -> BuildModule {
    Box::new(move |b, block, x| if sparse[block.index] { mixed(b, block, x) } else { dense(b, block, x) })
}

/// Tensor names of a mixture of experts.
#[derive(Clone, Copy)]
pub(crate) struct ExpertNames {
    /// The mixture's module in a block. Its router is `NAME.gate`, an expert's layer `NAME.experts.NUMBER.PART`.
    pub(crate) mixture: &'static str,
    /// The parts of an expert: gate projection, up projection, down projection.
    pub(crate) parts: [&'static str; 3],
}

/// The description of a mixture of experts, from which [`Mixture::build`] adds the nodes.
#[derive(Clone, Copy)]
pub(crate) struct Mixture {
    pub(crate) names: ExpertNames,
    pub(crate) hidden: usize,
    /// The inner width of one expert.
    pub(crate) inner: usize,
    pub(crate) experts: usize,
    pub(crate) routing: Routing,
    pub(crate) activation: UnaryFunction,
}

impl Mixture {
    /// The mixture that `config` describes, with experts of the inner width `inner`. Errors when a token chooses more
    /// experts than there are, or when there are too many in all layers together.
    pub(crate) fn read(
        b: &Builder<'_>,
        config: &Config,
        names: ExpertNames,
        inner: usize,
        normalize: bool,
    ) -> Result<Mixture, ImportError> {
        let (experts, top) =
            (config.usize(["num_local_experts", "num_experts"])?, config.usize("num_experts_per_tok")?);
        if top > experts {
            return Err(config.error("num_experts_per_tok", format!("{top} of {experts} experts")));
        }
        let layers = layers::count(config, "num_hidden_layers")?;
        // The products cannot overflow: each count is at most `MAX_SIZE`.
        if experts * layers > MAX_EXPERT_TENSORS / names.parts.len() {
            let reason = format!(
                "{experts} experts in each of {layers} layers; there may be {} together",
                MAX_EXPERT_TENSORS / names.parts.len()
            );
            return Err(config.error(["num_local_experts", "num_experts"], reason));
        }
        Ok(Mixture {
            names,
            hidden: config.usize("hidden_size")?,
            inner,
            experts,
            routing: Routing { top, normalize },
            activation: b.activation(config, "hidden_act")?,
        })
    }

    /// Adds the mixture's nodes. Its output is the sum over the experts that the router chooses of `gate *
    /// down(activation(gate_proj x) * up x)`.
    pub(crate) fn build(&self, b: &mut Builder<'_>, block: &Block, x: ValueId) -> Result<ValueId, ImportError> {
        let name = |part: &str| block.name(&format!("{}.{part}", self.names.mixture));
        let logits = b.linear(&name("gate"), x, [self.experts, self.hidden], false)?;
        let gates = b.graph.node(&name("routing"), self.routing, &[logits])?;
        let [gate, up, down] = self.names.parts;
        let (into, out) = ([self.inner, self.hidden], [self.hidden, self.inner]);
        let opened = self.product(b, block, (ExpertsKind::Up, gate, into), x, gates)?;
        let opened = b.unary(&name("experts.act"), self.activation, opened)?;
        let up = self.product(b, block, (ExpertsKind::Up, up, into), x, gates)?;
        let gated = b.mul(&name("experts.gated"), opened, up)?;
        self.product(b, block, (ExpertsKind::Down, down, out), gated, gates)
    }

    /// One projection of every expert, with the stack of their weights `part`, each of `shape`.
    fn product(
        &self,
        b: &mut Builder<'_>,
        block: &Block,
        (kind, part, shape): (ExpertsKind, &str, [usize; 2]),
        x: ValueId,
        gates: ValueId,
    ) -> Result<ValueId, ImportError> {
        let prefix = block.name(&format!("{}.experts", self.names.mixture));
        let tensors: Vec<String> = (0..self.experts).map(|e| format!("{prefix}.{e}.{part}.weight")).collect();
        let tensors: Vec<(&str, &[usize])> = tensors.iter().map(|tensor| (tensor.as_str(), &shape[..])).collect();
        let stack = |views: Vec<View>| Ok(views.iter().map(View::stacked).collect());
        let [rows, columns] = shape;
        let weight = b.joined(&format!("{prefix}.{part}.weight"), &tensors, &[self.experts, rows, columns], stack)?;
        Ok(b.graph.node(&format!("{prefix}.{part}"), Experts { kind }, &[x, weight, gates])?)
    }
}
