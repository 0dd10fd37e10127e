//! The bounds of one validation: how many steps it may take, and how much stack.
//!
//! A schema decides how much work an event makes, and a recursive one can make it exponential in the event's nesting. The
//! validator asks a body's values for everything that it wants to know, so each question is counted here as a step, and
//! the one too many ends the validation.

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::document::Node;

/// Steps that every validation may take, whatever the size of the event.
const BASE_STEPS: u64 = 1_000_000;

/// Steps that each value and each name of an event adds.
const STEPS_PER_VALUE: u64 = 100;

/// Stack that one validation may use, in bytes: half of what tokio gives a worker.
const MAX_STACK: usize = 1 << 20;

/// A step more is counted for so many bytes of a text, names that are looked through, and the like.
const CHEAP_UNITS: usize = 32;

/// Steps left for the description of a fault whose place is known.
const DESCRIPTION_STEPS: u64 = 100_000;

/// How many steps the validation of a document may take: linear in its size, and the same for every retry.
pub(super) fn steps_for(root: Node<'_>) -> u64 {
    let values = root.document_len() as u64;
    // One for each byte: a text may be read through many times.
    let bytes = root.document_bytes() as u64;
    BASE_STEPS
        .saturating_add(STEPS_PER_VALUE.saturating_mul(values))
        .saturating_add(bytes)
}

/// One run of a validator over one document.
#[derive(Debug)]
pub(super) struct Run<'s> {
    /// The names that the schema reads.
    pub(super) names: &'s HashSet<String>,
    steps_left: Cell<u64>,
    /// An address on the stack where the run began.
    stack: usize,
    /// In a run for the first fault: the index of the value that has it, once it is known.
    first_fault: Option<Cell<Option<u32>>>,
}

/// The run had to end before the validator was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    Steps,
    Stack,
}

impl<'s> Run<'s> {
    pub(super) fn new(names: &'s HashSet<String>, steps: u64) -> Self {
        Self {
            names,
            steps_left: Cell::new(steps),
            stack: stack_address(),
            first_fault: None,
        }
    }

    /// A run that remembers where the first fault is.
    pub(super) fn for_first_fault(names: &'s HashSet<String>, steps: u64) -> Self {
        Self {
            first_fault: Some(Cell::new(None)),
            ..Self::new(names, steps)
        }
    }

    /// Lets the validator work within the bounds.
    ///
    /// The validator has no way to be stopped, and answers cannot end it: it would still try every branch of the schema. So
    /// the step too many unwinds it, as rustc and salsa do for a cancelled query. No panic hook is called.
    pub(super) fn bounded<T>(&self, work: impl FnOnce() -> T) -> Result<T, Exhausted> {
        // What the validator leaves half-done is its own state for this run, and is dropped.
        catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
            match payload.downcast::<Exhausted>() {
                Ok(exhausted) => *exhausted,
                Err(defect) => resume_unwind(defect),
            }
        })
    }

    /// Counts one step.
    #[inline]
    pub(super) fn step(&self) {
        self.steps(1);
    }

    /// Counts one step, and more for what is cheap but comes in large numbers.
    #[inline]
    pub(super) fn step_over(&self, units: usize) {
        self.steps(1 + (units / CHEAP_UNITS) as u64);
    }

    #[inline]
    fn steps(&self, count: u64) {
        match self.steps_left.get().checked_sub(count) {
            Some(left) => self.steps_left.set(left),
            None => end(Exhausted::Steps),
        }
    }

    /// Counts one step of a recursion, whose depth the stack limits.
    #[inline]
    pub(super) fn step_down(&self) {
        self.step();
        if stack_address().abs_diff(self.stack) > MAX_STACK {
            end(Exhausted::Stack);
        }
    }

    /// A fault of this value is about to be described.
    pub(super) fn note_fault(&self, index: u32) {
        self.step();
        if let Some(first) = &self.first_fault
            && first.get().is_none()
        {
            first.set(Some(index));
            // What follows is about this fault alone, and may be a tree of all the alternatives that do not fit.
            self.steps_left
                .set(self.steps_left.get().min(DESCRIPTION_STEPS));
        }
    }

    /// The value with the first fault, where the run got so far.
    pub(super) fn first_fault(&self) -> Option<u32> {
        self.first_fault.as_ref().and_then(Cell::get)
    }

    #[cfg(test)]
    pub(super) fn steps_left(&self) -> u64 {
        self.steps_left.get()
    }
}

#[inline]
fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

#[cold]
#[inline(never)]
fn end(exhausted: Exhausted) -> ! {
    resume_unwind(Box::new(exhausted))
}
