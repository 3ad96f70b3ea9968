//! What threads of this architecture must not notice of each other: floating-point registers, segments, flags.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use l4::arch::kernel_interface;
use l4::schedule::{set_timeslice, yield_now};
use l4::time::sleep;
use l4::{Time, Word, kip, utcb};

use crate::arch::{self, FloatRegisters, Registers, X87Stack, flag};
use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::messages::{call_label, receive, send_label};
use crate::world::spaces::Space;
use crate::world::threads::{PATIENCE, plan, spawn, tester};

chapter! { arch:
    "amd64 ABI, Thread Start State, floating point" => [
        float_registers_start_fresh,
        float_registers_survive_a_switch,
        float_registers_survive_preemption,
        float_registers_of_deleted_threads_are_gone,
    ],
    "amd64 ABI, UTCB" => [gs_leads_to_the_utcb, foreign_gs_harms_nobody, data_segments_mean_nothing],
    "amd64 ABI, System calls, flags" => [user_flags_survive_system_calls, direction_flag_harms_nobody],
    "amd64 ABI, Thread Start State" => [time_stamp_counter_can_be_read],
}

fn float_registers_start_fresh() -> Outcome {
    let check = || equal("the registers", arch::float_registers(X87Stack::Empty), FloatRegisters::FRESH);
    spawn(check)?.join()?;
    // After others have used them, too.
    load(1);
    spawn(check)?.join()?;
    plan().space(Space::create()?).spawn(check)?.join()
}

fn load(seed: Word) {
    arch::load_float_registers(&FloatRegisters::pattern(seed));
}

#[track_caller]
fn check_pattern(seed: Word) -> Outcome {
    equal("the registers", arch::float_registers(X87Stack::Loaded), FloatRegisters::pattern(seed))
}

fn float_registers_survive_a_switch() -> Outcome {
    let space = Space::create()?;
    let user = |seed: Word| {
        move || {
            load(seed);
            for _ in 0..10 {
                receive(tester().id())?;
                check_pattern(seed)?;
                l4::ipc::reply(tester().id())?;
            }
            Ok(())
        }
    };
    let users = [spawn(user(1))?, spawn(user(2))?, plan().space(space).spawn(user(3))?];
    load(4);
    for round in 0..10 {
        for user in users {
            call_label(user.id(), 0)?;
            if round % 3 == 0 {
                check_pattern(4)?;
            }
        }
    }
    check_pattern(4)?;
    users.iter().try_for_each(|user| user.join())
}

fn float_registers_survive_preemption() -> Outcome {
    static ROUNDS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    ROUNDS.iter().for_each(|rounds| rounds.store(0, Relaxed));
    let mut users = [None; 3];
    for (i, slot) in users.iter_mut().enumerate() {
        let user = plan().priority(50).spawn(move || {
            let seed = 10 + i as Word;
            load(seed);
            // Until each has had some turns.
            while ROUNDS.iter().any(|rounds| rounds.load(Relaxed) < 500) {
                check_pattern(seed)?;
                ROUNDS[i].fetch_add(1, Relaxed);
            }
            Ok(())
        })?;
        set_timeslice(user.id(), Time::period_us(500), Time::NEVER)?;
        *slot = Some(user);
    }
    users.into_iter().flatten().try_for_each(|user| user.join())
}

fn float_registers_of_deleted_threads_are_gone() -> Outcome {
    for seed in 0..5 {
        let owner = spawn(move || {
            load(seed);
            l4::time::sleep_forever()
        })?;
        owner.delete()?;
        let heir = spawn(|| equal("the registers", arch::float_registers(X87Stack::Empty), FloatRegisters::FRESH))?;
        heir.join()?;
        heir.delete()?;
    }
    Ok(())
}

