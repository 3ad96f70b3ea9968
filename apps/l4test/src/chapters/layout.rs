//! Where things are in memory that programs read: words of the kernel interface page and of the UTCB at the offsets that
//! the manual and the ABI give them, each read as a plain word.

use l4::arch::kernel_interface;
use l4::message::Msg;
use l4::thread as threads_of;
use l4::{ExregsControl, MsgTag, ThreadId, Word, ipc, kip, utcb};

use crate::arch::{self, FloatRegisters};
use crate::failure::{Outcome, Within, check, equal};
use crate::registry::chapter;
use crate::world::memory;
use crate::world::messages::{NOW, equal_tags, receive, send_label};
use crate::world::placement;
use crate::world::spaces::Space;
use crate::world::threads::{Thread, plan, spawn, supervisor, tester};

chapter! { layout:
    "X.2, Kernel Interface Page" => [
        page_begins_with_magic_version_and_flags,
        areas_and_thread_numbers_are_single_words,
        page_sizes_are_bits_in_place,
        processor_descriptors_have_four_words,
        feature_strings_end_with_an_empty_one,
        page_is_the_same_in_every_space,
        unused_words_are_zero,
    ],
    "X.2, Kernel Interface Page, system-call links" => [
        links_are_at_their_words,
        links_are_the_same_in_every_space,
    ],
    "X.2, Kernel Interface Page, Memory Descriptors" => [descriptors_are_pairs_of_words],
    "X.2, Virtual Registers" => [
        own_id_and_processor_number,
        handle_pager_and_exception_handler,
        error_code_of_ipc_and_of_calls,
        virtual_and_actual_sender_share_a_word,
        transfer_timeouts_are_a_register_of_the_user,
        message_registers_are_a_row_of_words,
        buffer_registers_go_down_from_the_acceptor,
        thread_words_are_left_alone,
        registers_are_those_of_the_thread,
        user_registers_survive_calls_and_messages,
    ],
    "amd64 ABI, Thread Start State" => [initial_threads_have_their_areas],
}

/// Word `index` of the kernel interface page.
fn kip_word(index: Word) -> Word {
    memory::read(kernel_interface().kip.addr() as Word + index * 8)
}

fn page_begins_with_magic_version_and_flags() -> Outcome {
    equal("the magic", kip_word(0).to_le_bytes(), [b'L', b'4', 0xE6, b'K', 0, 0, 0, 0])?;
    equal("version and subversion", kip_word(1) >> 16, 0x8405)?;
    equal("ApiFlags: little endian, 64 bits", kip_word(2), 4)?;
    check(kip_word(3) >= 72 * 8 && kip_word(3) < 4096, "KernelDescPtr is outside")
}

fn areas_and_thread_numbers_are_single_words() -> Outcome {
    equal("UtcbInfo: 1 times 2^10, areas of 2^12", kip_word(42), 12 << 16 | 10 << 10 | 1)?;
    equal("KipAreaInfo", kip_word(43) & 0x3F, 12)?;
    let info = kip_word(49);
    let (t, system, user) = (info & 0xFF, info >> 8 & 0xFFF, info >> 20 & 0xFFF);
    equal("t", t, 18)?;
    check(system > 0 && user > system, format_args!("SystemBase {system}, UserBase {user}"))?;
    equal("the root task's id", supervisor().raw(), (user + 2) << 32 | 1)?;
    equal("sigma0's id", kip::sigma0_id().raw(), user << 32 | 1)
}

fn page_sizes_are_bits_in_place() -> Outcome {
    let info = kip_word(50);
    equal("rights", info & 7, 7)?;
    check(info & 1 << 12 != 0 && info & 1 << 21 != 0, format_args!("page sizes {info:#x}"))?;
    equal("sizes below a page", info & 0xFF8, 0)
}

