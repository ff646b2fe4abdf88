//! A model's chat template: turns messages into the text format that the model was trained on.
//!
//! Templates are Jinja programs by untrusted authors. Each runs with limits on its steps, memory, depth and output,
//! sees no file and no environment, and fails with a typed error. The module deliberately knows no tokens. Read
//! `jinja/` for the language, and `control.rs` beside this folder for how a template's text becomes ids.

mod jinja;

use crate::text::TextError;
use jinja::{Fault, Template, Variable};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who wrote it: `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the message.
    pub content: String,
}

impl Message {
    /// A message `content` written by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    template: Template,
    now: jiff::Timestamp,
    specials: Vec<(String, String)>,
}

/// The largest template, in bytes; those of known models have about 10 KB.
const SOURCE: usize = 256 << 10;
/// The stack on which a template runs. Nesting is counted and reaches its limit long before the stack ends, even in a
/// build without optimisation.
const STACK: usize = 256 << 20;

impl ChatTemplate {
    /// Compiles the template `source`; `path` is for messages.
    ///
    /// `specials` are the variables that name special tokens, such as `bos_token`. `now` is the time that
    /// `strftime_now` returns, in UTC. It is fixed for the whole conversation: otherwise the text of earlier turns
    /// would change.
    ///
    /// # Errors
    /// [`TextError::Template`] with the line when the source is not a valid template.
    pub fn new(
        path: impl AsRef<Path>,
        source: &str,
        specials: Vec<(String, String)>,
        now: SystemTime,
    ) -> Result<Self, TextError> {
        let path = path.as_ref().to_owned();
        let fail = |reason: String| TextError::Template { path: path.clone(), reason };
        if source.len() > SOURCE {
            return Err(fail(format!("has {} bytes; no chat template needs more than {SOURCE}", source.len())));
        }
        let now = jiff::Timestamp::try_from(now).map_err(|e| fail(format!("the clock: {e}")))?;
        let template = with_room(|| Template::parse(source)).map_err(|e| fail(explain(&e)))?;
        Ok(ChatTemplate { path, source: source.to_owned(), template, now, specials })
    }

    /// The conversation as text. With `add_generation_prompt`, up to the point where the assistant's next answer
    /// begins.
    ///
    /// # Errors
    /// [`TextError::Template`] when the template raises an error, with its own message; when it fails, with the line;
    /// or when it exceeds a limit on running or printing.
    #[doc(hidden)]
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        let given: usize = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        fn record(message: &Message) -> Vec<(&str, &str)> {
            vec![("role", &message.role), ("content", &message.content)]
        }
        let mut variables = BTreeMap::from([
            ("messages", Variable::Records(messages.iter().map(record).collect())),
            ("tools", Variable::None),
            ("documents", Variable::None),
            ("add_generation_prompt", Variable::Bool(add_generation_prompt)),
        ]);
        variables.extend(self.specials.iter().map(|(name, text)| (name.as_str(), Variable::Text(text))));
        with_room(|| self.template.render(&variables, self.now, given)).map_err(|e| self.error(explain(&e)))
    }

    /// The source of the template.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The variables that name special tokens.
    pub(super) fn specials(&self) -> &[(String, String)] {
        &self.specials
    }

    pub(super) fn error(&self, reason: String) -> TextError {
        TextError::Template { path: self.path.clone(), reason }
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Runs `work` on a stack that is large enough for the deepest nesting of values and expressions that is allowed.
fn with_room<T: Send>(work: impl FnOnce() -> std::result::Result<T, Box<jinja::Error>> + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(|e| unrun(format!("no thread to run it: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(unrun("the template engine failed on it".into())))
    })
}

type Outcome<T> = std::result::Result<T, Box<jinja::Error>>;

fn unrun(reason: String) -> Box<jinja::Error> {
    Box::new(jinja::Error { fault: Fault::Failed(reason), line: None })
}

/// The longest quotation of a template in an error, in characters.
const QUOTED: usize = 600;

fn explain(error: &jinja::Error) -> String {
    let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let reason = match &error.fault {
        Fault::Raised(message) => return format!("the template refuses the conversation: {}", shortened(message)),
        Fault::Syntax(reason) => format!("syntax error: {}", shortened(reason)),
        Fault::Failed(reason) => shortened(reason),
        Fault::Refused(what) => format!("not supported in chat templates: {}", shortened(what)),
        Fault::Steps | Fault::Time => "runs without end: stopped after as much work as a template may do".into(),
        Fault::Memory => "makes values without end: stopped at as much memory as a template may hold".into(),
        Fault::Printed => "prints without end: stopped at as much text as a template may make".into(),
        Fault::Depth => "the recursion has a limit: expressions, blocks or calls are nested too deep".into(),
    };
    line + &reason
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
