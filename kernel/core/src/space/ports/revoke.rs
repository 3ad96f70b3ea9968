//! Closing ports, with all that is derived from them: unmap, flush, the second half of a grant.
//!
//! Ports of a space are closed by clearing their bits. That leaves *orphans*: open ports that came from there. They are
//! found by going through the ranges of all spaces, in rounds, until a round finds none. A range can only have orphans if
//! its parent lost ports in this round or in the one before, so most ranges cost one look. Rounds end: each one closes
//! ports, and as long as something is pending, none is opened.

use super::*;
use crate::mapdb::{MapCursor, Progress, UnmapScope};
use crate::space::spend;
use crate::var::AsWord;

/// Words of bits that cost as much as a look at a range.
const WORDS_PER_LOOK: usize = 32;

/// What closing begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closing {
    /// Unmap: what is derived from the ports.
    Derived,
    /// Flush: the ports themselves.
    Own,
    /// Grant: the ports go to this space, which has room for ranges.
    Granted(SpaceRef),
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// Nothing.
    #[default]
    Settled,
    /// Grant: ports that the receiver has from elsewhere are closed there.
    Yield,
    /// Grant: the receiver gets the ports.
    Give,
    /// Grant: what is derived from the granter's ports goes over to the receiver.
    Adopt,
    /// The ports themselves are closed.
    Close,
    /// Orphans are closed.
    Orphans,
    /// The same, then [`Stage::Give`].
    OrphansThenGive,
}

impl AsWord for Stage {
    type Cell = crate::sync::AtomicU8;
    fn to_word(self) -> usize {
        self as usize
    }
    fn from_word(word: usize) -> Self {
        use Stage::*;
        const ALL: [Stage; 7] = [Settled, Yield, Give, Adopt, Close, Orphans, OrphansThenGive];
        ALL[word]
    }
}

/// What a look through the ranges of all spaces comes to.
enum Look {
    /// A range of a space.
    Range(SpaceRef, u32),
    /// The end of a space's ranges.
    Nothing,
    /// The end of all.
    End,
}

/// What is left to do of the last operation that closed ports. Changed under the lock alone.
#[derive(Default)]
pub(super) struct Pending {
    stage: Var<Stage>,
    /// Number of the operation.
    ticket: Var<usize>,
    /// Whose ports, and which.
    of: Var<Option<SpaceRef>>,
    first: Var<u16>,
    last: Var<u16>,
    /// Unmap: also ports from `of` that are open there.
    is_derived_only: Var<bool>,
    /// Grant: to whom.
    to: Var<Option<SpaceRef>>,
    /// Number of the round.
    round: Var<u32>,
    /// Whether it closed a port.
    has_closed: Var<bool>,
    /// The next port to look at, in stages about the ports of one space.
    at_port: Var<u32>,
    /// The next range to look at, in stages about ranges of all.
    at_space: Var<Option<SpaceRef>>,
    at_range: Var<u32>,
}

impl Pending {
    pub(super) fn is_settled(&self) -> bool {
        self.stage.get() == Stage::Settled
    }

    /// The space whose ports they are.
    fn of(&self) -> SpaceRef {
        self.of.get().expect("an operation is about a space")
    }

    fn ports(&self) -> (u16, u16) {
        (self.first.get(), self.last.get())
    }

    /// The ports that a stage about one space has not looked at.
    fn ports_left(&self) -> Option<(u16, u16)> {
        let last = self.last.get();
        u16::try_from(self.at_port.get()).ok().filter(|&first| first <= last).map(|first| (first, last))
    }

    /// Ports up to `last` have been looked at.
    fn pass(&self, last: u16) {
        self.at_port.set(u32::from(last) + 1);
    }

    /// Goes on with space `next` if `gone` is where the next range would be.
    pub(super) fn skip(&self, gone: SpaceRef, next: Option<SpaceRef>) {
        if self.at_space.get() == Some(gone) {
            self.enter(self.stage.get(), next);
        }
    }

    /// Enters a stage, at the first port or at the first range of `at_space`.
    fn enter(&self, stage: Stage, at_space: Option<SpaceRef>) {
        self.stage.set(stage);
        self.at_port.set(self.first.get().into());
        self.at_space.set(at_space);
        self.at_range.set(0);
    }
}

