//! The lines that a person types into a conversation: with editing, history and completion at a terminal, and plainly from a
//! file or a pipe.
//!
//! Editing is done by the rustyline crate. Nothing here knows what a line means. Read `commands/chat.rs` for who does.

use super::interrupt::Interrupted;
use super::print::tell;
use crate::usage::usage;
use anyhow::Result;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Config, Context, Editor, Helper};
use std::fs;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// What stands before a line at a terminal.
const PROMPT: &str = "> ";

/// The longest line that is read from a file or a pipe, in bytes. No model's context holds so much.
const LONGEST: u64 = 64 << 20;

/// How many lines the history holds.
const ENTRIES: usize = 1000;

/// The longest line that is kept in the history, in bytes. A longer one was pasted, and nobody edits it in one line.
const LONGEST_ENTRY: usize = 4096;

/// The largest history that is read, in bytes: every byte of an entry may be escaped, which takes two.
const LARGEST_HISTORY: u64 = (ENTRIES * (2 * LONGEST_ENTRY + 1) + 4) as u64;

/// Standard input, line by line.
pub enum Lines {
    /// A file, a pipe, or a terminal that cannot be edited in.
    Plain {
        /// Whether a person types the lines and needs to see a prompt.
        prompt: bool,
    },
    /// A terminal.
    Edited(Box<EditedLines>),
}

/// A terminal in which lines are edited.
pub struct EditedLines {
    editor: Editor<Words, FileHistory>,
    /// The file of the history; `None` where it cannot be used, which the person has been told.
    history: Option<PathBuf>,
}

impl Lines {
    /// Standard input. At a terminal, Tab completes `words` at the beginning of a line, and lines are kept in the file
    /// `history`.
    pub fn new(words: &'static [&'static str], history: Option<PathBuf>) -> Lines {
        let person = std::io::stdin().is_terminal();
        let plain = Lines::Plain { prompt: person };
        let behavior = match std::io::stdout().is_terminal() {
            true => Behavior::Stdio,
            // Stdout holds the answers: the prompt and what is typed are shown on the terminal itself.
            false if fs::File::options().read(true).write(true).open("/dev/tty").is_ok() => Behavior::PreferTerm,
            false => return plain,
        };
        match EditedLines::new(words, behavior) {
            Ok(mut lines) if person => {
                if let Some(path) = history {
                    lines.load(path);
                }
                Lines::Edited(Box::new(lines))
            }
            _ => plain,
        }
    }

    /// The next line, without its end. `None` at the end of the input, or when Ctrl-D is pressed.
    ///
    /// # Errors
    /// [`Interrupted`] when Ctrl-C is pressed in a terminal that is edited in, and with exit code 2 when the input cannot be
    /// read.
    pub fn next(&mut self) -> Result<Option<String>> {
        match self {
            Lines::Plain { prompt } => plain(*prompt),
            Lines::Edited(lines) => lines.next(),
        }
    }
}

/// The next line of an input that is not edited.
fn plain(prompt: bool) -> Result<Option<String>> {
    if prompt {
        // As with `tell`, a prompt that cannot be shown is no reason to stop.
        let _ = write!(std::io::stderr(), "{PROMPT}");
    }
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST).read_until(b'\n', &mut line);
    match read.map_err(|e| usage(format!("standard input: {e}")))? {
        0 => {
            if prompt {
                tell("");
            }
            Ok(None)
        }
        n if n as u64 == LONGEST => Err(usage(format!("standard input: a line of more than {LONGEST} bytes"))),
        _ => Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_string())),
    }
}

