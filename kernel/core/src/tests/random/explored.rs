//! Random calls of one processor of an execution.

use super::*;

/// What happens next on a processor.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    #[allow(dead_code, reason = "it is printed")]
    cpu: usize,
    event: Option<Event>,
}

impl Chaos {
    /// What happens on the processor from which `w` is seen.
    pub fn on(w: World, seed: u64) -> Self {
        Self {
            w,
            random: Random(seed),
            pauses: Random(0),
            stage: Stage::new(0),
            sights: BTreeMap::new(),
            often: 0,
            mistake: None,
        }
    }

    /// How many things happen.
    pub fn count(&mut self) -> u64 {
        1 + self.random.below(3)
    }

    /// What happens next here: the time passes, a line is raised, or a thread acts.
    pub fn next_here(&mut self) -> Next {
        let event = match self.random.below(16) {
            0 => Some(Event::Clock(self.random.below(4000))),
            1 => Some(Event::Raise(4 + self.random.below(12) as u32)),
            _ => self.act_here(),
        };
        Next { cpu: self.w.cpu(), event }
    }

    fn act_here(&mut self) -> Option<Event> {
        let able: Vec<Who> = EVERYBODY.into_iter().filter(|&who| self.can_act_here(who)).collect();
        let others: Vec<Who> = able.iter().copied().filter(|&who| who != ROOT).collect();
        let able = if others.is_empty() || self.random.once_in(3) { able } else { others };
        let who = (!able.is_empty()).then(|| self.random.one_of(&able))?;
        let act = self.act(who);
        Some(Event::Act { who, act, fail_nth: 0, steps: self.random.one_of(&[0, 1, 2, 9]) })
    }

    /// It happens.
    pub fn happen(&mut self, next: Next, raise: impl FnOnce(u32)) {
        match next.event {
            Some(Event::Clock(us)) => self.w.k.machine.advance(us),
            Some(Event::Raise(line)) => raise(line),
            Some(Event::Act { who, act, steps, .. }) => {
                self.do_here(who, act);
                self.w.dispatch_steps(steps);
            }
            _ => self.w.dispatch_steps(1),
        }
    }

    fn do_here(&mut self, who: Who, act: Act) {
        match act {
            act if !spares_root(act) => {}
            // Others may delete the thread before anybody helped it.
            Act::Exregs(args) => _ = self.w.trap(who, |here, thread| here.exchange_registers(thread, args)),
            act => {
                prepare(self.w, who, act);
                carry_out(self.w, who, act);
            }
        }
    }

    fn can_act_here(&self, who: Who) -> bool {
        let (tcb, here) = (self.w.tcb(who), CpuId::new(self.w.cpu() as u32));
        let is_ready = || tcb.ready_link.is_linked() || self.w.here().cpu.current.get().thread() == Some(who.tcb());
        let is_in_user_mode = || tcb.work() == Work::None && !tcb.owes_message() && tcb.affinity() == here;
        tcb.is_at(here) && is_ready() && is_in_user_mode() && !tcb.is_halted()
    }
}

/// Where everybody is, for whoever looks for a mistake.
pub fn tell(w: World) {
    for (index, cpu) in w.k.cpus.iter().enumerate() {
        let (current, questions) = (cpu.current.get().thread().map(TcbRef::index), &cpu.questions);
        let (asks, behind) = (questions.is_asking(), w.on(index).here().is_behind());
        let mail: Vec<_> = cpu.mailbox.members(w.k.tcbs).into_iter().map(TcbRef::index).collect();
        println!("{index}: runs {current:?}, asks {asks} {:?}, behind {behind}, mail {mail:?}", questions.waits_for());
    }
    for who in EVERYBODY.into_iter().filter(|&who| w.tcb(who).exists()) {
        println!("{}", state(who, w.tcb(who)));
    }
}
