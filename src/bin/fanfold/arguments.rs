//! Which arguments are values and which are options, where both may begin with a hyphen.
//!
//! A text is a value whatever it begins with: `-p "- bread"` and `embed MODEL "- bread"` are both a list's first line.
//! It goes by the kind of an argument and deliberately knows none by name. Read `main.rs` for the command line itself.

use clap::{Arg, ArgMatches, Command};
use std::any::TypeId;
use std::ffi::{OsStr, OsString};

/// Whether `arg` is given a text: any text at all, not a number, a path or one of a few words.
pub fn takes_text(arg: &Arg) -> bool {
    arg.get_action().takes_values()
        && arg.get_value_parser().type_id() == TypeId::of::<String>()
        && arg.get_possible_values().is_empty()
}

/// `command` with options that take what follows them as their value, also where it begins with a hyphen: any text, and
/// of numbers negative ones, so that a number is refused in the name of its option and not as an option of its own.
pub fn with_hyphens(command: Command) -> Command {
    let option = |arg: Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true if takes_text(&arg) => arg.allow_hyphen_values(true),
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command.mut_args(option).mut_subcommands(with_hyphens)
}

/// Parses `args`, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    let mut command = crate::command();
    command.build();
    let args: Vec<OsString> = args.into_iter().collect();
    let named = args.get(1).and_then(|name| command.find_subcommand(name));
    let args = match named.and_then(|subcommand| texts_last(subcommand, &args[2..])) {
        Some(rest) => args[..2].iter().cloned().chain(rest).collect(),
        None => args,
    };
    command.try_get_matches_from(args)
}

/// What an argument of a subcommand is, before clap sees it.
enum Kind {
    /// An option that has its value with it, or needs none. An unknown one is for clap to refuse.
    Option,
    /// An option whose value is the next argument.
    OptionBefore,
    /// A positional argument.
    Positional,
    /// `--`, which everything after is positional.
    Escape,
}

/// `args` with the positional ones behind a `--`, where one of them is a text that begins with a hyphen. `None` where
/// nothing needs to be moved.
///
/// clap itself can take such a text for a positional argument only together with every option that comes after it.
fn texts_last(command: &Command, args: &[OsString]) -> Option<Vec<OsString>> {
    let first_text = command.get_positionals().position(takes_text)?;
    let (mut options, mut positionals, mut moved) = (Vec::new(), Vec::new(), false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        match kind(command, &text, positionals.len() >= first_text) {
            Kind::Option => options.push(arg.clone()),
            Kind::OptionBefore => {
                options.push(arg.clone());
                match rest.next() {
                    Some(value) => options.push(value.clone()),
                    // All that clap has to say is that a value is missing.
                    None => return Some(options),
                }
            }
            Kind::Positional => {
                moved |= text.len() > 1 && text.starts_with('-');
                positionals.push(arg.clone());
            }
            Kind::Escape => positionals.extend(rest.by_ref().cloned()),
        }
    }
    let escape = OsStr::new("--").to_owned();
    moved.then(|| options.into_iter().chain([escape]).chain(positionals).collect())
}

/// What `arg` is; `text` tells whether a text may stand here.
fn kind(command: &Command, arg: &str, text: bool) -> Kind {
    let option = |arg: Option<&Arg>, value_is_here: bool| match arg {
        Some(arg) if arg.get_action().takes_values() && !value_is_here => Kind::OptionBefore,
        _ => Kind::Option,
    };
    match arg.strip_prefix('-') {
        None | Some("") => Kind::Positional,
        Some("-") => Kind::Escape,
        Some(word) => match word.strip_prefix('-') {
            Some(long) => {
                let name = long.split('=').next().unwrap_or_default();
                let known = command
                    .get_arguments()
                    .find(|arg| arg.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name)));
                // A word of letters and hyphens is an option, perhaps a misspelt one; anything else is a text.
                let word = name.starts_with(char::is_alphabetic) && !name.contains(char::is_whitespace);
                if known.is_none() && text && !word { Kind::Positional } else { option(known, long.contains('=')) }
            }
            None => match cluster(command, word) {
                Some((last, value_is_here)) if !word.contains(char::is_whitespace) => option(Some(last), value_is_here),
                _ if text => Kind::Positional,
                _ => Kind::Option,
            },
        },
    }
}

/// Of `-v`, `-vc` or `-c512` the last option, and whether its value follows at once. `None` where a letter before that
/// is no option.
fn cluster<'a>(command: &'a Command, letters: &str) -> Option<(&'a Arg, bool)> {
    let mut last = None;
    for (at, letter) in letters.char_indices() {
        let arg = command.get_arguments().find(|arg| arg.get_short() == Some(letter))?;
        let value = &letters[at + letter.len_utf8()..];
        last = Some((arg, !value.is_empty()));
        if arg.get_action().takes_values() {
            break;
        }
    }
    last
}
