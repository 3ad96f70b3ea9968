//! Messages that many tests send and receive.

use core::fmt::Display;

use l4::ipc::{self, Outcome as IpcOutcome};
use l4::message::{Msg, MsgBuffer, accept, accept_strings, accept_untyped};
use l4::time::timeouts;
use l4::{Acceptor, Fpage, IpcError, IpcErrorKind, MapItem, MsgTag, Phase, StringItem, ThreadId, Time, Word, utcb};

use super::memory::{at, is_in_playground};
use super::placement;
use super::threads::PATIENCE;
use crate::failure::{Outcome, Within, equal};

/// The words of a message of `count` words: different at each place of each message.
pub fn word(count: usize, index: usize) -> Word {
    (Word::MAX / 3) ^ ((count * 0x1_0001 + index * 0x1_0301) as Word)
}

/// Loads a message with this label of `count` such words.
pub fn load_words(label: Word, count: usize) {
    utcb().set_tag(MsgTag::new(label, count, 0));
    (1..=count).for_each(|index| utcb().set_mr(index, word(count, index)));
}

/// Whether the message registers hold the message of [`load_words`], received with `tag`.
#[track_caller]
pub fn check_words(tag: MsgTag, label: Word, count: usize) -> Outcome {
    equal_tags("the tag", tag, MsgTag::new(label, count, 0))?;
    equal("MR0", utcb().tag(), tag)?;
    for index in 1..=count {
        equal(format_args!("MR{index}"), utcb().mr(index), word(count, index)).within(format_args!("{count} words"))?;
    }
    Ok(())
}

/// Fails unless the tag of a message is this one. Whether it has flag X, if threads are spread, is not what it is about.
#[track_caller]
pub fn equal_tags(what: impl Display, is: MsgTag, should: MsgTag) -> Outcome {
    equal(what, without_x(is), should)
}

/// The tag without flag X, if threads are spread.
pub fn without_x(tag: MsgTag) -> MsgTag {
    if placement::is_spread() { tag.without_flags(MsgTag::XCPU) } else { tag }
}

/// Receives from one thread within the usual patience.
pub fn receive(from: ThreadId) -> Result<IpcOutcome, IpcError> {
    ipc::receive_timeout(from, PATIENCE)
}

/// Sends an empty message within the usual patience.
pub fn send_label(to: ThreadId, label: Word) -> Result<IpcOutcome, IpcError> {
    Msg::new(label).load();
    ipc::send_timeout(to, PATIENCE)
}

/// Calls with an empty message within the usual patience.
pub fn call_label(to: ThreadId, label: Word) -> Result<IpcOutcome, IpcError> {
    Msg::new(label).load();
    ipc::call_timeouts(to, timeouts(PATIENCE, PATIENCE))
}

/// Takes mappings into a window of the playground from now on; a nil window: takes none.
///
/// # Panics
/// For a window elsewhere.
pub fn accept_in(window: Fpage) {
    assert!(is_in_playground(window), "memory that is in use stays as it is");
    // SAFETY: no object of this program is in the playground.
    unsafe { accept(Acceptor::map_grant(window)) };
}

/// Takes mappings anywhere in the space from now on. The tester, who sends them, knows where objects are.
pub fn accept_everywhere() {
    // SAFETY: tests map to the playground, and to areas of the kernel's, where it must come to nothing.
    unsafe { accept(Acceptor::COMPLETE) };
}

/// A string or a buffer in the playground: parts of one length each, with their addresses' offsets in the playground.
pub type Parts = &'static [(usize, &'static [Word])];

/// Takes strings into these buffers, and mappings into a window of the playground, from now on.
///
/// # Panics
/// For a window elsewhere, or more buffers than there are registers for.
pub fn accept_strings_in(window: Fpage, buffers: &[Parts]) {
    assert!(is_in_playground(window), "memory that is in use stays as it is");
    let mut registers = MsgBuffer::new();
    for buffer in buffers {
        for (i, &(len, offsets)) in buffer.iter().enumerate() {
            with_addresses(offsets, |addresses| match i {
                0 => registers.append(len, addresses),
                _ => registers.extend(len, addresses),
            });
        }
    }
    // SAFETY: no object of this program is in the playground, where window and buffers are.
    unsafe { accept_strings(window, &registers) };
}

/// Appends a string in the playground to a message.
pub fn append_string(msg: &mut Msg, parts: Parts) {
    for (i, &(len, offsets)) in parts.iter().enumerate() {
        with_addresses(offsets, |addresses| match i + 1 < parts.len() {
            true => msg.append_string_part(len, addresses),
            false => msg.append_string_at(len, addresses),
        });
    }
}

fn with_addresses<T>(offsets: &[Word], use_them: impl FnOnce(&[usize]) -> T) -> T {
    let mut addresses = [0; StringItem::SUBSTRINGS_MAX];
    let addresses = &mut addresses[..offsets.len()];
    addresses.iter_mut().zip(offsets).for_each(|(address, &offset)| *address = at(offset) as usize);
    use_them(addresses)
}

/// Receives a message with mappings into a window of the playground, within the usual patience.
pub fn receive_mapping(from: ThreadId, window: Fpage) -> Result<IpcOutcome, IpcError> {
    accept_in(window);
    let outcome = receive(from);
    accept_untyped();
    outcome
}

/// Sends a message with these items within the usual patience.
pub fn send_items(to: ThreadId, items: &[MapItem]) -> Result<IpcOutcome, IpcError> {
    let mut msg = Msg::new(0);
    items.iter().for_each(|&item| {
        msg.append_map(item);
    });
    msg.load();
    ipc::send_timeout(to, PATIENCE)
}

/// The error of a send phase.
pub const fn send_error(kind: IpcErrorKind) -> IpcError {
    IpcError::new(Phase::Send, kind)
}

/// The error of a receive phase.
pub const fn receive_error(kind: IpcErrorKind) -> IpcError {
    IpcError::new(Phase::Receive, kind)
}

/// Both timeouts zero: who is not there now is not there.
pub const NOW: l4::Timeouts = l4::Timeouts::new(Time::ZERO, Time::ZERO);
