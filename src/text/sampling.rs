//! The choice of the next token from the logits: penalties first, then the most likely token, or a random one after
//! top-k, top-p, min-p and temperature.
//!
//! It deliberately knows no vocabulary: a token is an index. The same seed, tokens and logits give the same choice,
//! except that above temperature 0 the last bits of `exp` may differ between platforms. [`Sampler::sample`] is the whole
//! algorithm; `penalty.rs` holds its first step.

use super::penalty::Penalties;
use crate::text::TextError;

use crate::random::Random;
use std::collections::VecDeque;

/// How the next token is chosen.
///
/// The steps have llama.cpp's default order: penalties, top-k, top-p, min-p, temperature. Temperature comes last, so
/// that it never changes which tokens remain but only how likely each is drawn. Penalties apply at temperature 0, too.
///
/// ```
/// use fanfold::text::{Sampler, Sampling};
///
/// let mut sampler = Sampler::new(Sampling { temperature: 0.7, seed: 42, ..Sampling::default() })?;
/// let token = sampler.sample(&[0.1, 3.0, -1.0])?;
/// assert!(token < 3);
/// # Ok::<(), fanfold::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits. 0 takes the largest logit, the one with the lowest index if several are equal.
    pub temperature: f32,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens whose probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Penalties on tokens that have already occurred.
    pub penalties: Penalties,
    /// The seed of the random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.0, penalties: Penalties::default(), seed: 1 }
    }
}

impl Sampling {
    /// Settings that always choose the most likely token.
    pub fn greedy() -> Self {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    fn check(&self) -> Result<(), TextError> {
        let within = |setting, value: f32, fits: bool, range| {
            if fits { Ok(()) } else { Err(TextError::Sampling { setting, value, range }) }
        };
        let Sampling { temperature, top_p, min_p, .. } = *self;
        within("temperature", temperature, temperature.is_finite() && temperature >= 0.0, "0 or more, and finite")?;
        within("top-p", top_p, top_p > 0.0 && top_p <= 1.0, "(0, 1]")?;
        within("min-p", min_p, (0.0..=1.0).contains(&min_p), "[0, 1]")?;
        let Penalties { repeat, presence, frequency, .. } = self.penalties;
        within("repeat-penalty", repeat, repeat > 0.0 && repeat.is_finite(), "above 0, and finite")?;
        within("presence-penalty", presence, presence.is_finite(), "the finite numbers")?;
        within("frequency-penalty", frequency, frequency.is_finite(), "the finite numbers")
    }
}

/// Chooses tokens, one after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    /// The tokens of the prompt and those chosen so far, as many as the penalties look at.
    recent: VecDeque<u32>,
    // These buffers are kept from call to call, so that a decode step allocates nothing.
    candidates: Vec<Candidate>,
    penalised: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    token: u32,
}

impl Candidate {
    fn likelier_first(&self, other: &Self) -> std::cmp::Ordering {
        // NaN has been refused before, and -0 must be equal to 0.
        let by_logit = other.logit.partial_cmp(&self.logit).unwrap_or(std::cmp::Ordering::Equal);
        by_logit.then(self.token.cmp(&other.token))
    }
}

impl Sampler {
    /// A sampler with these settings, for one sequence.
    ///
    /// # Errors
    /// [`TextError::Sampling`] names the setting that is outside its range.
    pub fn new(sampling: Sampling) -> Result<Self, TextError> {
        sampling.check()?;
        let random = Random::new(sampling.seed);
        Ok(Sampler { sampling, random, recent: VecDeque::new(), candidates: Vec::new(), penalised: Vec::new() })
    }

    /// The settings.
    #[doc(hidden)]
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Records tokens that occurred earlier, such as a prompt's, for the penalties.
    #[doc(hidden)]
    pub fn accept(&mut self, tokens: &[u32]) {
        let last = self.sampling.penalties.reach();
        self.recent.extend(&tokens[tokens.len().saturating_sub(last)..]);
        self.recent.drain(..self.recent.len().saturating_sub(last));
    }

