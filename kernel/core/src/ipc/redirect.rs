//! Redirection (X.2, Redirection): a space can have a redirector, a thread that gets all IPC that leaves the space.
//!
//! | what a thread of the space sends | goes to |
//! |---|---|
//! | to a thread of its own space, to an interrupt, to the redirector | whoever it is sent to |
//! | as the redirector itself | whoever it is sent to |
//! | anything else, the kernel's messages in its name among it | the redirector |
//!
//! A redirector in a third space that has a redirector is replaced by that one, and so on. What is redirected is the
//! message alone: the sender waits for an answer of whom it has named. So the redirector may pass the message on in the
//! sender's name, or answer in the name of whom it was for.
//!
//! A redirector that does not exist any more lets nothing out: such IPC fails as one to nobody.

use l4_abi::ThreadId;

use crate::kernel::Here;
use crate::machine::{Machine, SpaceRef, TcbRef};
use crate::thread::Purpose;

/// How many redirectors may stand one behind the other. The rest of a longer chain, or of a ring, does not count.
const CHAIN_MAX: usize = 8;

/// What a space has as redirector.
enum Redirector {
    /// Nobody.
    None,
    /// A thread that does not exist any more.
    Gone,
    /// This thread.
    Is(TcbRef),
}

impl<M: Machine> Here<'_, M> {
    /// Who gets what `sender` sends to `dest`; its TCB then says whom it is for. `None`: nobody, as the redirector is gone.
    pub(super) fn route(&self, sender: TcbRef, dest: TcbRef) -> Option<TcbRef> {
        let receiver = self.receiver(sender, dest)?;
        // Where the way was settled before, at another processor, it may have changed.
        let (tcb, is_redirected) = (self.k.tcb(sender), receiver != dest);
        match tcb.purpose.get() {
            Purpose::User => {
                let intended = if is_redirected { self.k.tcb(dest).id.get() } else { ThreadId::NIL };
                tcb.user_intended.set(intended);
            }
            _ => tcb.kernel_is_redirected.set(is_redirected),
        }
        Some(receiver)
    }

    fn receiver(&self, sender: TcbRef, dest: TcbRef) -> Option<TcbRef> {
        let (from, to) = (self.k.space_of(sender), self.k.tcb(dest).space.get()?);
        if from == to || self.k.spaces.get(from).redirector().is_nil() {
            return Some(dest);
        }
        let mut space = from;
        let mut receiver = dest;
        for _ in 0..CHAIN_MAX {
            match self.redirector(space) {
                Redirector::None => break,
                Redirector::Gone => return None,
                Redirector::Is(thread) if space == from && thread == dest => return Some(dest),
                Redirector::Is(thread) => receiver = thread,
            }
            space = self.k.tcb(receiver).space.get()?;
            if space == from || space == to {
                break;
            }
        }
        Some(if receiver == sender { dest } else { receiver })
    }

    fn redirector(&self, space: SpaceRef) -> Redirector {
        let id = self.k.spaces.get(space).redirector();
        match self.k.thread(id) {
            _ if id.is_nil() => Redirector::None,
            None => Redirector::Gone,
            Some(thread) => Redirector::Is(thread),
        }
    }

    /// Whether `sender` is of the space of `thread`, or redirects what leaves it, be it through others. Such a sender may
    /// send in the name of `thread`, and to `thread` in the name of others (X.2, Propagation).
    pub(super) fn may_speak_for_space_of(&self, sender: TcbRef, thread: TcbRef) -> bool {
        let Some(mut space) = self.k.tcb(thread).space.get() else { return false };
        if space == self.k.space_of(sender) {
            return true;
        }
        for _ in 0..CHAIN_MAX {
            match self.redirector(space) {
                Redirector::Is(redirector) if redirector == sender => return true,
                Redirector::Is(redirector) => match self.k.tcb(redirector).space.get() {
                    Some(next) => space = next,
                    None => return false,
                },
                Redirector::None | Redirector::Gone => return false,
            }
        }
        false
    }
}
