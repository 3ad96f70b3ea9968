//! The parameters of SpaceControl: specifiers, the smallest and largest areas and their places, the order of checks.

use l4::arch::{kernel_interface, space_control as raw_space_control};
use l4::{
    Fpage, KIP_AREA_LOG2, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, Rights, SpaceControl, SysError, THREAD_ID_BITS,
    ThreadId, UTCB_AREA_MIN_LOG2, Word, kip, space, utcb,
};

use crate::arch;
use crate::failure::{Outcome, Within, equal};
use crate::registry::chapter;
use crate::world::control::{Control, MARK};
use crate::world::memory::{self, at};
use crate::world::spaces::{Space, kip_area, utcb_area};
use crate::world::threads::{Thread, give_back, plan, spawn, supervisor, tester};

chapter! { space_control:
    "X.2, SpaceControl, specifier" => [
        special_ids_name_no_space,
        ids_of_nobody_name_no_space,
        local_ids_name_no_space,
        any_thread_names_its_space,
    ],
    "X.2, SpaceControl, areas" => [
        utcb_area_has_at_least_a_page,
        kip_area_has_at_least_its_size,
        areas_end_where_user_memory_does,
        complete_space_is_no_area,
        io_ports_are_no_area,
        base_is_aligned_down,
        rights_of_areas_are_ignored,
        areas_may_touch_but_not_overlap,
        areas_of_an_initialised_space_are_ignored,
    ],
    "X.2, SpaceControl, control word" => [rest_of_the_control_word_is_ignored, nil_and_any_redirector_are_accepted],
    "X.2, SpaceControl, order of checks" => [
        privilege_comes_first,
        specifier_comes_before_the_areas,
        utcb_area_comes_before_the_kip_area,
    ],
    "X.2, System calls, errors" => [
        space_control_returns_one_or_zero,
        refused_initialisation_leaves_the_space_without_areas,
    ],
}

fn control(id: ThreadId, kip_area: Fpage, utcb_area: Fpage) -> Result<(), SysError> {
    space::space_control(id, SpaceControl::NONE, kip_area, utcb_area, ThreadId::NIL).map(drop)
}

/// Does something with a thread in a new space without areas, which is gone afterwards.
#[track_caller]
fn with_new_space(act: impl FnOnce(ThreadId) -> Outcome) -> Outcome {
    let id = Thread::reserve()?.id();
    Control::create(id).space(id).call()?;
    let outcome = act(id);
    Control::delete(id).call()?;
    give_back(1);
    outcome
}

/// Fails unless a new space with these areas comes to `expected`.
#[track_caller]
fn check_areas(kip_area: Fpage, utcb_area: Fpage, expected: Result<(), SysError>) -> Outcome {
    with_new_space(|id| {
        let what = format_args!("KIP {:#x}, UTCBs {:#x}", kip_area.raw(), utcb_area.raw());
        equal(what, control(id, kip_area, utcb_area), expected)
    })
}

// --- specifier ---

/// Fails unless the id names no space.
#[track_caller]
fn check_no_space(id: ThreadId) -> Outcome {
    utcb().set_error_code(MARK);
    equal("with areas", control(id, kip_area(), utcb_area()), Err(SysError::InvalidSpace))?;
    equal("ErrorCode", utcb().error_code(), SysError::InvalidSpace.raw().into())?;
    equal("without", control(id, Fpage::NIL, Fpage::NIL), Err(SysError::InvalidSpace))
}

