//! The reason of a failed test. Its brokers and its bridge print their logs when dropped, after the panic's own
//! message, so each log ends with that message once more, for readers who see only the end.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Records the panics of each thread for [`report`] on the same thread.
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

/// Prints the log of a participant if the test has failed, with the panic message.
pub(crate) fn report(what: &str, log: &str) {
    let failure = LAST.with_borrow(|last| last.clone().unwrap_or_default());
    eprintln!("--- {what}\n{log}\n--- {failure}");
}
