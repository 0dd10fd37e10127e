//! Subjects to which the server does not let the user publish.
//!
//! The server reports "Permissions Violation for Publish" with the subject only: it does not say which message it means, and
//! sends nothing to the message's reply subject. A message may be called "not stored" only when the violation is certainly
//! its own. Permissions can change while a connection lives, and then the messages to one subject that are in flight together
//! are a mixture: the acknowledgements of the earlier, accepted ones take the stream's time and arrive after the violations
//! of the later ones. So violations are counted:
//!
//! - Each refused message has exactly one violation, sent when the server processes the message.
//! - A message that waits on this connection is either accepted or refused. When the number of a subject's violations equals
//!   the number of messages to it that still wait, each of these is refused, whatever happened to the permissions meanwhile.
//!   Until then no waiter is resolved: the acknowledgements of the accepted ones will make the numbers equal.
//! - Messages that stopped waiting without an answer (a time-out, a connection that ended) would spoil the count, since their
//!   violations may still arrive. For [`DOUBT`] after that, no violation resolves a waiter. The client's own pings close a
//!   connection on which the server is silent for longer, and the server processes everything before it answers a ping.
//! - A violation that is lost because the client's event queue (128) is full leaves the numbers unequal; those messages end
//!   at their deadline as unknown.
//!
//! From the first violation on, messages to the subject are not handed over, except for one a second that detects whether
//! the subject is accepted again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::brokers::outcome::{Outcome, Reason};
use crate::brokers::waiters::{Ticket, Waiters};

/// Pause between attempts on a refused subject.
const PAUSE: Duration = Duration::from_secs(1);

/// Longer than the client keeps a connection with unanswered pings (three of them, 5 s apart).
const DOUBT: Duration = Duration::from_secs(30);

/// Consecutive violations that make a destination not ready.
const REPEATED: u32 = 3;

/// A subject is forgotten after this time without a publish, so that a bridge that gets no events because it is not ready
/// becomes ready again; the next event tries the subject.
const LAPSE: Duration = Duration::from_secs(30);

/// Maximum number of subjects remembered.
const MAX_SUBJECTS: usize = 1000;

/// Maximum number of subjects shown in `/readyz`.
const MAX_SHOWN: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Whether there are any: the only field that the hot path reads.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subjects: HashMap<String, Refused>,
    doubtful_until: Option<Instant>,
}

#[derive(Debug)]
struct Refused {
    since: Instant,
    last: Instant,
    violations: u32,
    /// Violations that are not attributed to messages yet.
    unused: usize,
    /// With `ack = "core"`: an echo arrived for one of them, and it is unknown whether a violation was its own.
    is_mixed: bool,
    next_try: Instant,
}

/// Repeatedly refused subjects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) why: String,
    /// The first refusal of any of them.
    pub(super) since: Instant,
}

/// A hash of the subject for [`Waiters::hand_over_as`]. Equal subjects have equal marks.
pub(super) fn mark(subject: &str) -> u64 {
    let bytes = subject.as_bytes();
    let word = |part: Option<&[u8]>| {
        let mut word = [0; 8];
        let part = part.unwrap_or(bytes);
        word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    };
    let (start, end) = (
        word(bytes.first_chunk::<8>().map(|chunk| chunk.as_slice())),
        word(bytes.last_chunk::<8>().map(|chunk| chunk.as_slice())),
    );
    start.rotate_left(29) ^ end ^ (bytes.len() as u64).rotate_left(56)
}

impl Refusals {
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether a message to this subject must not be sent now.
    pub(super) fn refuses(&self, subject: &str) -> bool {
        if !self.any() {
            return false;
        }
        let now = Instant::now();
        let mut state = self.lock();
        state.forget(now);
        self.note_any(&state);
        let is_doubtful = state.doubtful_until.is_some_and(|until| now < until);
        let Some(refused) = state.subjects.get_mut(subject) else {
            return false;
        };
        if is_doubtful || now < refused.next_try {
            return true;
        }
        refused.next_try = now + PAUSE;
        false
    }

