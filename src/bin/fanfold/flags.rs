//! Tests of every command and option at once: they walk the command line itself, so that new options are covered.
//!
//! They know by name only the options without which a command does nothing. Where an option's value is to be run and not only
//! parsed, this test program runs the command in a process of its own. Read `cli.rs` for the command line.

use crate::arguments::hyphens::{self, takes_text};
use crate::cli::command;
use crate::run_with;
use clap::{Arg, ArgMatches, Command};
use std::ffi::OsString;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The fixture that a command is run on, for the commands that need a model of one kind.
const MODELS: [(&str, &str); 2] = [("rank", "bert-rerank"), ("classify", "roberta-labels")];

const TEMPLATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/templates/chatml.jinja");

/// The variable that tells a process of this test program to be `fanfold`, and holds its arguments as JSON.
const ACT: &str = "FANFOLD_TEST_ARGUMENTS";

/// A run that takes longer than this hangs, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Values that are not numbers.
const NO_NUMBERS: [&str; 4] = ["", "x", "NaN", "1,,2"];

/// Numbers that are too large for any option.
const NEVER: [&str; 3] = ["inf", "1e30", "18446744073709551616"];

/// Numbers that are taken only by an option whose help says what they mean.
const NEGATIVE: [&str; 2] = ["-1", "-0.5"];

/// Numbers that some options take and others refuse.
const EXTREME: [&str; 7] = ["0", "-1", "-0.5", "1e-30", "16777216", "4294967296", "18446744073709551615"];

/// Texts that begin with a hyphen: a list's first line, a number, and words that look like options that no command has.
const HYPHENS: [&str; 6] = ["- x", "-5", "--x", "-", "--", "-hello world"];

fn subcommands() -> Vec<Command> {
    let mut whole = command();
    whole.build();
    whole.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect()
}

/// The fewest arguments with which `command` parses, plus options that make it end soon.
fn base(command: &Command) -> Vec<String> {
    let mut args = vec!["fanfold".to_string(), command.get_name().to_string()];
    let least = [
        ("devices", "host"),
        ("context", "64"),
        ("prompt", "ROMEO: But soft, what light"),
        ("tokens", "4"),
        ("n-prompt", "4"),
        ("n-gen", "2"),
    ];
    // In commands with `--prompt-name`, `--prompt` is not the text but a prompt before it, and the two exclude each other.
    let named = option(command, "prompt-name").is_some();
    for (name, value) in least.into_iter().filter(|(name, _)| !(named && *name == "prompt")) {
        if option(command, name).is_some() {
            args.extend([format!("--{name}"), value.to_string()]);
        }
    }
    if command.get_name() == "chat" {
        // The fixture has no template. A chat without input ends at once.
        args.extend(["--template".to_string(), TEMPLATE.to_string()]);
    }
    // A command that runs a model needs a text, even where the parser does not insist on one.
    let runs = option(command, "devices").is_some();
    let given = |arg: &&Arg| arg.is_required_set() || runs && arg.get_possible_values().is_empty();
    for positional in command.get_positionals().filter(given) {
        args.push(match positional.get_possible_values().first() {
            Some(value) => value.get_name().to_string(),
            None if positional.get_id() == "model" => {
                let model = MODELS.iter().find(|(name, _)| *name == command.get_name());
                let fixture = model.map_or("llama-uneven", |(_, fixture)| fixture);
                format!("{}/tests/fixtures/{fixture}", env!("CARGO_MANIFEST_DIR"))
            }
            None => "some/text".to_string(),
        });
    }
    args
}

fn option<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(long))
}

/// `base` with `value` for the option, in place of the value that `base` gives it.
fn with(base: &[String], long: &str, value: &str) -> Vec<String> {
    let mut args = base.to_vec();
    let flag = format!("--{long}");
    if let Some(at) = args.iter().position(|arg| *arg == flag) {
        args.drain(at..at + 2);
    }
    args.splice(2..2, [flag, value.to_string()]);
    args
}

fn parse(args: &[String]) -> Result<ArgMatches, clap::Error> {
    hyphens::parse(command(), args.iter().map(OsString::from))
}

/// Whether the help of the option says what a negative number means.
fn explains_negative_numbers(command: &Command, long: &str) -> bool {
    let help = option(command, long).and_then(Arg::get_help).map(ToString::to_string).unwrap_or_default();
    ["-1:", "or less", "negative"].iter().any(|words| help.contains(words))
}

