//! Python's rules for characters, lines and words, where they differ from Rust's.
//!
//! Questions about letters that would need tables which the standard library lacks are refused. It deliberately knows
//! no values. Read `text_methods.rs` for the methods.

use super::fault::{Result, refused};

/// White space in Python: Unicode's, and four ASCII separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Whether `splitlines` ends a line at `c`.
fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Python's `splitlines`.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(ends_line) {
        let end = match &rest[at..] {
            ending if ending.starts_with("\r\n") => 2,
            ending => ending.chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { at + end } else { at }]);
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// The words between white space, as Python's `split` gives them: at most `max` splits from the left, and the rest as
/// the last item.
pub(super) fn words(text: &str, max: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if words.len() == max {
            words.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    words
}

/// As [`words`], split from the right.
pub(super) fn words_from_right(text: &str, max: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if words.len() == max {
            words.push(rest);
            break;
        }
        let start = rest.char_indices().rev().find(|(_, c)| is_space(*c)).map_or(0, |(at, c)| at + c.len_utf8());
        words.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    words.reverse();
    words
}

/// Whether Python considers `c` a letter. Python and Rust disagree on marks and letter-like numbers, which are
/// refused.
pub(super) fn is_alpha(c: char) -> Result<bool> {
    match c {
        _ if c.is_ascii() => Ok(c.is_ascii_alphabetic()),
        _ if !c.is_alphabetic() => Ok(false),
        '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{3ff}' | '\u{400}'..='\u{481}' | '\u{48a}'..='\u{52f}' => Ok(true),
        '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' => Ok(true),
        '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' => Ok(true),
        _ => Err(refused(format!("asking whether {c:?} is a letter"))),
    }
}

/// Whether Python considers `c` a digit.
pub(super) fn is_digit(c: char) -> Result<bool> {
    if c.is_ascii() {
        return Ok(c.is_ascii_digit());
    }
    // Some ideographs are numerals.
    if c.is_numeric() || ('\u{3400}'..='\u{9fff}').contains(&c) || ('\u{f900}'..='\u{faff}').contains(&c) {
        return Err(refused(format!("asking whether {c:?} is a digit")));
    }
    Ok(false)
}

/// The title-case form of a character.
fn title_char(c: char, out: &mut String) -> Result<()> {
    let special = matches!(c, '\u{1c4}'..='\u{1cc}' | '\u{1f1}'..='\u{1f3}' | '\u{10d0}'..='\u{10ff}');
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) if !special => out.push(one),
        _ => return Err(refused(format!("{c:?} at the beginning of a title"))),
    }
    Ok(())
}

/// Python's `capitalize`.
pub(super) fn capitalized(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    if let Some(first) = chars.next() {
        title_char(first, &mut out)?;
        lower_rest(text, chars.as_str(), &mut out)?;
    }
    Ok(out)
}

/// Appends `rest`, a part of `text`, in lower case. The form of a final Greek sigma depends on what precedes it.
fn lower_rest(text: &str, rest: &str, out: &mut String) -> Result<()> {
    if rest.contains('Σ') {
        return Err(refused(format!(
            "changing the case of a sigma in {:?}",
            text.chars().take(40).collect::<String>()
        )));
    }
    out.push_str(&rest.to_lowercase());
    Ok(())
}

/// Python's `title`: each run of letters begins with a capital letter.
pub(super) fn title(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        let cased = c.is_lowercase() || c.is_uppercase();
        match (cased, within) {
            (true, false) => title_char(c, &mut out)?,
            (true, true) => lower_rest(text, c.encode_utf8(&mut [0; 4]), &mut out)?,
            (false, _) => out.push(c),
        }
        within = cased;
    }
    Ok(out)
}

/// Python's `swapcase`, for ASCII.
pub(super) fn swapped(text: &str) -> Result<String> {
    if !text.is_ascii() {
        return Err(refused("swapping the case of text that is not ASCII"));
    }
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    Ok(text.chars().map(swap).collect())
}

/// Python's `islower` and `isupper`: there is a letter of that case and none of the other.
pub(super) fn is_case(text: &str, upper: bool) -> bool {
    let (mut wanted, mut other) = (false, false);
    for c in text.chars() {
        let title = matches!(c, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}');
        wanted |= if upper { c.is_uppercase() } else { c.is_lowercase() };
        other |= title || if upper { c.is_lowercase() } else { c.is_uppercase() };
    }
    wanted && !other
}

/// The characters `from..to` of a string.
pub(super) fn char_range(text: &str, from: usize, to: usize) -> &str {
    let at = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
    let (from, to) = (at(from), at(to));
    text.get(from..to.max(from)).unwrap_or_default()
}
