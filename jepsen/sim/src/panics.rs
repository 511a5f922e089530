//! Panics of whatever task, which nobody may swallow.

use std::sync::Once;

use parking_lot::Mutex;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From here on panics are remembered.
pub fn watch() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture();
            eprintln!("{panic}\n{backtrace}");
            SEEN.lock().push(format!("panic: {panic}"));
        }));
    });
    SEEN.lock().clear();
}

/// The panics since [`watch`].
pub fn take() -> Vec<String> {
    std::mem::take(&mut SEEN.lock())
}
