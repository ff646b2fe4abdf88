//! Which arguments are values and which are options, where both may begin with a hyphen.
//!
//! A text is a value whatever it begins with: `-p "- bread"` and `embed MODEL "- bread"` both give a list's first line. This
//! file goes by the kind of an argument and knows no argument by name. Read `cli.rs` for the command line itself.

use clap::{Arg, ArgMatches, Command};
use std::any::TypeId;
use std::ffi::{OsStr, OsString};

/// Whether the value of `arg` may be any text, and not a number, a path or one of a few words.
pub fn takes_text(arg: &Arg) -> bool {
    arg.get_action().takes_values()
        && arg.get_value_parser().type_id() == TypeId::of::<String>()
        && arg.get_possible_values().is_empty()
}

/// `command` with options whose value may begin with a hyphen: any text, and negative numbers, so that a number that makes no
/// sense is refused in the name of its option and not as an unknown option `-1`.
pub fn with_hyphens(command: Command) -> Command {
    let option = |arg: Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true if takes_text(&arg) => arg.allow_hyphen_values(true),
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command.mut_args(option).mut_subcommands(with_hyphens)
}

/// Parses `args`, which begin with the program's name, as `command` says.
pub fn parse(mut command: Command, args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
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
    /// An option that needs no value or holds it itself, as `--top-k=3` does. An unknown option is left for clap to refuse.
    Option,
    /// An option whose value is the next argument.
    OptionBefore,
    /// A positional argument.
    Positional,
    /// `--`: every argument after it is positional.
    Escape,
}

/// `args` with the positional arguments moved behind a `--`, if one of them is a text that begins with a hyphen. `None` where
/// nothing needs to be moved.
///
/// clap could read such a text as positional only if it read every option after it as positional, too.
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
                    // The value is missing, and clap says so.
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

/// What `arg` is, where `text` tells whether a positional text may stand here.
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
                // A name that begins with a letter and has no space is an option, perhaps a misspelt one. Anything else is a text.
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

/// The last option in a group of short ones, such as `-v`, `-vc` or `-c512`, and whether its value follows in the same
/// argument. `None` where one of the letters is not an option.
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
