//! Sigma0: the first owner and pager of physical memory.
//!
//! A loop around [`sigma0::server`]: receive, find out what the message comes to, answer. Its own memory is mapped by the
//! kernel as it touches it, at the physical address. It prints nothing unless the root task raises its verbosity.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use l4::message::{Msg, accept_untyped};
use l4::{MapItem, PageAttribute, ThreadId, Word, ipc, kip, space, utcb};
use l4_rt::{PhysicalMemory, println};
use sigma0::pools::{FIRST_REGIONS, PORT_REGIONS, Pools};
use sigma0::regions::{Part, Region};
use sigma0::server::{Action, Message, REFUSAL, handle};

/// Level of output from which on each request is printed.
const VERBOSITY_REQUESTS: Word = 1;

l4_rt::sigma0_entry!(main);

fn main(physical: PhysicalMemory) {
    let mut memory = [Region::UNUSED; FIRST_REGIONS];
    let mut ports = [Region::UNUSED; PORT_REGIONS];
    accept_untyped();
    let pools = Pools::new(kip(), kip::memory_descriptors(), &mut memory, &mut ports);
    serve(pools, physical);
}

fn serve(mut pools: Pools<'_>, mut physical: PhysicalMemory) -> ! {
    let mut verbosity = 0;
    let mut message = wait();
    loop {
        // The pools have just taken this memory out of the free pool, and give it to nobody before they have moved on.
        pools.keep_room(|base, count| physical.storage(base, count, Region::UNUSED));
        let action = handle(&mut pools, kip().thread_info, &message);
        if verbosity >= VERBOSITY_REQUESTS {
            println!("sigma0: {message:x?} -> {action:x?}");
        }
        message = match action {
            Action::Ignore => wait(),
            Action::Map { item, attribute } => reply_wait(message.from, Some(with_attribute(item, attribute))),
            Action::SetVerbosity(level) => {
                verbosity = level;
                wait()
            }
            Action::Dump => {
                dump(&pools);
                wait()
            }
            Action::DumpAndReply => {
                dump(&pools);
                reply_wait(message.from, None)
            }
        };
    }
}

/// Waits for a message.
fn wait() -> Message {
    loop {
        if let Ok(outcome) = ipc::wait() {
            return received(outcome);
        }
    }
}

/// Answers with an item or with nothing, and waits for the next message. Who does not wait for the answer, or takes no
/// mappings, has asked in vain.
fn reply_wait(to: ThreadId, item: Option<MapItem>) -> Message {
    let mut reply = Msg::new(0);
    if let Some(item) = item {
        reply.append_map(item);
    }
    reply.load();
    match ipc::reply_wait(to) {
        Ok(outcome) => received(outcome),
        Err(_) => wait(),
    }
}

fn received(outcome: ipc::Outcome) -> Message {
    let utcb = utcb();
    let word_size_mask = utcb.word_size_mask();
    utcb.set_word_size_mask(Word::MAX);
    Message { from: outcome.from, tag: outcome.tag, words: [utcb.mr(1), utcb.mr(2), utcb.mr(3)], word_size_mask }
}

/// Sets the attribute of a page that is about to be mapped; a refusal if the kernel does not have it.
fn with_attribute(item: MapItem, attribute: Word) -> MapItem {
    match attribute {
        0 => item,
        attribute => {
            let attribute = PageAttribute::from_raw(attribute);
            space::set_page_attribute(item.fpage, attribute).map_or(REFUSAL, |()| item)
        }
    }
}

fn dump(pools: &Pools<'_>) {
    let line = |part: Part| println!("  {:#018x} - {:#018x}  {}", part.low, part.high, part.owner);
    println!("sigma0: memory");
    pools.memory().for_each(line);
    println!("sigma0: ports");
    pools.ports().for_each(line);
}
