//! I/O ports: I/O fpages, faults at closed ports, sigma0's ports. All but one test need a kernel that was booted with
//! `ioflexpages=yes`.

use l4::message::{Msg, accept_untyped};
use l4::protocol::{EXCEPTION, IO_PAGE_FAULT, SIGMA0, io_page_fault_tag};
use l4::time::timeouts;
use l4::{
    Acceptor, ExceptionWord, Fpage, IoFpage, IpcErrorKind, MR_COUNT, MapItem, MsgTag, Rights, Word, ipc, kip, thread,
    utcb,
};

use crate::arch::ports::{EXCEPTIONS_WITHOUT_PORTS, IN_IMMEDIATE, PORT_ACCESSES, PortAccess, STRINGS_NOWHERE};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::{Access, Agent, Fault};
use crate::world::memory::{PAGE_SIZE, at, page, window};
use crate::world::messages::{equal_tags, receive, receive_error, send_error, send_items};
use crate::world::ports::{self, grant, map, ports};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, Thread, plan, spawn, tester};

chapter! { ioports:
    "X.2, I/O fpages" => [
        ports_open_where_they_are,
        all_of_a_large_range_is_mapped,
        ports_come_without_a_window,
        item_arrives_as_it_was_sent,
        more_ports_than_there_are_map_nothing,
        holes_are_not_mapped,
        ports_and_memory_in_one_message,
        unmap_revokes_ports_in_every_descendant,
        flush_revokes_own_ports_too,
        grant_moves_ports,
        ports_have_one_parent,
        ports_go_with_their_space,
        io_fpages_need_the_feature,
    ],
    "X.2, I/O port faults" => [
        each_instruction_asks_for_its_ports,
        reply_repeats_the_instruction,
        reply_without_the_port_repeats_the_fault,
        fault_changes_no_register,
        ports_that_are_not_aligned_come_one_by_one,
        access_beyond_the_last_port_is_an_exception,
        string_nowhere_is_an_exception,
        reply_brings_no_memory,
        instruction_at_the_end_of_a_page,
        other_instructions_are_exceptions,
    ],
    "Sigma0 protocol, I/O ports" => [ports_come_to_one_thread_alone, fault_at_sigma0_gives_the_port],
}

/// Index of the instruction that reads a byte.
const BYTE: usize = 0;

/// Whether an agent can use the port.
#[track_caller]
fn has(agent: Agent, port: u16) -> Outcome<bool> {
    match agent.use_port(BYTE, port)? {
        Access::Done(_) => Ok(true),
        Access::Fault(fault) => {
            let expected = IoFpage::new(port, 0).map(|ports| Fault::Port { ports, ip: PORT_ACCESSES[BYTE].ip() });
            equal("the fault", Some(fault), expected).map(|()| false)
        }
    }
}

/// Fails unless an agent can use exactly these ports of those given by their offsets.
#[track_caller]
fn check_ports(agent: Agent, open: &[u16], closed: &[u16]) -> Outcome {
    for (offsets, expected) in [(open, true), (closed, false)] {
        for &offset in offsets {
            equal(format_args!("use of port {offset:#x}"), has(agent, ports(offset, 0).port())?, expected)?;
        }
    }
    Ok(())
}

#[track_caller]
fn agents<const N: usize>() -> Outcome<[Agent; N]> {
    ports::needed()?;
    let mut agents = [None; N];
    for agent in &mut agents {
        *agent = Some(Agent::in_new_space()?);
    }
    Ok(agents.map(|agent| agent.expect("each was made")))
}

// --- items ---

fn ports_open_where_they_are() -> Outcome {
    let [agent, other] = agents()?;
    check_ports(agent, &[], &[0, 0x10, 0xFF])?;
    agent.take(map(ports(0x10, 2)))?;
    check_ports(agent, &[0x10, 0x11, 0x12, 0x13], &[0xF, 0x14])?;
    // The send base means nothing, and neither does where the receiver takes memory.
    agent.take(MapItem::map(ports(0x20, 0).fpage(), 0x5555_0000))?;
    check_ports(agent, &[0x10, 0x20], &[0x21])?;
    check_ports(other, &[], &[0x10, 0x20])
}

fn all_of_a_large_range_is_mapped() -> Outcome {
    let [agent] = agents()?;
    agent.take(map(IoFpage::COMPLETE))?;
    // The program has these; the rest of all ports are holes.
    check_ports(agent, &[0, 0x3F, 0x40, 0x7F, 0x80, 0xFE, 0xFF], &[0x100])?;
    equal("use of the last port", has(agent, 0xFFFF)?, true)
}

