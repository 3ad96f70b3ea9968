//! Who called: found on a stack without knowing how the code keeps it.
//!
//! The kernel is compiled without frame pointers, whose upkeep would cost each function instructions. So what looks like a
//! return address is taken for one: a word that leads behind a call in the kernel's code. What earlier calls left in places
//! that later ones skipped is among them.

/// Bytes of the longest call instruction that is looked for.
const CALL_BYTES: usize = 7;
const WORD_BYTES: u64 = 8;
/// How far up a stack is looked.
const STACK_BYTES: u64 = 16 << 10;

/// The return addresses on a stack from `sp` on, the innermost first; how many there are. `read` reads the kernel's memory
/// from an address on, and says how many bytes were there; `is_code` says whether an address is in its code.
pub fn callers(
    read: &dyn Fn(u64, &mut [u8]) -> usize,
    is_code: &dyn Fn(u64) -> bool,
    sp: u64,
    addresses: &mut [u64],
) -> usize {
    let begin = sp & !(WORD_BYTES - 1);
    let mut count = 0;
    for offset in (0..STACK_BYTES).step_by(WORD_BYTES as usize) {
        let mut bytes = [0; WORD_BYTES as usize];
        let Some(at) = begin.checked_add(offset) else { break };
        let Some(place) = addresses.get_mut(count) else { break };
        if read(at, &mut bytes) < bytes.len() {
            break;
        }
        let word = u64::from_le_bytes(bytes);
        if is_code(word) && is_behind_call(read, word) {
            *place = word;
            count += 1;
        }
    }
    count
}

/// Whether the instruction before `address` can be a call: by displacement, or through a register or memory.
fn is_behind_call(read: &dyn Fn(u64, &mut [u8]) -> usize, address: u64) -> bool {
    let mut bytes = [0; CALL_BYTES];
    let Some(begin) = address.checked_sub(CALL_BYTES as u64) else { return false };
    if read(begin, &mut bytes) < bytes.len() {
        return false;
    }
    let is_indirect = |len: usize| {
        let code = &bytes[CALL_BYTES - len..];
        code[0] == 0xFF && code[1] >> 3 & 7 == 2
    };
    bytes[CALL_BYTES - 5] == 0xE8 || [2, 3, 4, 6, 7].into_iter().any(is_indirect)
}

#[cfg(test)]
mod tests {
    use super::callers;

    const CODE: u64 = 0x1000;
    const STACK: u64 = 0x8000;

    #[test]
    fn words_behind_calls_are_callers() {
        // At 0x1005 behind a call by displacement, at 0x1012 behind one through rax, at 0x1020 behind none.
        let mut code = [0x90; 0x40];
        code[0] = 0xE8;
        code[0x10..0x12].copy_from_slice(&[0xFF, 0xD0]);
        let stack = [0, 0x1020, 0x1012, 7, 0x1005, 0x2_0000, 0x1012];
        let read = |address: u64, bytes: &mut [u8]| {
            let stack: Vec<u8> = stack.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
            let (from, memory) =
                if address >= STACK { (STACK, &stack[..]) } else { (CODE - 8, &[&[0x90; 8], &code[..]].concat()[..]) };
            let rest = memory.get((address.wrapping_sub(from)) as usize..).unwrap_or(&[]);
            let count = rest.len().min(bytes.len());
            bytes[..count].copy_from_slice(&rest[..count]);
            count
        };
        let is_code = |address| (CODE..CODE + 0x40).contains(&address);
        let mut found = [0; 8];
        let count = callers(&read, &is_code, STACK + 3, &mut found);
        assert_eq!(found[..count], [0x1012, 0x1005, 0x1012]);
        assert_eq!(callers(&read, &is_code, STACK, &mut found[..2]), 2, "no more than there is room for");
        assert_eq!(callers(&read, &is_code, 0x100, &mut found), 0);
        assert_eq!(callers(&read, &is_code, u64::MAX, &mut found), 0);
    }
}
