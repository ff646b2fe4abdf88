//! Scalings of rotary frequencies, which let a model take longer texts than it was first trained for. There is a table
//! of the types.
//!
//! The formulas are those of transformers' `modeling_rope_utils.py`, in f64. Two of them depend there on the length
//! of the text so far; here that length is the session's capacity. `dynamic` stretches the base for a capacity above
//! `max_position_embeddings`; `longrope` takes `long_factor` for a capacity above `original_max_position_embeddings`
//! and `short_factor` up to there. Read `rope.rs` for the tables that are made of the frequencies.

use crate::import::ImportError;
use crate::import::files::config::Config;
use std::f64::consts::TAU;

/// A scaling with its settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// All frequencies are divided by `factor`.
    Linear {
        factor: f64,
    },
    /// The base grows with the capacity (NTK-aware scaling).
    Dynamic {
        factor: f64,
        original: f64,
    },
    /// Low frequencies are divided by `factor`, high ones are kept, and those between are a blend of both.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
    /// YaRN (Peng et al. 2023): the blend depends on the dimension, and cosines and sines are multiplied by
    /// `attention`. Pairs with more than `fast` rotations within the original context keep their frequency, those with fewer than
    /// `slow` are divided by `factor`.
    Yarn {
        factor: f64,
        attention: f64,
        fast: f64,
        slow: f64,
        truncate: bool,
        original: f64,
    },
    /// LongRoPE (Ding et al. 2024): a divisor for each frequency, one set for short contexts and one for long ones.
    Long {
        short: Vec<f64>,
        long: Vec<f64>,
        attention: f64,
        original: usize,
    },
}

/// Reads one type of scaling from its sources.
type Read = fn(&Sources<'_>) -> Result<Scaling, ImportError>;

/// The types by name. Older files of Phi-3 call longrope `su`.
const TYPES: &[(&str, Read)] = &[
    ("default", |_| Ok(Scaling::None)),
    ("linear", |s| Ok(Scaling::Linear { factor: s.parameters.positive("factor")? })),
    ("dynamic", dynamic),
    ("llama3", llama3),
    ("yarn", yarn),
    ("longrope", long),
    ("su", long),
];

/// Where a scaling's settings are read from: its parameters first, then the configuration around them.
struct Sources<'a> {
    config: &'a Config,
    parameters: &'a Config,
    rotated: usize,
}

impl Sources<'_> {
    /// The context that the model was first trained for.
    fn original(&self) -> Result<usize, ImportError> {
        const FIELD: &str = "original_max_position_embeddings";
        // Files written by transformers state it in both places. Both are read, so that neither is reported as unread.
        let (above, here) = (self.config.opt_usize(FIELD)?, self.parameters.opt_usize(FIELD)?);
        above.or(here).map_or_else(|| self.config.usize("max_position_embeddings"), Ok)
    }

    /// By how much the context was extended: `factor`, or the ratio of the two contexts.
    fn factor(&self) -> Result<f64, ImportError> {
        match self.parameters.opt_positive("factor")? {
            Some(factor) => Ok(factor),
            None => Ok(self.config.usize("max_position_embeddings")? as f64 / self.original()? as f64),
        }
    }
}

fn dynamic(s: &Sources<'_>) -> Result<Scaling, ImportError> {
    if s.rotated <= 2 {
        return Err(s.config.error("head_dim", "dynamic scaling needs heads that turn more than one pair"));
    }
    let factor = s.parameters.positive("factor")?;
    if factor < 1.0 {
        return Err(s.parameters.error("factor", format!("{factor} would shorten the context")));
    }
    Ok(Scaling::Dynamic { factor, original: s.config.usize("max_position_embeddings")? as f64 })
}

fn llama3(s: &Sources<'_>) -> Result<Scaling, ImportError> {
    let [factor, low, high] = ["factor", "low_freq_factor", "high_freq_factor"].map(|f| s.parameters.positive(f));
    let (factor, low, high) = (factor?, low?, high?);
    if low >= high {
        return Err(s.parameters.error("low_freq_factor", format!("{low} is not below high_freq_factor {high}")));
    }
    Ok(Scaling::Llama3 { factor, low, high, original: s.original()? as f64 })
}

