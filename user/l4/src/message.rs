//! Building and reading messages (X.2, Messages, Buffers).

use core::sync::atomic::AtomicU8;

use l4_abi::{Acceptor, BR_COUNT, CtrlXferItem, Fpage, ItemKind, MR_COUNT, MapItem, MsgTag, StringItem, Word};

use crate::utcb;

/// A message in memory: what the message registers hold, or are to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias = "L4_Msg_t")]
pub struct Msg {
    /// MR0, the tag, and the words behind it; what the tag does not count is zero or left over.
    mr: [Word; MR_COUNT],
}

impl Msg {
    /// An empty message with this label.
    #[doc(alias = "L4_MsgClear")]
    #[doc(alias = "L4_MsgPut")]
    pub const fn new(label: Word) -> Self {
        let mut mr = [0; MR_COUNT];
        mr[0] = MsgTag::new(label, 0, 0).raw();
        Self { mr }
    }

    /// A message with this tag's label and flags, and these untyped words.
    ///
    /// # Panics
    /// If there are more than 63.
    pub fn of_words(tag: MsgTag, words: &[Word]) -> Self {
        let mut msg = Self::new(0);
        msg.set_tag(tag.with_counts(words.len(), 0));
        msg.mr[1..=words.len()].copy_from_slice(words);
        msg
    }

    /// The message that the message registers hold, as long as `tag` says.
    #[doc(alias = "L4_MsgStore")]
    pub fn store(tag: MsgTag) -> Self {
        let mut msg = Self::new(0);
        msg.set_tag(tag);
        let end = msg.end();
        for (word, register) in msg.mr[1..end].iter_mut().zip(&utcb().mrs()[1..]) {
            *word = register.load(core::sync::atomic::Ordering::Relaxed);
        }
        msg
    }

    /// Copies the message to the message registers.
    #[doc(alias = "L4_MsgLoad")]
    pub fn load(&self) {
        for (i, word) in self.mr[..self.end()].iter().enumerate() {
            utcb().set_mr(i, *word);
        }
    }

    /// The tag.
    #[doc(alias = "L4_MsgMsgTag")]
    pub const fn tag(&self) -> MsgTag {
        MsgTag::from_raw(self.mr[0])
    }

    /// Sets the tag.
    #[doc(alias = "L4_Set_MsgMsgTag")]
    pub const fn set_tag(&mut self, tag: MsgTag) {
        self.mr[0] = tag.raw();
    }

    /// Sets the label.
    #[doc(alias = "L4_Set_MsgLabel")]
    pub const fn set_label(&mut self, label: Word) {
        self.set_tag(self.tag().with_label(label));
    }

    /// Appends an untyped word; typed items move up.
    ///
    /// # Panics
    /// If the message is full.
    #[doc(alias = "L4_MsgAppendWord")]
    pub fn append_word(&mut self, word: Word) -> &mut Self {
        let (tag, end) = (self.tag(), self.end());
        let at = tag.untyped() + 1;
        assert!(end < MR_COUNT, "a message has 63 words at most");
        self.mr.copy_within(at..end, at + 1);
        self.mr[at] = word;
        self.set_tag(tag.with_counts(tag.untyped() + 1, tag.typed()));
        self
    }

    /// Appends a map or grant item.
    ///
    /// # Panics
    /// If the message is full.
    #[doc(alias = "L4_MsgAppendMapItem")]
    #[doc(alias = "L4_MsgAppendGrantItem")]
    pub fn append_map(&mut self, item: MapItem) -> &mut Self {
        self.append_typed(&item.words())
    }

    /// Appends a string.
    ///
    /// # Panics
    /// If the message is full, or the string is longer than an item can say.
    #[doc(alias = "L4_MsgAppendSimpleStringItem")]
    pub fn append_string(&mut self, string: &[u8]) -> &mut Self {
        self.append_string_at(string.len(), &[string.as_ptr().expose_provenance()])
    }

    /// Appends a string item of sub-strings of one length, given by their addresses.
    ///
    /// # Panics
    /// If the message is full, or a length or number is more than an item can say.
    #[doc(alias = "L4_MsgAppendStringItem")]
    pub fn append_string_at(&mut self, len_bytes: usize, addresses: &[usize]) -> &mut Self {
        self.append_typed_item(string_item(len_bytes, addresses.len()), addresses)
    }

    /// Appends one part of a compound string: the next string item continues it.
    ///
    /// # Panics
    /// If the message is full, or a length or number is more than an item can say.
    #[doc(alias = "L4_AddSubstringTo")]
    pub fn append_string_part(&mut self, len_bytes: usize, addresses: &[usize]) -> &mut Self {
        self.append_typed_item(string_item(len_bytes, addresses.len()).with_compound(), addresses)
    }

