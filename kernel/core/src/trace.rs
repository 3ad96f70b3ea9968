//! Tracepoints: where the core says what it does, if somebody wants to know ([docs/tracing.md]).
//!
//! A machine that traces nothing has no code of it: [`Sink::TRACES`] is a constant. Otherwise a tracepoint costs a look at
//! whether its event is wanted, and what it says is worked out only then, apart from the code around it.
//!
//! [docs/tracing.md]: ../../../docs/tracing.md

pub use kformats::trace::{ARGS, Event};
use l4_abi::ThreadId;

use crate::kernel::{Here, Kernel};
use crate::machine::{CpuId, Machine, SpaceRef, TcbRef};

/// What an event says besides its name.
pub type Args = [u64; ARGS];

/// Where events go.
pub trait Sink {
    /// Whether events are ever wanted.
    const TRACES: bool = false;

    /// Whether somebody wants to know of one of the events with these bits.
    #[inline(always)]
    fn wants(&self, _events: u64) -> bool {
        false
    }

    /// Takes an event. It is about `thread`, or without one about the running thread.
    fn take(&self, _event: Event, _thread: Option<ThreadId>, _args: Args) {}

    /// Whether one of the events with these bits is traced.
    #[inline(always)]
    fn traces(&self, events: u64) -> bool {
        Self::TRACES && self.wants(events)
    }

    /// A tracepoint about the running thread. What `args` looks at must be there whatever is traced; it changes nothing.
    #[inline(always)]
    fn trace(&self, event: Event, args: impl FnOnce() -> Args) {
        if self.traces(event.bit()) {
            out_of_line(self, event, || (None, args()));
        }
    }

    /// A tracepoint about a thread that `what` names.
    #[inline(always)]
    fn trace_of(&self, event: Event, what: impl FnOnce() -> (ThreadId, Args)) {
        if self.traces(event.bit()) {
            out_of_line(self, event, || {
                let (thread, args) = what();
                (Some(thread), args)
            });
        }
    }
}

#[cold]
#[inline(never)]
fn out_of_line<S: Sink + ?Sized>(sink: &S, event: Event, what: impl FnOnce() -> (Option<ThreadId>, Args)) {
    let (thread, args) = what();
    sink.take(event, thread, args);
}

/// Arguments, those that are left out being 0.
#[inline]
pub fn args<const N: usize>(given: [u64; N]) -> Args {
    core::array::from_fn(|index| given.get(index).copied().unwrap_or(0))
}

/// A value as an argument.
pub trait Arg {
    /// The word.
    fn arg(self) -> u64;
}

impl Arg for ThreadId {
    fn arg(self) -> u64 {
        self.raw() as u64
    }
}

impl Arg for CpuId {
    fn arg(self) -> u64 {
        self.index() as u64
    }
}

impl Arg for SpaceRef {
    fn arg(self) -> u64 {
        self.index() as u64
    }
}

impl<M: Machine> Kernel<'_, M> {
    /// The global id of `thread`, for events.
    pub(crate) fn id_of(&self, thread: TcbRef) -> ThreadId {
        self.tcb(thread).id.get()
    }
}

impl<M: Machine> Here<'_, M> {
    /// A tracepoint about the running thread.
    #[inline(always)]
    pub(crate) fn trace<const N: usize>(&self, event: Event, what: impl FnOnce(&Kernel<'_, M>) -> [u64; N]) {
        self.k.machine.trace(event, || args(what(self.k)));
    }

    /// A tracepoint about `thread`.
    #[inline(always)]
    pub(crate) fn trace_of<const N: usize>(
        &self,
        event: Event,
        thread: TcbRef,
        what: impl FnOnce(&Kernel<'_, M>) -> [u64; N],
    ) {
        self.k.machine.trace_of(event, || (self.k.id_of(thread), args(what(self.k))));
    }
}
