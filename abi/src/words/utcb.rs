//! The user-level thread control block.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::*;

/// Size of a UTCB in bytes.
pub const UTCB_SIZE: usize = 1 << UTCB_ALIGN_LOG2;
/// log2 of the smallest UTCB area.
pub const UTCB_AREA_MIN_LOG2: u32 = 12;
/// Offset of MR0 in the UTCB: the local id of a thread is the address of its UTCB plus this.
pub const UTCB_MR0_OFFSET: usize = offset_of!(Utcb, mr);
/// Offset of MyGlobalId in the UTCB.
pub const UTCB_MY_GLOBAL_ID_OFFSET: usize = offset_of!(Utcb, my_global_id);

const FLAG_PADDING: usize = WORD_SIZE - 2;

/// The virtual registers of a thread (X.2, Virtual Registers; UTCB tables of the ia32 and amd64 ABI).
///
/// Kernel and user touch it at the same time, and user code may write all of it at any moment: so each register is an
/// atomic, accessed relaxed, and the kernel believes nothing it reads here.
#[repr(C)]
pub struct Utcb {
    kernel_word: AtomicWord,
    padding: [AtomicWord; 15],
    /// BR32 first.
    br: [AtomicWord; BR_COUNT],
    my_global_id: AtomicWord,
    processor_no: AtomicWord,
    user_defined_handle: AtomicWord,
    pager: AtomicWord,
    exception_handler: AtomicWord,
    preempt_flags: AtomicU8,
    cop_flags: AtomicU8,
    flag_padding: [AtomicU8; FLAG_PADDING],
    error_code: AtomicWord,
    xfer_timeouts: AtomicWord,
    intended_receiver: AtomicWord,
    virtual_sender: AtomicWord,
    thread_word1: AtomicWord,
    thread_word0: AtomicWord,
    reserved: [AtomicWord; 2],
    word_size_mask: AtomicWord,
    mr: [AtomicWord; MR_COUNT],
}

const _: () = assert!(size_of::<Utcb>() == UTCB_SIZE);
const _: () = assert!(UTCB_MR0_OFFSET == UTCB_SIZE / 2);

