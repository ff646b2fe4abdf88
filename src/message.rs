//! How messages are put together: lists of lines, and text of strangers made safe to show at a terminal.
//!
//! It deliberately knows no error. Read [`crate::error`] for who shows messages.

use std::fmt::Display;

/// The most characters of a message that are shown, and how many of them are from its end, where advice stands.
const SHOWN: usize = 4000;
const SHOWN_END: usize = 1000;

/// `text` with everything escaped that could change more than its own place on a terminal.
///
/// Messages quote what strangers wrote: names in model files, plans, templates, answers of a hub. Control characters, which
/// could move the cursor or set the window's title, and characters that turn the direction of the text after them are escaped
/// as in a Rust literal; line ends stay. Of a text of more than 4,000 characters the middle is left out.
pub fn shown(text: &str) -> String {
    // U+061C and those after it order the text around them; U+2028 and U+2029 end lines on some terminals.
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

/// Each of `items` on an indented line of its own, each line with a line end before it.
pub(crate) fn list(items: &[impl Display]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}
