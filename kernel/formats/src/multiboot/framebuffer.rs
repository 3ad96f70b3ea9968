//! The screen (Multiboot Specification, framebuffer fields; Multiboot2 Specification, Framebuffer info).
//!
//! Both versions say the same, with two bytes more or less in the middle.

use crate::le::{put, u32_at, u64_at};

/// What memory of a screen means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramebufferKind {
    /// Pixels are places in a palette.
    Indexed,
    /// Pixels have red, green and blue, in this order here.
    Rgb([Field; 3]),
    /// Characters, each with a byte of colours: width and height count characters.
    Text,
}

/// Bits of a pixel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The lowest of them.
    pub position: u8,
    /// How many.
    pub size: u8,
}

/// A screen. Nothing of it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framebuffer {
    /// Physical address of its memory.
    pub address: u64,
    /// Bytes from a line to the next.
    pub pitch: u32,
    /// Pixels or characters of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bits of a pixel or character.
    pub bits: u8,
    /// What they mean.
    pub kind: FramebufferKind,
}

const INDEXED: u8 = 0;
const RGB: u8 = 1;
const TEXT: u8 = 2;

const BITS: usize = 20;
const KIND: usize = 21;

impl Framebuffer {
    /// Bytes of what Multiboot 1 says of the screen.
    pub const V1_BYTES: usize = 28;
    /// Where the fields of a pixel are said in Multiboot 1, and in Multiboot 2.
    const V1_FIELDS: usize = 22;
    const V2_FIELDS: usize = 24;

    /// The screen of a PC in its text mode, 80 by 25.
    pub const PC_TEXT: Self =
        Self { address: 0xB_8000, pitch: 160, width: 80, height: 25, bits: 16, kind: FramebufferKind::Text };

    /// As Multiboot 1 has it.
    pub(super) fn read_v1(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes, Self::V1_FIELDS)
    }

    /// As Multiboot 2 has it, behind type and size of the tag.
    pub(super) fn read_v2(bytes: &[u8]) -> Option<Self> {
        Self::read(bytes, Self::V2_FIELDS)
    }

    fn read(bytes: &[u8], fields: usize) -> Option<Self> {
        let field = |index: usize| {
            let at = fields + 2 * index;
            Some(Field { position: *bytes.get(at)?, size: *bytes.get(at + 1)? })
        };
        let kind = match *bytes.get(KIND)? {
            INDEXED => FramebufferKind::Indexed,
            RGB => FramebufferKind::Rgb([field(0)?, field(1)?, field(2)?]),
            TEXT => FramebufferKind::Text,
            _ => return None,
        };
        Some(Self {
            address: u64_at(bytes, 0)?,
            pitch: u32_at(bytes, 8)?,
            width: u32_at(bytes, 12)?,
            height: u32_at(bytes, 16)?,
            bits: *bytes.get(BITS)?,
            kind,
        })
    }

    /// As Multiboot 1 has it; of a palette nothing is said.
    pub(super) fn to_v1_bytes(self) -> [u8; Self::V1_BYTES] {
        let mut bytes = [0; Self::V1_BYTES];
        let (kind, fields) = match self.kind {
            FramebufferKind::Indexed => (INDEXED, [0; 6]),
            FramebufferKind::Rgb([red, green, blue]) => {
                (RGB, [red.position, red.size, green.position, green.size, blue.position, blue.size])
            }
            FramebufferKind::Text => (TEXT, [0; 6]),
        };
        let parts: [(usize, &[u8]); 7] = [
            (0, &self.address.to_le_bytes()),
            (8, &self.pitch.to_le_bytes()),
            (12, &self.width.to_le_bytes()),
            (16, &self.height.to_le_bytes()),
            (BITS, &[self.bits]),
            (KIND, &[kind]),
            (Self::V1_FIELDS, &fields),
        ];
        for (at, part) in parts {
            put(&mut bytes, at, part).expect("the parts fit");
        }
        bytes
    }
}
