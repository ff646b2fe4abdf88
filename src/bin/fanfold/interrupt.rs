//! Ctrl-C: it ends the program at once with exit code 130, or first stops what can stop in good order.
//!
//! There is one flag. While it is set, which it is at first, Ctrl-C ends the program; a command that can stop its work
//! clears the flag, Ctrl-C sets it, and a second one ends the program. Read `main.rs` for where it begins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// The exit code of what Ctrl-C ended: 128 and the number of the signal, as shells have it.
pub const CODE: u8 = 130;

static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// The work was stopped by Ctrl-C, and what there is of it was printed.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Hears Ctrl-C from now on.
pub fn listen() {
    let heard = || {
        if FLAG.swap(true, Ordering::Relaxed) {
            end();
        }
    };
    // Without this handler the system ends the program, which a shell reports as 130, too.
    let _ = ctrlc::set_handler(heard);
}

/// The flag that Ctrl-C sets. It is set already, until [`stoppable`] clears it.
pub fn flag() -> Arc<AtomicBool> {
    FLAG.clone()
}

/// From now on Ctrl-C sets the flag first.
pub fn stoppable() {
    FLAG.store(false, Ordering::Relaxed);
}

/// An error where Ctrl-C stopped the work since [`stoppable`].
pub fn check() -> Result<(), Interrupted> {
    if FLAG.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}

/// Ends the program, whatever its threads are doing.
fn end() -> ! {
    // Not `exit`, which runs the cleanup of drivers while other threads still use them, and may crash or hang.
    // SAFETY: `_exit` takes any number and does not return.
    #[cfg(unix)]
    unsafe {
        libc::_exit(CODE.into())
    }
    #[cfg(not(unix))]
    std::process::exit(CODE.into())
}