fn ports_come_without_a_window() -> Outcome {
    ports::needed()?;
    let io_window = IoFpage::COMPLETE.fpage();
    for br0 in [0, Acceptor::COMPLETE.raw(), io_window.raw(), ports(0x40, 6).fpage().raw(), window(0, 12).raw()] {
        let thread = plan().space(Space::create()?).pager(tester().id()).spawn(move || {
            utcb().set_br(0, br0);
            let received = receive(tester().id());
            accept_untyped();
            equal_tags("the message", received?.tag, MsgTag::new(0, 0, 2))?;
            PORT_ACCESSES[BYTE].execute(ports(0x10, 0).port());
            Ok(())
        })?;
        send_items(thread.id(), &[map(ports(0x10, 0))])?;
        thread.join().within(format_args!("BR0 {br0:#x}"))?;
    }
    Ok(())
}

fn item_arrives_as_it_was_sent() -> Outcome {
    ports::needed()?;
    let item = MapItem::map(Fpage::from_raw(ports(0x10, 0).fpage().raw() | 0xDEAD_BEEF << 32 | 0xF), 0x1234_0400);
    let thread = plan().space(Space::create()?).pager(tester().id()).spawn(move || {
        let received = receive(tester().id())?;
        equal("the item", Msg::store(received.tag).map_item(0), Some(item))?;
        PORT_ACCESSES[BYTE].execute(ports(0x10, 0).port());
        Ok(())
    })?;
    send_items(thread.id(), &[item])?;
    thread.join()
}

fn more_ports_than_there_are_map_nothing() -> Outcome {
    let [agent] = agents()?;
    let raw = |size_log2: Word| Fpage::from_raw(Word::from(ports(0, 0).port()) << 16 | size_log2 << 10 | 2 << 4);
    agent.take_all(&[17, 31, 63].map(|size_log2| MapItem::map(raw(size_log2), 0)))?;
    check_ports(agent, &[], &[0, 1])?;
    // The base is aligned down.
    agent.take(MapItem::map(Fpage::from_raw(raw(4).raw() | 7 << 16), 0))?;
    check_ports(agent, &[0, 7, 15], &[16])
}

fn holes_are_not_mapped() -> Outcome {
    let [agent, other] = agents()?;
    agent.take_all(&[map(ports(0, 2)), map(ports(8, 2))])?;
    agent.pass(other, map(ports(0, 4)))?;
    check_ports(other, &[0, 3, 8, 11], &[4, 7, 12, 15])
}

fn ports_and_memory_in_one_message() -> Outcome {
    let [agent] = agents()?;
    page(0).set(0x10);
    agent.take_all(&[map(ports(0, 0)), page(0).map_to(0, Rights::READ), map(ports(2, 0))])?;
    check_ports(agent, &[0, 2], &[1])?;
    agent.check_reads(at(0), 0x10)
}

fn unmap_revokes_ports_in_every_descendant() -> Outcome {
    let [a, b, c] = agents()?;
    a.take(map(ports(0, 4)))?;
    a.pass(b, map(ports(0, 3)))?;
    b.pass(c, map(ports(2, 1)))?;
    check_ports(c, &[2, 3], &[1, 4])?;
    // The rights bits mean nothing, and what comes back has none.
    equal("the status", a.unmap([ports(2, 0).fpage(), Fpage::NIL])?, [Rights::NONE; 2])?;
    check_ports(a, &[0, 2, 15], &[])?;
    check_ports(b, &[0, 1, 3, 7], &[2])?;
    check_ports(c, &[3], &[2])?;
    a.unmap([Fpage::COMPLETE.with_rights(Rights::ALL)])?;
    check_ports(c, &[3], &[])?;
    a.unmap([IoFpage::COMPLETE.fpage()])?;
    check_ports(a, &[0, 15], &[])?;
    check_ports(b, &[], &[0, 7])?;
    check_ports(c, &[], &[3])
}

fn flush_revokes_own_ports_too() -> Outcome {
    let [a, b] = agents()?;
    a.take(map(ports(0, 4)))?;
    a.pass(b, map(ports(0, 4)))?;
    a.flush_ports(ports(4, 2))?;
    check_ports(a, &[0, 3, 8, 15], &[4, 7])?;
    check_ports(b, &[0, 3, 8, 15], &[4, 7])?;
    // They can be mapped again.
    a.take(map(ports(4, 0)))?;
    check_ports(a, &[4], &[5])
}

