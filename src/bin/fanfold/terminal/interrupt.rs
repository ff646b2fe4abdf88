//! Ctrl-C: it ends the program at once with exit code 130, or first stops work that can stop in good order.
//!
//! There is one flag, and it is set when the program starts. Ctrl-C sets the flag, and ends the program if the flag was set
//! already. A command that can stop its work clears the flag first, so that one Ctrl-C stops the work and a second one ends
//! the program. Nothing here knows which work that is. Read `main.rs` for where [`listen`] is called.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// The exit code of a program that Ctrl-C ended: 128 plus the number of the signal, as shells have it.
pub const CODE: u8 = 130;

static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Ctrl-C stopped the work. What had been computed by then was printed.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Installs the handler for Ctrl-C.
pub fn listen() {
    let heard = || {
        if FLAG.swap(true, Ordering::Relaxed) {
            end();
        }
    };
    // Where no handler can be installed the system ends the program, and a shell reports that as 130 as well.
    let _ = ctrlc::set_handler(heard);
}

/// The flag that Ctrl-C sets. It is set from the start, until [`stoppable`] clears it.
pub fn flag() -> Arc<AtomicBool> {
    FLAG.clone()
}

/// Clears the flag: from now on the first Ctrl-C sets it, and only the second one ends the program.
pub fn stoppable() {
    FLAG.store(false, Ordering::Relaxed);
}

/// Sets the flag: from now on the first Ctrl-C ends the program.
pub fn unstoppable() {
    FLAG.store(true, Ordering::Relaxed);
}

/// Errors when Ctrl-C was pressed since [`stoppable`].
pub fn check() -> Result<(), Interrupted> {
    if FLAG.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}

/// Ends the program, whatever its threads are doing.
fn end() -> ! {
    // `exit` would run the cleanup of GPU drivers while other threads still use them, and could crash or hang.
    // SAFETY: `_exit` takes any number and does not return.
    #[cfg(unix)]
    unsafe {
        libc::_exit(CODE.into())
    }
    #[cfg(not(unix))]
    std::process::exit(CODE.into())
}
