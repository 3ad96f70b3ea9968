//! Damages bytes as a seed says: for tests that no foreign bytes, however near to sound ones, bring a parser to its end.
//!
//! A damage knows what files are made of: bytes, words of two to eight bytes that count something or lead somewhere, and
//! pieces that are cut, moved or doubled. The same seed and number make the same damage.
#![forbid(unsafe_code)]

pub mod targets;

use std::ops::Range;

use dice::Dice;

/// Damages of one input, at most.
const MOST: usize = 6;
/// Bytes that a piece has at most.
const PIECE: usize = 64;

/// Sound bytes, with up to six damages that follow from `seed` and `number`.
pub fn damaged(sound: &[u8], seed: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed, number);
    let mut bytes = sound.to_vec();
    for _ in 0..dice.within(1..MOST + 1) {
        damage(&mut bytes, &mut dice);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    if bytes.is_empty() {
        bytes.push(dice.next() as u8);
        return;
    }
    match dice.within(0..12) {
        0 => {
            let at = dice.within(0..bytes.len());
            bytes[at] ^= 1 << dice.within(0..8);
        }
        1 => {
            let at = dice.within(0..bytes.len());
            let any = any_byte(dice);
            bytes[at] = dice.one_of(&[0, 1, 0x7F, 0x80, 0xFF, b' ', b'\n', b'"', any]);
        }
        2..=6 => put_word(bytes, dice),
        7 => bytes.truncate(dice.within(0..bytes.len())),
        8 => {
            let more = dice.within(1..PIECE);
            bytes.extend((0..more).map(|_| any_byte(dice)));
        }
        9 => {
            let piece = piece(bytes, dice);
            bytes.drain(piece);
        }
        10 => {
            let piece = piece(bytes, dice);
            let (copy, at) = (bytes[piece].to_vec(), dice.within(0..bytes.len() + 1));
            bytes.splice(at..at, copy);
        }
        _ => {
            let (piece, by) = (piece(bytes, dice), dice.within(1..PIECE));
            let len = piece.len();
            bytes[piece].rotate_left(by % len);
        }
    }
}

fn any_byte(dice: &mut Dice) -> u8 {
    dice.next() as u8
}

fn piece(bytes: &[u8], dice: &mut Dice) -> Range<usize> {
    let start = dice.within(0..bytes.len());
    start..(start + dice.within(1..PIECE)).min(bytes.len())
}

/// Writes a word, mostly where words are: one at an edge, one about as large as the whole, or a little more or less than
/// what was there.
fn put_word(bytes: &mut [u8], dice: &mut Dice) {
    let size = dice.one_of(&[2, 4, 8]);
    if bytes.len() < size {
        return;
    }
    let at = dice.within(0..bytes.len() - size + 1);
    let at = if dice.is(80) { at / size * size } else { at };
    let old = bytes[at..at + size].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let near = dice.within(0..9) as u64;
    let len = bytes.len() as u64;
    let word = match dice.within(0..9) {
        0 => 0,
        1 => u64::MAX,
        2 => near,
        3 => len.wrapping_add(near).wrapping_sub(4),
        4 => (u64::MAX - len).wrapping_add(near),
        5 => old.wrapping_add(near).wrapping_sub(4),
        6 => 1 << dice.within(0..8 * size),
        7 => (1 << dice.within(0..8 * size)) - 1,
        _ => dice.next(),
    };
    bytes[at..at + size].copy_from_slice(&word.to_le_bytes()[..size]);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::damaged;

    #[test]
    fn damage_follows_from_seed_and_number() {
        let sound: Vec<u8> = (0..200).collect();
        let all: BTreeSet<Vec<u8>> = (0..1000).map(|number| damaged(&sound, 1, number)).collect();
        assert!(all.len() > 950, "only {} of 1000 differ", all.len());
        assert!(all.contains(&damaged(&sound, 1, 7)));
        assert_ne!(damaged(&sound, 1, 7), damaged(&sound, 2, 7));
        assert!(all.iter().any(|bytes| bytes.len() < 200) && all.iter().any(|bytes| bytes.len() > 200));
    }

    #[test]
    fn nothing_can_be_damaged_as_well() {
        (0..1000).for_each(|number| drop(damaged(&[], 3, number)));
    }
}