fn grant_moves_ports() -> Outcome {
    let [a, b, c] = agents()?;
    a.take(map(ports(0, 3)))?;
    a.pass(c, map(ports(0, 3)))?;
    a.pass(b, grant(ports(4, 2)))?;
    check_ports(a, &[0, 3], &[4, 7])?;
    check_ports(b, &[4, 7], &[0, 3])?;
    check_ports(c, &[0, 7], &[])?;
    // What was derived from them is derived from the receiver's now.
    b.flush_ports(ports(4, 1))?;
    check_ports(c, &[0, 6, 7], &[4, 5])
}

fn ports_have_one_parent() -> Outcome {
    let [a, b, c] = agents()?;
    a.take(map(ports(0, 2)))?;
    b.take(map(ports(0, 2)))?;
    a.pass(c, map(ports(0, 1)))?;
    b.pass(c, map(ports(0, 2)))?;
    a.unmap([ports(0, 2).fpage()])?;
    check_ports(c, &[2, 3], &[0, 1])?;
    b.unmap([ports(0, 2).fpage()])?;
    check_ports(c, &[], &[2, 3])
}

fn ports_go_with_their_space() -> Outcome {
    ports::needed()?;
    let other = Agent::in_new_space()?;
    // The same slots and frames again and again.
    for _ in 0..20 {
        let space = Space::create()?;
        let agent = Agent::new(space)?;
        check_ports(agent, &[], &[0])?;
        agent.take(map(ports(0, 4)))?;
        agent.pass(other, map(ports(0, 2)))?;
        check_ports(other, &[0, 3], &[4])?;
        agent.thread().delete()?;
        thread::delete(space.specifier())?;
        check_ports(other, &[], &[0, 3])?;
        crate::world::threads::give_back(2);
    }
    Ok(())
}

fn io_fpages_need_the_feature() -> Outcome {
    if ports::needed().is_ok() {
        return Err(Failure::skip("the kernel was booted with ioflexpages"));
    }
    let item = map(IoFpage::COMPLETE);
    let thread = spawn(move || {
        accept_untyped();
        equal("without a window", receive(tester().id()).map(drop), Err(receive_error(IpcErrorKind::Overflow)))?;
        utcb().set_br(0, Acceptor::map_grant(window(0, 20)).raw());
        let received = receive(tester().id());
        accept_untyped();
        equal("the item", Msg::store(received?.tag).map_item(0), Some(item))
    })?;
    equal("the send", send_items(thread.id(), &[item]).map(drop), Err(send_error(IpcErrorKind::Overflow)))?;
    send_items(thread.id(), &[item])?;
    thread.join()?;
    // All ports are open anyway, and no memory was mapped.
    PORT_ACCESSES[BYTE].execute(ports(0, 0).port());
    let agent = Agent::in_new_space()?;
    agent.take(item)?;
    agent.check_nothing(at(0))?;
    equal("use of a port in another space", agent.use_port(BYTE, ports(0, 0).port())?, Access::Done(0))
}

// --- faults ---

/// What an instruction asks for if its port is this one.
fn wanted(access: &PortAccess, port: u16) -> Outcome<IoFpage> {
    let port = access.immediate.unwrap_or(port);
    IoFpage::new(port, access.size_log2).ok_or(Failure::new("the port is not aligned"))
}

fn each_instruction_asks_for_its_ports() -> Outcome {
    let [agent] = agents()?;
    for (index, access) in PORT_ACCESSES.iter().enumerate() {
        let port = ports(0x40, 2).port();
        let wanted = wanted(access, port)?;
        let fault = Fault::Port { ports: wanted, ip: access.ip() };
        equal("the access", agent.use_port(index, port)?, Access::Fault(fault)).within(access.name)?;
        agent.take(map(wanted))?;
        check(matches!(agent.use_port(index, port)?, Access::Done(_)), "the port is closed").within(access.name)?;
        agent.flush_ports(wanted)?;
    }
    Ok(())
}

/// A thread in a new space whose faults come to the tester.
#[track_caller]
fn faulting<F: Fn() -> Outcome + Copy + Send + 'static>(body: F) -> Outcome<Thread> {
    ports::needed()?;
    plan().space(Space::create()?).pager(tester().id()).exception_handler(tester().id()).spawn(body)
}

/// Fails unless the thread's fault is at these ports, by the instruction that reads a byte or one that is given.
#[track_caller]
fn check_fault(thread: Thread, wanted: IoFpage, ip: Word) -> Outcome {
    let fault = receive(thread.id())?;
    equal_tags("the tag", fault.tag, io_page_fault_tag())?;
    equal_tags("the tag's word", fault.tag, MsgTag::kernel(-8, 6, 2))?;
    equal("the ports", Fpage::from_raw(utcb().mr(1)), wanted.fpage())?;
    equal("the instruction", utcb().mr(2), ip)
}

