//! Page faults.

use l4::protocol::{PAGE_FAULT, page_fault_tag};
use l4::time::timeouts;
use l4::{
    Fpage, IpcError, IpcErrorKind, MR_COUNT, MapItem, MsgTag, Phase, Rights, ScheduleResult, ThreadId, Word, ipc,
    thread, utcb,
};

use crate::arch;
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::{Access, Agent, Fault};
use crate::world::memory::{self, at, page, window};
use crate::world::messages::{equal_tags, receive, receive_error, receive_mapping, send_items, send_label};
use crate::world::spaces::{Space, utcb_area};
use crate::world::threads::{PATIENCE, Thread, plan, spawn, supervisor, tester};

chapter! { faults:
    "X.2, Page fault protocol" => [
        read_fault,
        write_fault,
        execute_fault,
        write_to_a_page_that_can_be_read,
        reply_maps_where_the_pager_says,
        empty_reply_repeats_the_access,
        reply_with_a_wrong_page_repeats_the_access,
        reply_with_words_changes_no_register,
        registers_survive_a_fault,
        reply_comes_from_the_pager_alone,
        pager_in_another_space,
        faults_of_many_threads_queue,
        grant_as_a_reply,
    ],
    "X.2, Page fault protocol, pagers" => [
        nil_pager_halts_the_thread,
        absent_pager_halts_the_thread,
        pager_is_read_at_each_fault,
    ],
    "X.2, Page fault protocol, addresses" => [
        fault_at_a_kernel_address,
        fault_in_kip_and_utcb_areas,
        fault_at_the_ends_of_user_memory,
    ],
}

/// A thread that accesses memory and pages to the tester.
#[track_caller]
fn faulting<F: Fn() -> Outcome + Copy + Send + 'static>(body: F) -> Outcome<Thread> {
    plan().space(Space::create()?).pager(tester().id()).spawn(body)
}

/// Fails unless the thread's fault is this one.
#[track_caller]
fn check_fault(thread: Thread, access: Rights, address: Word, ip: Word) -> Outcome {
    let fault = receive(thread.id())?;
    equal_tags("the tag", fault.tag, page_fault_tag(access))?;
    equal("from", thread::global_id_of(fault.from).unwrap_or(fault.from), thread.id())?;
    equal("the address", utcb().mr(1), address)?;
    equal("the instruction", utcb().mr(2), ip)
}

fn reader(address: Word, value: Word) -> impl Fn() -> Outcome + Copy + Send + 'static {
    move || equal("the word", memory::read(address), value)
}

fn read_fault() -> Outcome {
    page(0).set(0xF1);
    for offset in [0, 8, 0x128, 0xFF8] {
        let thread = faulting(reader(at(0x1000 + offset), if offset == 0 { 0xF1 } else { 0 }))?;
        check_fault(thread, Rights::READ, at(0x1000 + offset), arch::address_of!(arch::read_at))?;
        send_items(thread.id(), &[page(0).map_to(at(0x1000), Rights::READ)])?;
        thread.join()?;
    }
    Ok(())
}

fn write_fault() -> Outcome {
    page(0).set(0);
    let place = at(0x2000);
    let thread = faulting(move || {
        memory::write(place, 0xF2);
        Ok(())
    })?;
    check_fault(thread, Rights::WRITE, place, arch::address_of!(arch::write_at))?;
    send_items(thread.id(), &[page(0).map_to(place, Rights::READ_WRITE)])?;
    thread.join()?;
    equal("the word", page(0).get(), 0xF2)
}

