//! The 32-bit words.

use crate::w32::*;

super::width_independent_tests!();

#[test]
fn global_id_has_14_bits_of_version() {
    assert_eq!(ThreadId::global(3, 1).raw(), 0xC001);
    assert_eq!((ThreadId::VERSION_MAX, ThreadId::THREAD_NO_MAX), (0x3FFF, 0x3_FFFF));
}

#[test]
fn page_fault_tag_is_the_documented_word() {
    assert_eq!(protocol::page_fault_tag(Rights::READ).raw(), 0xFFE4_0002);
}

#[test]
fn kernel_interface_words_are_the_documented_ones() {
    assert_eq!((API_VERSION, API_FLAGS, PAGE_INFO.raw()), (0x8405_0000, 0, 0x0040_1006));
    assert_eq!(MemoryInfo::new(8, 0x200).raw(), 0x0200_0008);
    assert_eq!(ProcessorInfo::new(1).raw(), 0x4000_0000);
}

#[test]
fn utcb_has_512_bytes() {
    assert_eq!((UTCB_SIZE, UTCB_MR0_OFFSET), (0x200, 0x100));
}

#[test]
fn clock_of_a_preemption_message_takes_two_words() {
    assert_eq!(protocol::preemption_words(0x1_2345_6789), [0x2345_6789, 1]);
}

#[test]
fn exception_message_has_twelve_registers() {
    use ExceptionWord::*;
    let order = [Eip, Eflags, Exception, ErrorCode, Edi, Esi, Ebp, Esp, Ebx, Edx, Ecx, Eax];
    assert_eq!(order.map(|register| register as usize), core::array::from_fn(|i| i + 1));
    assert_eq!(EXCEPTION_WORDS, 12);
}

#[test]
fn mode_of_a_space_is_bit_31() {
    assert_eq!(SpaceControl::MODE.raw(), 1 << 31);
}