fn reply_repeats_the_instruction() -> Outcome {
    for index in [BYTE, 2, 13] {
        let access = &PORT_ACCESSES[index];
        let port = ports(0x40, 2).port();
        let thread = faulting(move || {
            PORT_ACCESSES[index].execute(port);
            PORT_ACCESSES[index].execute(port);
            Ok(())
        })?;
        check_fault(thread, wanted(access, port)?, access.ip())?;
        send_items(thread.id(), &[map(ports(0x40, 4))])?;
        thread.join().within(access.name)?;
    }
    Ok(())
}

fn reply_without_the_port_repeats_the_fault() -> Outcome {
    let wanted = ports(8, 0);
    let thread = faulting(move || {
        PORT_ACCESSES[BYTE].execute(wanted.port());
        Ok(())
    })?;
    let ip = PORT_ACCESSES[BYTE].ip();
    for item in [MapItem::map(Fpage::NIL, 0), map(ports(9, 0)), map(ports(0x100, 0))] {
        check_fault(thread, wanted, ip)?;
        // Of memory even nothing is too much.
        let sent = send_items(thread.id(), &[item]).map(drop);
        let is_memory = item.fpage.is_nil();
        equal("the reply", sent, if is_memory { Err(send_error(IpcErrorKind::Overflow)) } else { Ok(()) })?;
    }
    check_fault(thread, wanted, ip)?;
    send_items(thread.id(), &[])?;
    check_fault(thread, wanted, ip)?;
    send_items(thread.id(), &[map(wanted)])?;
    thread.join()
}

fn fault_changes_no_register() -> Outcome {
    let wanted = ports(8, 0);
    let thread = faulting(move || {
        let u = utcb();
        (0..MR_COUNT).for_each(|i| u.set_mr(i, 0xABC0 + i as Word));
        u.set_br(0, 0x77);
        u.set_error_code(0xEC);
        PORT_ACCESSES[BYTE].execute(wanted.port());
        for i in 0..MR_COUNT {
            equal(format_args!("MR{i}"), u.mr(i), 0xABC0 + i as Word)?;
        }
        equal("BR0 and ErrorCode", (u.br(0), u.error_code()), (0x77, 0xEC))
    })?;
    check_fault(thread, wanted, PORT_ACCESSES[BYTE].ip())?;
    let mut reply = Msg::new(0xFFFF);
    (0..20).for_each(|i| {
        reply.append_word(i);
    });
    reply.append_map(map(wanted)).load();
    ipc::send_timeout(thread.id(), PATIENCE)?;
    thread.join()
}

fn ports_that_are_not_aligned_come_one_by_one() -> Outcome {
    let index = 2;
    let thread = faulting(move || {
        PORT_ACCESSES[index].execute(ports(0x41, 0).port());
        Ok(())
    })?;
    for offset in 0x41..=0x44 {
        check_fault(thread, ports(offset, 0), PORT_ACCESSES[index].ip())?;
        send_items(thread.id(), &[map(ports(offset, 0))])?;
    }
    thread.join()
}

/// Fails unless the thread's general-protection exception is at this instruction; deletes it.
#[track_caller]
fn check_exception(thread: Thread, ip: Word) -> Outcome {
    let exception = receive(thread.id())?;
    equal("the protocol", exception.tag.protocol(), EXCEPTION)?;
    let word = |word: ExceptionWord| utcb().mr(word as usize);
    equal("the exception", (word(ExceptionWord::Exception), word(ExceptionWord::Rip)), (13, ip))?;
    thread.delete()
}

fn access_beyond_the_last_port_is_an_exception() -> Outcome {
    let index = 1;
    let thread = faulting(move || {
        PORT_ACCESSES[index].execute(0xFFFF);
        Ok(())
    })?;
    let last = IoFpage::new(0xFFFF, 0).ok_or(Failure::new("no such port"))?;
    check_fault(thread, last, PORT_ACCESSES[index].ip())?;
    send_items(thread.id(), &[map(last)])?;
    check_exception(thread, PORT_ACCESSES[index].ip())
}

fn string_nowhere_is_an_exception() -> Outcome {
    for (index, raise) in STRINGS_NOWHERE.iter().enumerate() {
        let thread = faulting(move || {
            STRINGS_NOWHERE[index].execute();
            Ok(())
        })?;
        // A processor may look at the port first.
        let first = receive(thread.id())?;
        if first.tag.protocol() == IO_PAGE_FAULT {
            equal("the instruction", utcb().mr(2), raise.ip()).within(raise.name)?;
            send_items(thread.id(), &[map(ports(0, 0))])?;
            receive(thread.id())?;
        }
        equal("the instruction", utcb().mr(ExceptionWord::Rip as usize), raise.ip()).within(raise.name)?;
        equal("the exception", utcb().mr(ExceptionWord::Exception as usize), 13).within(raise.name)?;
        thread.delete()?;
    }
    Ok(())
}

