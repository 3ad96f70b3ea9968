//! SpaceControl, MemoryControl, ProcessorControl.

use l4::arch::kernel_interface;
use l4::{
    Fpage, IpcErrorKind, KIP_AREA_LOG2, PageAttribute, Rights, SpaceControl, SysError, ThreadId, Word, ipc, space,
    thread,
};

use crate::arch;
use crate::failure::{Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::agent::{Access, Agent};
use crate::world::memory::{self, at, fpage, page};
use crate::world::messages::{NOW, send_error};
use crate::world::spaces::{Space, kip_area, utcb_area};
use crate::world::threads::{Thread, plan, supervisor, tester};

chapter! { space:
    "X.2, SpaceControl" => [
        control_errors,
        failed_control_can_be_repeated,
        areas_stay_as_they_are,
        areas_may_be_anywhere,
        kip_is_where_its_area_is,
        control_is_for_privileged_spaces,
        last_thread_takes_the_space_with_it,
    ],
    "X.2, MemoryControl" => [
        memory_control_errors,
        attributes_are_chosen_by_the_fpages,
        memory_keeps_its_contents_whatever_its_attribute,
    ],
    "X.2, ProcessorControl" => [processor_control_is_refused],
}

/// A thread in a new space without areas.
#[track_caller]
fn uninitialised() -> Outcome<ThreadId> {
    let id = Thread::reserve()?.id();
    thread::thread_control(id, id, supervisor(), ThreadId::NIL, None)?;
    Ok(id)
}

fn control(id: ThreadId, kip_area: Fpage, utcb_area: Fpage) -> Result<(), SysError> {
    space::space_control(id, SpaceControl::NONE, kip_area, utcb_area, ThreadId::NIL).map(drop)
}

fn small(base: Word, size_log2: u32) -> Fpage {
    fpage(base, size_log2, Rights::NONE)
}

/// Rows: what is wrong, KIP area, UTCB area, the error.
fn bad_areas() -> [(&'static str, Fpage, Fpage, SysError); 7] {
    let kernel = Fpage::new(crate::arch::KERNEL_ADDRESS, 21, Rights::NONE).expect("aligned");
    let inside_utcbs = small(l4::ROOT_UTCB_AREA_BASE + 0x1000, 12);
    [
        ("nil UTCB area", kip_area(), Fpage::NIL, SysError::UtcbArea),
        ("UTCB area below a page", kip_area(), small(at(0), 11), SysError::UtcbArea),
        ("UTCB area of the kernel's", kip_area(), kernel, SysError::UtcbArea),
        ("nil KIP area", Fpage::NIL, utcb_area(), SysError::KipArea),
        ("KIP area below a page", small(at(0), KIP_AREA_LOG2 - 1), utcb_area(), SysError::KipArea),
        ("KIP area of the kernel's", kernel, utcb_area(), SysError::KipArea),
        ("areas overlap", inside_utcbs, utcb_area(), SysError::KipArea),
    ]
}

fn control_errors() -> Outcome {
    let id = uninitialised()?;
    for (what, kip_area, utcb_area, error) in bad_areas() {
        equal(what, control(id, kip_area, utcb_area), Err(error))?;
    }
    let nobody = Thread::reserve()?;
    let stale = ThreadId::global(id.thread_no(), id.version() + 1);
    for (what, id) in
        [("nobody", nobody.id()), ("stale", stale), ("nil", ThreadId::NIL), ("local", tester().local_id())]
    {
        equal(what, control(id, kip_area(), utcb_area()), Err(SysError::InvalidSpace))?;
    }
    Ok(())
}

fn failed_control_can_be_repeated() -> Outcome {
    let id = uninitialised()?;
    for (what, kip_area, utcb_area, error) in bad_areas() {
        equal(what, control(id, kip_area, utcb_area), Err(error))?;
    }
    control(id, kip_area(), utcb_area())?;
    let member = Thread::reserve()?;
    Ok(thread::thread_control(member.id(), id, supervisor(), supervisor(), Some(member.utcb_location()))?)
}

fn areas_stay_as_they_are() -> Outcome {
    let space = Space::create()?;
    control(space.specifier(), Fpage::NIL, Fpage::NIL)?;
    control(space.specifier(), small(at(0), 12), small(at(0x10_0000), 16))?;
    let member =
        plan().space(space).spawn(|| equal("the KIP", kernel_interface().kip.addr() as Word, kip_area().base()))?;
    member.join()?;
    control(supervisor(), Fpage::NIL, Fpage::NIL)?;
    equal("our own KIP", kernel_interface().kip.addr() as Word, kip_area().base())
}

fn areas_may_be_anywhere() -> Outcome {
    let last_page = memory::last_user_page()?;
    let rows = [
        (small(0, 12), small(0x1000, 12)),
        (small(at(0x1000), 12), small(at(0), 12)),
        (small(at(0), 21), small(at(0x20_0000), 21)),
        (small(last_page, 12), small(at(0), 30)),
        (small(at(0), 12), small(last_page, 12)),
    ];
    for (kip_area, utcb_area) in rows {
        let row = format_args!("KIP {:#x}, UTCBs {:#x}", kip_area.base(), utcb_area.base());
        let id = uninitialised()?;
        control(id, kip_area, utcb_area).map_err(Into::into).within(row)?;
        let member = Thread::reserve()?.id();
        let made = thread::thread_control(member, id, supervisor(), supervisor(), Some(utcb_area.base()));
        made.map_err(Into::into).within(row)?;
        let last = Thread::reserve()?.id();
        let location = utcb_area.last() - 1023;
        let made = thread::thread_control(last, id, supervisor(), supervisor(), Some(location));
        made.map_err(Into::into).within(row)?;
    }
    Ok(())
}

fn kip_is_where_its_area_is() -> Outcome {
    let area = small(at(0x40_0000), 14);
    let space = Space::with_areas(area, utcb_area())?;
    let member = plan().space(space).spawn(move || {
        let interface = kernel_interface();
        equal("the address of the page", interface.kip.addr() as Word, area.base())?;
        let magic = memory::read(area.base());
        equal("the magic", magic.to_ne_bytes(), l4::KIP_MAGIC)
    })?;
    member.join()
}

fn control_is_for_privileged_spaces() -> Outcome {
    let space = Space::create()?;
    let other = uninitialised()?;
    let member = plan().space(space).spawn(move || {
        equal("SpaceControl", control(other, kip_area(), utcb_area()), Err(SysError::NoPrivilege))?;
        let attribute = space::set_page_attribute(page(0).fpage(Rights::NONE), PageAttribute::DEFAULT);
        equal("MemoryControl", attribute, Err(SysError::NoPrivilege))?;
        equal("ProcessorControl", space::processor_control(0, 0, 0, 0), Err(SysError::NoPrivilege))
    })?;
    member.join()
}

fn last_thread_takes_the_space_with_it() -> Outcome {
    let id = uninitialised()?;
    control(id, kip_area(), utcb_area())?;
    let member = Thread::reserve()?;
    thread::thread_control(member.id(), id, supervisor(), supervisor(), Some(member.utcb_location()))?;
    thread::delete(id)?;
    // The space lives with its other thread.
    let third = Thread::reserve()?.id();
    thread::thread_control(third, member.id(), supervisor(), ThreadId::NIL, None)?;
    thread::delete(third)?;
    member.delete()?;
    let made = thread::thread_control(third, member.id(), supervisor(), ThreadId::NIL, None);
    equal("a thread in a space that is gone", made, Err(SysError::InvalidSpace))?;
    let outcome = ipc::ipc(member.id(), ThreadId::NIL, NOW).result();
    equal("a message there", outcome.map(drop), Err(send_error(IpcErrorKind::NonExisting)))
}

/// Every attribute there is.
const ATTRIBUTES: [PageAttribute; 7] = [
    PageAttribute::DEFAULT,
    PageAttribute::WRITE_BACK,
    PageAttribute::WRITE_THROUGH,
    PageAttribute::UNCACHEABLE_WEAK,
    PageAttribute::UNCACHEABLE,
    PageAttribute::WRITE_COMBINING,
    PageAttribute::WRITE_PROTECTED,
];

fn memory_control_errors() -> Outcome {
    let own = page(0).fpage(Rights::NONE);
    let result = l4::arch::memory_control(64, [0; 4]);
    check(result == 0, "65 fpages are accepted")?;
    let far = l4::arch::memory_control(Word::MAX, [0; 4]);
    check(far == 0, "very many fpages are accepted")?;
    for none in [6, 7, 9, 0xFFFF, Word::MAX] {
        let result = space::set_page_attribute(own, PageAttribute::from_raw(none));
        equal(format_args!("attribute {none:#x}"), result, Err(SysError::InvalidParameter))?;
    }
    ATTRIBUTES.into_iter().rev().try_for_each(|attribute| Ok(space::set_page_attribute(own, attribute)?))
}

fn attributes_are_chosen_by_the_fpages() -> Outcome {
    let own = page(0).fpage(Rights::NONE);
    let none = PageAttribute::from_raw(6);
    let [back, through] = [PageAttribute::WRITE_BACK, PageAttribute::WRITE_THROUGH];
    // The bits for writing and executing make the number; the one for reading and nil fpages do not matter.
    let attributes = [none, through, none, back];
    let chosen = |rights| own.with_rights(rights);
    let fpages = [chosen(Rights::EXECUTE), Fpage::NIL, chosen(Rights::READ_EXECUTE), chosen(Rights::ALL)];
    space::memory_control(&fpages, attributes)?;
    for rights in [Rights::NONE, Rights::READ, Rights::WRITE, Rights::READ_WRITE] {
        let result = space::memory_control(&[chosen(Rights::EXECUTE), chosen(rights)], attributes);
        equal(format_args!("an fpage with {rights:?}"), result, Err(SysError::InvalidParameter))?;
    }
    space::memory_control(&[Fpage::NIL; 64], [none; 4])?;
    Ok(space::memory_control(&[own; 64], [PageAttribute::DEFAULT, none, none, none])?)
}

fn memory_keeps_its_contents_whatever_its_attribute() -> Outcome {
    let own = page(0).fpage(Rights::NONE);
    let agent = Agent::in_new_space()?;
    agent.take(page(0).map_to(0, Rights::READ_WRITE))?;
    for (round, attribute) in ATTRIBUTES.into_iter().chain([PageAttribute::DEFAULT]).enumerate() {
        page(0).set(round as Word);
        space::set_page_attribute(own, attribute)?;
        agent.check_reads(at(0), round as Word).within(format_args!("{attribute:?}"))?;
        equal("the write", agent.write(at(0), 0x100)?, Access::Done(0))?;
        equal("the word here", page(0).get(), 0x100)?;
    }
    // Only own mappings are meant: there are none, neither here nor in the kernel's part of the space.
    let nothing = [fpage(at(0x40_0000), 22, Rights::NONE), fpage(arch::KERNEL_ADDRESS, 12, Rights::NONE)];
    space::memory_control(&nothing, [PageAttribute::UNCACHEABLE; 4])?;
    space::set_page_attribute(Fpage::COMPLETE, PageAttribute::WRITE_BACK)?;
    agent.check_reads(at(0), 0x100)
}

fn processor_control_is_refused() -> Outcome {
    let refused = space::processor_control(0xFFFF, 0, 0, 0);
    check(refused.is_err(), "a processor that is not there changes its speed")
}
