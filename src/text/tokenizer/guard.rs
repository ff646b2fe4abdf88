//! Calls into the tokenizers crate that may panic. A panic becomes an error, and nothing is printed.
//!
//! `file.rs` refuses every construct that is known to make the crate panic; this module covers those not known yet. It
//! deliberately knows nothing of tokenizers. Read [`guarded`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Calls `call`. If it panics, the result is the panic's message as an error.
///
/// Catching the panic would not keep it quiet: the process's panic hook prints it first, and a program that answers a
/// bad file with an error must not print a panic as well. The first call therefore installs a hook in front of the
/// existing one. It is silent on a thread that is inside this function and passes every other panic on unchanged, so
/// an application that embeds fanfold keeps its own hook. If the application sets a hook later, that hook replaces
/// this one: panics are still caught, but its hook is told of them.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    // A thread that is already unwinding must not change the hook.
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
    // The state that an aborted call leaves behind consists of the crate's caches, which it writes last, and of values
    // that are dropped here.
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
