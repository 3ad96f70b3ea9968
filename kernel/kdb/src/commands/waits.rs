//! Who waits for whom in IPC: a graph in which each thread has one edge at most.

use core::fmt::Write;

use kcore::inspect::ThreadView;
use kcore::machine::{Machine, TcbRef};
use kcore::thread::{Purpose, Status, Tcb};

use crate::menu::Done;
use crate::session::Session;

/// Threads of a chain that are printed.
const CHAIN_SHOWN: usize = 64;

/// Where the chain of those for whom a thread waits leads.
enum Chain {
    /// To somebody who waits for nobody in particular.
    Ends,
    /// Back to the thread itself, over so many.
    Ring(usize),
    /// Into a ring of others.
    IntoRing,
}

impl<M: Machine + 'static> Session<'_, '_, M> {
    /// Whom a thread waits for: one that must do something before it can go on.
    pub(crate) fn waits_for(&self, view: &ThreadView) -> Option<TcbRef> {
        let status = view.status?;
        let partner = match status {
            Status::PendingSend | Status::Sending | Status::Receiving => view.peer,
            // A sleep is a wait for oneself.
            Status::Waiting if view.purpose == Some(Purpose::Input) || view.partner == view.id => None,
            Status::Waiting => self.k.thread(view.partner),
            Status::Inactive | Status::Running => None,
        };
        partner.filter(|partner| self.k.tcb_at(*partner).is_some())
    }

    fn next(&self, thread: TcbRef) -> Option<TcbRef> {
        self.waits_for(&self.k.tcb_at(thread).map(Tcb::view)?)
    }

    /// Where the chain from `thread` leads. As each has one edge at most, it ends or comes into a ring, which is found by
    /// comparing with a thread that is replaced after twice as many steps each time.
    fn chain(&self, thread: TcbRef) -> Chain {
        let (mut at, mut mark, mut steps, mut stride) = (thread, thread, 0, 1);
        loop {
            let Some(next) = self.next(at) else { return Chain::Ends };
            at = next;
            steps += 1;
            if at == thread {
                return Chain::Ring(steps);
            }
            if at == mark {
                return Chain::IntoRing;
            }
            if steps == stride {
                (mark, stride) = (at, stride * 2);
            }
        }
    }

    pub(super) fn waits(&mut self) -> Done {
        let k = self.k;
        let (mut waiting, mut rings, mut stuck) = (0, 0, 0);
        for (thread, view) in k.inhabited() {
            if self.waits_for(&view).is_some() {
                waiting += 1;
                self.thread_line(thread, "")?;
            }
        }
        for (thread, view) in k.inhabited() {
            if self.waits_for(&view).is_none() {
                continue;
            }
            match self.chain(thread) {
                Chain::Ends => {}
                Chain::IntoRing => stuck += 1,
                Chain::Ring(len) => {
                    stuck += 1;
                    if self.is_first_of_ring(thread, len) {
                        rings += 1;
                        self.ring(thread, len)?;
                    }
                }
            }
        }
        writeln!(self.out, "{waiting} wait for others; {rings} rings; {stuck} can never go on by themselves")?;
        Ok(None)
    }

    /// Whether no other thread of its ring has a lower number.
    fn is_first_of_ring(&self, thread: TcbRef, len: usize) -> bool {
        let mut at = thread;
        (0..len).all(|_| {
            at = self.next(at).unwrap_or(thread);
            at >= thread
        })
    }

    fn ring(&mut self, first: TcbRef, len: usize) -> core::fmt::Result {
        write!(self.out, "RING of {len}: ")?;
        let mut at = first;
        for _ in 0..len.min(CHAIN_SHOWN) {
            let mut text = arrayvec::ArrayString::<128>::new();
            let _ = write!(text, "{}", self.thread(at));
            write!(self.out, "{text} -> ")?;
            at = self.next(at).unwrap_or(first);
        }
        let mut text = arrayvec::ArrayString::<128>::new();
        let _ = write!(text, "{}", self.thread(at));
        writeln!(self.out, "{}{text}", if len > CHAIN_SHOWN { "... -> " } else { "" })
    }
}
