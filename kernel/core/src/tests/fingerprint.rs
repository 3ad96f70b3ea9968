//! All that a system call could change, word by word: a call that is refused leaves every one of them.

use l4_abi::{BR_COUNT, MR_COUNT, Utcb};

use super::machine::{LINES, SPACES};
use super::world::World;
use crate::machine::SpaceRef;
use crate::thread::Tcb;
use crate::var::AsWord;

/// The words, and which of them are of what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fingerprint {
    words: Vec<u64>,
    /// Where the words of something begin.
    parts: Vec<(usize, &'static str, usize)>,
}

impl Fingerprint {
    /// Of a world in which no entry is in progress.
    pub fn of(w: World) -> Self {
        let mut all = Self::default();
        w.k.tcbs.iter().enumerate().for_each(|(index, tcb)| all.add_thread(w, index, tcb));
        for index in (0..SPACES as u32).map(SpaceRef::new) {
            all.begin("space", index.index());
            all.words.extend(w.k.spaces.words(index));
        }
        all.add_processors(w);
        all.begin("memory", 0);
        let machine = w.k.machine;
        let counts = [w.k.kmem.free_count(), machine.backing.count(), w.k.spaces.mapdb().used()];
        all.words.extend(counts.map(|count| count as u64));
        all.begin("lines", 0);
        all.words.extend((0..LINES as u32).map(|line| u64::from(machine.is_open(line))));
        all.words.push(machine.cache_flushes.get().into());
        all.words.push(machine.console.borrow().len() as u64);
        all
    }

    /// What differs first between this and `later`.
    pub fn difference(&self, later: &Self) -> Option<String> {
        let length = (self.words.len() != later.words.len()).then(|| self.words.len().min(later.words.len()));
        let at = self.words.iter().zip(&later.words).position(|(old, new)| old != new).or(length)?;
        let &(begin, what, index) = self.parts.iter().rev().find(|(begin, ..)| *begin <= at)?;
        let [old, new] = [self, later].map(|side| side.words.get(at).map(|word| format!("{word:#x}")));
        Some(format!("word {} of {what} {index}: {old:?} became {new:?}", at - begin))
    }

    fn begin(&mut self, what: &'static str, index: usize) {
        self.parts.push((self.words.len(), what, index));
    }

    fn add(&mut self, value: impl AsWord) {
        self.words.push(value.to_word() as u64);
    }

    fn add_thread(&mut self, w: World, index: usize, tcb: &Tcb) {
        self.begin("thread", index);
        macro_rules! add {
            ($($field:ident)*) => { $(self.add(tcb.$field.get());)* };
        }
        add!(id waits_for utcb space_word plain_name sp flags local_id space ip partner peer outer_peer);
        add!(propagated_senders home affinity status purpose halted work arrival owes_fault priority);
        add!(kernel_is_redirected is_dying claimed came_again user_propagates then_timeout then_from user_sends_as);
        add!(user_intended mail_link dying_space scheduler max_delay_us delay_left_us time_slice total_quantum);
        add!(sensitive_priority is_leaving left send_queue);
        self.words.extend([&tcb.deadline, &tcb.slice_left_us, &tcb.quantum_left_us].map(|time| time.get()));
        let links = [&tcb.ready_link, &tcb.send_link, &tcb.timeout_link];
        self.words.extend(links.map(|link| u64::from(link.is_linked())));
        self.words.extend(tcb.kernel_message.iter().map(|word| word.get() as u64));
        if tcb.is_active() && tcb.utcb.get() != 0 {
            self.begin("the UTCB of thread", index);
            self.add_utcb(tcb.utcb_in(w.k.machine));
        }
    }

    fn add_utcb(&mut self, utcb: &Utcb) {
        self.words.extend((0..MR_COUNT).map(|i| utcb.mr(i)));
        self.words.extend((0..BR_COUNT).map(|i| utcb.br(i)));
        let ids = [
            utcb.pager(),
            utcb.exception_handler(),
            utcb.my_global_id(),
            utcb.virtual_sender(),
            utcb.intended_receiver(),
        ];
        self.words.extend(ids.map(|id| id.raw()));
        self.words.extend([utcb.error_code(), utcb.user_defined_handle(), utcb.xfer_timeouts().raw()]);
        self.words.push(utcb.preempt_flags().into());
    }

    fn add_processors(&mut self, w: World) {
        for (index, cpu) in w.k.cpus.iter().enumerate() {
            self.begin("processor", index);
            self.add(cpu.current.get());
            self.add(cpu.slice_owner.get());
            self.add(cpu.donee.get());
            self.add(cpu.delaying.get());
            self.words.push(cpu.delay_end.get());
            let mut timeouts = cpu.timeouts.members(w.k.tcbs);
            timeouts.sort();
            let queues = [cpu.ready.members(w.k.tcbs), timeouts];
            self.words.extend(queues.into_iter().flatten().map(|thread| thread.index() as u64));
        }
    }
}