/// Whether the parser refuses `value` because of the value itself.
fn refuses(base: &[String], long: &str, value: &str) -> bool {
    let kinds = [clap::error::ErrorKind::ValueValidation, clap::error::ErrorKind::InvalidValue];
    parse(&with(base, long, value)).is_err_and(|error| kinds.contains(&error.kind()))
}

/// The options that take a number: they refuse a word and take 1 or 0.5.
fn numbers<'a>(command: &'a Command, base: &[String]) -> Vec<&'a str> {
    let longs = command.get_arguments().filter(|arg| arg.get_action().takes_values()).filter_map(Arg::get_long);
    longs.filter(|long| refuses(base, long, "x") && ["1", "0.5"].iter().any(|n| !refuses(base, long, n))).collect()
}

/// Runs the program with `args`, within bounded time and memory. Returns its exit code and the text on stderr.
fn act(args: &[String]) -> (i32, String) {
    let me = std::env::current_exe().unwrap();
    let harness = ["--exact", "flags::the_program_itself", "--nocapture", "--quiet"];
    let mut process = if cfg!(unix) {
        let mut shell = std::process::Command::new("sh");
        // 8 GiB is ten times what any run here needs. An allocation beyond it fails instead of filling the machine.
        shell.args(["-c", "ulimit -v 8388608; exec \"$0\" \"$@\""]).arg(me);
        shell
    } else {
        std::process::Command::new(me)
    };
    process.args(harness).env(ACT, serde_json::to_string(args).unwrap()).env_remove("RUST_BACKTRACE");
    let mut child = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || std::io::read_to_string(&mut stderr).unwrap());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("{args:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    (status.code().unwrap_or(-1), said.join().unwrap())
}

/// The entry of the process that [`act`] starts. As a test of its own it does nothing.
#[test]
fn the_program_itself() {
    if let Ok(args) = std::env::var(ACT) {
        let args: Vec<OsString> =
            serde_json::from_str::<Vec<String>>(&args).unwrap().into_iter().map(Into::into).collect();
        std::process::exit(run_with(args).into());
    }
}

#[test]
fn every_command_says_what_it_does_and_shows_an_example() {
    let commands = subcommands();
    assert!(commands.len() >= 8, "the walk finds no commands");
    for mut command in commands {
        let name = command.get_name().to_string();
        assert!(
            command.get_about().is_some_and(|about| !about.to_string().is_empty()),
            "{name} says nothing of itself"
        );
        let help = command.render_help().to_string();
        let (_, example) = help.split_once("\nExample").unwrap_or_else(|| panic!("{name} shows no example:\n{help}"));
        assert!(example.contains(&format!("fanfold {name}")), "{name}: its example is another's:\n{help}");
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            assert!(arg.get_help().is_some(), "{name}: {} is not explained", arg.get_id());
        }
    }
}

