//! A mixture of experts where a block has its MLP: a router, and the gated MLPs of all experts as one.
//!
//! Files hold a tensor for each expert; the graph's weight is the stack of them. It deliberately knows no `model_type`.
//! Read `mixtral.rs` for the plain case, `qwen2_moe.rs` for one with an expert that all tokens share.

use crate::graph::ValueId;
use crate::import::ImportError;
use crate::import::blocks::builder::Builder;
use crate::import::blocks::decoder::{Block, BuildModule};
use crate::import::blocks::layers;
use crate::import::files::config::Config;
use crate::import::files::tensors::View;
use crate::ops::{Experts, ExpertsKind, Routing, UnaryFunction};

/// More tensors of experts than this, in all layers together, are a mistake: the largest models known have some 70,000.
const MAX_EXPERT_TENSORS: usize = 1 << 18;

/// `mixed` for the layers where `sparse` says so, `dense` for the others.
pub(crate) fn by_layer(sparse: Vec<bool>, mixed: BuildModule, dense: BuildModule) -> BuildModule {
    Box::new(move |b, block, x| if sparse[block.index] { mixed(b, block, x) } else { dense(b, block, x) })
}

/// How the tensors of a mixture are called.
#[derive(Clone, Copy)]
pub(crate) struct ExpertNames {
    /// The mixture in a block; its router is `NAME.gate`, an expert's products `NAME.experts.NUMBER.PART`.
    pub(crate) mixture: &'static str,
    /// The products that lead into the activation, past it, and down.
    pub(crate) parts: [&'static str; 3],
}

/// A mixture of experts as its family states it.
#[derive(Clone, Copy)]
pub(crate) struct Mixture {
    pub(crate) names: ExpertNames,
    pub(crate) hidden: usize,
    /// The width of one expert.
    pub(crate) inner: usize,
    pub(crate) experts: usize,
    pub(crate) routing: Routing,
    pub(crate) activation: UnaryFunction,
}

impl Mixture {
    /// As `config` sizes it, each expert `inner` wide.
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
        // Neither product can overflow: each count is at most `MAX_SIZE`.
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

    /// What the experts that the router chooses add up to: `down(activation(gate x) * up x)` of each, by its gate.
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

    /// The products by the weights called `part` of every expert, each of `shape`.
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