impl<M: Mmu> Spaces<'_, M> {
    /// Revokes ports: those derived from `ports` of `space`, with flush these themselves, too. `cursor` is reset before the
    /// first step.
    pub fn unmap_ports(
        &self,
        held: &mut Held<{ rank::NONE }>,
        space: SpaceRef,
        ports: IoFpage,
        scope: UnmapScope,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let slot = self.get(space);
        if !slot.may_have_ports() {
            return Progress::Done;
        }
        let _guard = self.ports.lock.lock(held);
        // sigma0 keeps its own.
        let is_own = scope == UnmapScope::Flush && !slot.is_sigma0();
        self.close(space, ports, if is_own { Closing::Own } else { Closing::Derived }, cursor, budget)
    }

    /// Begins to close ports if `cursor` is at its beginning, and does what is left of it. Needs the lock.
    pub(super) fn close(
        &self,
        space: SpaceRef,
        ports: IoFpage,
        what: Closing,
        cursor: &MapCursor,
        budget: &mut u32,
    ) -> Progress {
        let pending = &self.ports.pending;
        if cursor.pages.get() == 0 {
            if !self.settle(budget) {
                return Progress::Again;
            }
            self.begin(space, ports, what);
            cursor.pages.set(pending.ticket.get());
        }
        let is_done = pending.ticket.get() != cursor.pages.get() || self.settle(budget);
        if is_done { Progress::Done } else { Progress::Again }
    }

    fn begin(&self, of: SpaceRef, ports: IoFpage, what: Closing) {
        let pending = &self.ports.pending;
        // 0 is the cursor's beginning.
        pending.ticket.set(pending.ticket.get().wrapping_add(1).max(1));
        pending.of.set(Some(of));
        pending.first.set(ports.port());
        pending.last.set(ports.last());
        pending.is_derived_only.set(what == Closing::Derived);
        match what {
            Closing::Derived => self.begin_round(Stage::Orphans),
            Closing::Own => pending.enter(Stage::Close, None),
            Closing::Granted(to) => {
                pending.to.set(Some(to));
                pending.enter(Stage::Yield, None);
            }
        }
    }

    /// Does what is pending; `false` if there is more to do. Needs the lock.
    pub(super) fn settle(&self, budget: &mut u32) -> bool {
        let pending = &self.ports.pending;
        while !pending.is_settled() {
            if !spend(budget) {
                return false;
            }
            match pending.stage.get() {
                Stage::Settled => {}
                Stage::Yield => self.yield_range(budget),
                Stage::Give => self.give_run(budget),
                Stage::Adopt => self.adopt_range(budget),
                Stage::Close => self.close_range(budget),
                Stage::Orphans => self.close_orphans(Stage::Settled, budget),
                Stage::OrphansThenGive => self.close_orphans(Stage::Give, budget),
            }
        }
        true
    }

    fn begin_round(&self, stage: Stage) {
        let pending = &self.ports.pending;
        pending.round.set(pending.round.get().wrapping_add(1));
        pending.has_closed.set(false);
        pending.enter(stage, self.ports.first.get());
    }

    /// The next range to look at. A space without another one is passed, which counts as a look.
    fn next_look(&self) -> Look {
        let pending = &self.ports.pending;
        let Some(space) = pending.at_space.get() else { return Look::End };
        let (ports, index) = (&self.get(space).ports, pending.at_range.get());
        if index < ports.count.get() {
            return Look::Range(space, index);
        }
        pending.at_space.set(ports.next.get());
        pending.at_range.set(0);
        Look::Nothing
    }

    /// Closes ports from `first` to `last` of a range, in each word those that `mask_of` says, and lets the range begin and
    /// end with what is left. Whether anything is left of it.
    fn close_in_range(
        &self,
        space: SpaceRef,
        index: u32,
        (first, last): (u16, u16),
        mask_of: impl Fn(usize) -> usize,
        budget: &mut u32,
    ) -> bool {
        let (slot, pending) = (self.get(space), &self.ports.pending);
        let mut has_closed = false;
        for (word, mask) in bits::words(first, last) {
            has_closed |= self.close_in_word(slot, word, mask & mask_of(word));
        }
        charge(budget, first, last);
        if has_closed {
            slot.ports.lost_in.set(pending.round.get());
            pending.has_closed.set(true);
        }
        !has_closed || self.tighten(slot, index, budget)
    }

    /// Looks at one range for orphans.
    fn close_orphans(&self, then: Stage, budget: &mut u32) {
        let pending = &self.ports.pending;
        let (space, index) = match self.next_look() {
            Look::Range(space, index) => (space, index),
            Look::Nothing => return,
            Look::End if pending.has_closed.get() => return self.begin_round(pending.stage.get()),
            Look::End => return pending.enter(then, None),
        };
        let range = self.range(self.get(space), index);
        let (first, last) = pending.ports();
        let parent = self.get(range.parent);
        let is_revoked = pending.is_derived_only.get() && range.parent == pending.of();
        let has_lost = pending.round.get().wrapping_sub(parent.ports.lost_in.get()) <= 1;
        let is_left = match range.part(first, last).filter(|_| is_revoked || has_lost) {
            Some(part) if is_revoked => self.close_in_range(space, index, part, |_| usize::MAX, budget),
            Some(part) => self.close_in_range(space, index, part, |word| !self.open_word(parent, word), budget),
            None => true,
        };
        // In the place of one that is gone is the next one.
        pending.at_range.set(index + u32::from(is_left));
    }

    /// Closes what is to be closed in one range of the space itself.
    fn close_range(&self, budget: &mut u32) {
        let pending = &self.ports.pending;
        let of = pending.of();
        let Some((index, part)) = self.own_range(of) else { return self.begin_round(Stage::Orphans) };
        self.close_in_range(of, index, part, |_| usize::MAX, budget);
        pending.pass(part.1);
    }

    /// The next range of `space` that has some of the ports, and which part of it that is.
    fn own_range(&self, space: SpaceRef) -> Option<(u32, (u16, u16))> {
        let (slot, pending) = (self.get(space), &self.ports.pending);
        let (first, last) = pending.ports_left()?;
        let index = self.range_from(slot, first);
        let range = self.range_if_any(slot, index)?;
        Some((index, range.part(first, last)?))
    }

    // --- grant ---

    /// Closes what the receiver has of the granted ports in one of its ranges and one of the granter's, unless that came from
    /// where the granter has them, or the granter has them from the receiver.
    fn yield_range(&self, budget: &mut u32) {
        let pending = &self.ports.pending;
        let (of, to) = (pending.of(), pending.to.get().expect("a grant has a receiver"));
        let Some((index, (first, last))) = self.own_range(to) else {
            return self.begin_round(Stage::OrphansThenGive);
        };
        let granter = self.get(of);
        let granted = self.range_if_any(granter, self.range_from(granter, first));
        let Some((granted, part)) = granted.and_then(|granted| Some((granted, granted.part(first, last)?))) else {
            return pending.pass(last);
        };
        let parent = self.range(self.get(to), index).parent;
        if granted.parent != parent && granted.parent != to {
            self.close_in_range(to, index, part, |word| self.open_word(granter, word), budget);
        }
        pending.pass(part.1);
    }

    /// Gives the receiver the next ports that it has not, all from one range of the granter.
    fn give_run(&self, budget: &mut u32) {
        let pending = &self.ports.pending;
        let (of, to) = (self.get(pending.of()), self.get(pending.to.get().expect("a grant has a receiver")));
        let left = pending.ports_left();
        let Some((first, last, open)) =
            left.and_then(|(first, last)| Some((first, last, self.first_open(of, first, last)?)))
        else {
            return pending.enter(Stage::Adopt, self.ports.first.get());
        };
        let range = self.range(of, self.range_from(of, open));
        let last = last.min(range.last);
        match self.open_run(to, of, range.parent, (open, last), budget) {
            Ok(end) => {
                let end = end.unwrap_or(last);
                charge(budget, first, end);
                pending.pass(end);
            }
            // The granter keeps what it has.
            Err(Full) => pending.enter(Stage::Settled, None),
        }
    }

    /// Lets what one range has of the granter's ports be derived from the receiver's.
    fn adopt_range(&self, budget: &mut u32) {
        let pending = &self.ports.pending;
        let (of, to) = (pending.of(), pending.to.get().expect("a grant has a receiver"));
        let (space, index) = match self.next_look() {
            Look::Range(space, index) => (space, index),
            Look::Nothing => return,
            Look::End => return pending.enter(Stage::Close, None),
        };
        let slot = self.get(space);
        let range = self.range(slot, index);
        if range.parent != of || space == to {
            return pending.at_range.set(index + 1);
        }
        charge(budget, range.first, range.last);
        let (count, has_closed) = self.adopt(slot, index, pending.ports(), to, budget);
        if has_closed {
            slot.ports.lost_in.set(pending.round.get());
        }
        pending.at_range.set(index + count);
    }
}

/// Takes from the budget what work on the bits of ports from `first` to `last` costs beyond a look.
pub(super) fn charge(budget: &mut u32, first: u16, last: u16) {
    let looks = usize::from(last - first) / (bits::WORD_PORTS * WORDS_PER_LOOK);
    *budget = budget.saturating_sub(looks as u32);
}