#[test]
fn no_option_takes_a_number_without_sense() {
    let mut seen = 0;
    for command in subcommands() {
        let (name, base) = (command.get_name(), base(&command));
        parse(&base).unwrap_or_else(|error| panic!("{name}: {error}"));
        for long in numbers(&command, &base) {
            let negative = if explains_negative_numbers(&command, long) { &[][..] } else { &NEGATIVE };
            for value in NO_NUMBERS.iter().chain(&NEVER).chain(negative) {
                let Err(error) = parse(&with(&base, long, value)) else { panic!("{name} --{long} takes {value:?}") };
                let said = error.to_string();
                assert_eq!(error.exit_code(), 2, "{name} --{long} {value:?}: {said}");
                assert!(said.contains(&format!("--{long}")), "{name} --{long} {value:?} is not named: {said}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "the walk finds no numbers: {seen}");
}

#[test]
fn a_number_that_is_taken_does_no_harm() {
    let mut ran = 0;
    for command in subcommands() {
        let (name, base) = (command.get_name(), base(&command));
        let numbers = numbers(&command, &base);
        if numbers.is_empty() || UNTRIED.contains(&name) {
            continue;
        }
        let (code, said) = act(&base);
        assert_eq!(code, 0, "{base:?}: {said}");
        for long in numbers {
            for value in EXTREME.into_iter().filter(|value| parse(&with(&base, long, value)).is_ok()) {
                let (code, said) = act(&with(&base, long, value));
                // A huge number may be refused for lack of memory.
                assert!([0, 2, 4].contains(&code), "{name} --{long} {value}: exit code {code}: {said}");
                assert!(!said.contains("panicked"), "{name} --{long} {value}: {said}");
                let named = code != 2 || said.contains(long);
                assert!(named, "{name} --{long} {value} is refused, but not by its name: {said}");
                ran += 1;
            }
        }
    }
    assert!(ran > 20, "the walk runs nothing: {ran}");
}

/// The values of the argument `id` in `args`, as `command` reads them.
fn read(command: &Command, args: &[String], id: &str) -> Vec<String> {
    let matches = parse(args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let (_, matches) = matches.subcommand().unwrap();
    let texts = matches.get_many::<String>(id).unwrap_or_else(|| panic!("{}: no {id}", command.get_name()));
    texts.cloned().collect()
}

#[test]
fn a_text_that_begins_with_a_hyphen_is_a_value() {
    let mut seen = 0;
    for command in subcommands() {
        let base = base(&command);
        for arg in command.get_arguments().filter(|arg| takes_text(arg) && !arg.is_positional()) {
            let id = arg.get_id().as_str();
            let Some(long) = arg.get_long() else { continue };
            for value in HYPHENS {
                let mut args = with(&base, long, value);
                assert_eq!(read(&command, &args, id), [value], "{args:?}");
                if let Some(short) = arg.get_short() {
                    args[2] = format!("-{short}");
                    assert_eq!(read(&command, &args, id), [value], "{args:?}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "the walk finds no texts: {seen}");
}

#[test]
fn a_positional_text_that_begins_with_a_hyphen_is_a_value_and_a_misspelt_option_is_refused() {
    let mut seen = 0;
    for command in subcommands() {
        let name = command.get_name();
        let args =
            |more: &[&str]| ["fanfold", name, "MODEL"].iter().chain(more).map(|a| a.to_string()).collect::<Vec<_>>();
        let Some(last) = command.get_positionals().filter(|arg| takes_text(arg)).last() else { continue };
        let id = last.get_id().as_str();
        // Options may stand before and after the texts.
        for text in ["- x", "-5", "-q", "-hello, world", "--- x", "-- x", "--é and so on", "-"] {
            let around: [[&[&str]; 2]; 3] =
                [[&[], &[]], [&["-c", "64"], &["--json"]], [&["--json"], &["-c64", "--devices", "-"]]];
            for [before, after] in around {
                let args = args(&[before, &["plain", text], after].concat());
                assert_eq!(read(&command, &args, id).last().unwrap(), text, "{args:?}");
                let escaped = self::with(&args, "devices", "host");
                assert_eq!(read(&command, &escaped, id).last().unwrap(), text, "{escaped:?}");
            }
            let first = args(&[text, "plain"]);
            assert_eq!(read(&command, &first, id).last().unwrap(), "plain", "{first:?}");
        }
        assert_eq!(read(&command, &args(&["plain", "--", "--json"]), id).last().unwrap(), "--json");
        assert_eq!(read(&command, &args(&["- x", "--", "--json"]), id).last().unwrap(), "--json");
        for misspelt in ["--jsno", "--devcies=host", "--no-such-option"] {
            for args in [args(&["plain", misspelt]), args(&["- x", misspelt]), args(&[misspelt, "- x"])] {
                let error = parse(&args).map(|_| ()).unwrap_err();
                assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "{args:?}: {error}");
                let name = misspelt.split('=').next().unwrap();
                assert!(error.to_string().contains(&format!("unexpected argument '{name}'")), "{args:?}: {error}");
            }
        }
        let lacking = parse(&args(&["- x", "--devices"])).map(|_| ()).unwrap_err();
        assert!(lacking.to_string().contains("--devices"), "{lacking}");
        seen += 1;
    }
    assert!(seen >= 2, "the walk finds no texts that stand alone: {seen}");
    // In a command without positional texts, an argument that begins with a hyphen is an option.
    for args in [["run", "demo", "-q"], ["plan", "demo", "- x"], ["run", "-q", "demo"], ["embed", "-q", "demo"]] {
        let args: Vec<String> = ["fanfold"].iter().chain(&args).map(|a| a.to_string()).collect();
        assert!(parse(&args).is_err(), "{args:?}");
    }
}

/// Commands that need a network or all adapters: their numbers are only parsed.
const UNTRIED: [&str; 2] = ["pull", "doctor"];