fn execute_fault() -> Outcome {
    page(0).set(arch::RETURN);
    let place = at(0x3000);
    let thread = faulting(move || {
        memory::execute(place);
        Ok(())
    })?;
    let fault = receive(thread.id())?;
    equal("the protocol", fault.tag.protocol(), PAGE_FAULT)?;
    // A processor that cannot tell fetches from reads says that it reads.
    let access = Rights::from_bits_truncate(fault.tag.parameter());
    check(matches!(access, Rights::EXECUTE | Rights::READ), format_args!("the access is {access:?}"))?;
    equal("the address and the instruction", (utcb().mr(1), utcb().mr(2)), (place, place))?;
    send_items(thread.id(), &[page(0).map_to(place, Rights::READ_EXECUTE)])?;
    thread.join()
}

fn write_to_a_page_that_can_be_read() -> Outcome {
    let agent = Agent::in_new_space()?;
    page(0).set(5);
    agent.take(page(0).map_to(0, Rights::READ))?;
    agent.check_reads(at(0), 5)?;
    let expected = Fault::Page { access: Rights::WRITE, address: at(0), ip: arch::address_of!(arch::write_at) };
    equal("the write", agent.write(at(0), 6)?, Access::Fault(expected))?;
    equal("the word", page(0).get(), 5)
}

fn reply_maps_where_the_pager_says() -> Outcome {
    page(0).set(0xAB);
    page(1).set(0xCD);
    let thread = faulting(move || {
        let words = (memory::read(at(0x8000)), memory::read(at(0x2_3000)));
        equal("both words", words, (0xAB, 0xCD))
    })?;
    check_fault(thread, Rights::READ, at(0x8000), arch::address_of!(arch::read_at))?;
    // The second place too, before it is accessed.
    let items = [page(1).map_to(at(0x2_3000), Rights::READ), page(0).map_to(at(0x8000), Rights::READ)];
    send_items(thread.id(), &items)?;
    thread.join()
}

fn empty_reply_repeats_the_access() -> Outcome {
    page(0).set(1);
    let thread = faulting(reader(at(0), 1))?;
    for _ in 0..5 {
        check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
        send_label(thread.id(), 0)?;
    }
    check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
    send_items(thread.id(), &[page(0).map_to(at(0), Rights::READ)])?;
    thread.join()
}

fn reply_with_a_wrong_page_repeats_the_access() -> Outcome {
    page(0).set(1);
    let thread = faulting(reader(at(0), 1))?;
    let wrong = [
        MapItem::map(Fpage::NIL, 0),
        page(1).map_to(at(0x1000), Rights::READ),
        // A source without a page.
        MapItem::map(window(0x4000_0000, 12).with_rights(Rights::ALL), at(0)),
    ];
    for item in wrong {
        check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
        send_items(thread.id(), &[item])?;
    }
    check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
    send_items(thread.id(), &[page(0).map_to(at(0), Rights::READ)])?;
    thread.join()
}

/// All that a fault must leave alone.
fn registers_of_mine() -> [Word; MR_COUNT + 8] {
    let u = utcb();
    let mut all = [0; MR_COUNT + 8];
    (0..MR_COUNT).for_each(|i| all[i] = u.mr(i));
    let others = [
        u.br(0),
        u.br(1),
        u.error_code(),
        u.virtual_sender().raw(),
        u.intended_receiver().raw(),
        u.xfer_timeouts().raw(),
        u.thread_word(0),
        u.user_defined_handle(),
    ];
    all[MR_COUNT..].copy_from_slice(&others);
    all
}

fn set_registers_of_mine() {
    let u = utcb();
    (0..MR_COUNT).for_each(|i| u.set_mr(i, 0xABC0 + i as Word));
    u.set_br(0, 0);
    u.set_br(1, 0xB1);
    u.set_error_code(0xEC);
    u.set_virtual_sender(ThreadId::from_raw(0x1_0000_0001));
    u.set_intended_receiver(ThreadId::from_raw(0x1_0000_0005));
    u.set_thread_word(0, 0x7777);
    u.set_user_defined_handle(0x8888);
}