    /// The server has refused a message to this subject. Resolves the waiters that are now certainly refused. Returns whether
    /// this is the subject's first refusal.
    pub(super) fn note_violation(&self, subject: &str, waiters: &Waiters) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let is_doubtful = state.doubtful_until.is_some_and(|until| now < until);
        if state.subjects.len() >= MAX_SUBJECTS && !state.subjects.contains_key(subject) {
            let oldest = state.subjects.iter().min_by_key(|(_, known)| known.last);
            if let Some(oldest) = oldest.map(|(subject, _)| subject.clone()) {
                state.subjects.remove(&oldest);
            }
        }
        let is_new = !state.subjects.contains_key(subject);
        let refused = state.subjects.entry(subject.to_owned()).or_insert(Refused {
            since: now,
            last: now,
            violations: 0,
            unused: 0,
            is_mixed: false,
            next_try: now + PAUSE,
        });
        refused.last = now;
        refused.violations = refused.violations.saturating_add(1);
        if !is_doubtful {
            refused.unused = refused.unused.saturating_add(1);
        }
        // Set before counting: the violation of a message that is handed over later is still to come.
        self.any.store(true, Ordering::Release);
        settle(subject, refused, waiters);
        is_new
    }

    /// A message was answered, so the numbers may be equal now.
    pub(super) fn note_answer(&self, waiters: &Waiters) {
        if self.any() {
            for (subject, refused) in &mut self.lock().subjects {
                settle(subject, refused, waiters);
            }
        }
    }

    /// With `ack = "core"`, refused messages get an echo too, after their violations: whether this one, whose waiter still
    /// waits, may belong to such a message.
    pub(super) fn is_doubtful_echo(&self, ticket: Ticket, waiters: &Waiters) -> bool {
        if !self.any() {
            return false;
        }
        let Some(of) = waiters.mark_of(ticket) else {
            return false;
        };
        let mut state = self.lock();
        let is_doubtful = state
            .doubtful_until
            .is_some_and(|until| Instant::now() < until);
        let same = state.subjects.iter_mut();
        let mut same = same.filter(|(subject, _)| mark(subject) == of);
        same.any(|(_, refused)| {
            refused.is_mixed |= refused.unused > 0;
            refused.is_mixed || is_doubtful
        })
    }

    /// Whether messages to this subject are known to be refused.
    pub(super) fn contains(&self, subject: &str) -> bool {
        if !self.any() {
            return false;
        }
        let mut state = self.lock();
        state.forget(Instant::now());
        state.subjects.contains_key(subject)
    }

    /// Messages have stopped waiting without an answer.
    pub(super) fn note_doubt(&self) {
        let mut state = self.lock();
        state.doubtful_until = Some(Instant::now() + DOUBT);
        for refused in state.subjects.values_mut() {
            refused.unused = 0;
        }
    }

    /// A message to this subject was stored. Returns whether the subject was refused before.
    pub(super) fn note_stored(&self, subject: &str) -> bool {
        if !self.any() {
            return false;
        }
        let mut state = self.lock();
        let is_news = state.subjects.remove(subject).is_some();
        self.note_any(&state);
        is_news
    }

    /// The repeatedly refused subjects, if any.
    pub(super) fn summary(&self) -> Option<Summary> {
        if !self.any() {
            return None;
        }
        let mut state = self.lock();
        state.forget(Instant::now());
        self.note_any(&state);
        let repeated = state.subjects.iter();
        let mut repeated: Vec<_> = repeated
            .filter(|(_, refused)| refused.violations >= REPEATED)
            .collect();
        repeated.sort_unstable_by_key(|(subject, _)| *subject);
        let since = repeated.iter().map(|(_, refused)| refused.since).min()?;
        let shown: Vec<_> = repeated
            .iter()
            .take(MAX_SHOWN)
            .map(|(subject, _)| subject.as_str())
            .collect();
        let more = match repeated.len().saturating_sub(shown.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let shown = shown.join(", ");
        let why = format!(
            "the user has no permission to publish to {shown}{more}; allow it in the server's `permissions`"
        );
        Some(Summary { why, since })
    }

    fn note_any(&self, state: &State) {
        self.any
            .store(!state.subjects.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        self.subjects
            .retain(|_, refused| now.saturating_duration_since(refused.last) < LAPSE);
    }
}

fn settle(subject: &str, refused: &mut Refused, waiters: &Waiters) {
    if refused.unused == 0 {
        return;
    }
    let waiting = waiters.handed_over_as(mark(subject));
    if refused.is_mixed {
        if waiting.is_empty() {
            (refused.unused, refused.is_mixed) = (0, false);
        }
        return;
    }
    if waiting.len() > refused.unused {
        return;
    }
    // With more violations than messages, some belong to messages that no longer wait, and none can be attributed.
    let is_certain = waiting.len() == refused.unused;
    refused.unused = 0;
    if is_certain {
        for ticket in waiting {
            let detail = format!("the user has no permission to publish to {subject}");
            waiters.resolve(ticket, Outcome::not_stored(Reason::Authorization, detail));
        }
    }
}

/// A missing permission, as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    Publish(String),
    Subscription(String),
}