fn yarn(s: &Sources<'_>) -> Result<Scaling, ImportError> {
    let p = s.parameters;
    let factor = s.factor()?;
    let louder = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    // As in transformers: when either of the two is missing or zero, both are ignored.
    let scales = [p.f64_or("mscale", 0.0)?, p.f64_or("mscale_all_dim", 0.0)?];
    let inferred = if scales.contains(&0.0) { louder(1.0) } else { louder(scales[0]) / louder(scales[1]) };
    let attention = p.positive_or("attention_factor", inferred)?;
    let (fast, slow) = (p.positive_or("beta_fast", 32.0)?, p.positive_or("beta_slow", 1.0)?);
    if fast < slow {
        return Err(p.error("beta_fast", format!("{fast} is below beta_slow {slow}")));
    }
    let (truncate, original) = (p.bool_or("truncate", true)?, s.original()? as f64);
    Ok(Scaling::Yarn { factor, attention, fast, slow, truncate, original })
}

fn long(s: &Sources<'_>) -> Result<Scaling, ImportError> {
    let (original, factor) = (s.original()?, s.factor()?);
    if original < 2 {
        return Err(s.config.error("original_max_position_embeddings", "must be above 1"));
    }
    let factors = |field: &str| -> Result<Vec<f64>, ImportError> {
        let factors = s.parameters.numbers(field)?;
        if factors.len() != s.rotated / 2 {
            let reason = format!("has {} factors for {} rotated pairs", factors.len(), s.rotated / 2);
            return Err(s.parameters.error(field, reason));
        }
        if factors.iter().any(|&factor| factor <= 0.0) {
            return Err(s.parameters.error(field, "divides by a number that is not above zero"));
        }
        Ok(factors)
    };
    let inferred = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() };
    let attention = s.parameters.positive_or("attention_factor", inferred)?;
    Ok(Scaling::Long { short: factors("short_factor")?, long: factors("long_factor")?, attention, original })
}

impl Scaling {
    /// The scaling that `parameters` state, for heads of which `rotated` dimensions are rotated. Errors on an unknown
    /// type.
    pub(crate) fn read(config: &Config, parameters: Option<&Config>, rotated: usize) -> Result<Scaling, ImportError> {
        let Some(parameters) = parameters else { return Ok(Scaling::None) };
        // A file that was saved by an older and then by a newer release has both names; the newer one counts.
        let older = parameters.str_or("type", "default")?;
        let kind = parameters.str_or("rope_type", older)?;
        let Some((_, read)) = TYPES.iter().find(|(name, _)| *name == kind) else {
            let supported = TYPES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(ImportError::Unsupported { what: "rope type", name: kind.to_string(), supported });
        };
        read(&Sources { config, parameters, rotated })
    }

    /// The frequency of each of `rotated / 2` pairs with the base `theta`, for a capacity of `capacity` positions,
    /// and the factor of cosines and sines.
    pub(crate) fn frequencies(&self, theta: f64, rotated: usize, capacity: usize) -> (Vec<f64>, f64) {
        let d = rotated as f64;
        let plain = |theta: f64| (0..rotated / 2).map(move |i| theta.powf(-2.0 * i as f64 / d));
        match self {
            Scaling::None => (plain(theta).collect(), 1.0),
            Scaling::Linear { factor } => (plain(theta).map(|f| f / factor).collect(), 1.0),
            Scaling::Dynamic { factor, original } => {
                let length = (capacity as f64).max(*original);
                let stretch = (factor * length / original - (factor - 1.0)).powf(d / (d - 2.0));
                (plain(theta * stretch).collect(), 1.0)
            }
            Scaling::Llama3 { factor, low, high, original } => {
                let scaled = |f: f64| {
                    let turns = original * f / TAU;
                    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - smooth) * f / factor + smooth * f
                };
                (plain(theta).map(scaled).collect(), 1.0)
            }
            Scaling::Yarn { factor, attention, fast, slow, truncate, original } => {
                // The dimension whose pair makes `turns` rotations within the original context.
                let dimension = |turns: f64| d * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
                let (mut low, mut high) = (dimension(*fast), dimension(*slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(d - 1.0));
                if low == high {
                    high += 0.001;
                }
                let scaled = |(i, f): (usize, f64)| {
                    let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    f / factor * divided + f * (1.0 - divided)
                };
                (plain(theta).enumerate().map(scaled).collect(), *attention)
            }
            Scaling::Long { short, long, attention, original } => {
                let divisors = if capacity > *original { long } else { short };
                (plain(theta).zip(divisors).map(|(f, divisor)| f / divisor).collect(), *attention)
            }
        }
    }

