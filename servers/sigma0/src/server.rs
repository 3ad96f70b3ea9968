//! From a message to what it comes to (sigma0 protocol).

use l4_abi::protocol::{
    IO_PAGE_FAULT, PAGE_FAULT, SIGMA0, SIGMA0_DUMP_POOLS, SIGMA0_EXTENDED, SIGMA0_SET_VERBOSITY, Sigma0Request,
};
use l4_abi::{Fpage, IoFpage, MapItem, MsgTag, Rights, ThreadId, ThreadInfo, Word};

use crate::pools::{Class, PAGE_LOG2, Pools};

/// A request as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The global id of the sender.
    pub from: ThreadId,
    /// The tag.
    pub tag: MsgTag,
    /// MR1 to MR3, of which the tag says how many count.
    pub words: [Word; 3],
    /// The bits that a word of the sender has: all, or fewer than ours.
    pub word_size_mask: Word,
}

/// What a message comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is no request: nothing happens, and nobody hears of it.
    Ignore,
    /// Answer with this item; set the attribute of its page before, unless 0.
    Map {
        /// The page or the ports, or nilpage for a refusal.
        item: MapItem,
        /// Attribute for MemoryControl.
        attribute: Word,
    },
    /// Print as much as this level says.
    SetVerbosity(Word),
    /// Print the pools.
    Dump,
    /// Print the pools, then answer with nothing.
    DumpAndReply,
}

/// The answer to a request that is refused.
pub const REFUSAL: MapItem = MapItem::map(Fpage::NIL, 0);

/// Finds out what a message comes to, and gives away what it asks for.
pub fn handle(pools: &mut Pools<'_>, threads: ThreadInfo, message: &Message) -> Action {
    let Message { from, tag, words, .. } = *message;
    if tag.typed() != 0 || !matches!(tag.untyped(), 2 | 3) {
        return Action::Ignore;
    }
    let item = match tag.protocol() {
        SIGMA0 => return request(pools, message),
        PAGE_FAULT => page_fault(pools, from, words[0]),
        IO_PAGE_FAULT => Fpage::from_raw(words[0]).as_io().and_then(|io| ports(pools, from, io)),
        SIGMA0_EXTENDED if may_extend(threads, from) => return extended(words),
        _ => return Action::Ignore,
    };
    Action::Map { item: item.unwrap_or(REFUSAL), attribute: 0 }
}

/// Whether a thread may send extended requests: the kernel's threads and the root task.
fn may_extend(threads: ThreadInfo, from: ThreadId) -> bool {
    let kernel = threads.kernel().raw()..threads.sigma0().raw();
    kernel.contains(&from.raw()) || from == threads.root_task()
}

fn extended(words: [Word; 3]) -> Action {
    match (words[0], words[1]) {
        (SIGMA0_SET_VERBOSITY, level) => Action::SetVerbosity(level),
        (SIGMA0_DUMP_POOLS, 0) => Action::Dump,
        (SIGMA0_DUMP_POOLS, _) => Action::DumpAndReply,
        _ => Action::Ignore,
    }
}

fn request(pools: &mut Pools<'_>, message: &Message) -> Action {
    let [raw, attribute, third] = message.words;
    let fpage = Fpage::from_raw(raw);
    let high = if fpage.is_extended() && message.tag.untyped() == 3 { third } else { 0 };
    let request = Sigma0Request { fpage, attributes: attribute, high };
    let item = if let Some(io) = fpage.as_io() {
        return Action::Map { item: ports(pools, message.from, io).unwrap_or(REFUSAL), attribute: 0 };
    } else if is_any(&request, message.word_size_mask) {
        any_page(pools, message.from, fpage.size_field())
    } else {
        page(pools, message.from, &request)
    };
    // Nothing to set an attribute of after a refusal.
    item.map_or(Action::Map { item: REFUSAL, attribute: 0 }, |item| Action::Map { item, attribute })
}

/// Whether any address will do: the base is all ones, of as many bits as the sender's words have.
fn is_any(request: &Sigma0Request, word_size_mask: Word) -> bool {
    request.is_any() || request.fpage.raw() >> 10 == word_size_mask >> 10
}

fn any_page(pools: &mut Pools<'_>, thread: ThreadId, size_log2: u32) -> Option<MapItem> {
    // The item must be one that can be written in our words.
    if size_log2 >= Word::BITS {
        return None;
    }
    map_item(pools.take_any(thread, size_log2)?, size_log2)
}

fn page(pools: &mut Pools<'_>, thread: ThreadId, request: &Sigma0Request) -> Option<MapItem> {
    let (base, size_log2) = (request.fpage.base() as u64, request.fpage.size_log2());
    let high = u64::from(u32::try_from(request.high).ok()?) << 32;
    if size_log2 >= Word::BITS || high & !(u64::MAX << size_log2) != 0 {
        return None;
    }
    let item = map_item(base | high, size_log2)?;
    pools.take_memory(thread, base | high, size_log2, Class::Every)?;
    Some(item)
}

fn page_fault(pools: &mut Pools<'_>, thread: ThreadId, address: Word) -> Option<MapItem> {
    let base = address as u64 >> PAGE_LOG2 << PAGE_LOG2;
    pools.take_memory(thread, base, PAGE_LOG2, Class::Conventional)?;
    map_item(base, PAGE_LOG2)
}

fn ports(pools: &mut Pools<'_>, thread: ThreadId, io: IoFpage) -> Option<MapItem> {
    pools.take_ports(thread, io.port(), io.last())?;
    Some(MapItem::map(io.fpage(), io.port() as Word))
}

/// The item for memory at an address, to be mapped with all rights; `None` if our words have no room for it.
fn map_item(base: u64, size_log2: u32) -> Option<MapItem> {
    let base = Word::try_from(base).ok()?;
    Some(MapItem::map(Fpage::new(base, size_log2, Rights::ALL)?, base))
}

#[cfg(test)]
mod tests;