fn processor_descriptors_have_four_words() -> Outcome {
    let info = kip_word(51);
    equal("log2 of a descriptor", info >> 60, 5)?;
    let count = (info & 0xFFFF) + 1;
    equal("the number", count, kip::num_processors() as Word)?;
    for number in 0..count {
        let internal = memory::read(kernel_interface().kip.addr() as Word + kip_word(47) + (number << 5) + 8);
        check(internal > 10_000, format_args!("processor {number} has {internal} kHz"))?;
    }
    Ok(())
}

fn feature_strings_end_with_an_empty_one() -> Outcome {
    check(kip::features().count() < 16, "the features do not end")?;
    check(kip::features().all(|name| name.bytes().all(|byte| byte.is_ascii_graphic())), "a feature is no word")?;
    // What is announced is there, and the rest is not announced.
    check(kip::has_feature("pagerexregs"), "pagerexregs is not announced")?;
    for name in ["smallspaces", "ctrlxfer", "hscheduling", "compatibility_mode", "logging", "x86-hvm"] {
        check(!kip::has_feature(name), format_args!("{name} is announced"))?;
    }
    Ok(())
}

/// A number that changes with each word of the page.
fn sum_of_page() -> Word {
    (0..512).fold(0, |sum: Word, index| sum.rotate_left(1) ^ kip_word(index))
}

fn page_is_the_same_in_every_space() -> Outcome {
    let here = sum_of_page();
    let elsewhere = Space::with_areas(memory::window(0x40_0000, 12), crate::world::spaces::utcb_area())?;
    for space in [Space::create()?, elsewhere] {
        plan().space(space).spawn(move || equal("the sum of its words", sum_of_page(), here))?.join()?;
    }
    Ok(())
}

fn unused_words_are_zero() -> Outcome {
    // Reserved ones, those of the old boot protocol, and the calls of other architectures.
    for index in [20, 24, 25, 26, 27, 28, 29].into_iter().chain(30..42).chain([44, 45]).chain(63..72) {
        equal(format_args!("word {index}"), kip_word(index), 0)?;
    }
    Ok(())
}

fn links_are_at_their_words() -> Outcome {
    let calls = &kip::kip().system_calls;
    let rows = [
        calls.space_control,
        calls.thread_control,
        calls.processor_control,
        calls.memory_control,
        calls.ipc,
        calls.lipc,
        calls.unmap,
        calls.exchange_registers,
        calls.system_clock,
        calls.thread_switch,
        calls.schedule,
    ];
    for (index, link) in (52..).zip(rows) {
        equal(format_args!("word {index}"), kip_word(index), link)?;
        // An address, not an offset; in nobody's user memory, as it is the same everywhere.
        check(link >= 1 << 47, format_args!("word {index} is {link:#x}"))?;
    }
    Ok(())
}

fn links_are_the_same_in_every_space() -> Outcome {
    let here: [Word; 11] = core::array::from_fn(|i| kip_word(52 + i as Word));
    let thread = plan().space(Space::create()?).spawn(move || {
        (0..11).try_for_each(|i| equal(format_args!("word {}", 52 + i), kip_word(52 + i as Word), here[i]))
    })?;
    thread.join()
}

fn descriptors_are_pairs_of_words() -> Outcome {
    let (count, offset) = (kip_word(21) & 0xFFFF_FFFF, kip_word(21) >> 32);
    let base = kernel_interface().kip.addr() as Word + offset;
    check(count > 3, format_args!("there are {count}"))?;
    for i in 0..count {
        let (low, high) = (memory::read(base + i * 16), memory::read(base + i * 16 + 8));
        equal(format_args!("bit 8 of descriptor {i}"), low >> 8 & 1, 0)?;
        equal(format_args!("low bits of the end of descriptor {i}"), high & 0x3FF, 0)?;
        check(low >> 10 <= high >> 10, format_args!("descriptor {i} ends before it begins"))?;
        check(matches!(low & 0xF, 0..=4 | 0xE | 0xF), format_args!("descriptor {i} has the type {}", low & 0xF))?;
    }
    Ok(())
}

// --- virtual registers ---

/// Address of the own MR0.
fn mr0() -> Word {
    threads_of::my_local_id().raw()
}

