//! Calls into the tokenizers crate that may panic: the panic becomes an error, and nothing is printed.
//!
//! `file.rs` refuses every construct that is known to make the crate panic. This module is for those that nobody knows
//! yet. It deliberately knows nothing of tokenizers; read [`guarded`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls `call`; a panic is given back as its message.
///
/// Unwinding alone would not keep a panic quiet: the process's panic hook prints it first, and a program that answers
/// a bad file with an error must not print a panic as well. So the first call puts a hook in front of the one that is
/// there. It is silent on a thread that is inside this function and passes every other panic on unchanged, so an
/// application that embeds fanfold keeps its own hook. One that sets a hook later replaces ours: panics are still
/// caught then, and its hook is told of them.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // A thread that unwinds already may not touch the hook.
    if !std::thread::panicking() {
        HOOK.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |panic| {
                if !GUARDED.try_with(Cell::get).unwrap_or(false) {
                    before(panic);
                }
            }));
        });
    }
    let outer = GUARDED.replace(true);
    // What the call leaves half done are caches of the crate, which it writes last, and values that are dropped here.
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|panic| format!("the tokenizers library failed: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(guarded(|| 3), Ok(3));
        let failed = guarded(|| guarded(|| panic!("at {}", 3)).unwrap_or(()));
        assert_eq!(failed, Ok(()));
        let nothing: Vec<u8> = Vec::new();
        let error = guarded(|| nothing[std::hint::black_box(1)]).unwrap_err();
        assert_eq!(error, "the tokenizers library failed: index out of bounds: the len is 0 but the index is 1");
        assert!(!GUARDED.get());
    }
}
