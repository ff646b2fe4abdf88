//! Helpers for messages: lists of lines, and making untrusted text safe to show at a terminal.
//!
//! This file deliberately knows no error type. Read [`crate::error`] for who shows messages.

use std::fmt::Display;

/// The most characters of a message that are shown, and how many of them are taken from its end, where the advice is.
const SHOWN: usize = 4000;
const SHOWN_END: usize = 1000;

/// `text` with every character escaped that could disturb the rest of a terminal.
///
/// Messages quote untrusted text: names in model files, plans, templates, answers of a hub. Control characters, which
/// could move the cursor or set the window's title, and characters that reverse the direction of the text after them
/// are escaped as in a Rust literal; line ends stay. The middle of a text longer than 4,000 characters is left out.
pub fn shown(text: &str) -> String {
    // From U+061C on: characters that set the direction of the text around them. U+2028 and U+2029 end lines on some
    // terminals.
    let turns =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escape = |out: &mut String, c: char| match c {
        '\n' => out.push(c),
        _ if c.is_control() || turns(c) => out.extend(c.escape_default()),
        _ => out.push(c),
    };
    let length = text.chars().count();
    let mut out = String::new();
    if length <= SHOWN {
        text.chars().for_each(|c| escape(&mut out, c));
        return out;
    }
    text.chars().take(SHOWN - SHOWN_END).for_each(|c| escape(&mut out, c));
    out += &format!(" [... {} characters are left out ...] ", length - SHOWN);
    text.chars().skip(length - SHOWN_END).for_each(|c| escape(&mut out, c));
    out
}

/// Each of `items` on a new, indented line.
pub(crate) fn list(items: &[impl Display]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}
