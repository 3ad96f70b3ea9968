//! The 64-bit words.

use crate::w64::*;

super::width_independent_tests!();

#[test]
fn global_id_has_32_bits_of_version() {
    assert_eq!(ThreadId::global(3, 1).raw(), 0x3_0000_0001);
    assert_eq!((ThreadId::VERSION_MAX, ThreadId::THREAD_NO_MAX), (0xFFFF_FFFF, 0xFFFF_FFFF));
}

#[test]
fn page_fault_tag_is_the_documented_word() {
    assert_eq!(protocol::page_fault_tag(Rights::READ).raw(), 0xFFFF_FFFF_FFE4_0002);
}

#[test]
fn kernel_interface_words_are_the_documented_ones() {
    assert_eq!((API_VERSION, API_FLAGS, PAGE_INFO.raw()), (0x8405_0000, 4, 0x0020_1007));
    assert_eq!(MemoryInfo::new(32, 0x400).raw(), 0x400_0000_0020);
    assert_eq!(ProcessorInfo::new(1).raw(), 0x5000_0000_0000_0000);
}

#[test]
fn utcb_has_1024_bytes() {
    assert_eq!((UTCB_SIZE, UTCB_MR0_OFFSET), (0x400, 0x200));
}

#[test]
fn clock_of_a_preemption_message_takes_one_word() {
    assert_eq!(protocol::preemption_words(0x1_2345_6789), [0x1_2345_6789, 0]);
}

#[test]
fn exception_message_has_twenty_registers() {
    use ExceptionWord::*;
    let order = [
        Rip, Rbx, R10, R12, R13, R14, R15, Rax, Rcx, Rdx, Rsi, Rdi, Rbp, R8, R9, R11, Rsp, Rflags, Exception, ErrorCode,
    ];
    assert_eq!(order.map(|register| register as usize), core::array::from_fn(|i| i + 1));
    assert_eq!(EXCEPTION_WORDS, 20);
}

#[test]
fn upper_half_of_the_timeouts_is_ignored() {
    let timeouts = Timeouts::from_raw(0xDEAD_BEEF_0400_0271);
    assert_eq!((timeouts.snd(), timeouts.rcv().raw()), (Time::ZERO, 0x271));
}

#[test]
fn upper_half_of_an_io_fpage_is_ignored() {
    let fpage = Fpage::from_raw(0xDEAD_BEEF_03F8_0C20);
    assert_eq!(fpage.as_io(), IoFpage::new(0x3F8, 3));
}

#[test]
fn mode_of_a_space_is_bit_63() {
    assert_eq!(SpaceControl::MODE.raw(), 1 << 63);
}
