//! Checks a call before any device or peer sees it: its sizes against the limits, its inputs against the program.
//!
//! It deliberately knows neither devices nor peers: it compares shapes and numbers. Read `threads.rs` and `rank.rs`
//! for the two callers; a session or rank that refuses a call stays usable.

use super::error::SessionError;
use super::shards::Tensors;
use crate::shape::{Dim, Env, Limits, display_shape, resolve};
use crate::tensor::DType;

/// Errors when a call of `env` is beyond `limits`: in positions, in sequences, or in tokens of all sequences together.
pub(super) fn check_env(env: &Env, limits: &Limits) -> Result<(), SessionError> {
    if env.past.saturating_add(env.seq) > limits.capacity {
        let (tokens, capacity) = (env.past.saturating_add(env.seq), limits.capacity);
        return Err(SessionError::Context { tokens, capacity });
    }
    let bounds = [("batch", env.batch, limits.batch), ("seq", env.seq, limits.seq), ("keep", env.keep, limits.keep)];
    for (name, value, limit) in bounds {
        if value == 0 || value > limit || env.keep > env.seq {
            let reason = format!("{value} is outside 1..={limit}, the session's limit");
            return Err(SessionError::Input { name: name.to_string(), reason });
        }
    }
    let tokens = env.batch.saturating_mul(env.seq);
    if tokens > limits.tokens {
        let reason =
            format!("{} sequences of {} are {tokens} tokens, the session takes {}", env.batch, env.seq, limits.tokens);
        return Err(SessionError::Input { name: "batch".to_string(), reason });
    }
    Ok(())
}

/// Errors when the input called `name` is missing from `inputs`, or is not of `shape` under `env` and of type `dtype`.
pub(super) fn check_input(
    env: &Env,
    inputs: &Tensors,
    (name, shape, dtype): (&str, &[Dim], DType),
) -> Result<(), SessionError> {
    let refuse = |reason| SessionError::Input { name: name.to_string(), reason };
    let tensor = inputs.get(name).ok_or_else(|| refuse("is missing".to_string()))?;
    let shape = resolve(shape, env);
    if tensor.shape() != shape || tensor.dtype() != dtype {
        let (found, needed) = (display_shape(tensor.shape()), display_shape(&shape));
        return Err(refuse(format!("is {} {found}, the call needs {} {needed}", tensor.dtype(), dtype)));
    }
    Ok(())
}