    /// Appends a control-transfer item and its registers.
    ///
    /// # Panics
    /// If the message is full.
    #[doc(alias = "L4_MsgAppendCtrlXferItem")]
    pub fn append_ctrl_xfer(&mut self, item: CtrlXferItem, registers: &[Word]) -> &mut Self {
        self.append_typed(&[item.raw()]).append_typed(registers)
    }

    /// Untyped word `i`, counted from 0 (MR1); `None` behind the last.
    #[doc(alias = "L4_MsgWord")]
    pub fn word(&self, i: usize) -> Option<Word> {
        self.words().get(i).copied()
    }

    /// The untyped words.
    pub fn words(&self) -> &[Word] {
        &self.mr[1..=self.tag().untyped().min(MR_COUNT - 1)]
    }

    /// The words of the typed items.
    pub fn typed_words(&self) -> &[Word] {
        &self.mr[(self.tag().untyped() + 1).min(MR_COUNT)..self.end()]
    }

    /// The map or grant item at typed word `at`; `None` if there is none.
    #[doc(alias = "L4_MsgGetMapItem")]
    #[doc(alias = "L4_MsgGetGrantItem")]
    pub fn map_item(&self, at: usize) -> Option<MapItem> {
        match self.typed_words().get(at..)? {
            [first, second, ..] => MapItem::from_words([*first, *second]),
            _ => None,
        }
    }

    /// The string item at typed word `at`, and its addresses; `None` if there is none.
    #[doc(alias = "L4_MsgGetStringItem")]
    pub fn string_item(&self, at: usize) -> Option<(StringItem, &[Word])> {
        let (first, rest) = self.typed_words().get(at..)?.split_first()?;
        if ItemKind::of(*first) != ItemKind::String {
            return None;
        }
        let item = StringItem::from_raw(*first);
        Some((item, rest.get(..item.substrings())?))
    }

    /// The first register behind the message.
    fn end(&self) -> usize {
        (1 + self.tag().untyped() + self.tag().typed()).min(MR_COUNT)
    }

    fn append_typed(&mut self, words: &[Word]) -> &mut Self {
        let (tag, end) = (self.tag(), self.end());
        assert!(end + words.len() <= MR_COUNT, "a message has 63 words at most");
        self.mr[end..end + words.len()].copy_from_slice(words);
        self.set_tag(tag.with_counts(tag.untyped(), tag.typed() + words.len()));
        self
    }

    fn append_typed_item(&mut self, item: StringItem, addresses: &[usize]) -> &mut Self {
        self.append_typed(&[item.raw()]);
        for address in addresses {
            self.append_typed(&[*address as Word]);
        }
        self
    }
}

/// A string item of `count` sub-strings, each of `len_bytes`.
///
/// # Panics
/// If the item has no room for these numbers.
fn string_item(len_bytes: usize, count: usize) -> StringItem {
    assert!(len_bytes as Word <= StringItem::LEN_MAX, "a sub-string has a length of 22 bits on 32-bit machines");
    assert!((1..=StringItem::SUBSTRINGS_MAX).contains(&count), "a string item has 1 to 32 sub-strings");
    StringItem::new(len_bytes as Word).with_substrings(count)
}

/// The buffers for received strings: an image of the buffer registers from BR1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[doc(alias = "L4_MsgBuffer_t")]
pub struct MsgBuffer {
    br: [Word; BR_COUNT],
    /// The first register behind the buffers.
    end: usize,
    /// The register with the first item of the last buffer: the next buffer is announced there.
    first: Option<usize>,
    /// The register with the last item, which is told if another one continues it.
    last: Option<usize>,
}

impl MsgBuffer {
    /// No buffer.
    #[doc(alias = "L4_MsgBufferClear")]
    pub const fn new() -> Self {
        Self { br: [0; BR_COUNT], end: 1, first: None, last: None }
    }

    /// Appends a buffer for one string: parts of one length, given by their addresses.
    ///
    /// # Panics
    /// If the buffer registers are full, or a length or number is more than an item can say.
    #[doc(alias = "L4_MsgBufferAppendSimpleRcvString")]
    #[doc(alias = "L4_MsgBufferAppendRcvString")]
    pub fn append(&mut self, len_bytes: usize, addresses: &[usize]) -> &mut Self {
        // All kernels look for C in a buffer's first item, only some in its last one.
        if let Some(first) = self.first {
            self.br[first] = StringItem::from_raw(self.br[first]).with_more().raw();
        }
        self.first = Some(self.end);
        self.push(len_bytes, addresses)
    }

    /// Continues the last buffer with parts of another length.
    ///
    /// # Panics
    /// Without a buffer to continue; or as [`Self::append`].
    pub fn extend(&mut self, len_bytes: usize, addresses: &[usize]) -> &mut Self {
        let last = self.last.expect("a buffer to continue");
        self.br[last] = StringItem::from_raw(self.br[last]).with_compound().raw();
        self.push(len_bytes, addresses)
    }

