//! Programs that mean harm: wild arguments in every register, forged registers in memory, messages made of anything. The
//! kernel stays whole, and so do all others.
//!
//! What is wild is drawn from [`WORDS`] by a generator that begins with the same seed in each run.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::ipc;
use l4::message::Msg;
use l4::thread::{abort, inspect};
use l4::time::sleep_forever;
use l4::{
    Acceptor, ExregsControl, Fpage, IpcErrorKind, MR_COUNT, MsgTag, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, Rights,
    ScheduleResult, SysError, THREAD_ID_BITS, ThreadId, Timeouts, UTCB_MR0_OFFSET, UTCB_SIZE, Word, kip, utcb,
};

use crate::arch::{self, EXCEPTIONS, Registers};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::calls::wild;
use crate::world::memory::{self, at, page, playground};
use crate::world::messages::{NOW, accept_in, accept_strings_in, call_label, equal_tags, receive, send_label};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, give_back, plan, spawn, supervisor, tester};

chapter! { wild:
    "X.2, System calls, wild arguments" => [
        wild_registers_in_every_call,
        wild_registers_in_ipc,
        wild_registers_in_unmap,
        utcb_register_is_not_believed,
        wild_words_in_the_own_utcb,
        wild_ids_in_thread_control,
        wild_ids_in_schedule,
    ],
    "X.2, Ipc, wild messages" => [
        wild_messages,
        wild_messages_with_items,
        wild_buffers,
        string_out_of_the_kip,
        string_into_the_kip_faults,
        string_into_the_own_utcb,
    ],
    "X.2, Page fault protocol, pagers" => [wild_pagers_harm_nobody],
    "X.2, Exception protocol, handlers" => [wild_exception_handlers_harm_nobody],
    "X.2, Mappings, protected areas" => [kernel_interface_page_cannot_be_written_anywhere, utcbs_of_others_are_elsewhere],
}

/// Words that are the first or the last of something, or nothing at all.
const WORDS: [Word; 26] = [
    0,
    1,
    2,
    0x10,
    0x17,
    0x3F,
    0x40,
    0x3FF,
    0xFFF,
    0x1000,
    0xFFFF_FFFF,
    1 << 32,
    // An interrupt, a number of the kernel's, a number beyond the table.
    1 << 32 | 1,
    40 << 32 | 1,
    (1 << THREAD_ID_BITS) << 32 | 1,
    ROOT_KIP_AREA_BASE,
    ROOT_KIP_AREA_BASE | 12 << 4 | 7,
    ROOT_UTCB_AREA_BASE | 18 << 4 | 7,
    (1 << 47) - 1,
    1 << 47,
    arch::NON_CANONICAL,
    arch::NON_CANONICAL | 63 << 4 | 7,
    arch::KERNEL_ADDRESS,
    arch::KERNEL_ADDRESS | 21 << 4 | 7,
    Word::MAX - 63,
    Word::MAX,
];

const SEED: u64 = 0x4C34_E64B;

/// Draws from [`WORDS`], the same each time.
struct Draw(u64);

impl Draw {
    fn number(&mut self) -> u64 {
        // A linear congruential generator (Knuth, MMIX), of which the upper half is good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 32
    }

    fn word(&mut self) -> Word {
        WORDS[self.number() as usize % WORDS.len()]
    }

    fn registers(&mut self) -> Registers {
        let mut word = || self.word();
        Registers {
            rax: word(),
            rbx: word(),
            rcx: word(),
            rdx: word(),
            rsi: word(),
            rdi: word(),
            rbp: word(),
            r8: word(),
            r9: word(),
            r10: word(),
            r11: word(),
            r12: word(),
            r13: word(),
            r14: word(),
            r15: word(),
            flags: Registers::PATTERN.flags,
        }
    }
}