/// A thread that fails if a fault changes one of its virtual registers.
#[track_caller]
fn careful(place: Word) -> Outcome<Thread> {
    faulting(move || {
        set_registers_of_mine();
        let before = registers_of_mine();
        memory::read(place);
        let after = registers_of_mine();
        for (i, (before, after)) in before.into_iter().zip(after).enumerate() {
            equal(format_args!("register {i}"), after, before)?;
        }
        Ok(())
    })
}

fn registers_survive_a_fault() -> Outcome {
    let thread = careful(at(0))?;
    check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
    send_items(thread.id(), &[page(0).map_to(at(0), Rights::READ)])?;
    thread.join()
}

fn reply_with_words_changes_no_register() -> Outcome {
    let thread = careful(at(0))?;
    for (untyped, typed) in [(1, 0), (63, 0), (61, 2)] {
        check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
        (1..MR_COUNT).for_each(|i| utcb().set_mr(i, 0x4711));
        if typed > 0 {
            let words = page(0).map_to(at(0), Rights::READ).words();
            utcb().set_mr(untyped + 1, words[0]);
            utcb().set_mr(untyped + 2, words[1]);
        }
        utcb().set_tag(MsgTag::new(0xFFFF, untyped, typed));
        ipc::send_timeout(thread.id(), PATIENCE)?;
    }
    thread.join()
}

fn reply_comes_from_the_pager_alone() -> Outcome {
    page(0).set(1);
    let thread = faulting(reader(at(0), 1))?;
    check_fault(thread, Rights::READ, at(0), arch::address_of!(arch::read_at))?;
    let stranger = spawn(move || {
        let sent = ipc::send_timeout(thread.id(), l4::Time::ZERO).map(drop);
        equal("a stranger's reply", sent, Err(IpcError::new(Phase::Send, IpcErrorKind::Timeout)))
    })?;
    stranger.join()?;
    send_items(thread.id(), &[page(0).map_to(at(0), Rights::READ)])?;
    thread.join()
}

fn pager_in_another_space() -> Outcome {
    // The pager has the page itself from us.
    page(0).set(0x9A);
    let space = Space::create()?;
    let pager = plan().space(space).spawn(|| {
        receive_mapping(tester().id(), window(0, 12))?;
        let fault = receive(ThreadId::ANY)?;
        equal("the protocol", fault.tag.protocol(), PAGE_FAULT)?;
        let own = window(0, 12).with_rights(Rights::READ);
        send_items(fault.from, &[MapItem::map(own, utcb().mr(1) & !0xFFF)])?;
        Ok(())
    })?;
    send_items(pager.id(), &[page(0).map_to(0, Rights::READ)])?;
    let thread = plan().space(Space::create()?).pager(pager.id()).spawn(reader(at(0x6000), 0x9A))?;
    thread.join()?;
    pager.join()
}

fn faults_of_many_threads_queue() -> Outcome {
    page(0).set(3);
    let space = Space::create()?;
    let reader = |i: Word| plan().space(space).pager(tester().id()).spawn(reader(at(i * 0x1000), 3));
    let threads = [reader(0)?, reader(1)?, reader(2)?, reader(3)?, reader(4)?];
    for (i, thread) in threads.iter().enumerate() {
        let fault = receive(ThreadId::ANY)?;
        equal("who faults next", fault.from, thread.id())?;
        send_items(fault.from, &[page(0).map_to(at(i as Word * 0x1000), Rights::READ)])?;
    }
    threads.iter().try_for_each(|thread| thread.join())
}

fn grant_as_a_reply() -> Outcome {
    // The pager grants a page that it has from us.
    page(0).set(0x66);
    let own = window(0x5_0000, 12);
    let pager = plan().space(Space::create()?).pager(tester().id()).spawn(move || {
        receive_mapping(tester().id(), own)?;
        let fault = receive(ThreadId::ANY)?;
        send_items(fault.from, &[MapItem::grant(own.with_rights(Rights::ALL), utcb().mr(1) & !0xFFF)])?;
        // It is gone.
        reader(own.base(), 0x66)()
    })?;
    send_items(pager.id(), &[page(0).map_to(0, Rights::ALL)])?;
    let thread = plan().space(Space::create()?).pager(pager.id()).spawn(reader(at(0x6000), 0x66))?;
    thread.join()?;
    check_fault(pager, Rights::READ, own.base(), arch::address_of!(arch::read_at))
}

