//! The sentences that commands print on stderr after a text: why it ended, how many tokens it has and how fast they came.
//!
//! It prints nothing itself. Read `commands/run.rs` for who does.

use super::decision::Decision;
use fanfold::text::{FinishReason, Tokenizer};
use std::time::Duration;

/// Says why a text of `tokens` tokens ended, and which option would make it longer.
pub fn ended(reason: &FinishReason, tokens: usize, decision: &Decision, tokenizer: &Tokenizer) -> String {
    let (capacity, made_for) = (decision.limits.capacity, decision.made_for);
    let detail = match reason {
        FinishReason::EndToken(id) => format!(" {id} {:?}", tokenizer.token(*id).unwrap_or_default()),
        FinishReason::StopText(text) => format!(" {text:?}"),
        FinishReason::Length => format!(" ({}, as -n says)", counted(tokens, "token")),
        FinishReason::Context if capacity < made_for => {
            format!(" ({capacity} positions are full; -c raises it, up to the {made_for} that the model was made for)")
        }
        FinishReason::Context => format!(" ({capacity} positions are full, and the model was made for no more)"),
        FinishReason::Cancelled => String::new(),
    };
    format!("ended: {}{detail}", reason.name())
}

/// `24 tokens` or `1 token`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `24 tokens in 1.20 s, 21.3/s once warm`. The rate, in tokens per second, leaves out the first call of each shape, which
/// compiles kernels. It is not told where there is none.
pub fn timed(n: usize, what: &str, time: Duration, rate: Option<f64>) -> String {
    let rate = rate.map(|rate| format!(", {rate:.1}/s once warm")).unwrap_or_default();
    format!("{} in {:.2} s{rate}", counted(n, what), time.as_secs_f64())
}