    /// Chooses a token, an index into `logits`, and records it.
    ///
    /// # Errors
    /// [`TextError::Logits`] when there are no logits, one is NaN or +infinity, or all are -infinity.
    #[doc(hidden)]
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, TextError> {
        let mut penalised = std::mem::take(&mut self.penalised);
        let token = match self.sampling.penalties.apply(&self.recent, logits, &mut penalised) {
            true => self.choose(&penalised),
            false => self.choose(logits),
        };
        self.penalised = penalised;
        let token = token?;
        self.accept(&[token]);
        Ok(token)
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, TextError> {
        let best = most_likely(logits)?;
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        if temperature == 0.0 {
            return Ok(best.token);
        }

        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend((0..).zip(logits).map(|(token, &logit)| Candidate { logit, token }));
        if top_k != 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, Candidate::likelier_first);
            candidates.truncate(top_k);
        }
        if candidates.len() < logits.len() || top_p < 1.0 {
            // Sorted even if only top-k is asked for: the order in which a selection leaves its elements may change
            // with the standard library.
            candidates.sort_unstable_by(Candidate::likelier_first);
        }
        let weight =
            |logit: f32, temperature: f32| ((f64::from(logit) - f64::from(best.logit)) / f64::from(temperature)).exp();
        if top_p < 1.0 {
            let total: f64 = candidates.iter().map(|c| weight(c.logit, 1.0)).sum();
            let mut sum = 0.0;
            let reached = candidates.iter().position(|c| {
                sum += weight(c.logit, 1.0);
                sum >= f64::from(top_p) * total
            });
            if let Some(last) = reached {
                candidates.truncate(last + 1);
            }
        }
        if min_p > 0.0 {
            candidates.retain(|c| weight(c.logit, 1.0) >= f64::from(min_p));
        }

        let total: f64 = candidates.iter().map(|c| weight(c.logit, temperature)).sum();
        let mut left = self.random.fraction() * total;
        // Rounding can leave a remainder after the last candidate. It goes to the most likely token, never to one with
        // weight 0.
        let drawn = candidates.iter().find(|c| {
            let weight = weight(c.logit, temperature);
            left -= weight;
            weight > 0.0 && left < 0.0
        });
        Ok(drawn.unwrap_or(&best).token)
    }
}

