//! Splits a template's source into tokens, by the rules of Jinja2's lexer with `trim_blocks` and `lstrip_blocks`.
//!
//! White space around tags is handled here and nowhere else. It deliberately knows no grammar. Read `parser.rs` next.
//! Source of the rules: `jinja2/lexer.py` of Jinja2 3.1.

use super::fault::{Result, syntax};
use super::strings::is_space;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Text(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// The operators, longest first, so that the first that matches is the right one.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// The tokens with their lines. The last token is `End`.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    // One newline at the end does not belong to the template.
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, at: 0, line: 1, line_starts: true, tokens: Vec::new() };
    lexer.root()?;
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// Whether the part before the current position ended with a newline.
    line_starts: bool,
    tokens: Vec<(Token, u32)>,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    /// Advances by `bytes` and counts the lines in them.
    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|&b| b == b'\n').count() as u32;
        self.line_starts = passed.ends_with('\n');
        self.at += bytes;
    }

    fn root(&mut self) -> Result<()> {
        loop {
            let rest = self.rest();
            let tag = rest.match_indices('{').map(|(i, _)| i);
            let mut tag = tag.filter(|i| matches!(rest.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#')));
            let Some(start) = tag.next() else {
                self.data(rest);
                self.push(Token::End);
                return Ok(());
            };
            let kind = rest.as_bytes()[start + 1];
            let sign = rest[start + 2..].chars().next().filter(|c| ['-', '+'].contains(c));
            let text = self.before_tag(&rest[..start], sign, kind == b'{');
            self.data(text);
            let raw = if kind == b'%' { raw_begin(&rest[start..]) } else { None };
            self.advance(start);
            match (kind, raw) {
                (_, Some(length)) => {
                    self.advance(length);
                    self.raw()?;
                }
                (b'#', _) => {
                    self.advance(2 + sign.map_or(0, |_| 1));
                    self.comment()?;
                }
                (b'{', _) => {
                    self.push(Token::VariableBegin);
                    self.advance(2 + sign.map_or(0, |_| 1));
                    self.code("}}")?;
                    self.push(Token::VariableEnd);
                }
                _ => {
                    self.push(Token::BlockBegin);
                    self.advance(2 + sign.map_or(0, |_| 1));
                    self.code("%}")?;
                    self.push(Token::BlockEnd);
                }
            }
        }
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
    }

    /// The text before a tag, without the white space that the tag removes.
    fn before_tag<'t>(&self, text: &'t str, sign: Option<char>, variable: bool) -> &'t str {
        if sign == Some('-') {
            return text.trim_end_matches(is_space);
        }
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let whole_line = line > 0 || self.line_starts;
        if sign.is_none() && !variable && whole_line && text[line..].chars().all(is_space) {
            return &text[..line];
        }
        text
    }

    /// Consumes the end of a tag, `close`, and the white space after it that the tag removes: all of it after a `-`,
    /// and one newline if there is no sign and the tag is not a variable.
    fn end(&mut self, sign: Option<char>, close: &str) {
        let length = sign.map_or(0, |_| 1) + close.len();
        let after = &self.rest()[length..];
        let taken = match sign {
            Some('-') => after.len() - after.trim_start_matches(is_space).len(),
            None if close != "}}" && after.starts_with('\n') => 1,
            _ => 0,
        };
        self.advance(length + taken);
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        // Jinja2 treats the end of the template as the end of an empty comment or an empty raw block.
        if rest.is_empty() {
            return Ok(());
        }
        let close = rest.find("#}").ok_or_else(|| syntax(self.line, "a comment has no end"))?;
        let sign = rest[..close].chars().next_back().filter(|c| ['-', '+'].contains(c));
        self.advance(close - sign.map_or(0, |_| 1));
        self.end(sign, "#}");
        Ok(())
    }

    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        for (start, _) in rest.match_indices("{%") {
            let tag = &rest[start + 2..];
            let sign = tag.chars().next().filter(|c| ['-', '+'].contains(c));
            let inner = tag[sign.map_or(0, |_| 1)..].trim_start_matches(is_space);
            let Some(inner) = inner.strip_prefix("endraw") else { continue };
            let inner = inner.trim_start_matches(is_space);
            let close = inner.chars().next().filter(|c| ['-', '+'].contains(c));
            if !inner[close.map_or(0, |_| 1)..].starts_with("%}") {
                continue;
            }
            self.data(self.before_tag(&rest[..start], sign, false));
            self.advance(rest.len() - inner.len());
            self.end(close, "%}");
            return Ok(());
        }
        if rest.is_empty() { Ok(()) } else { Err(syntax(self.line, "a raw block has no end")) }
    }

    /// Reads tokens up to the end of a tag.
    fn code(&mut self, close: &str) -> Result<()> {
        let mut open = Vec::new();
        loop {
            let rest = self.rest();
            let space = rest.len() - rest.trim_start_matches(is_space).len();
            self.advance(space);
            let rest = self.rest();
            if open.is_empty() {
                for sign in [None, Some('-'), Some('+')] {
                    let tag = sign.map_or(Some(rest), |sign| rest.strip_prefix(sign));
                    if tag.is_some_and(|tag| tag.starts_with(close)) && !(sign == Some('+') && close == "}}") {
                        self.end(sign, close);
                        return Ok(());
                    }
                }
            }
            self.token(rest, &mut open)?;
        }
    }

    fn token(&mut self, rest: &str, open: &mut Vec<&'static str>) -> Result<()> {
        let line = self.line;
        let Some(c) = rest.chars().next() else { return Err(syntax(line, "a tag has no end")) };
        if c.is_ascii_digit() {
            let after_dot = self.source[..self.at].ends_with('.');
            let (token, length) = number(rest, after_dot).map_err(|reason| syntax(line, reason))?;
            self.push(token);
            self.advance(length);
        } else if c.is_alphabetic() || c == '_' {
            let name = &rest[..rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len()];
            if !name.is_ascii() {
                return Err(syntax(line, format!("the name {name:?} is not ASCII")));
            }
            self.push(Token::Name(name.to_owned()));
            self.advance(name.len());
        } else if c == '"' || c == '\'' {
            let (text, length) = text(rest, c).map_err(|reason| syntax(line, reason))?;
            self.push(Token::Text(text));
            self.advance(length);
        } else {
            let operator = OPERATORS.iter().copied().find(|operator| rest.starts_with(operator));
            let operator = operator.ok_or_else(|| syntax(line, format!("unexpected character {c:?}")))?;
            match operator {
                "(" => open.push(")"),
                "[" => open.push("]"),
                "{" => open.push("}"),
                ")" | "]" | "}" if open.pop() != Some(operator) => {
                    return Err(syntax(line, format!("unexpected {operator:?}")));
                }
                _ => {}
            }
            self.push(Token::Operator(operator));
            self.advance(operator.len());
        }
        Ok(())
    }
}