    /// The extended context, for scalings whose `max_position_embeddings` may still be the original one (dynamic,
    /// YaRN).
    fn stretched(&self) -> Option<f64> {
        match self {
            Scaling::Dynamic { factor, original } | Scaling::Yarn { factor, original, .. } => Some(factor * original),
            _ => None,
        }
    }

    /// See [`Rope::context`].
    pub(crate) fn context(&self, max_position_embeddings: usize) -> usize {
        self.stretched().map_or(max_position_embeddings, |n| max_position_embeddings.max(n as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::blocks::rope::Rope;
    use std::path::Path;

    /// Settings, the capacity, and what transformers 5.23.0 makes of them:
    ///
    /// ```python
    /// settings = dict(settings, rope_theta=500.0)
    /// config = LlamaConfig(hidden_size=40, num_attention_heads=4, head_dim=10, max_position_embeddings=256,
    ///                      rope_parameters=settings)
    /// ROPE_INIT_FUNCTIONS[settings["rope_type"]](config, "cpu", seq_len=capacity)
    /// ```
    #[rustfmt::skip]
    const CASES: &[(&str, usize, [f64; 5], f64)] = &[
        (r#"{"rope_type": "linear", "factor": 4.0}"#, 256,
            [0.25, 0.07213499, 0.02081383, 0.006005622, 0.001732862], 1.0),
        (r#"{"rope_type": "dynamic", "factor": 2.0}"#, 256,
            [1.0, 0.28854, 0.08325532, 0.02402249, 0.006931448], 1.0),
        (r#"{"rope_type": "dynamic", "factor": 2.0}"#, 1024,
            [1.0, 0.1773909, 0.03146755, 0.005582058, 0.0009902067], 1.0),
        (r#"{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 64}"#, 256,
            [1.0, 0.1992526, 0.01040692, 0.003002811, 0.000866431], 1.0),
        (r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}"#, 256,
            [1.0, 0.1803375, 0.02081383, 0.006005622, 0.001732862], 1.13862944),
        (r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 8,
             "beta_slow": 2, "truncate": false, "mscale": 0.7, "mscale_all_dim": 0.4}"#, 256,
            [1.0, 0.1322249, 0.02081383, 0.006005622, 0.001732862], 1.03940382),
        (r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
             "attention_factor": 1.5}"#, 256,
            [1.0, 0.1803375, 0.02081383, 0.006005622, 0.001732862], 1.5),
        (r#"{"rope_type": "yarn", "factor": null, "original_max_position_embeddings": 128}"#, 256,
            [1.0, 0.24045, 0.05550355, 0.01201124, 0.003465724], 1.06931472),
        (r#"{"type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4],
             "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0], "original_max_position_embeddings": 64}"#, 64,
            [1.0, 0.2623091, 0.06937943, 0.01847884, 0.004951034], 1.15470054),
        (r#"{"type": "su", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4],
             "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0], "original_max_position_embeddings": 64}"#, 65,
            [0.5, 0.09617999, 0.02081383, 0.004804497, 0.001155241], 1.15470054),
        (r#"{"rope_type": "default"}"#, 256, [1.0, 0.28854, 0.08325532, 0.02402249, 0.006931448], 1.0),
    ];

    fn read(json: &str) -> Result<Rope, ImportError> {
        Rope::of_part(&Config::parse(Path::new("config.json"), json.as_bytes())?, 10)
    }

    #[test]
    fn frequencies_are_those_of_transformers_in_both_spellings() {
        for (settings, capacity, expected, attention) in CASES {
            let newer = settings.replacen('{', r#"{"rope_theta": 500.0, "#, 1);
            for json in [
                format!(r#"{{"max_position_embeddings": 256, "rope_parameters": {newer}}}"#),
                format!(r#"{{"max_position_embeddings": 256, "rope_theta": 500.0, "rope_scaling": {settings}}}"#),
            ] {
                let rope = read(&json).unwrap();
                let (found, factor) = rope.frequencies(*capacity);
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found / expected - 1.0).abs() < 1e-6, "{json}: {found} for {expected}");
                }
                assert!((factor / attention - 1.0).abs() < 1e-8, "{json}: {factor} for {attention}");
            }
        }
    }

    #[test]
    fn a_part_of_a_head_turns_as_a_narrower_one_would() {
        let json = r#"{"partial_rotary_factor": 0.45, "rope_theta": 500.0}"#;
        let rope = read(json).unwrap();
        assert_eq!((rope.rotated, rope.pairs()), (4, 2));
        assert_eq!(rope.frequencies(9).0, [1.0, 500f64.powf(-0.5)]);
        let whole = Config::parse(Path::new("config.json"), json.as_bytes()).unwrap();
        let error = Rope::of_whole_heads(&whole, 10).unwrap_err().to_string();
        assert_eq!(error, "config.json: partial_rotary_factor: only 1 is supported in this family");
    }

    #[test]
    fn a_context_is_stretched_where_the_file_says_the_original() {
        for (settings, context) in [
            (r#"{"rope_type": "dynamic", "factor": 2.5}"#, 640),
            (r#"{"rope_type": "yarn", "factor": 4.0}"#, 1024),
            (r#"{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}"#, 256),
            (r#"{"rope_type": "linear", "factor": 4.0}"#, 256),
        ] {
            let rope = read(&format!(r#"{{"max_position_embeddings": 256, "rope_parameters": {settings}}}"#)).unwrap();
            assert_eq!(rope.context(256), context, "{settings}");
        }
    }

    #[test]
    fn senseless_settings_are_errors_that_name_the_field() {
        for (settings, says) in [
            (r#"{"rope_type": "ntk"}"#, "rope type \"ntk\" is not supported; supported: default, linear, dynamic"),
            (r#"{"rope_type": "linear"}"#, "rope_parameters.factor: is missing"),
            (
                r#"{"rope_type": "linear", "factor": 0}"#,
                "rope_parameters.factor: expected a number above zero, found 0",
            ),
            (r#"{"rope_type": "linear", "factor": "4"}"#, "rope_parameters.factor: expected a number above zero"),
            (r#"{"rope_type": "dynamic", "factor": 0.5}"#, "rope_parameters.factor: 0.5 would shorten the context"),
            (
                r#"{"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}"#,
                "low_freq_factor: 4 is not below high_freq_factor 4",
            ),
            (
                r#"{"rope_type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}"#,
                "beta_fast: 1 is below beta_slow",
            ),
            (
                r#"{"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1, 1]}"#,
                "short_factor: has 4 factors for 5 rotated pairs",
            ),
            (
                r#"{"rope_type": "longrope", "short_factor": [1, 1, 0, 1, 1], "long_factor": [1, 1, 1, 1, 1]}"#,
                "short_factor: divides by a number that is not above zero",
            ),
            (r#"{"rope_type": "longrope", "short_factor": 1}"#, "short_factor: expected a list of finite numbers"),
            (r#"{"partial_rotary_factor": 0.3}"#, "0.3 of heads of 10 turns 3 dimensions, which must be some pairs"),
            (r#"{"partial_rotary_factor": 1.2}"#, "1.2 of heads of 10"),
            (r#"{"rope_theta": 1}"#, "rope_theta: 1 is not above 1"),
        ] {
            let json = format!(r#"{{"max_position_embeddings": 256, "rope_parameters": {settings}}}"#);
            let error = read(&json).unwrap_err().to_string();
            assert!(error.contains(says), "{settings}: {error}");
        }
    }
}