impl Violation {
    /// From the server's text: `Permissions Violation for Publish to "a.b"`.
    pub(super) fn parse(error: &str) -> Option<Self> {
        let of = |start: &str| {
            let begins = error
                .get(..start.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(start));
            let rest = error.get(start.len()..).filter(|_| begins)?;
            rest.split('"').next().map(ToOwned::to_owned)
        };
        of("Permissions Violation for Publish to \"")
            .map(Self::Publish)
            .or_else(|| of("Permissions Violation for Subscription to \"").map(Self::Subscription))
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Publish(subject) => {
                write!(
                    f,
                    "authorization failed: the user has no permission to publish to \"{subject}\"; allow it in the server's `permissions`"
                )
            }
            Self::Subscription(subject) => {
                write!(
                    f,
                    "authorization failed: the user has no permission to subscribe to \"{subject}\"; allow it in the server's `permissions`, or set `inbox_prefix` where it is an inbox and the user has a prefix of its own"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::waiters::Waiter;

    fn sent<'w>(waiters: &'w Waiters, subject: &str) -> Waiter<'w> {
        let waiter = waiters
            .register(Instant::now() + Duration::from_secs(8))
            .unwrap();
        assert!(waiters.hand_over_as(waiter.ticket(), mark(subject)));
        waiter
    }

    fn reason(outcome: Option<Outcome>) -> Reason {
        match outcome {
            Some(Outcome::NotStored(not)) => not.reason,
            other => panic!("{other:?}"),
        }
    }

    fn stored() -> Outcome {
        Outcome::stored(false, None)
    }

    fn is_waiting(waiter: &mut Waiter<'_>) -> bool {
        futures_util::FutureExt::now_or_never(waiter).is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn a_violation_ends_the_waiting_for_its_subject_and_no_others() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        let refused = sent(&waiters, "a.issue_created");
        let mut other = sent(&waiters, "a.issue_updated");
        assert!(refusals.note_violation("a.issue_created", &waiters));
        assert_eq!(reason(refused.await), Reason::Authorization);
        assert!(is_waiting(&mut other));
        assert!(refusals.refuses("a.issue_created") && !refusals.refuses("a.issue_updated"));
    }

    #[tokio::test(start_paused = true)]
    async fn messages_accepted_before_the_permission_was_revoked_never_count_as_refused() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        let mut accepted = sent(&waiters, "a");
        let mut refused = sent(&waiters, "a");
        refusals.note_violation("a", &waiters);
        assert!(is_waiting(&mut accepted) && is_waiting(&mut refused));
        assert!(waiters.resolve(accepted.ticket(), stored()));
        assert!(matches!(accepted.await, Some(Outcome::Stored(_))));
        refusals.note_answer(&waiters);
        assert_eq!(reason(refused.await), Reason::Authorization);
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_proves_nothing_if_any_waiting_message_was_refused() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        let first = sent(&waiters, "a");
        let second = sent(&waiters, "a");
        let other = sent(&waiters, "b");
        refusals.note_violation("a", &waiters);
        let is_doubtful =
            |waiter: &Waiter<'_>| refusals.is_doubtful_echo(waiter.ticket(), &waiters);
        assert!(!is_doubtful(&other));
        assert!(is_doubtful(&first));
        let unknown = || Outcome::unknown(Reason::Authorization, "");
        waiters.resolve(first.ticket(), unknown());
        refusals.note_answer(&waiters);
        assert!(
            is_doubtful(&second),
            "it may have been the accepted one, or not"
        );
        waiters.resolve(second.ticket(), unknown());
        refusals.note_answer(&waiters);
        let later = sent(&waiters, "a");
        assert!(!is_doubtful(&later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_violation_without_a_waiter_is_not_assigned_to_another() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        refusals.note_violation("a", &waiters);
        let mut later = sent(&waiters, "a");
        refusals.note_answer(&waiters);
        assert!(is_waiting(&mut later));
    }

    #[tokio::test(start_paused = true)]
    async fn after_messages_with_unknown_outcomes_violations_resolve_no_waiter_for_a_while() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        refusals.note_doubt();
        let mut waiting = sent(&waiters, "a");
        refusals.note_violation("a", &waiters);
        assert!(is_waiting(&mut waiting));
        tokio::time::advance(2 * PAUSE).await;
        assert!(refusals.refuses("a"), "a try would be in doubt too");
        drop(waiting);
        tokio::time::advance(DOUBT).await;
        refusals.note_violation("a", &waiters);
        tokio::time::advance(PAUSE).await;
        assert!(!refusals.refuses("a"));
        let waiting = sent(&waiters, "a");
        refusals.note_violation("a", &waiters);
        assert_eq!(reason(waiting.await), Reason::Authorization);
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_refusals_are_reported_until_one_is_stored_or_nobody_tries_any_more() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        for _ in 1..REPEATED {
            refusals.note_violation("a", &waiters);
            assert_eq!(refusals.summary(), None);
        }
        refusals.note_violation("a", &waiters);
        assert!(
            refusals
                .summary()
                .is_some_and(|summary| summary.why.contains("publish to a;"))
        );
        assert!(refusals.refuses("a") && refusals.refuses("a"));
        tokio::time::advance(PAUSE).await;
        assert!(
            !refusals.refuses("a") && refusals.refuses("a"),
            "one a second"
        );
        assert!(refusals.note_stored("a") && !refusals.any());
        for _ in 0..REPEATED {
            refusals.note_violation("a", &waiters);
        }
        tokio::time::advance(LAPSE).await;
        assert_eq!(refusals.summary(), None);
        assert!(!refusals.any() && !refusals.refuses("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn subjects_are_bounded() {
        let (refusals, waiters) = (Refusals::default(), Waiters::new(9));
        for number in 0..2 * MAX_SUBJECTS {
            refusals.note_violation(&number.to_string(), &waiters);
        }
        assert_eq!(refusals.lock().subjects.len(), MAX_SUBJECTS);
    }

    #[test]
    fn the_servers_words_are_understood() {
        let parse = Violation::parse;
        assert_eq!(
            parse("Permissions Violation for Publish to \"a.b\""),
            Some(Violation::Publish("a.b".to_owned()))
        );
        assert_eq!(
            parse("permissions violation for subscription to \"_INBOX.x.*\" (sid \"1\")"),
            Some(Violation::Subscription("_INBOX.x.*".to_owned()))
        );
        assert_eq!(parse("Authorization Violation"), None);
        assert_eq!(parse("Permissions Violation for Publish é"), None);
    }
}
