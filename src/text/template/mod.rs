//! A model's chat template: messages to the text that the model was trained to see.
//!
//! Templates are Jinja from strangers: each runs with a bound on its steps and on its output, sees no file and no
//! environment, and fails with a typed error. It deliberately knows no tokens; read `functions.rs` for what a template
//! may call, and `control.rs` beside this folder for how its text becomes ids.

mod functions;

use crate::error::{Result, TextError};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// `content` said by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    path: PathBuf,
    source: String,
    environment: Environment<'static>,
    specials: Vec<(String, String)>,
}

/// The largest template; those of the known models have some 10 KB.
const SOURCE: usize = 256 << 10;
/// Steps a template may take, to which the bytes of the messages are added. Known ones take some hundreds per message.
const STEPS: u64 = 1 << 20;
/// Bytes it may print, to which a multiple of the bytes of the messages is added.
const PRINTED: usize = 1 << 20;
/// Stack for it. A template can nest values as deep as it has steps, and freeing such a value recurses.
const STACK: usize = 256 << 20;

impl ChatTemplate {
    /// Compiles the template `source`; `path` is for messages.
    ///
    /// `specials` are the variables that name special tokens, such as `bos_token`. `now` is what `strftime_now` tells,
    /// in UTC: one moment for the whole conversation, or each turn would begin with another text.
    ///
    /// # Errors
    /// [`TextError::Template`] when it is no template, with the line.
    pub fn new(path: impl AsRef<Path>, source: &str, specials: Vec<(String, String)>, now: SystemTime) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let fail = |reason: String| TextError::Template { path: path.clone(), reason };
        if source.len() > SOURCE {
            return Err(fail(format!("has {} bytes; no chat template needs more than {SOURCE}", source.len())).into());
        }
        let now = jiff::Timestamp::try_from(now).map_err(|e| fail(format!("the clock: {e}")))?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| fail(e.to_string()))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        functions::add(&mut environment, now);
        let compiled = with_room(|| {
            environment.add_template_owned(NAME, functions::without_generation(source))?;
            Ok(environment)
        });
        let environment = compiled.map_err(|e| fail(explain(&e, 0, 0)))?;
        Ok(ChatTemplate { path, source: source.to_owned(), environment, specials })
    }

    /// The conversation as text; with `add_generation_prompt`, up to where the assistant's next answer begins.
    ///
    /// # Errors
    /// [`TextError::Template`] when the template raises, with its own message; when it fails, with the line; or when it
    /// runs or prints without end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let given: usize = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let steps = STEPS.saturating_add(given as u64);
        let most = PRINTED.saturating_add(given.saturating_mul(16));
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let mut variables: BTreeMap<&str, Value> = BTreeMap::from([
            ("messages", Value::from(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
        ]);
        variables.extend(self.specials.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str()))));
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        let mut printed = Printed { text: Vec::new(), most };
        with_room(|| {
            let template = environment.get_template(NAME)?;
            template.render_captured_to(Value::from(variables), &mut printed).map(drop)
        })
        .map_err(|e| self.error(explain(&e, steps, most)))?;
        String::from_utf8(printed.text).map_err(|e| self.error(e.to_string()).into())
    }

    /// What stands in the template's source.
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

/// The name that the library knows the one template by.
const NAME: &str = "chat";

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a template has printed, no more than allowed.
struct Printed {
    text: Vec<u8>,
    most: usize,
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.most - self.text.len() {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `work` where values nested as deep as a template can make them are freed without running out of stack.
fn with_room<T: Send>(work: impl FnOnce() -> Result<T, minijinja::Error> + Send) -> Result<T, minijinja::Error> {
    let failed = |reason: String| minijinja::Error::new(ErrorKind::InvalidOperation, reason);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(|e| failed(format!("no thread to run it: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(failed("the template library failed on it".into())))
    })
}

fn explain(error: &minijinja::Error, steps: u64, most: usize) -> String {
    if let Some(message) = functions::raised(error) {
        return format!("the template refuses the conversation: {message}");
    }
    match error.kind() {
        ErrorKind::OutOfFuel => format!("runs without end: stopped after {steps} steps"),
        ErrorKind::WriteFailure => format!("prints without end: stopped after {most} bytes"),
        kind => {
            let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
            let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{line}{kind}{detail}")
        }
    }
}