fn reply_brings_no_memory() -> Outcome {
    let wanted = ports(8, 0);
    let thread = faulting(move || {
        PORT_ACCESSES[BYTE].execute(wanted.port());
        Ok(())
    })?;
    check_fault(thread, wanted, PORT_ACCESSES[BYTE].ip())?;
    let sent = send_items(thread.id(), &[map(wanted), page(0).map_to(at(0), Rights::ALL)]).map(drop);
    equal("the reply", sent, Err(send_error(IpcErrorKind::Overflow)))?;
    // The port came before the page that was too much.
    thread.join()
}

/// The kernel reads no byte more than the instruction has.
fn instruction_at_the_end_of_a_page() -> Outcome {
    let [agent] = agents()?;
    let last = PAGE_SIZE as usize - IN_IMMEDIATE.len();
    page(0).fill(|offset| offset.checked_sub(last).map_or(0, |i| IN_IMMEDIATE[i]));
    agent.take(page(0).map_to(0, Rights::READ_EXECUTE))?;
    let ip = at(last as Word);
    let wanted = IoFpage::new(0xE0, 0).ok_or(Failure::new("no such port"))?;
    equal("the access", agent.execute(ip)?, Access::Fault(Fault::Port { ports: wanted, ip }))?;
    agent.take(map(wanted))?;
    let next = at(PAGE_SIZE);
    match agent.execute(ip)? {
        Access::Fault(Fault::Page { address, ip, .. }) => equal("the fault behind it", (address, ip), (next, next)),
        other => equal("the access", other, Access::Done(0)),
    }
}

fn other_instructions_are_exceptions() -> Outcome {
    for (index, raise) in EXCEPTIONS_WITHOUT_PORTS.iter().enumerate() {
        let thread = faulting(move || {
            EXCEPTIONS_WITHOUT_PORTS[index].execute();
            Ok(())
        })?;
        check_exception(thread, raise.ip()).within(raise.name)?;
    }
    Ok(())
}

// --- sigma0 ---

/// Asks sigma0 for ports; whether it gave them.
#[track_caller]
fn request(wanted: IoFpage) -> Outcome<bool> {
    let tag = MsgTag::kernel(SIGMA0, 0, 2);
    Msg::of_words(tag, &[wanted.fpage().raw(), 0]).load();
    // A refusal has the form of memory, for which there must be some window.
    utcb().set_br(0, Acceptor::map_grant(wanted.fpage()).raw());
    let outcome = ipc::call_timeouts(kip::sigma0_id(), timeouts(PATIENCE, PATIENCE));
    accept_untyped();
    let outcome = outcome?;
    equal_tags("the answer", outcome.tag, MsgTag::new(0, 0, 2))?;
    let item = Msg::store(outcome.tag).map_item(0);
    let is_given = item.is_some_and(|item| !item.fpage.is_nil());
    equal("the item", item.map(|item| item.fpage), Some(if is_given { wanted.fpage() } else { Fpage::NIL }))?;
    Ok(is_given)
}

fn ports_come_to_one_thread_alone() -> Outcome {
    ports::needed()?;
    let wanted = ports(0x200, 4);
    equal("the first request", request(wanted)?, true)?;
    PORT_ACCESSES[BYTE].execute(wanted.port());
    equal("the same again", request(wanted)?, true)?;
    let other = spawn(move || {
        equal("a request of another thread", request(wanted)?, false)?;
        equal("of a part", request(ports(0x208, 0))?, false)?;
        equal("of more", request(ports(0x200, 5))?, false)?;
        equal("of what is beside", request(ports(0x210, 4))?, true)
    })?;
    other.join()?;
    equal("what the other has", request(ports(0x210, 0))?, false)?;
    equal("more ports than sigma0 has left", request(IoFpage::COMPLETE)?, false)
}

fn fault_at_sigma0_gives_the_port() -> Outcome {
    ports::needed()?;
    let wanted = ports(0x300, 2);
    let thread = plan().pager(kip::sigma0_id()).spawn(move || {
        PORT_ACCESSES[2].execute(wanted.port());
        Ok(())
    })?;
    thread.join()?;
    equal("a request of another thread", request(wanted)?, false)
}
