//! Whether outputs agree: their differences, and the choices that follow from them.
//!
//! It deliberately knows no tolerance: whoever starts a contender states one, with its reason. Read `lib.rs` next.

use anyhow::{Result, bail};
use serde::Serialize;
use std::fmt;

/// How outputs agree with the expected ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The root of the mean square of the differences over that of the expected output; of all outputs, the largest.
    pub error: f64,
    /// Of all outputs, how many have their largest element where the expected ones have it. `None` where outputs are no scores.
    pub choices: Option<(usize, usize)>,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "outputs differ by {:.1e}", self.error)?;
        match self.choices {
            Some((equal, all)) => write!(f, ", {equal} of {all} greedy choices equal"),
            None => Ok(()),
        }
    }
}

/// The margin over which a choice must be the expected one, in tolerances. Differences within the tolerance have a standard deviation
/// of at most one tolerance, so the difference of two of them has 1.4; six are more than four standard deviations.
const MARGIN: f64 = 6.0;

/// Compares `found` with `expected`. Errors when an output differs by more than `tolerance`, or is not finite, and, with `choices`, when
/// the largest element of an output is another one although the expected output's largest leads by a clear margin.
pub fn compare(found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f64, choices: bool) -> Result<Agreement> {
    if found.is_empty() || found.len() != expected.len() {
        bail!("{} outputs, expected {}", found.len(), expected.len());
    }
    let (mut error, mut equal) = (0f64, 0);
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found.is_empty() || found.len() != expected.len() {
            bail!("output {i} has {} elements, expected {}", found.len(), expected.len());
        }
        let size = norm(expected.iter().map(|&x| f64::from(x)));
        let differs = norm(found.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b))) / size;
        // An output of zeros, or with a NaN, differs by something that is not a number.
        if !differs.is_finite() || differs > tolerance {
            bail!("output {i} differs by {differs:.1e}, which is over {tolerance:.1e}");
        }
        error = error.max(differs);
        if !choices {
            continue;
        }
        let ([choice, _], [wanted, second]) = (leaders(found), leaders(expected));
        let margin = f64::from(expected[wanted] - expected[second]);
        let clear = MARGIN * tolerance * size / (expected.len() as f64).sqrt();
        if choice == wanted {
            equal += 1;
        } else if margin > clear {
            bail!("output {i}: the largest is element {choice}, expected {wanted}, which leads by {margin:.3}");
        }
    }
    Ok(Agreement { error, choices: choices.then_some((equal, found.len())) })
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// The places of the largest element and of the second largest; both are 0 where there is one element.
fn leaders(values: &[f32]) -> [usize; 2] {
    let largest = |but: Option<usize>| {
        let others = (0..values.len()).filter(|&i| Some(i) != but);
        others.max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0)
    };
    let first = largest(None);
    [first, largest(Some(first))]
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: [f32; 4] = [3.0, -1.0, 2.0, 0.5];

    fn against(found: [f32; 4], tolerance: f64) -> Result<Agreement> {
        compare(&[found.to_vec()], &[EXPECTED.to_vec()], tolerance, true)
    }

    #[test]
    fn equal_outputs_agree() {
        assert_eq!(against(EXPECTED, 0.0).unwrap(), Agreement { error: 0.0, choices: Some((1, 1)) });
    }

    #[test]
    fn a_difference_over_the_tolerance_is_an_error() {
        // The difference is 0.3, and the expected output's norm the root of 14.25.
        let found = [3.0, -1.0, 2.3, 0.5];
        assert!((against(found, 0.1).unwrap().error - 0.3 / 14.25f64.sqrt()).abs() < 1e-6);
        assert!(against(found, 0.07).is_err());
    }

    #[test]
    fn what_is_not_finite_or_has_another_length_is_an_error() {
        assert!(against([f32::NAN, -1.0, 2.0, 0.5], 1e9).is_err());
        assert!(compare(&[vec![0.0; 2]], &[vec![0.0; 2]], 1e9, true).is_err());
        assert!(compare(&[vec![1.0; 3]], &[EXPECTED.to_vec()], 1e9, true).is_err());
        assert!(compare(&[], &[EXPECTED.to_vec()], 1e9, true).is_err());
    }

    #[test]
    fn another_choice_is_an_error_only_where_the_margin_is_clear() {
        // The third leads although the first should, by 1: six tolerances of the root mean square of 1.9 are 4.5.
        let found = [3.0, -1.0, 3.1, 0.5];
        assert_eq!(against(found, 0.4).unwrap().choices, Some((0, 1)));
        // Six tolerances of a root mean square of 10 are 1.2 here, and the first element leads by 20.
        let mut expected = vec![10.0; 10_000];
        expected[0] = 30.0;
        let mut found = expected.clone();
        found[1] = 30.5;
        let compared = |tolerance| compare(&[found.clone()], &[expected.clone()], tolerance, true);
        assert!(compared(0.0205).unwrap_err().to_string().contains("leads by 20"));
    }
}