fn special_ids_name_no_space() -> Outcome {
    for id in [ThreadId::NIL, ThreadId::ANY, ThreadId::ANY_LOCAL] {
        check_no_space(id).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn ids_of_nobody_name_no_space() -> Outcome {
    let (info, me) = (kip::kip().thread_info, tester().id());
    let rows = [
        ThreadId::interrupt(0),
        ThreadId::interrupt(info.system_base() - 1),
        ThreadId::global(info.system_base(), 1),
        ThreadId::global(info.user_base() - 1, 1),
        ThreadId::global(info.user_base(), 2),
        ThreadId::global(me.thread_no(), me.version() + 1),
        ThreadId::global(me.thread_no() | 1 << THREAD_ID_BITS, me.version()),
        ThreadId::global(ThreadId::THREAD_NO_MAX, 1),
        Thread::reserve()?.id(),
    ];
    rows.into_iter().try_for_each(|id| check_no_space(id).within(format_args!("{id:?}")))
}

fn local_ids_name_no_space() -> Outcome {
    for address in [tester().local_id().raw(), 64, at(0x200), arch::NON_CANONICAL, arch::KERNEL_ADDRESS] {
        check_no_space(ThreadId::local(address)).within(format_args!("{address:#x}"))?;
    }
    Ok(())
}

fn any_thread_names_its_space() -> Outcome {
    let first = Thread::reserve()?.id();
    Control::create(first).space(first).call()?;
    // A second, inactive thread of it will do.
    let second = Thread::reserve()?;
    Control::create(second.id()).space(first).call()?;
    control(second.id(), kip_area(), utcb_area())?;
    Control::modify(second.id()).pager(tester().id()).utcb(second.utcb_location()).call()?;
    Ok(control(second.id(), Fpage::NIL, Fpage::NIL)?)
}

// --- areas ---

/// An fpage of any size at any place, whatever that comes to.
fn raw_area(base: Word, size_field: u32) -> Fpage {
    Fpage::from_raw(base & !0x3FF | Word::from(size_field) << 4)
}

/// Where user memory ends.
const USER_END: Word = 1 << 47;

fn utcb_area_has_at_least_a_page() -> Outcome {
    for size_log2 in 0..UTCB_AREA_MIN_LOG2 {
        let area = raw_area(at(0), size_log2);
        check_areas(kip_area(), area, Err(SysError::UtcbArea))?;
    }
    for size_log2 in [UTCB_AREA_MIN_LOG2, UTCB_AREA_MIN_LOG2 + 1, 21, 22, 30, 36] {
        check_areas(kip_area(), raw_area(at(0), size_log2), Ok(()))?;
    }
    Ok(())
}

fn kip_area_has_at_least_its_size() -> Outcome {
    for size_log2 in 0..KIP_AREA_LOG2 {
        check_areas(raw_area(at(0), size_log2), utcb_area(), Err(SysError::KipArea))?;
    }
    for size_log2 in [KIP_AREA_LOG2, KIP_AREA_LOG2 + 1, 21, 22, 30, 36] {
        check_areas(raw_area(at(0), size_log2), utcb_area(), Ok(()))?;
    }
    Ok(())
}

fn areas_end_where_user_memory_does() -> Outcome {
    // Base and size of what is outside in part or as a whole.
    let outside: [(Word, u32); 9] = [
        (USER_END, 12),
        (USER_END, 47),
        (0, 48),
        (0, 62),
        (0, 63),
        (arch::NON_CANONICAL, 12),
        (arch::KERNEL_ADDRESS, 12),
        (arch::KERNEL_ADDRESS, 21),
        (Word::MAX - 0xFFF, 12),
    ];
    for (base, size_log2) in outside {
        let area = raw_area(base, size_log2);
        check_areas(kip_area(), area, Err(SysError::UtcbArea))?;
        check_areas(area, utcb_area(), Err(SysError::KipArea))?;
    }
    let last_page = memory::last_user_page()?;
    check_areas(raw_area(last_page, 12), utcb_area(), Ok(()))?;
    check_areas(kip_area(), raw_area(last_page, 12), Ok(()))?;
    check_areas(raw_area(0, 12), utcb_area(), Ok(()))?;
    check_areas(kip_area(), raw_area(0, 12), Ok(()))
}

fn complete_space_is_no_area() -> Outcome {
    for rights in [Rights::NONE, Rights::ALL] {
        let complete = Fpage::COMPLETE.with_rights(rights);
        check_areas(kip_area(), complete, Err(SysError::UtcbArea))?;
        check_areas(complete, utcb_area(), Err(SysError::KipArea))?;
    }
    Ok(())
}

fn io_ports_are_no_area() -> Outcome {
    let ports = l4::IoFpage::COMPLETE.fpage();
    check_areas(kip_area(), ports, Err(SysError::UtcbArea))?;
    check_areas(ports, utcb_area(), Err(SysError::KipArea))
}

fn base_is_aligned_down() -> Outcome {
    // The areas have their size's alignment, whatever the bits below it say.
    with_new_space(|id| {
        control(id, raw_area(at(0x3C00), 14), raw_area(at(0x8_0C00), 16))?;
        let member = Thread::reserve()?.id();
        Control::create(member).space(id).pager(tester().id()).utcb(at(0x8_0000)).call()?;
        Control::delete(member).call()?;
        give_back(1);
        Ok(())
    })?;
    // Overlap is that of the aligned areas.
    check_areas(raw_area(at(0x3C00), 14), raw_area(at(0), 12), Err(SysError::KipArea))
}

fn rights_of_areas_are_ignored() -> Outcome {
    for bits in 0..16 {
        let with = |area: Fpage| Fpage::from_raw(area.raw() | bits);
        check_areas(with(kip_area()), with(utcb_area()), Ok(())).within(bits)?;
    }
    Ok(())
}

fn areas_may_touch_but_not_overlap() -> Outcome {
    let place = at(0x40_0000);
    let utcbs = raw_area(place, 16);
    let rows = [
        (raw_area(place - 0x1000, 12), Ok(())),
        (raw_area(place + 0x1_0000, 12), Ok(())),
        (raw_area(place, 12), Err(SysError::KipArea)),
        (raw_area(place + 0x8000, 12), Err(SysError::KipArea)),
        (raw_area(place + 0xF000, 12), Err(SysError::KipArea)),
        (raw_area(place, 16), Err(SysError::KipArea)),
        (raw_area(place, 22), Err(SysError::KipArea)),
        (raw_area(at(0), 30), Err(SysError::KipArea)),
    ];
    rows.into_iter().try_for_each(|(kip_area, expected)| check_areas(kip_area, utcbs, expected))
}

fn areas_of_an_initialised_space_are_ignored() -> Outcome {
    let space = Space::create()?;
    let odd = [Fpage::NIL, Fpage::COMPLETE, raw_area(0, 11), raw_area(arch::KERNEL_ADDRESS, 12), utcb_area()];
    for kip_area in odd {
        for utcb_area in odd {
            control(space.specifier(), kip_area, utcb_area)?;
        }
    }
    let member = plan().space(space).spawn(|| {
        equal("the KIP", kernel_interface().kip.addr() as Word, ROOT_KIP_AREA_BASE)?;
        equal("the UTCB area", utcb().mrs().as_ptr().addr() as Word >> 18, ROOT_UTCB_AREA_BASE >> 18)
    })?;
    member.join()?;
    control(supervisor(), Fpage::NIL, Fpage::NIL)?;
    Ok(control(kip::sigma0_id(), Fpage::NIL, Fpage::NIL)?)
}

// --- control word and redirector ---

fn rest_of_the_control_word_is_ignored() -> Outcome {
    let ours = (SpaceControl::QUOTA | SpaceControl::USAGE).raw();
    for raw in [1, 0xFFFF, 1 << 60, 1 << 63, Word::MAX & !ours] {
        with_new_space(|id| {
            let control = SpaceControl::from_raw(raw);
            let (result, old) = raw_space_control(id, control, kip_area(), utcb_area(), ThreadId::NIL);
            equal("the result", result, 1)?;
            equal("the old control word", old.raw(), 0)?;
            let (result, old) = raw_space_control(id, control, Fpage::NIL, Fpage::NIL, ThreadId::NIL);
            equal("the result, once more", result, 1)?;
            equal("the old control word, once more", old.raw(), 0)
        })
        .within(format_args!("{raw:#x}"))?;
    }
    Ok(())
}

fn nil_and_any_redirector_are_accepted() -> Outcome {
    let space = Space::create()?.specifier();
    for redirector in [ThreadId::NIL, ThreadId::ANY, ThreadId::NIL] {
        space::space_control(space, SpaceControl::NONE, Fpage::NIL, Fpage::NIL, redirector)?;
    }
    Ok(())
}

// --- order of checks ---

fn privilege_comes_first() -> Outcome {
    let nobody = Thread::reserve()?.id();
    let thread = plan().space(Space::create()?).spawn(move || {
        for id in [ThreadId::NIL, nobody, tester().local_id(), ThreadId::ANY, utcb().my_global_id()] {
            equal("with areas", control(id, kip_area(), utcb_area()), Err(SysError::NoPrivilege))?;
            equal("with none", control(id, Fpage::NIL, Fpage::NIL), Err(SysError::NoPrivilege))?;
        }
        Ok(())
    })?;
    thread.join()
}

fn specifier_comes_before_the_areas() -> Outcome {
    let odd = raw_area(arch::KERNEL_ADDRESS, 11);
    for id in [ThreadId::NIL, Thread::reserve()?.id(), tester().local_id()] {
        equal("both areas", control(id, odd, odd), Err(SysError::InvalidSpace)).within(format_args!("{id:?}"))?;
    }
    Ok(())
}

fn utcb_area_comes_before_the_kip_area() -> Outcome {
    let odd = [Fpage::NIL, Fpage::COMPLETE, raw_area(at(0), 11), raw_area(arch::KERNEL_ADDRESS, 12)];
    for kip_area in odd {
        for utcb_area in odd {
            check_areas(kip_area, utcb_area, Err(SysError::UtcbArea))?;
        }
    }
    Ok(())
}

// --- errors ---

fn space_control_returns_one_or_zero() -> Outcome {
    let (none, nil) = (SpaceControl::NONE, ThreadId::NIL);
    with_new_space(|id| {
        utcb().set_error_code(MARK);
        equal("success", raw_space_control(id, none, kip_area(), utcb_area(), nil).0, 1)?;
        equal("ErrorCode after it", utcb().error_code(), MARK)
    })?;
    let (result, old) = raw_space_control(nil, SpaceControl::from_raw(Word::MAX), kip_area(), utcb_area(), nil);
    equal("an error", (result, old.raw()), (0, 0))?;
    equal("ErrorCode after it", utcb().error_code(), SysError::InvalidSpace.raw().into())
}

fn refused_initialisation_leaves_the_space_without_areas() -> Outcome {
    let member = Thread::reserve()?;
    with_new_space(|id| {
        let bad = [(Fpage::NIL, utcb_area()), (kip_area(), Fpage::NIL), (utcb_area(), utcb_area())];
        for (i, (kip_area, utcb_area)) in bad.into_iter().enumerate() {
            equal("the call", control(id, kip_area, utcb_area).is_err(), true).within(i)?;
            let activate = Control::create(member.id()).space(id).pager(tester().id()).utcb(member.utcb_location());
            activate.refused("a thread there", SysError::InvalidSpace).within(i)?;
        }
        control(id, kip_area(), utcb_area())?;
        Control::create(member.id()).space(id).pager(tester().id()).utcb(member.utcb_location()).call()?;
        member.delete()
    })?;
    // Our own areas are where they were.
    let thread = spawn(|| equal("the KIP", kernel_interface().kip.addr() as Word, ROOT_KIP_AREA_BASE))?;
    thread.join()
}
