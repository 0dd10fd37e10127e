//! Bounds the steps and the stack of one validation.
//!
//! The schema determines the work that an event causes, and a recursive one can make it exponential in the event's nesting.
//! The validator learns everything about a body by calling methods of its values, so each call counts as a step, and the one
//! that exceeds the limit ends the validation.

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::document::Node;

/// Steps that every validation may take, regardless of the event's size.
const BASE_STEPS: u64 = 1_000_000;

/// Additional steps per value and name of an event.
const STEPS_PER_VALUE: u64 = 100;

/// Maximum stack of one validation, in bytes: half of a tokio worker's.
const MAX_STACK: usize = 1 << 20;

/// Cheap units, such as bytes of a string or names that are searched, per additional step.
const CHEAP_UNITS: usize = 32;

/// Steps for the description of a fault whose position is known.
const DESCRIPTION_STEPS: u64 = 100_000;

/// The limit of steps for a document: linear in its size, and the same for every retry.
pub(super) fn steps_for(root: Node<'_>) -> u64 {
    let values = root.document_len() as u64;
    // One per byte: strings may be read many times.
    let bytes = root.document_bytes() as u64;
    BASE_STEPS
        .saturating_add(STEPS_PER_VALUE.saturating_mul(values))
        .saturating_add(bytes)
}

/// One run of a validator over one document.
#[derive(Debug)]
pub(super) struct Run<'s> {
    /// The member names that the schema reads.
    pub(super) names: &'s HashSet<String>,
    steps_left: Cell<u64>,
    /// A stack address at the start of the run.
    stack: usize,
    /// In a run for the first fault: the index of its value, once known.
    first_fault: Option<Cell<Option<u32>>>,
}

/// The bound that ended a run early.
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

    /// A run that records the position of the first fault.
    pub(super) fn for_first_fault(names: &'s HashSet<String>, steps: u64) -> Self {
        Self {
            first_fault: Some(Cell::new(None)),
            ..Self::new(names, steps)
        }
    }

    /// Runs the validator within the bounds.
    ///
    /// The validator cannot be stopped, and no answer would end it: it would still try every branch of the schema. So the
    /// step that exceeds the limit unwinds, as rustc and salsa do to cancel a query. No panic hook is called.
    pub(super) fn bounded<T>(&self, work: impl FnOnce() -> T) -> Result<T, Exhausted> {
        // Unwind safe: the interrupted state belongs to this run and is dropped.
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

    /// Counts one step, plus steps for cheap units that come in large numbers.
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

    /// Counts one step, and checks the stack of a recursion.
    #[inline]
    pub(super) fn step_down(&self) {
        self.step();
        if stack_address().abs_diff(self.stack) > MAX_STACK {
            end(Exhausted::Stack);
        }
    }

    /// Called before a fault of this value is described.
    pub(super) fn note_fault(&self, index: u32) {
        self.step();
        if let Some(first) = &self.first_fault
            && first.get().is_none()
        {
            first.set(Some(index));
            // The rest describes only this fault, and may be a tree of all failed alternatives.
            self.steps_left
                .set(self.steps_left.get().min(DESCRIPTION_STEPS));
        }
    }

    /// The index of the value with the first fault, if the run got that far.
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
