//! Tables of a kernel that is dead, from a copy of its memory.
//!
//! A table here is filled from the bytes of one there, word by word, at the places that the compiler gave the fields. Both
//! must agree on these: [`layout`] sums them up, a kernel says its own, and who reads compares. What is not loaded (locks,
//! and what only running processors need) stays as it is when nobody uses it.

use crate::kmem::Kmem;
use crate::machine::{Mmu, SpaceRef};
use crate::mapdb::Node;
use crate::sched::Cpu;
use crate::space::{Space, Spaces};
use crate::sync::{AtomicU32, AtomicUsize, Ordering};
use crate::thread::Tcb;
use crate::var::{AsWord, Cell, Var, Var64};

/// Something that can be filled from a copy of its memory. What the bytes do not reach stays.
pub trait Load {
    /// A number for where its fields are.
    const LAYOUT: u64;

    /// Fills it.
    fn load(&self, bytes: &[u8]);
}

/// Mixes a number into another one (FNV-1a, a byte at a time).
pub const fn mix(sum: u64, number: u64) -> u64 {
    let (mut sum, mut shift) = (sum, 0);
    while shift < u64::BITS {
        sum = (sum ^ (number >> shift & 0xFF)).wrapping_mul(0x0000_0100_0000_01B3);
        shift += 8;
    }
    sum
}

/// Where [`mix`] begins.
pub const EMPTY: u64 = 0xCBF2_9CE4_8422_2325;

/// Implements [`Load`] for a struct by these of its fields.
macro_rules! load_fields {
    ($type:ty: $($field:tt),* $(,)?) => {
        impl $crate::load::Load for $type {
            const LAYOUT: u64 = {
                let sum = $crate::load::mix($crate::load::EMPTY, size_of::<$type>() as u64);
                $(
                    let sum = $crate::load::mix(sum, core::mem::offset_of!($type, $field) as u64);
                    let sum = $crate::load::mix(sum, $crate::load::layout_of(|own: &$type| &own.$field));
                )*
                sum
            };

            fn load(&self, bytes: &[u8]) {
                $(
                    if let Some(bytes) = bytes.get(core::mem::offset_of!($type, $field)..) {
                        $crate::load::Load::load(&self.$field, bytes);
                    }
                )*
            }
        }
    };
}
pub(crate) use load_fields;

/// The layout of what a function selects.
pub(crate) const fn layout_of<S, T: Load>(_select: fn(&S) -> &T) -> u64 {
    T::LAYOUT
}

fn word(bytes: &[u8], size: usize) -> Option<usize> {
    let mut word = [0; size_of::<usize>()];
    word.get_mut(..size)?.copy_from_slice(bytes.get(..size)?);
    Some(usize::from_le_bytes(word))
}

impl<T: AsWord> Load for Var<T> {
    const LAYOUT: u64 = size_of::<Self>() as u64;

    fn load(&self, bytes: &[u8]) {
        if let Some(word) = word(bytes, size_of::<Self>()) {
            self.cell().store(word);
        }
    }
}

impl Load for Var64 {
    const LAYOUT: u64 = size_of::<Self>() as u64;

    fn load(&self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk() {
            self.set(u64::from_le_bytes(*bytes));
        }
    }
}

impl Load for AtomicU32 {
    const LAYOUT: u64 = size_of::<u32>() as u64;

    fn load(&self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk() {
            self.store(u32::from_le_bytes(*bytes), Ordering::Relaxed);
        }
    }
}

impl Load for AtomicUsize {
    const LAYOUT: u64 = size_of::<usize>() as u64;

    fn load(&self, bytes: &[u8]) {
        if let Some(word) = word(bytes, size_of::<usize>()) {
            self.store(word, Ordering::Relaxed);
        }
    }
}

impl<T: Load, const N: usize> Load for [T; N] {
    const LAYOUT: u64 = mix(T::LAYOUT, N as u64);

    fn load(&self, bytes: &[u8]) {
        self.iter().zip(bytes.chunks(size_of::<T>())).for_each(|(slot, bytes)| slot.load(bytes));
    }
}

/// Where everything is that can be loaded.
pub const fn layout() -> u64 {
    let parts = [Tcb::LAYOUT, Space::LAYOUT, Node::LAYOUT, Cpu::LAYOUT, Kmem::LAYOUT];
    let (mut sum, mut index) = (EMPTY, 0);
    while index < parts.len() {
        sum = mix(sum, parts[index]);
        index += 1;
    }
    sum
}

impl<M: Mmu> Spaces<'_, M> {
    /// Finds again, from tables that were loaded, what stands beside them: how many mappings there are, and where the list of
    /// spaces with ports begins.
    pub fn take_stock(&self) {
        self.mapdb().take_stock();
        let is_first = |&space: &SpaceRef| self.get(space).is_first_with_ports();
        self.set_first_with_ports(self.inhabited().find(is_first));
    }
}

#[cfg(test)]
mod tests {
    use l4_abi::ThreadId;

    use super::{EMPTY, Load, layout, mix};
    use crate::machine::{PhysAddr, TcbRef};
    use crate::var::{Var, Var64};

    #[derive(Default)]
    struct Part {
        flag: Var<bool>,
        link: Var<Option<TcbRef>>,
    }
    load_fields!(Part: flag, link);

    #[derive(Default)]
    struct Whole {
        id: Var<ThreadId>,
        parts: [Part; 2],
        time: Var64,
        frame: Var<PhysAddr>,
    }
    load_fields!(Whole: id, parts, time, frame);

    /// What was in the one is in the other, and where the bytes end nothing changes.
    #[test]
    fn words_come_where_they_were() {
        let mut bytes = vec![0; size_of::<Whole>()];
        let mut put = |at: usize, word: &[u8]| bytes[at..at + word.len()].copy_from_slice(word);
        put(core::mem::offset_of!(Whole, id), &77u64.to_le_bytes());
        put(core::mem::offset_of!(Whole, parts) + size_of::<Part>() + core::mem::offset_of!(Part, flag), &[1]);
        put(core::mem::offset_of!(Whole, parts) + core::mem::offset_of!(Part, link), &6u32.to_le_bytes());
        put(core::mem::offset_of!(Whole, time), &u64::MAX.to_le_bytes());
        put(core::mem::offset_of!(Whole, frame), &0x5000u64.to_le_bytes());
        let whole = Whole::default();
        whole.load(&bytes);
        assert_eq!((whole.id.get().raw(), whole.time.get(), whole.frame.get()), (77, u64::MAX, PhysAddr(0x5000)));
        assert_eq!(whole.parts.each_ref().map(|part| part.flag.get()), [false, true]);
        assert_eq!(whole.parts.each_ref().map(|part| part.link.get()), [Some(TcbRef::new(5)), None]);
        let cut = Whole::default();
        cut.load(&bytes[..3]);
        cut.load(&[]);
        assert!(cut.id.get().is_nil());
    }

    #[test]
    fn layouts_differ_when_places_do() {
        assert_ne!(Part::LAYOUT, Whole::LAYOUT);
        assert_ne!(<[Part; 2]>::LAYOUT, <[Part; 3]>::LAYOUT);
        assert_ne!(mix(EMPTY, 1), mix(EMPTY, 256));
        assert_ne!(layout(), EMPTY);
    }
}
