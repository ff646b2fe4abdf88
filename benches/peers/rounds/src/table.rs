//! What a race prints: a table in Markdown, or JSON.
//!
//! It deliberately computes nothing but medians and ratios. Read `lib.rs` for who fills it.

use crate::Racer;
use anyhow::Result;
use serde_json::json;
use std::fmt::Write;

/// The results of a race.
pub struct Outcome {
    /// The names of the rates.
    pub measures: Vec<String>,
    /// Who took part, in their order.
    pub racers: Vec<Racer>,
    /// Who did not take part, and why.
    pub left_out: Vec<(String, String)>,
}

/// The median, the least and the largest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    [(low + high) / 2.0, sorted[0], sorted[sorted.len() - 1]]
}

/// The rates of one measure in each round.
fn rates(racer: &Racer, measure: usize) -> Vec<f64> {
    racer.rounds.iter().map(|rates| rates[measure]).collect()
}

/// One racer's rates over another's, round by round.
fn ratios(ours: &Racer, theirs: &Racer, measure: usize) -> Vec<f64> {
    rates(ours, measure).iter().zip(rates(theirs, measure)).map(|(ours, theirs)| ours / theirs).collect()
}

fn cell(values: &[f64]) -> String {
    let [median, least, most] = spread(values);
    // Three digits.
    let places = if median >= 100.0 {
        0
    } else if median >= 10.0 {
        1
    } else {
        2
    };
    format!("{median:.places$} ({least:.places$} to {most:.places$})")
}

impl Outcome {
    /// One racer's rates over another's, as a line; `None` unless both took part.
    pub fn over(&self, ours: &str, theirs: &str) -> Option<String> {
        let of = |name: &str| self.racers.iter().find(|racer| racer.name == name);
        let (ours, theirs) = (of(ours)?, of(theirs)?);
        let cells = self.measures.iter().enumerate();
        let cells: Vec<String> = cells.map(|(i, name)| format!("{name} {}", cell(&ratios(ours, theirs, i)))).collect();
        Some(cells.join(", "))
    }

    /// A table with a row per racer: medians and ranges of its rates, and the first racer's rates over them, from the same rounds.
    pub fn table(&self) -> Result<String> {
        let mut text = String::new();
        let first = &self.racers[0];
        let over: String = self.measures.iter().map(|name| format!(" {} over it, {name} |", first.name)).collect();
        writeln!(text, "| | {} |{over} outputs differ by | equal choices |", self.measures.join(" | "))?;
        writeln!(text, "|---|{}---:|---:|", "---:|".repeat(2 * self.measures.len()))?;
        for racer in &self.racers {
            let measures = 0..self.measures.len();
            let own = measures.clone().map(|i| cell(&rates(racer, i)));
            let over = measures.map(|i| cell(&ratios(first, racer, i)));
            let cells: Vec<String> = own.chain(over).collect();
            let choices = racer.agreement.choices.map_or(String::new(), |(equal, all)| format!("{equal} of {all}"));
            writeln!(text, "| {} | {} | {:.1e} | {choices} |", racer.name, cells.join(" | "), racer.agreement.error)?;
        }
        writeln!(text)?;
        self.racers.iter().try_for_each(|racer| writeln!(text, "- {}: {}", racer.name, racer.what))?;
        self.left_out.iter().try_for_each(|(name, reason)| writeln!(text, "- {name}: left out: {reason}"))?;
        Ok(text)
    }

    /// The same and every round, as JSON.
    pub fn json(&self) -> serde_json::Value {
        let first = &self.racers[0];
        let racer = |racer: &Racer| {
            let over = |measure| spread(&ratios(first, racer, measure))[0];
            json!({
                "name": racer.name, "what": racer.what, "agreement": racer.agreement, "rounds": racer.rounds,
                "median": (0..self.measures.len()).map(|i| spread(&rates(racer, i))[0]).collect::<Vec<_>>(),
                "first_over_it": (0..self.measures.len()).map(over).collect::<Vec<_>>(),
            })
        };
        let left_out = self.left_out.iter().map(|(name, reason)| json!({"name": name, "reason": reason}));
        json!({
            "measures": self.measures, "racers": self.racers.iter().map(racer).collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_between_the_middle_two() {
        assert_eq!(spread(&[5.0, 1.0, 3.0]), [3.0, 1.0, 5.0]);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), [3.0, 1.0, 9.0]);
    }
}
