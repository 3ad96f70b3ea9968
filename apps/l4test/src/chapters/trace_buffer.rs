//! The trace buffer for programs, in kernels that have one.

use l4::trace_buffer::abi::{DEFAULT_TYPE, FEATURE, FIRST_USER_ID, header, record};
use l4::trace_buffer::{self, TraceBuffer};
use l4::{MemoryType, Word, kip, thread};

use crate::failure::{Failure, Outcome, Within, check, equal};
use crate::registry::chapter;

chapter! { trace_buffer:
    "Kernel debugger, trace buffer" => [
        the_buffer_is_announced_if_it_is_there,
        records_are_read_back,
        records_go_round,
        types_that_are_not_recorded_leave_no_record,
        counters_count,
        the_kernel_does_not_believe_the_header,
    ],
}

/// The buffer; skips the test if there is none.
fn buffer() -> Outcome<TraceBuffer> {
    trace_buffer::get().ok_or(Failure::skip("the kernel was built without a trace buffer"))
}

fn the_buffer_is_announced_if_it_is_there() -> Outcome {
    let is_one = |d: &&l4::MemoryDescriptor| d.kind() == MemoryType::Reserved && d.is_virtual();
    let announced = kip::memory_descriptors().iter().filter(is_one).count();
    equal("buffers that memory descriptors tell of", announced, usize::from(kip::has_feature(FEATURE)))?;
    equal("whether there is one", trace_buffer::get().is_some(), announced == 1)
}

fn records_are_read_back() -> Outcome {
    let buffer = buffer()?;
    let args: [Word; record::ARGS_MAX] = core::array::from_fn(|index| 0x1111 * (index as Word + 1));
    for count in 0..=args.len() {
        let id = FIRST_USER_ID + count as u16;
        let index = buffer.record_event(DEFAULT_TYPE, id, 0x1234, &args[..count]).ok_or(Failure::new("no record"))?;
        let found = buffer.read(index).ok_or(Failure::new("no such record"))?;
        equal("its type and number", (found.kind(), found.id()), (DEFAULT_TYPE, id)).within(count)?;
        equal("its thread", found.words[record::THREAD], thread::my_global_id().raw()).within(count)?;
        equal("its processor", found.processor(), l4::utcb().processor_no() as u16).within(count)?;
        equal("its text", found.words[record::TEXT], 0x1234).within(count)?;
        for (number, arg) in args.iter().enumerate() {
            let expected = if number < count { *arg } else { 0 };
            equal("an argument", found.arg(number), Some(expected)).within(number).within(count)?;
        }
        equal("one more", found.arg(record::ARGS_MAX), None)?;
    }
    Ok(())
}

fn records_go_round() -> Outcome {
    let buffer = buffer()?;
    let capacity = buffer.capacity();
    check(capacity > 100, format_args!("there is room for {capacity}"))?;
    buffer.set_header(header::CURRENT, capacity as Word - 2);
    let [last, first] = [buffer.next_record(), buffer.next_record()];
    check(last == capacity - 1 || last < 64, format_args!("the last of {capacity} is {last}"))?;
    check(first < 64, format_args!("behind it comes {first}"))?;
    check(buffer.read(capacity - 1).is_some(), "the last record is not there")?;
    check(buffer.read(capacity).is_none(), "there is one more")
}

fn types_that_are_not_recorded_leave_no_record() -> Outcome {
    let buffer = buffer()?;
    let mask = buffer.mask();
    buffer.set_mask(mask & 0xFFFF | 4 << 16);
    let [other, own] = [2, 4].map(|kind| buffer.record_event(kind, FIRST_USER_ID, 0, &[]).is_some());
    buffer.set_mask(mask);
    equal("whether another type and this one are recorded", (other, own), (false, true))
}

fn counters_count() -> Outcome {
    let buffer = buffer()?;
    for index in 0..header::COUNTERS_MAX {
        let before = buffer.counter(index);
        equal("the counter", buffer.increment_counter(index), before.wrapping_add(1)).within(index)?;
        equal("the same again", buffer.counter(index), before.wrapping_add(1)).within(index)?;
    }
    Ok(())
}

/// Whatever stands in the header, the kernel goes on, and so does the library. If the kernel has tracepoints, it writes events
/// meanwhile.
fn the_kernel_does_not_believe_the_header() -> Outcome {
    let buffer = buffer()?;
    let words = [header::CURRENT, header::MASK, header::MAX];
    let before = words.map(|index| buffer.header(index));
    for wild in [0, 1, buffer.capacity() as Word, 1 << 32, 1 << 63, Word::MAX - 1, Word::MAX] {
        for index in [header::CURRENT, header::MAX] {
            buffer.set_header(index, wild);
            // Calls that the kernel has events of.
            for _ in 0..8 {
                l4::schedule::yield_now();
            }
            let next = buffer.next_record();
            check(buffer.read(next).is_some(), format_args!("record {next} is not there")).within(wild)?;
            equal("a record behind all others", buffer.read(usize::MAX), None)?;
        }
    }
    words.into_iter().zip(before).for_each(|(index, word)| buffer.set_header(index, word));
    Ok(())
}