impl EditedLines {
    fn new(words: &'static [&'static str], behavior: Behavior) -> rustyline::Result<EditedLines> {
        let config = Config::builder()
            .behavior(behavior)
            .max_history_size(ENTRIES)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Words(words)));
        Ok(EditedLines { editor, history: None })
    }

    /// Reads the history from `path`, if there is such a file, and keeps lines there from now on.
    fn load(&mut self, path: PathBuf) {
        let loaded = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(found) if !found.is_file() => Err("it is not a regular file".to_string()),
            Ok(found) if found.len() > LARGEST_HISTORY => Err(format!("it is larger than {LARGEST_HISTORY} bytes")),
            Ok(_) => self.editor.load_history(&path).map_err(|error| error.to_string()),
        };
        match loaded {
            Ok(()) => self.history = Some(path),
            Err(reason) => without_history(&path, &reason),
        }
    }

    /// Keeps `line` in the history, in memory and in its file.
    fn keep(&mut self, line: &str) {
        if line.trim().is_empty() || line.len() > LONGEST_ENTRY {
            return;
        }
        let kept = self.editor.add_history_entry(line);
        let Some(path) = &self.history else { return };
        let written = kept.map_err(|error| error.to_string()).and_then(|_| {
            path.parent().map_or(Ok(()), private_folder).map_err(|error| error.to_string())?;
            // rustyline makes the file readable by its owner alone.
            self.editor.append_history(path).map_err(|error| error.to_string())
        });
        if let Err(reason) = written {
            without_history(path, &reason);
            self.history = None;
        }
    }

    fn next(&mut self) -> Result<Option<String>> {
        match self.editor.readline(PROMPT) {
            Ok(line) => {
                self.keep(&line);
                Ok(Some(line.trim_end_matches(['\n', '\r']).to_string()))
            }
            Err(ReadlineError::Eof) => Ok(None),
            // The terminal sends no signal while a line is edited: the editor reads Ctrl-C as a key.
            Err(ReadlineError::Interrupted) => Err(Interrupted.into()),
            #[cfg(unix)]
            Err(ReadlineError::Signal(rustyline::error::Signal::Interrupt)) => Err(Interrupted.into()),
            Err(error) => Err(usage(format!("standard input: {error}"))),
        }
    }
}

/// Tells the person, once, that lines are not kept.
fn without_history(path: &Path, reason: &str) {
    tell(format_args!("{}: no history is kept: {reason}", path.display()));
}

/// Makes sure that `folder` exists. A new one is its owner's alone.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Completes words at the beginning of a line.
struct Words(&'static [&'static str]);

impl Helper for Words {}

impl Highlighter for Words {}

impl Validator for Words {}

impl Hinter for Words {
    type Hint = String;
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..at];
        let fitting = self.0.iter().filter(|word| !begun.is_empty() && word.starts_with(begun));
        Ok((0, fitting.map(|word| word.to_string()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(history: &Path) -> EditedLines {
        let mut lines = EditedLines::new(&["/help", "/reset"], Behavior::Stdio).unwrap();
        lines.load(history.to_owned());
        lines
    }

    #[test]
    fn tab_completes_commands_and_nothing_else() {
        let (words, history) = (Words(&["/reset", "/stats", "/help"]), FileHistory::new());
        let complete = |line: &str| words.complete(line, line.len(), &Context::new(&history)).unwrap().1;
        assert_eq!(complete("/"), ["/reset", "/stats", "/help"]);
        assert_eq!(complete("/st"), ["/stats"]);
        assert!(complete("").is_empty() && complete("s").is_empty() && complete("a /s").is_empty());
    }

    #[test]
    fn the_history_is_private_bounded_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/history");
        let mut lines = editor(&path);
        for n in 0..ENTRIES + 50 {
            lines.keep(&format!("line {n}"));
        }
        lines.keep(" a secret");
        lines.keep("");
        lines.keep(&"x".repeat(LONGEST_ENTRY + 1));
        lines.keep("two\nlines");
        let kept: Vec<String> = editor(&path).editor.history().iter().cloned().collect();
        assert!(kept.len() <= ENTRIES, "{}", kept.len());
        assert_eq!(kept[kept.len() - 2..], [format!("line {}", ENTRIES + 49), "two\nlines".to_string()]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn a_history_that_cannot_be_used_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("broken");
        fs::write(&broken, b"#V2\n\xff\xfe\n").unwrap();
        let mut lines = editor(&broken);
        lines.keep("a line");
        assert_eq!(fs::read(&broken).unwrap(), b"#V2\n\xff\xfe\n");
        assert!(editor(dir.path()).history.is_none(), "a folder is no history");
        let mut lines = editor(&broken.join("below/a/file"));
        lines.keep("a line");
        assert!(lines.history.is_none());
    }
}
