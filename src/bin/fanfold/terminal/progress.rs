//! Progress on stderr: bars, and spinners for work of unknown length. Both are hidden where stderr is not a terminal.
//!
//! It deliberately knows no command: callers give a template in the language of the indicatif crate. Read `print.rs` for text
//! that stays.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar of `total` steps that looks as `template` says.
pub fn progress_bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    // Redrawn between steps as well: the first step may take the longest, because it compiles kernels.
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A spinner that says `what` is under way, until it is cleared.
pub fn waiting(what: &str) -> ProgressBar {
    progress_bar(0, &format!("{{spinner}} {what}, {{elapsed}}"))
}

/// Removes `bar` from the terminal, once: after that its line may hold output, which a second removal would erase.
pub fn clear(bar: &ProgressBar) {
    if !bar.is_finished() {
        bar.finish_and_clear();
    }
}