fn own_id_and_processor_number() -> Outcome {
    equal("MyGlobalId", memory::read(mr0() - 0x78), tester().id().raw())?;
    equal("ProcessorNo", memory::read(mr0() - 0x70), placement::expected_processor(tester()).into())
}

fn handle_pager_and_exception_handler() -> Outcome {
    let thread = spawn(|| {
        threads_of::set_user_defined_handle_of(utcb().my_global_id(), 0x7117)?;
        equal("UserDefinedHandle", memory::read(mr0() - 0x68), 0x7117)?;
        threads_of::set_pager_of(utcb().my_global_id(), kip::sigma0_id())?;
        equal("Pager", memory::read(mr0() - 0x60), kip::sigma0_id().raw())?;
        memory::write(mr0() - 0x60, supervisor().raw());
        equal("the pager", threads_of::pager_of(utcb().my_global_id())?, supervisor())?;
        memory::write(mr0() - 0x68, 0x8228);
        equal("the handle", threads_of::user_defined_handle_of(utcb().my_global_id())?, 0x8228)?;
        // A fault is the tester's as soon as the register says so.
        memory::write(mr0() - 0x58, tester().id().raw());
        arch::EXCEPTIONS.iter().find(|raise| raise.number == arch::INVALID_OPCODE).map(arch::Raise::execute);
        Ok(())
    })?;
    equal("what comes", receive(thread.id())?.tag.protocol(), l4::protocol::EXCEPTION)?;
    thread.delete()
}

fn error_code_of_ipc_and_of_calls() -> Outcome {
    let nobody = Thread::reserve()?.id();
    check(ipc::ipc(nobody, ThreadId::NIL, NOW).tag.is_error(), "nobody takes a message")?;
    equal("ErrorCode of Ipc", memory::read(mr0() - 0x48), 4)?;
    check(threads_of::inspect(nobody).is_err(), "nobody has registers")?;
    equal("ErrorCode of ExchangeRegisters", memory::read(mr0() - 0x48), 2)
}

fn virtual_and_actual_sender_share_a_word() -> Outcome {
    let client = spawn(|| {
        receive(tester().id())?;
        Ok(())
    })?;
    let deputy = spawn(move || {
        memory::write(mr0() - 0x30, client.id().raw());
        utcb().set_tag(MsgTag::new(1, 0, 0).with_flags(MsgTag::PROPAGATED));
        ipc::send_timeout(tester().id(), crate::world::threads::PATIENCE)?;
        Ok(())
    })?;
    equal("from", receive(ThreadId::ANY)?.from, client.local_id())?;
    equal("ActualSender", memory::read(mr0() - 0x30), deputy.id().raw())?;
    deputy.join()
}

fn transfer_timeouts_are_a_register_of_the_user() -> Outcome {
    memory::write(mr0() - 0x40, 0x1234_5678);
    equal("XferTimeouts", utcb().xfer_timeouts().raw(), 0x1234_5678)?;
    send_to_oneself_in_vain();
    let left = memory::read(mr0() - 0x40);
    memory::write(mr0() - 0x40, 0);
    equal("XferTimeouts after an IPC", left, 0x1234_5678)
}

/// An IPC that comes to nothing.
fn send_to_oneself_in_vain() {
    Msg::new(0).load();
    // Nobody can send to itself.
    let _ = ipc::ipc(tester().id(), ThreadId::NIL, NOW);
}

fn message_registers_are_a_row_of_words() -> Outcome {
    let sender = spawn(|| {
        (1..64).for_each(|i| memory::write(mr0() + i * 8, 0x600 + i));
        memory::write(mr0(), 0x9999 << 16 | 63);
        ipc::send_timeout(tester().id(), crate::world::threads::PATIENCE)?;
        Ok(())
    })?;
    receive(sender.id())?;
    equal_tags("MR0", MsgTag::from_raw(memory::read(mr0())), MsgTag::new(0x9999, 63, 0))?;
    (1..64).try_for_each(|i| equal(format_args!("MR{i}"), memory::read(mr0() + i * 8), 0x600 + i))?;
    sender.join()
}