/// Runs a hostile thread in a space of its own, and sees whether everybody else is well afterwards.
#[track_caller]
fn hostile(body: fn() -> Outcome) -> Outcome {
    let neighbour = spawn(|| {
        loop {
            let label = receive(tester().id())?.tag.label();
            send_label(tester().id(), label)?;
        }
    })?;
    let space = Space::create()?;
    let sibling = plan().space(space).spawn(|| sleep_forever())?;
    let thread = plan().space(space).spawn(body)?;
    thread.join()?;
    check(sibling.state()? == ScheduleResult::Waiting, "its sibling is in another state")?;
    equal("the neighbour's answer", call_label(neighbour.id(), 0x99)?.tag.label(), 0x99)?;
    equal("the magic", kip::kip().magic, l4::KIP_MAGIC)
}

// --- registers ---

fn stubs() -> [(&'static str, Word); 8] {
    let calls = &kip::kip().system_calls;
    [
        ("SpaceControl", calls.space_control),
        ("ThreadControl", calls.thread_control),
        ("ProcessorControl", calls.processor_control),
        ("MemoryControl", calls.memory_control),
        ("ExchangeRegisters", calls.exchange_registers),
        ("SystemClock", calls.system_clock),
        ("ThreadSwitch", calls.thread_switch),
        ("Schedule", calls.schedule),
    ]
}

fn wild_registers_in_every_call() -> Outcome {
    hostile(|| {
        let mut draw = Draw(SEED);
        for round in 0..800 {
            for (name, stub) in stubs() {
                let after = wild(stub, draw.registers());
                let what = format_args!("{name}, round {round}");
                check(after.flags & arch::flag::DIRECTION == 0, format_args!("{what}: DF is set"))?;
                let result = match name {
                    // Nobody is in reach, and nothing is allowed.
                    "SpaceControl" | "ThreadControl" | "ProcessorControl" | "Schedule" => Some(after.rax),
                    "ExchangeRegisters" => Some(after.rax | after.rdx | after.r8 | after.r9 | after.r10 | after.rdi),
                    "MemoryControl" => Some(after.rdx),
                    _ => None,
                };
                equal(what, result.unwrap_or(0), 0)?;
            }
        }
        Ok(())
    })
}

/// Both timeouts zero, and odd bits above them.
fn zero_timeouts(draw: &mut Draw) -> Word {
    NOW.raw() | draw.word() << 32
}

fn wild_registers_in_ipc() -> Outcome {
    hostile(|| {
        let mut draw = Draw(SEED + 1);
        let calls = &kip::kip().system_calls;
        for round in 0..4000 {
            let stub = if round % 2 == 0 { calls.ipc } else { calls.lipc };
            let registers = Registers { r8: zero_timeouts(&mut draw), ..draw.registers() };
            let after = wild(stub, registers);
            equal(format_args!("rdi, round {round}"), after.rdi, l4::thread::my_local_id().raw())?;
            let (to, from) = (registers.rsi, registers.rdx);
            if to != 0 || from != 0 {
                check(
                    MsgTag::from_raw(after.r9).is_error(),
                    format_args!("round {round}: {to:#x} {from:#x} succeeds"),
                )?;
            }
        }
        Ok(())
    })
}

fn wild_registers_in_unmap() -> Outcome {
    hostile(|| {
        let mut draw = Draw(SEED + 2);
        let stub = kip::kip().system_calls.unmap;
        // Each round may take all pages, which come back one by one from another processor.
        let rounds = if placement::is_spread() { 50 } else { 500 };
        for round in 0..rounds {
            (0..MR_COUNT).for_each(|index| utcb().set_mr(index, draw.word()));
            let after = wild(stub, draw.registers());
            equal(format_args!("rdi, round {round}"), after.rdi, l4::thread::my_local_id().raw())?;
        }
        Ok(())
    })
}

fn utcb_register_is_not_believed() -> Outcome {
    // Where its own registers are, the kernel knows by itself.
    let stranger = spawn(|| sleep_forever())?;
    let space = Space::create()?;
    let victim = plan().space(space).spawn(|| {
        utcb().set_error_code(0x77);
        receive(tester().id())?;
        equal("ErrorCode of the victim", utcb().error_code(), 0x77)
    })?;
    let thread = plan().space(space).spawn(move || {
        let nobody = ThreadId::global(stranger.id().thread_no() + 3000, 1);
        for rdi in [victim.local_id().raw(), 0, arch::KERNEL_ADDRESS, arch::NON_CANONICAL, Word::MAX] {
            utcb().set_error_code(0);
            let registers = Registers { rdi, rsi: nobody.raw(), r8: NOW.raw(), ..Registers::PATTERN };
            let after = wild(kip::kip().system_calls.ipc, registers);
            equal("rdi", after.rdi, l4::thread::my_local_id().raw())?;
            equal("the own ErrorCode", utcb().error_code(), 4)?;
        }
        Ok(())
    })?;
    thread.join()?;
    send_label(victim.id(), 1)?;
    victim.join()
}

/// Words of a UTCB.
const UTCB_WORDS: usize = UTCB_SIZE / l4::WORD_SIZE;

/// Does something with every word of the own UTCB, and puts them back afterwards.
fn with_wild_utcb(word: impl Fn(usize) -> Word, act: impl FnOnce() -> Outcome) -> Outcome {
    let base = l4::thread::my_local_id().raw() - UTCB_MR0_OFFSET as Word;
    let address = |index: usize| base + (index * l4::WORD_SIZE) as Word;
    let saved: [Word; UTCB_WORDS] = core::array::from_fn(|index| memory::read(address(index)));
    (0..UTCB_WORDS).for_each(|index| memory::write(address(index), word(index)));
    let outcome = act();
    (0..UTCB_WORDS).for_each(|index| memory::write(address(index), saved[index]));
    outcome
}

fn wild_words_in_the_own_utcb() -> Outcome {
    let thread = plan().space(Space::create()?).spawn(|| {
        let (own, local) = (utcb().my_global_id(), l4::thread::my_local_id());
        for pattern in WORDS {
            with_wild_utcb(
                |_| pattern,
                || {
                    // Whatever else is in its memory, it is still itself.
                    let (result, state) = (l4::thread::inspect(own)?.other_id, l4::thread::inspect(own)?.state);
                    equal("its local id", result, local)?;
                    check(!state.was_ipcing(), "it is in an IPC")?;
                    l4::schedule::yield_now();
                    let nobody = ThreadId::global(own.thread_no() + 3000, 1);
                    let sent = ipc::ipc(nobody, ThreadId::ANY, NOW);
                    equal("the tag", sent.tag, MsgTag::ERROR_ONLY)?;
                    equal("the error", utcb().error_code(), 4)
                },
            )
            .within(format_args!("{pattern:#x}"))?;
        }
        equal("MyGlobalId", utcb().my_global_id(), own)
    })?;
    thread.join()
}

/// Words that are ids of nobody. Interrupts may have had handlers.
fn nobodies() -> impl Iterator<Item = Word> {
    let base = kip::kip().thread_info.user_base();
    WORDS.into_iter().filter(move |&word| {
        let id = ThreadId::from_raw(word);
        let is_users = (base..1 << THREAD_ID_BITS).contains(&id.thread_no());
        id.is_local() || !(is_users || l4::interrupt::is_interrupt(id))
    })
}

fn wild_ids_in_thread_control() -> Outcome {
    let anchor = Thread::reserve()?.id();
    for dest in nobodies() {
        for other in WORDS.into_iter().filter(|&word| ThreadId::from_raw(word) != anchor) {
            let (dest, other) = (ThreadId::from_raw(dest), ThreadId::from_raw(other));
            // An interrupt that is its own handler is given back, which is no error.
            if dest == other && dest.is_global() {
                continue;
            }
            let made = l4::thread::thread_control(dest, other, other, other, Some(other.raw()));
            check(made.is_err(), format_args!("{dest:?} with {other:?}: {made:?}"))?;
        }
    }
    Ok(())
}

fn wild_ids_in_schedule() -> Outcome {
    for dest in nobodies().filter(|&word| word != 0) {
        let refused = l4::schedule::set_priority(ThreadId::from_raw(dest), 200).map(drop);
        equal("the call", refused, Err(SysError::InvalidThread)).within(format_args!("{dest:#x}"))?;
        equal("ExchangeRegisters", inspect(ThreadId::from_raw(dest)).map(drop), Err(SysError::InvalidThread))?;
    }
    Ok(())
}

// --- messages ---

/// Takes all messages of anybody, without time for page faults: with mappings anywhere in the playground, or with strings
/// into two buffers there. Never both: pages of the image would be overwritten.
fn take_everything(strings: bool) -> Outcome {
    loop {
        match strings {
            false => accept_in(playground()),
            true => accept_strings_in(Fpage::NIL, &[&[(0x8000, &[0x1000])], &[(0x1000, &[0x10_0000, 0x20_0000])]]),
        }
        utcb().set_xfer_timeouts(NOW);
        // Overflows, faults without time and messages are all the same.
        let _ = ipc::receive_timeout(ThreadId::ANY, PATIENCE);
        utcb().set_br(0, 0);
    }
}

/// Has messages sent from one space to another, which takes mappings, and then to one that takes strings; all must be
/// alive afterwards.
#[track_caller]
fn exchange_wild(body: impl Fn(Thread) -> Outcome + Copy + Send + 'static) -> Outcome {
    for strings in [false, true] {
        let taker = plan().space(Space::create()?).spawn(move || take_everything(strings))?;
        let sender = plan().space(Space::create()?).spawn(move || body(taker))?;
        sender.join()?;
        placement::settle();
        equal("what the taker does", taker.state()?, ScheduleResult::Waiting)?;
        taker.delete()?;
    }
    Ok(())
}

/// Sends a message without time for page faults; whatever comes of it.
fn send_wild(to: Thread, tag: MsgTag, words: impl Fn(usize) -> Word) {
    (1..MR_COUNT).for_each(|index| utcb().set_mr(index, words(index)));
    utcb().set_tag(tag);
    utcb().set_xfer_timeouts(NOW);
    let _ = ipc::ipc(to.id(), ThreadId::NIL, Timeouts::new(PATIENCE, PATIENCE));
}

fn wild_messages() -> Outcome {
    exchange_wild(|taker| {
        let mut draw = Draw(SEED + 3);
        for _ in 0..400 {
            let words: [Word; MR_COUNT] = core::array::from_fn(|_| draw.word());
            let tag = MsgTag::from_raw(draw.number() & 0xFFF | draw.word() << 12);
            utcb().set_virtual_sender(ThreadId::from_raw(draw.word()));
            send_wild(taker, tag, |index| words[index]);
        }
        Ok(())
    })
}

fn wild_messages_with_items() -> Outcome {
    exchange_wild(|taker| {
        let mut draw = Draw(SEED + 4);
        for _ in 0..400 {
            // Words that are items of every kind: small strings, mappings, what there is none of.
            let words: [Word; MR_COUNT] = core::array::from_fn(|_| match draw.number() % 4 {
                0 => draw.word() & !0x3FF | draw.number() & 0x3FF,
                1 => draw.number() & 0xF_FFFF,
                2 => page(draw.number() as usize % 4).address() | 12 << 4 | draw.number() & 7,
                _ => draw.word(),
            });
            let typed = draw.number() as usize % MR_COUNT;
            let untyped = draw.number() as usize % (MR_COUNT - typed);
            send_wild(taker, MsgTag::new(1, untyped, typed), |index| words[index]);
        }
        Ok(())
    })
}

fn wild_buffers() -> Outcome {
    let taker = plan().space(Space::create()?).spawn(|| {
        let mut draw = Draw(SEED + 5);
        loop {
            // Buffers anywhere but where this program has memory of its own.
            (1..l4::BR_COUNT).for_each(|index| utcb().set_br(index, draw.word()));
            utcb().set_br(
                0,
                Acceptor::STRINGS.raw() | if draw.number().is_multiple_of(2) { 0 } else { playground().raw() },
            );
            utcb().set_xfer_timeouts(NOW);
            let _ = ipc::receive_timeout(tester().id(), PATIENCE);
            utcb().set_br(0, 0);
        }
    })?;
    for len in [1, 64, 0x1000, 0x8000] {
        for _ in 0..60 {
            utcb().set_mr(1, len << 10);
            utcb().set_mr(2, page(0).address());
            utcb().set_tag(MsgTag::new(1, 0, 2));
            utcb().set_xfer_timeouts(NOW);
            let sent = ipc::ipc(taker.id(), ThreadId::NIL, Timeouts::new(PATIENCE, PATIENCE)).result().map(drop);
            let kinds = [IpcErrorKind::Overflow, IpcErrorKind::XferTimeoutInvoker, IpcErrorKind::XferTimeoutPartner];
            let is_fine = sent.is_ok() || sent.is_err_and(|error| kinds.contains(&error.kind));
            check(is_fine, format_args!("{len} bytes: {sent:?}"))?;
        }
    }
    utcb().set_xfer_timeouts(Timeouts::NEVER);
    placement::settle();
    equal("what the taker does", taker.state()?, ScheduleResult::Waiting)
}

/// Loads a message with a string of `len` bytes at an address.
fn load_string(len: Word, address: Word) {
    utcb().set_mr(1, len << 10);
    utcb().set_mr(2, address);
    utcb().set_tag(MsgTag::new(1, 0, 2));
}

/// Opens one string buffer of `len` bytes at any address of the own space.
fn open_buffer(len: Word, address: Word) {
    utcb().set_br(0, Acceptor::STRINGS.raw());
    utcb().set_br(1, len << 10);
    utcb().set_br(2, address);
}

fn string_out_of_the_kip() -> Outcome {
    // It can be read, so it can be sent.
    let receiver = plan().space(Space::create()?).spawn(|| {
        crate::world::messages::receive_mapping(tester().id(), playground())?;
        accept_strings_in(Fpage::NIL, &[&[(64, &[0])]]);
        let received = receive(tester().id()).map(drop);
        utcb().set_br(0, 0);
        equal("the string", received, Ok(()))?;
        equal("the magic", memory::read(at(0)).to_ne_bytes(), l4::KIP_MAGIC)
    })?;
    let mut msg = Msg::new(0);
    msg.append_map(page(0).map_to(0, Rights::READ_WRITE)).load();
    ipc::send_timeout(receiver.id(), PATIENCE)?;
    load_string(64, ROOT_KIP_AREA_BASE);
    ipc::send_timeout(receiver.id(), PATIENCE)?;
    receiver.join()
}

fn string_into_the_kip_faults() -> Outcome {
    let receiver = plan().space(Space::create()?).pager(tester().id()).spawn(|| {
        open_buffer(64, ROOT_KIP_AREA_BASE);
        let received = receive(tester().id()).map(drop).map_err(|error| error.kind);
        utcb().set_br(0, 0);
        equal("the string", received, Err(IpcErrorKind::Aborted))
    })?;
    let sender = spawn(move || {
        // It stands for the tester, whom the receiver waits for and who is its pager.
        load_string(64, page(0).address());
        utcb().set_virtual_sender(tester().id());
        utcb().set_tag(MsgTag::new(1, 0, 2).with_flags(MsgTag::PROPAGATED));
        let sent = ipc::send_timeout(receiver.id(), PATIENCE).map(drop).map_err(|error| error.kind);
        equal("the string", sent, Err(IpcErrorKind::Aborted))
    })?;
    let fault = receive(receiver.id())?;
    equal_tags("the fault", fault.tag, l4::protocol::page_fault_tag(Rights::WRITE))?;
    equal("its address", utcb().mr(1), ROOT_KIP_AREA_BASE)?;
    abort(receiver.id(), ExregsControl::ABORT_IPC)?;
    receiver.join()?;
    sender.join()
}

fn string_into_the_own_utcb() -> Outcome {
    static DONE: AtomicU64 = AtomicU64::new(0);
    DONE.store(0, Relaxed);
    page(1).fill(|_| 0xA5);
    // All of its registers are overwritten in the middle of the message: its own fault, and nobody else's.
    let receiver = plan().space(Space::create()?).spawn(|| {
        let base = l4::thread::my_local_id().raw() - UTCB_MR0_OFFSET as Word;
        let own = utcb().my_global_id();
        with_wild_utcb(
            |_| 0,
            || {
                open_buffer(UTCB_SIZE as Word, base);
                let _ = ipc::receive_timeout(tester().id(), PATIENCE);
                equal("its local id", inspect(own)?.other_id, l4::thread::my_local_id())
            },
        )?;
        DONE.store(1, Relaxed);
        Ok(())
    })?;
    load_string(UTCB_SIZE as Word, page(1).address());
    ipc::send_timeout(receiver.id(), PATIENCE)?;
    receiver.join()?;
    equal("how far it came", DONE.load(Relaxed), 1)
}

// --- pagers and handlers ---

/// A thread that meets a disaster with this id for whoever it turns to; where it ends.
#[track_caller]
fn check_stuck(partner: ThreadId, body: fn() -> Outcome) -> Outcome {
    for (place, space) in Space::own_and_other()? {
        let thread = plan().space(space).pager(partner).exception_handler(partner).spawn(body)?;
        equal("its state", thread.state()?, ScheduleResult::Inactive).within(place)?;
        thread.delete()?;
        give_back(1);
    }
    give_back(1);
    Ok(())
}

fn touch_nothing() -> Outcome {
    memory::read(at(0x77_0000));
    Ok(())
}

fn wild_pagers_harm_nobody() -> Outcome {
    for word in nobodies() {
        check_stuck(ThreadId::from_raw(word), touch_nothing).within(format_args!("{word:#x}"))?;
    }
    // Its own pager: it waits for itself.
    let lonely = spawn(|| {
        utcb().set_pager(utcb().my_global_id());
        touch_nothing()
    })?;
    equal("its state", lonely.state()?, ScheduleResult::PendingSend)?;
    lonely.delete()
}

fn raise() -> Outcome {
    EXCEPTIONS
        .iter()
        .find(|raise| raise.number == arch::INVALID_OPCODE)
        .ok_or(Failure::new("there is none"))?
        .execute();
    Ok(())
}

fn wild_exception_handlers_harm_nobody() -> Outcome {
    for word in nobodies() {
        check_stuck(ThreadId::from_raw(word), raise).within(format_args!("{word:#x}"))?;
    }
    let lonely = spawn(|| {
        utcb().set_exception_handler(utcb().my_global_id());
        raise()
    })?;
    equal("its state", lonely.state()?, ScheduleResult::PendingSend)?;
    lonely.delete()
}

// --- protected areas ---

fn kernel_interface_page_cannot_be_written_anywhere() -> Outcome {
    for (place, space) in Space::own_and_other()? {
        for offset in [0, 8, 0x1C0, 0xFF8] {
            let thread = plan().space(space).pager(tester().id()).spawn(move || {
                memory::write(ROOT_KIP_AREA_BASE + offset, 0);
                Ok(())
            })?;
            let fault = receive(thread.id())?;
            equal_tags("the fault", fault.tag, l4::protocol::page_fault_tag(Rights::WRITE)).within(place)?;
            equal("its address", utcb().mr(1), ROOT_KIP_AREA_BASE + offset).within(place)?;
            thread.delete()?;
            give_back(1);
        }
    }
    equal("the magic", kip::kip().magic, l4::KIP_MAGIC)
}

fn utcbs_of_others_are_elsewhere() -> Outcome {
    // The same address in two spaces: what one writes there the other does not see.
    let victim = supervisor();
    let handle = inspect(victim)?.old.handle;
    let place = inspect(victim)?.other_id.raw();
    let thread = plan().space(Space::create()?).pager(tester().id()).spawn(move || {
        memory::write(place, 0x1234);
        Ok(())
    })?;
    // The first UTCB's page is there with the others, or it is not.
    match ipc::receive_timeout(thread.id(), l4::Time::period_us(2_000)) {
        Ok(fault) => equal_tags("the fault", fault.tag, l4::protocol::page_fault_tag(Rights::WRITE))?,
        Err(_) => thread.join()?,
    }
    equal("the handle", inspect(victim)?.old.handle, handle)
}