// --- pagers ---

fn nil_pager_halts_the_thread() -> Outcome {
    page(0).set(8);
    let thread = plan().pager(ThreadId::NIL).spawn(reader(at(0x10_0000), 8))?;
    equal("the state", thread.state()?, ScheduleResult::Inactive)?;
    thread::set_pager_of(thread.id(), tester().id())?;
    thread::resume(thread.id())?;
    check_fault(thread, Rights::READ, at(0x10_0000), arch::address_of!(arch::read_at))
}

fn absent_pager_halts_the_thread() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let thread = plan().pager(nobody).spawn(reader(at(0x10_0000), 8))?;
    equal("the state", thread.state()?, ScheduleResult::Inactive)
}

fn pager_is_read_at_each_fault() -> Outcome {
    page(0).set(7);
    let thread = faulting(move || {
        reader(at(0), 7)()?;
        utcb().set_pager(supervisor());
        utcb().set_pager(tester().id());
        reader(at(0x1000), 7)()
    })?;
    for offset in [0, 0x1000] {
        check_fault(thread, Rights::READ, at(offset), arch::address_of!(arch::read_at))?;
        send_items(thread.id(), &[page(0).map_to(at(offset), Rights::READ)])?;
    }
    thread.join()
}

// --- addresses ---

/// A fault there comes to the pager, whose mapping does not help: the thread faults again.
#[track_caller]
fn check_unmappable(space: Space, address: Word) -> Outcome {
    let thread = plan().space(space).pager(tester().id()).spawn(move || {
        memory::read(address);
        Err(Failure::new("the read succeeds"))
    })?;
    for _ in 0..2 {
        check_fault(thread, Rights::READ, address, arch::address_of!(arch::read_at))
            .within(format_args!("{address:#x}"))?;
        send_items(thread.id(), &[page(0).map_to(address & !0xFFF, Rights::ALL)])?;
    }
    receive(thread.id())?;
    thread.delete()
}

fn fault_at_a_kernel_address() -> Outcome {
    check_unmappable(Space::create()?, arch::KERNEL_ADDRESS)?;
    check_unmappable(Space::own(), arch::KERNEL_ADDRESS + 0x20_0000)
}

fn fault_in_kip_and_utcb_areas() -> Outcome {
    let kip_area = Fpage::new(at(0), 14, Rights::NONE).ok_or(Failure::new("no area"))?;
    let space = Space::with_areas(kip_area, utcb_area())?;
    check_unmappable(space, kip_area.base() + 0x1000)?;
    check_unmappable(space, kip_area.base() + 0x3FF8)?;
    // The last UTCB page, where no thread is.
    check_unmappable(space, utcb_area().last() & !0xFFF)?;
    check_unmappable(Space::own(), utcb_area().last() & !0xFFF)
}

fn fault_at_the_ends_of_user_memory() -> Outcome {
    page(0).set(0);
    let top = memory::last_user_page()?;
    for address in [0, 0x1000, top] {
        let thread = faulting(reader(address, 0))?;
        check_fault(thread, Rights::READ, address, arch::address_of!(arch::read_at))?;
        send_items(thread.id(), &[page(0).map_to(address, Rights::READ)])?;
        thread.join().within(format_args!("{address:#x}"))?;
    }
    let outcome = ipc::ipc(ThreadId::NIL, ThreadId::ANY, timeouts(l4::Time::ZERO, l4::Time::ZERO)).result();
    equal("another fault", outcome.map(drop), Err(receive_error(IpcErrorKind::Timeout)))
}