fn buffer_registers_go_down_from_the_acceptor() -> Outcome {
    for i in 0..33 {
        utcb().set_br(i, 0x900 + i as Word);
        equal(format_args!("BR{i}"), memory::read(mr0() - 0x80 - 8 * i as Word), 0x900 + i as Word)?;
    }
    // A message of words leaves all of them alone.
    let sender = spawn(|| Ok(send_label(tester().id(), 1).map(drop)?))?;
    receive(sender.id())?;
    let left: [Word; 33] = core::array::from_fn(|i| utcb().br(i));
    (0..33).for_each(|i| utcb().set_br(i, 0));
    left.into_iter().enumerate().try_for_each(|(i, br)| equal(format_args!("BR{i}"), br, 0x900 + i as Word))
}

fn thread_words_are_left_alone() -> Outcome {
    let thread = spawn(|| {
        memory::write(mr0() - 0x20, 0x10);
        memory::write(mr0() - 0x28, 0x11);
        for _ in 0..3 {
            receive(tester().id())?;
            send_label(tester().id(), 1)?;
        }
        equal("ThreadWord0", utcb().thread_word(0), 0x10)?;
        equal("ThreadWord1", utcb().thread_word(1), 0x11)
    })?;
    (0..3).try_for_each(|_| crate::world::messages::call_label(thread.id(), 0).map(drop))?;
    thread.join()
}

fn registers_are_those_of_the_thread() -> Outcome {
    // Threads of one space find each other's registers where their local ids say.
    let thread = spawn(|| {
        utcb().set_user_defined_handle(0x0DD);
        receive(tester().id())?;
        equal("UserDefinedHandle", utcb().user_defined_handle(), 0x0EE)
    })?;
    let place = thread.local_id().raw() - 0x68;
    equal("the handle of the other", memory::read(place), 0x0DD)?;
    memory::write(place, 0x0EE);
    send_label(thread.id(), 1)?;
    thread.join()
}

fn user_registers_survive_calls_and_messages() -> Outcome {
    let thread = spawn(|| {
        utcb().set_user_defined_handle(0x51);
        utcb().set_exception_handler(tester().id());
        arch::load_float_registers(&FloatRegisters::pattern(5));
        for _ in 0..5 {
            receive(tester().id())?;
            l4::schedule::yield_now();
            threads_of::inspect(utcb().my_global_id())?;
            threads_of::abort(utcb().my_global_id(), ExregsControl::NONE)?;
        }
        equal("UserDefinedHandle", utcb().user_defined_handle(), 0x51)?;
        equal("ExceptionHandler", utcb().exception_handler(), tester().id())?;
        equal("Pager", utcb().pager(), supervisor())?;
        equal("the floating-point registers", arch::float_registers(arch::X87Stack::Loaded), FloatRegisters::pattern(5))
    })?;
    (0..5).try_for_each(|_| send_label(thread.id(), 1).map(drop))?;
    thread.join()
}

fn initial_threads_have_their_areas() -> Outcome {
    let root = threads_of::inspect(supervisor())?;
    equal("the root task's local id", root.other_id.raw(), 0xBF00_0200)?;
    equal("its pager", root.old.pager, kip::sigma0_id())?;
    equal("the page", kernel_interface().kip.addr() as Word, 0xBFF0_0000)?;
    // So it is in sigma0's space, as a thread there can tell.
    let thread = plan().space(Space::of(kip::sigma0_id())).spawn(|| {
        equal("the page", kernel_interface().kip.addr() as Word, 0xBFF0_0000)?;
        let sigma0 = threads_of::inspect(kip::sigma0_id())?;
        equal("sigma0's local id", sigma0.other_id.raw(), 0xBF00_0200)?;
        equal("its pager", sigma0.old.pager, ThreadId::NIL)
    })?;
    thread.join().within("in sigma0's space")
}
