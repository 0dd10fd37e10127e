//! The reason of a failed test. Its brokers and its bridge print their logs as they go, behind the panic's own message; so each
//! log ends with that message once more, for whoever sees no more than the end.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on the panics of each thread are known to [`report`] on the same thread.
pub(crate) fn remember() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            LAST.set(Some(panic.to_string()));
            usual(panic);
        }));
    });
}

/// Prints a log of something that takes part in a test that has just failed, and what the test failed of.
pub(crate) fn report(what: &str, log: &str) {
    let failure = LAST.with_borrow(|last| last.clone().unwrap_or_default());
    eprintln!("--- {what}\n{log}\n--- {failure}");
}