/// The length of `{% raw %}` if `tag` begins with it, with the white space that a `-` at its end removes.
fn raw_begin(tag: &str) -> Option<usize> {
    let inner = tag.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start_matches(is_space);
    let inner = inner.strip_prefix("raw")?.trim_start_matches(is_space);
    let after = match inner.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => inner.strip_prefix("%}")?,
    };
    Some(tag.len() - after.len())
}

/// The number of digits at the start of `text`; single underscores between them are allowed.
fn digits(text: &str, digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        if digit(bytes[end]) {
            end += 1;
        } else if end > 0 && bytes[end] == b'_' && bytes.get(end + 1).is_some_and(|&b| digit(b)) {
            end += 2;
        } else {
            break;
        }
    }
    end
}

fn number(text: &str, after_dot: bool) -> Result2<(Token, usize)> {
    let decimal = |b: u8| b.is_ascii_digit();
    if !after_dot {
        let mut end = digits(text, decimal);
        let mut float = false;
        if text[end..].starts_with('.') {
            let fraction = digits(&text[end + 1..], decimal);
            if fraction > 0 {
                end += 1 + fraction;
                float = true;
            }
        }
        if text[end..].starts_with(['e', 'E']) {
            let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
            let exponent = digits(&text[end + 1 + sign..], decimal);
            if exponent > 0 {
                end += 1 + sign + exponent;
                float = true;
            }
        }
        if float {
            let value = text[..end].replace('_', "").parse().map_err(|_| "a number cannot be read".to_owned())?;
            return Ok((Token::Float(value), end));
        }
    }
    let (radix, prefix) = match text.get(..2) {
        Some("0x" | "0X") => (16, 2),
        Some("0o" | "0O") => (8, 2),
        Some("0b" | "0B") => (2, 2),
        _ => (10, 0),
    };
    let body = &text[prefix..];
    let lead = usize::from(prefix > 0 && body.starts_with('_'));
    let mut length = digits(&body[lead..], |b| (b as char).is_digit(radix));
    if prefix == 0 && text.starts_with('0') {
        // "007" is not a number, but a sequence of zeros is.
        length = digits(text, |b| b == b'0');
    }
    if length == 0 {
        return Ok((Token::Int(0), 1));
    }
    let end = prefix + lead + length;
    let value = i128::from_str_radix(&text[prefix..end].replace('_', ""), radix);
    Ok((Token::Int(value.map_err(|_| "an integer is beyond 128 bits".to_owned())?), end))
}

type Result2<T> = std::result::Result<T, String>;

/// The value of the string literal that begins with `quote`, and the literal's length.
fn text(source: &str, quote: char) -> Result2<(String, usize)> {
    let mut out = String::new();
    let mut chars = source.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((out, at + c.len_utf8()));
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        let plain = match escaped {
            '\n' => continue,
            '\\' | '\'' | '"' => escaped,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' | 'u' | 'U' => {
                let length =
                    [('x', 2), ('u', 4), ('U', 8)].into_iter().find(|(c, _)| *c == escaped).map_or(2, |(_, n)| n);
                let mut code = 0;
                for _ in 0..length {
                    let digit = chars.next().and_then(|(_, c)| c.to_digit(16));
                    code = code * 16 + digit.ok_or_else(|| format!("a text has an unfinished \\{escaped} escape"))?;
                }
                char::from_u32(code)
                    .ok_or_else(|| format!("a text has the escape of U+{code:X}, which is no character"))?
            }
            '0'..='7' => {
                let mut code = escaped.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars.next();
                }
                char::from_u32(code).ok_or("a text has an octal escape beyond Unicode")?
            }
            'N' => return Err("a text names a character by \\N, which is not supported".into()),
            other if !other.is_ascii() => {
                return Err("a text has a backslash before a character that is not ASCII".into());
            }
            other => {
                out.push('\\');
                other
            }
        };
        out.push(plain);
    }
    Err("a text has no closing quote".into())
}