fn most_likely(logits: &[f32]) -> Result<Candidate, TextError> {
    let mut best: Option<Candidate> = None;
    for (token, &logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return Err(TextError::Logits("one is NaN"));
        }
        if best.is_none_or(|best| logit > best.logit) {
            best = Some(Candidate { logit, token });
        }
    }
    let best = best.ok_or(TextError::Logits("there are none"))?;
    match best.logit {
        f32::INFINITY => Err(TextError::Logits("one is +infinity")),
        f32::NEG_INFINITY => Err(TextError::Logits("all are -infinity")),
        _ => Ok(best),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const ALL: Sampling =
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, penalties: Penalties::NONE, seed: 7 };

    fn draws(sampling: Sampling, logits: &[f32], n: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling).unwrap();
        (0..n).map(|_| sampler.sample(logits).unwrap()).collect()
    }

    /// The definition, computed naively: the tokens that may be drawn.
    fn allowed(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        order.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap());
        if sampling.top_k > 0 {
            order.truncate(sampling.top_k);
        }
        let exp = |&t: &u32| (f64::from(logits[t as usize]) - f64::from(logits[order[0] as usize])).exp();
        let total: f64 = order.iter().map(exp).sum();
        let mut kept = Vec::new();
        let mut sum = 0.0;
        for token in &order {
            if sampling.top_p < 1.0 && sum / total >= f64::from(sampling.top_p) {
                break;
            }
            sum += exp(token);
            if exp(token) >= f64::from(sampling.min_p) {
                kept.push(*token);
            }
        }
        kept
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(draws(Sampling::greedy(), &[1.0, 3.0, 3.0, 2.0], 2), [1, 1]);
        assert_eq!(draws(Sampling::greedy(), &[-0.0, 0.0], 1), [0]);
        let one = Sampling { top_k: 1, ..ALL };
        assert_eq!(draws(one, &[1.0, 3.0, 3.0, 2.0], 4), [1; 4]);
        let sharp = Sampling { top_p: 0.01, ..ALL };
        assert_eq!(draws(sharp, &[1.0, 3.0, 3.0, 2.0], 4), [1; 4]);
    }

    #[test]
    fn frequencies_are_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0, -1.0, f32::NEG_INFINITY, 0.5];
        for temperature in [0.5f32, 1.0, 2.0] {
            let n = 100_000;
            let mut counts = [0f64; 6];
            for token in draws(Sampling { temperature, ..ALL }, &logits, n) {
                counts[token as usize] += 1.0;
            }
            let weights = logits.map(|l| f64::from(l / temperature).exp());
            let total: f64 = weights.iter().sum();
            assert_eq!(counts[4], 0.0);
            let chi_square: f64 = (0..6)
                .filter(|&i| i != 4)
                .map(|i| {
                    let expected = weights[i] / total * n as f64;
                    (counts[i] - expected).powi(2) / expected
                })
                .sum();
            // With 4 degrees of freedom, chi-squared exceeds 18.5 for one in a thousand seeds.
            assert!(chi_square < 18.5, "temperature {temperature}: chi-square {chi_square}");
        }
    }

    #[test]
    fn settings_outside_their_range_are_named() {
        let bad = [
            (Sampling { temperature: -0.1, ..ALL }, "temperature"),
            (Sampling { temperature: f32::NAN, ..ALL }, "temperature"),
            (Sampling { temperature: f32::INFINITY, ..ALL }, "temperature"),
            (Sampling { top_p: 0.0, ..ALL }, "top-p"),
            (Sampling { top_p: 1.1, ..ALL }, "top-p"),
            (Sampling { top_p: f32::NAN, ..ALL }, "top-p"),
            (Sampling { min_p: -0.1, ..ALL }, "min-p"),
            (Sampling { min_p: f32::NAN, ..ALL }, "min-p"),
            (Sampling { penalties: Penalties { repeat: 0.0, ..Penalties::NONE }, ..ALL }, "repeat-penalty"),
            (Sampling { penalties: Penalties { repeat: f32::NAN, ..Penalties::NONE }, ..ALL }, "repeat-penalty"),
            (
                Sampling { penalties: Penalties { presence: f32::INFINITY, ..Penalties::NONE }, ..ALL },
                "presence-penalty",
            ),
            (Sampling { penalties: Penalties { frequency: f32::NAN, ..Penalties::NONE }, ..ALL }, "frequency-penalty"),
        ];
        for (sampling, name) in bad {
            match Sampler::new(sampling) {
                Err(TextError::Sampling { setting, .. }) => assert_eq!(setting, name),
                other => panic!("{sampling:?}: {other:?}"),
            }
        }
        let message = Sampler::new(Sampling { top_p: 1.1, ..ALL }).unwrap_err().to_string();
        assert_eq!(message, "top-p 1.1 is outside (0, 1]");
    }

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        const NO: f32 = f32::NEG_INFINITY;
        for sampling in [Sampling::greedy(), Sampling::default()] {
            let mut sampler = Sampler::new(sampling).unwrap();
            for logits in [&[][..], &[NO, NO], &[1.0, f32::NAN], &[f32::NAN], &[f32::INFINITY, 0.0]] {
                let refused = sampler.sample(logits);
                assert!(matches!(refused, Err(TextError::Logits(_))), "{logits:?}: {refused:?}");
            }
            assert_eq!(sampler.sample(&[NO, -3.0, NO]).unwrap(), 1);
        }
    }

    #[test]
    fn extreme_logits_and_temperatures_draw_a_possible_token() {
        let tiny = Sampling { temperature: f32::MIN_POSITIVE, ..ALL };
        assert_eq!(draws(tiny, &[f32::MIN, 1.0, f32::MAX], 3), [2; 3]);
        let hot = Sampling { temperature: f32::MAX, ..ALL };
        assert!(draws(hot, &[f32::NEG_INFINITY, 1.0, 2.0], 100).iter().all(|&t| t != 0));
    }

    #[test]
    fn what_was_there_before_is_less_likely() {
        let penalties = Penalties { repeat: 2.0, last: 3, ..Penalties::NONE };
        let mut sampler = Sampler::new(Sampling { penalties, ..Sampling::greedy() }).unwrap();
        // First 1 wins. Then 4 / 2 loses to 3, and then 3 / 2 to 2.5. With all three penalised 1 wins again, until 2
        // has left the window.
        let logits = [2.5, 4.0, 3.0, -8.0];
        let chosen: Vec<u32> = (0..6).map(|_| sampler.sample(&logits).unwrap()).collect();
        assert_eq!(chosen, [1, 2, 0, 1, 1, 2]);
        sampler.accept(&[9, 1, 1, 1]);
        assert_eq!(sampler.sample(&logits).unwrap(), 2);
        // Of the recorded tokens only as many are kept as the penalties look at, even if some are beyond the end of
        // the logits.
        sampler.accept(&[1, 3, 3, u32::MAX]);
        assert_eq!(sampler.sample(&logits).unwrap(), 1);
    }

    proptest! {
        #[test]
        fn greedy_is_argmax(logits in prop::collection::vec(-9i8..9, 1..40)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let first = logits.iter().position(|&l| l == largest).unwrap() as u32;
            prop_assert_eq!(draws(Sampling::greedy(), &logits, 1), [first]);
        }

        #[test]
        fn only_allowed_tokens_are_drawn_and_a_seed_repeats(
            logits in prop::collection::vec(-8f32..8.0, 1..60),
            temperature in 0.05f32..3.0,
            top_k in 0usize..70,
            top_p in 0.01f32..=1.0,
            min_p in 0f32..0.9,
            seed: u64,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, seed, ..ALL };
            let drawn = draws(sampling, &logits, 50);
            let allowed = allowed(&sampling, &logits);
            prop_assert!(top_k == 0 || allowed.len() <= top_k);
            for token in &drawn {
                prop_assert!(allowed.contains(token), "{} is not among {:?}", token, allowed);
            }
            prop_assert_eq!(drawn, draws(sampling, &logits, 50));
        }
    }
}