    fn push(&mut self, len_bytes: usize, addresses: &[usize]) -> &mut Self {
        let item = string_item(len_bytes, addresses.len());
        assert!(self.end + item.words() <= BR_COUNT, "there are 32 buffer registers");
        self.br[self.end] = item.raw();
        for (register, address) in self.br[self.end + 1..].iter_mut().zip(addresses) {
            *register = *address as Word;
        }
        self.last = Some(self.end);
        self.end += item.words();
        self
    }
}

impl Default for MsgBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Sets what is accepted from now on: mappings into a window, or nothing.
///
/// # Safety
/// Until it is set otherwise, all memory in the window may be replaced by any sender.
#[doc(alias = "L4_Accept")]
pub unsafe fn accept(acceptor: Acceptor) {
    utcb().set_acceptor(acceptor);
}

/// Accepts untyped words alone from now on.
pub fn accept_untyped() {
    utcb().set_acceptor(Acceptor::UNTYPED);
}

/// Sets what is accepted from now on: strings into the buffers, and mappings into a window.
///
/// # Safety
/// Until it is set otherwise, all memory in the window and in the buffers may be changed by any sender.
#[doc(alias = "L4_AcceptStrings")]
pub unsafe fn accept_strings(window: Fpage, buffers: &MsgBuffer) {
    for (i, word) in buffers.br.iter().enumerate().take(buffers.end).skip(1) {
        utcb().set_br(i, *word);
    }
    utcb().set_acceptor(Acceptor::map_grant(window).with_strings());
}

/// Accepts one string into `buffer` from now on, and no mappings: memory that any sender may change, as it is made of
/// atomics.
///
/// # Panics
/// If the buffer is longer than an item can say.
pub fn accept_string(buffer: &'static [AtomicU8]) {
    let mut buffers = MsgBuffer::new();
    buffers.append(buffer.len(), &[buffer.as_ptr().expose_provenance()]);
    // SAFETY: nothing is mapped; whoever reads the buffer expects that it changes, and it is never given back.
    unsafe { accept_strings(Fpage::NIL, &buffers) };
}

/// What is accepted now.
#[doc(alias = "L4_Accepted")]
pub fn accepted() -> Acceptor {
    utcb().acceptor()
}

#[cfg(test)]
mod tests {
    use l4_abi::{Fpage, MapItem, MsgTag, Rights};

    use super::{Msg, MsgBuffer};

    #[test]
    fn words_go_before_typed_items() {
        let item = MapItem::map(Fpage::new(0x1000, 12, Rights::ALL).expect("aligned"), 0x2000);
        let mut msg = Msg::new(0xF00);
        msg.append_word(1).append_map(item).append_word(2);
        assert_eq!(msg.tag(), MsgTag::new(0xF00, 2, 2));
        assert_eq!(msg.words(), [1, 2]);
        assert_eq!((msg.word(1), msg.word(2)), (Some(2), None));
        assert_eq!(msg.map_item(0), Some(item));
        assert_eq!((msg.map_item(1), msg.string_item(0)), (None, None));
    }

    #[test]
    fn strings_carry_their_addresses() {
        let mut msg = Msg::new(0);
        msg.append_string_part(16, &[0x1000, 0x2000]).append_string_at(32, &[0x3000]);
        assert_eq!(msg.tag(), MsgTag::new(0, 0, 5));
        let (first, addresses) = msg.string_item(0).expect("a string");
        assert_eq!((first.len_bytes(), first.substrings(), first.is_compound()), (16, 2, true));
        assert_eq!(addresses, [0x1000, 0x2000]);
        let (second, addresses) = msg.string_item(3).expect("a string");
        assert_eq!((second.len_bytes(), second.is_compound(), addresses), (32, false, &[0x3000][..]));
    }

    #[test]
    fn cut_items_are_not_read() {
        let mut msg = Msg::new(0);
        msg.append_string_at(16, &[0x1000, 0x2000]);
        msg.set_tag(MsgTag::new(0, 0, 2));
        assert_eq!(msg.string_item(0), None);
        msg.set_tag(MsgTag::new(0, 63, 63));
        assert_eq!((msg.words().len(), msg.typed_words().len()), (63, 0));
    }

    #[test]
    #[should_panic(expected = "63 words")]
    fn message_is_full_after_63_words() {
        let mut msg = Msg::of_words(MsgTag::NIL, &[7; 63]);
        msg.append_word(8);
    }

    #[test]
    fn buffers_follow_each_other_by_the_c_bit() {
        let mut buffers = MsgBuffer::new();
        buffers.append(64, &[0x1000]).extend(128, &[0x2000, 0x3000]).append(256, &[0x4000]);
        // The buffer for the first string is compound; its first item says that another buffer follows.
        let expected = [0, 64 << 10 | 1 << 9 | 1, 0x1000, 128 << 10 | 1 << 4, 0x2000, 0x3000, 256 << 10, 0x4000];
        assert_eq!(buffers.br[..8], expected);
        assert_eq!(buffers.end, 8);
    }
}
