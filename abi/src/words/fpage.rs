//! Fpages: parts of a space and of the I/O ports.

use super::*;

word_type! {
    /// A part of a space: 2^`size_log2` bytes at a multiple of that size (X.2, Fpage).
    ///
    /// Bits, lowest first: rights 3, extended 1, size_log2 6, base / 1024 in the rest.
    Fpage
}

const RIGHTS_MASK: Word = 0x7;
const EXTENDED: Word = 1 << 3;
const SIZE_SHIFT: u32 = 4;
const SIZE_MASK: Word = 0x3F;
const BASE_SHIFT: u32 = 10;
const SIZE_COMPLETE: u32 = 1;
const SIZE_IO: u32 = 2;

impl Fpage {
    /// nilpage: nothing.
    pub const NIL: Self = Self(0);
    /// The complete address space, without rights.
    pub const COMPLETE: Self = Self(0x10);

    /// `None` unless `10 <= size_log2 < Word::BITS` and `base` is a multiple of the size.
    pub const fn new(base: Word, size_log2: u32, rights: Rights) -> Option<Self> {
        if size_log2 < BASE_SHIFT || size_log2 >= Word::BITS || base & ((1 << size_log2) - 1) != 0 {
            return None;
        }
        Some(Self(base | (size_log2 as Word) << SIZE_SHIFT | rights.bits()))
    }

    /// First address, aligned down to the size; 0 for the complete address space.
    pub const fn base(self) -> Word {
        let size_log2 = self.size_log2();
        if size_log2 >= Word::BITS {
            return 0;
        }
        self.0 & (Word::MAX << BASE_SHIFT) & (Word::MAX << size_log2)
    }

    /// Last address. An fpage too small to have a base ends where the 1 KiB of its base does.
    pub const fn last(self) -> Word {
        let size_log2 = self.size_log2();
        if size_log2 >= Word::BITS {
            return Word::MAX;
        }
        let low_bits = if size_log2 < BASE_SHIFT { BASE_SHIFT } else { size_log2 };
        self.base() | !(Word::MAX << low_bits)
    }

    /// log2 of the size in bytes; `Word::BITS` for the complete address space.
    pub const fn size_log2(self) -> u32 {
        if self.is_complete() { Word::BITS } else { self.size_field() }
    }

    /// The size field as it stands.
    pub const fn size_field(self) -> u32 {
        (self.0 >> SIZE_SHIFT & SIZE_MASK) as u32
    }

    /// Whether this is nilpage: all bits zero.
    pub const fn is_nil(self) -> bool {
        self.0 == 0
    }

    /// Whether this is the complete address space, with any rights.
    pub const fn is_complete(self) -> bool {
        self.size_field() == SIZE_COMPLETE && self.0 >> BASE_SHIFT == 0
    }

    /// Whether bit 3 is set, which the kernel ignores: a sigma0 request with one more word.
    pub const fn is_extended(self) -> bool {
        self.0 & EXTENDED != 0
    }

    /// The same fpage with bit 3 set.
    pub const fn with_extended(self) -> Self {
        Self(self.0 | EXTENDED)
    }

    /// The rights to pass, to revoke, or the access status, whichever the call is about.
    pub const fn rights(self) -> Rights {
        Rights::from_bits_truncate(self.0)
    }

    /// The same fpage with these rights.
    pub const fn with_rights(self, rights: Rights) -> Self {
        Self(self.0 & !RIGHTS_MASK | rights.bits())
    }

    /// Whether the address is inside.
    pub const fn contains(self, address: Word) -> bool {
        !self.is_nil() && self.base() <= address && address <= self.last()
    }

    /// Whether this is an I/O fpage by its size field, whatever its other bits say. A kernel without I/O fpages takes it for
    /// memory, less than a page.
    #[doc(alias = "L4_IsIoFpage")]
    pub const fn is_io(self) -> bool {
        self.size_field() == SIZE_IO
    }

    /// This word as an I/O fpage; `None` for memory, and for a size beyond the 2^16 ports.
    pub const fn as_io(self) -> Option<IoFpage> {
        let size_log2 = (self.0 >> 10 & SIZE_MASK) as u32;
        if !self.is_io() || size_log2 > IoFpage::COMPLETE.size_log2 {
            return None;
        }
        let port = (self.0 >> 16 & 0xFFFF) as u32 >> size_log2 << size_log2;
        Some(IoFpage { port: port as u16, size_log2 })
    }
}

/// A part of the I/O ports: 2^`size_log2` ports at a multiple of that number (X.2, Fpage; ia32 and amd64).
///
/// Bits of its fpage, lowest first: ignored 4, constant two 6, size_log2 6, port 16; those above are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoFpage {
    port: u16,
    size_log2: u32,
}

impl IoFpage {
    /// All ports.
    pub const COMPLETE: Self = Self { port: 0, size_log2: 16 };

    /// `None` unless `size_log2 <= 16` and `port` is a multiple of the size.
    #[doc(alias = "L4_IoFpageLog2")]
    pub const fn new(port: u16, size_log2: u32) -> Option<Self> {
        if size_log2 > Self::COMPLETE.size_log2 || port as u32 & ((1 << size_log2) - 1) != 0 {
            return None;
        }
        Some(Self { port, size_log2 })
    }

    /// `count` ports from `port` on, rounded up to a power of two; `None` for none, and unless `port` is a multiple of that.
    #[doc(alias = "L4_IoFpage")]
    pub const fn of_count(port: u16, count: u32) -> Option<Self> {
        if count == 0 || count > 1 << Self::COMPLETE.size_log2 {
            return None;
        }
        Self::new(port, count.next_power_of_two().ilog2())
    }

    /// First port.
    #[doc(alias = "L4_IoFpagePort")]
    pub const fn port(self) -> u16 {
        self.port
    }

    /// Last port.
    pub const fn last(self) -> u16 {
        self.port | (((1u32 << self.size_log2) - 1) as u16)
    }

    /// The number of ports, 1 to 2^16.
    #[doc(alias = "L4_IoFpageSize")]
    pub const fn count(self) -> u32 {
        1 << self.size_log2
    }

    /// log2 of the number of ports, 0 to 16.
    #[doc(alias = "L4_IoFpageSizeLog2")]
    pub const fn size_log2(self) -> u32 {
        self.size_log2
    }

    /// The word of this I/O fpage.
    pub const fn fpage(self) -> Fpage {
        Fpage((self.port as Word) << 16 | (self.size_log2 as Word) << 10 | (SIZE_IO as Word) << SIZE_SHIFT)
    }
}