fn gs_leads_to_the_utcb() -> Outcome {
    let body = || {
        let me = utcb().my_global_id();
        for _ in 0..20 {
            yield_now();
            sleep(Time::period_us(50));
            equal("MyGlobalId", utcb().my_global_id(), me)?;
        }
        Ok(())
    };
    let space = Space::create()?;
    let threads = [spawn(body)?, spawn(body)?, plan().space(space).spawn(body)?, plan().space(space).spawn(body)?];
    threads.iter().try_for_each(|thread| thread.join())
}

fn foreign_gs_harms_nobody() -> Outcome {
    for selector in arch::DATA_SELECTORS {
        let thread = spawn(move || {
            let me = utcb().my_global_id();
            arch::receive_with_gs(selector, tester().id(), PATIENCE);
            equal("MyGlobalId", utcb().my_global_id(), me)
        })?;
        // It is blocked, with a selector of its own.
        equal("our own MyGlobalId", utcb().my_global_id(), tester().id()).within(format_args!("{selector:#x}"))?;
        sleep(Time::period_us(500));
        equal("our own MyGlobalId", utcb().my_global_id(), tester().id())?;
        send_label(thread.id(), 1)?;
        thread.join().within(format_args!("{selector:#x}"))?;
    }
    Ok(())
}

fn data_segments_mean_nothing() -> Outcome {
    for selector in arch::DATA_SELECTORS {
        let thread = spawn(move || {
            arch::load_data_segments(selector);
            let id = utcb().my_global_id();
            receive(tester().id())?;
            equal("MyGlobalId", utcb().my_global_id(), id)
        })?;
        send_label(thread.id(), 1)?;
        thread.join().within(format_args!("{selector:#x}"))?;
    }
    Ok(())
}

/// Flags that are a program's own to set.
const OWN_FLAGS: [(&str, Word); 4] = [
    ("AC", flag::ALIGNMENT),
    ("NT", flag::NESTED),
    ("ID", flag::IDENTIFICATION),
    ("all", flag::ALIGNMENT | flag::NESTED | flag::IDENTIFICATION),
];

/// Calls that enter the kernel in every way and come back, each with these flags.
fn calls_with_flags(flags: Word) -> Outcome {
    let calls = &kip::kip().system_calls;
    let links = [
        calls.thread_switch,
        calls.unmap,
        calls.exchange_registers,
        calls.ipc,
        calls.memory_control,
        calls.thread_control,
        calls.schedule,
    ];
    for link in links {
        let registers = arch::idle_call(link, flags | flag::INTERRUPT | flag::FIXED);
        check(registers.flags & flag::DIRECTION == 0, format_args!("DF is set after {link:#x}"))?;
    }
    let mut registers = Registers { flags: flags | flag::INTERRUPT | flag::FIXED, ..Registers::PATTERN };
    arch::around_kernel_interface(&mut registers);
    equal(
        "the flags after KernelInterface",
        registers.flags & !flag::IO_PRIVILEGE,
        flags | flag::INTERRUPT | flag::FIXED,
    )
}

fn user_flags_survive_system_calls() -> Outcome {
    for (name, flags) in OWN_FLAGS {
        spawn(move || calls_with_flags(flags))?.join().within(name)?;
        // Others have none of it.
        let seen = arch::flags() & (flag::ALIGNMENT | flag::NESTED | flag::DIRECTION);
        equal("our own flags", seen, 0).within(name)?;
    }
    Ok(())
}

fn direction_flag_harms_nobody() -> Outcome {
    spawn(|| {
        let mut registers = Registers { flags: Registers::PATTERN.flags | flag::DIRECTION, ..Registers::PATTERN };
        arch::around_kernel_interface(&mut registers);
        check(registers.flags & flag::DIRECTION != 0, "an exception changes the flag")?;
        calls_with_flags(0)
    })?
    .join()?;
    kernel_interface();
    Ok(())
}

fn time_stamp_counter_can_be_read() -> Outcome {
    let first = l4::arch::timestamp();
    let second = l4::arch::timestamp();
    if second >= first { Ok(()) } else { Err(Failure::new("it goes back")) }
}