/// Getter and setter of a register that holds a type of one word.
macro_rules! register {
    ($(#[$meta:meta])* $field:ident: $type:ty, $set:ident) => {
        $(#[$meta])*
        pub fn $field(&self) -> $type {
            <$type>::from_raw(self.$field.load(Relaxed))
        }

        #[doc = concat!("Sets what [`Self::", stringify!($field), "`] reads.")]
        pub fn $set(&self, value: $type) {
            self.$field.store(value.raw(), Relaxed);
        }
    };
}

/// Getter and setter of a register that holds a plain word.
macro_rules! plain_register {
    ($(#[$meta:meta])* $field:ident, $set:ident) => {
        $(#[$meta])*
        pub fn $field(&self) -> Word {
            self.$field.load(Relaxed)
        }

        #[doc = concat!("Sets what [`Self::", stringify!($field), "`] reads.")]
        pub fn $set(&self, value: Word) {
            self.$field.store(value, Relaxed);
        }
    };
}

impl Utcb {
    /// A UTCB with every register zero.
    pub const fn new() -> Self {
        const fn zero() -> AtomicWord {
            AtomicWord::new(0)
        }
        Self {
            kernel_word: zero(),
            padding: [const { zero() }; 15],
            br: [const { zero() }; BR_COUNT],
            my_global_id: zero(),
            processor_no: zero(),
            user_defined_handle: zero(),
            pager: zero(),
            exception_handler: zero(),
            preempt_flags: AtomicU8::new(0),
            cop_flags: AtomicU8::new(0),
            flag_padding: [const { AtomicU8::new(0) }; FLAG_PADDING],
            error_code: zero(),
            xfer_timeouts: zero(),
            intended_receiver: zero(),
            virtual_sender: zero(),
            thread_word1: zero(),
            thread_word0: zero(),
            reserved: [const { zero() }; 2],
            word_size_mask: zero(),
            mr: [const { zero() }; MR_COUNT],
        }
    }

    /// Zeroes all of it.
    pub fn clear(&self) {
        self.words().for_each(|word| word.store(0, Relaxed));
        self.bytes().for_each(|byte| byte.store(0, Relaxed));
    }

    /// Takes over all registers of `other`.
    pub fn copy_from(&self, other: &Self) {
        self.words().zip(other.words()).for_each(|(to, from)| to.store(from.load(Relaxed), Relaxed));
        self.bytes().zip(other.bytes()).for_each(|(to, from)| to.store(from.load(Relaxed), Relaxed));
    }

    fn words(&self) -> impl Iterator<Item = &AtomicWord> {
        let control = [
            &self.my_global_id,
            &self.processor_no,
            &self.user_defined_handle,
            &self.pager,
            &self.exception_handler,
            &self.error_code,
            &self.xfer_timeouts,
            &self.intended_receiver,
            &self.virtual_sender,
            &self.thread_word1,
            &self.thread_word0,
            &self.word_size_mask,
        ];
        let low = [&self.kernel_word].into_iter().chain(&self.padding).chain(&self.br);
        low.chain(control).chain(&self.reserved).chain(&self.mr)
    }

    fn bytes(&self) -> impl Iterator<Item = &AtomicU8> {
        [&self.preempt_flags, &self.cop_flags].into_iter().chain(&self.flag_padding)
    }

    /// Message register `i`.
    ///
    /// # Panics
    /// Unless `i` < 64.
    #[doc(alias = "L4_StoreMR")]
    pub fn mr(&self, i: usize) -> Word {
        self.mr[i].load(Relaxed)
    }

    /// Sets message register `i`.
    ///
    /// # Panics
    /// Unless `i` < 64.
    #[doc(alias = "L4_LoadMR")]
    pub fn set_mr(&self, i: usize, value: Word) {
        self.mr[i].store(value, Relaxed);
    }

    /// All message registers, for copies of many.
    pub fn mrs(&self) -> &[AtomicWord; MR_COUNT] {
        &self.mr
    }

    /// MR0 as the tag that it is in IPC.
    pub fn tag(&self) -> MsgTag {
        MsgTag::from_raw(self.mr(0))
    }

    /// Sets MR0 to this tag.
    pub fn set_tag(&self, tag: MsgTag) {
        self.set_mr(0, tag.raw());
    }

    /// Buffer register `i`.
    ///
    /// # Panics
    /// Unless `i` < 33.
    #[doc(alias = "L4_StoreBR")]
    pub fn br(&self, i: usize) -> Word {
        self.br[BR_COUNT - 1 - i].load(Relaxed)
    }

    /// Sets buffer register `i`.
    ///
    /// # Panics
    /// Unless `i` < 33.
    #[doc(alias = "L4_LoadBR")]
    pub fn set_br(&self, i: usize, value: Word) {
        self.br[BR_COUNT - 1 - i].store(value, Relaxed);
    }

    /// BR0 as the acceptor that it is.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor::from_raw(self.br(0))
    }

    /// Sets BR0 to this acceptor.
    pub fn set_acceptor(&self, acceptor: Acceptor) {
        self.set_br(0, acceptor.raw());
    }

    register! {
        /// The thread's global id, as the kernel wrote it.
        #[doc(alias = "L4_MyGlobalId")]
        my_global_id: ThreadId, set_my_global_id
    }
    plain_register! {
        /// Number of the processor the thread runs on, as the kernel wrote it.
        #[doc(alias = "L4_ProcessorNo")]
        processor_no, set_processor_no
    }
    plain_register! {
        /// A word of the user's, which ExchangeRegisters can exchange.
        #[doc(alias = "L4_UserDefinedHandle")]
        user_defined_handle, set_user_defined_handle
    }
    register! {
        /// Receiver of page faults.
        #[doc(alias = "L4_Pager")]
        pager: ThreadId, set_pager
    }
    register! {
        /// Receiver of exceptions.
        #[doc(alias = "L4_ExceptionHandler")]
        exception_handler: ThreadId, set_exception_handler
    }

    /// Flags of delayed preemption: bits of [`PreemptFlags`].
    pub fn preempt_flags(&self) -> u8 {
        self.preempt_flags.load(Relaxed)
    }

    /// Sets the flags of delayed preemption.
    pub fn set_preempt_flags(&self, flags: u8) {
        self.preempt_flags.store(flags, Relaxed);
    }

    /// Sets some flags of delayed preemption, in one step against the other side; returns the flags before.
    pub fn raise_preempt_flags(&self, flags: PreemptFlags) -> PreemptFlags {
        PreemptFlags::from_raw(self.preempt_flags.fetch_or(flags.raw(), Relaxed))
    }

    /// Clears some flags of delayed preemption, in one step against the other side; returns the flags before.
    pub fn lower_preempt_flags(&self, flags: PreemptFlags) -> PreemptFlags {
        PreemptFlags::from_raw(self.preempt_flags.fetch_and(!flags.raw(), Relaxed))
    }

    /// Coprocessors in use, one bit each; x86 does not look at it.
    pub fn cop_flags(&self) -> u8 {
        self.cop_flags.load(Relaxed)
    }

    /// Sets the coprocessors in use.
    pub fn set_cop_flags(&self, flags: u8) {
        self.cop_flags.store(flags, Relaxed);
    }

    plain_register! {
        /// Number of the last error: a [`SysError`] after a system call, an [`IpcError`] after an IPC.
        #[doc(alias = "L4_ErrorCode")]
        error_code, set_error_code
    }
    register! {
        /// Limits for page faults during a transfer.
        #[doc(alias = "L4_XferTimeouts")]
        xfer_timeouts: Timeouts, set_xfer_timeouts
    }
    register! {
        /// The thread that a redirected message was sent to.
        #[doc(alias = "L4_IntendedReceiver")]
        intended_receiver: ThreadId, set_intended_receiver
    }
    register! {
        /// Before a propagated send the thread in whose name it is; after a receive the actual sender.
        #[doc(alias = "L4_Set_VirtualSender")]
        virtual_sender: ThreadId, set_virtual_sender
    }

    /// The actual sender of a propagated message: the same register as [`Self::virtual_sender`].
    #[doc(alias = "L4_ActualSender")]
    pub fn actual_sender(&self) -> ThreadId {
        self.virtual_sender()
    }

    /// Sets the actual sender: the same register as [`Self::virtual_sender`].
    pub fn set_actual_sender(&self, sender: ThreadId) {
        self.set_virtual_sender(sender);
    }

    /// Thread word `i`, of which the kernel takes no notice.
    ///
    /// # Panics
    /// Unless `i` < 2.
    #[doc(alias = "L4_ThreadWord")]
    pub fn thread_word(&self, i: usize) -> Word {
        self.thread_words()[i].load(Relaxed)
    }

    /// Sets thread word `i`.
    ///
    /// # Panics
    /// Unless `i` < 2.
    pub fn set_thread_word(&self, i: usize, value: Word) {
        self.thread_words()[i].store(value, Relaxed);
    }

    fn thread_words(&self) -> [&AtomicWord; 2] {
        [&self.thread_word0, &self.thread_word1]
    }

    plain_register! {
        /// Bits of the last message's words that are valid: fewer if the sender has narrower words.
        #[doc(alias = "L4_WordSizeMask")]
        word_size_mask, set_word_size_mask
    }
}

impl Default for Utcb {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_at_their_words_from_mr0() {
        let rows = [
            ("MR0", offset_of!(Utcb, mr), 0),
            ("WordSizeMask", offset_of!(Utcb, word_size_mask), 1),
            ("reserved", offset_of!(Utcb, reserved), 3),
            ("ThreadWord0", offset_of!(Utcb, thread_word0), 4),
            ("ThreadWord1", offset_of!(Utcb, thread_word1), 5),
            ("VirtualSender", offset_of!(Utcb, virtual_sender), 6),
            ("IntendedReceiver", offset_of!(Utcb, intended_receiver), 7),
            ("XferTimeouts", offset_of!(Utcb, xfer_timeouts), 8),
            ("ErrorCode", offset_of!(Utcb, error_code), 9),
            ("PreemptFlags", offset_of!(Utcb, preempt_flags), 10),
            ("ExceptionHandler", offset_of!(Utcb, exception_handler), 11),
            ("Pager", offset_of!(Utcb, pager), 12),
            ("UserDefinedHandle", offset_of!(Utcb, user_defined_handle), 13),
            ("ProcessorNo", offset_of!(Utcb, processor_no), 14),
            ("MyGlobalId", offset_of!(Utcb, my_global_id), 15),
            ("BR32", offset_of!(Utcb, br), 48),
        ];
        for (register, offset, words_below_mr0) in rows {
            assert_eq!(offset, UTCB_MR0_OFFSET - words_below_mr0 * WORD_SIZE, "{register}");
        }
        assert_eq!(offset_of!(Utcb, cop_flags), offset_of!(Utcb, preempt_flags) + 1);
    }

    #[test]
    fn buffer_registers_grow_downwards() {
        let utcb = Utcb::new();
        (0..BR_COUNT).for_each(|i| utcb.set_br(i, i as Word));
        assert_eq!(utcb.br[0].load(Relaxed), 32);
        assert_eq!(utcb.br[32].load(Relaxed), 0);
        assert_eq!(utcb.br(7), 7);
    }
}
