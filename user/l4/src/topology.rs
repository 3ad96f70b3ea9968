//! How processors lie to each other, as they say themselves (Intel SDM 2A, CPUID, Extended Topology Enumeration Leaf).

/// Where a processor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its number among all processors.
    pub id: u32,
    /// Bits of the number that tell processors of one core apart.
    pub core_shift: u32,
    /// Bits of the number that tell processors of one socket apart.
    pub socket_shift: u32,
}

/// How two processors lie to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// They are one.
    Same,
    /// They share a core.
    SameCore,
    /// They share a socket.
    SameSocket,
    /// They are in different sockets.
    OtherSocket,
    /// They do not say.
    Unknown,
}

impl Relation {
    /// It in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same processor",
            Self::SameCore => "same core",
            Self::SameSocket => "same socket",
            Self::OtherSocket => "other socket",
            Self::Unknown => "unknown",
        }
    }
}

impl Place {
    /// The place that the sub-leaves of CPUID leaf 0Bh tell: EAX, EBX, ECX, EDX of each. `None` if there is no such leaf.
    pub fn from_leaf(subleaf: impl Fn(u32) -> [u32; 4]) -> Option<Self> {
        const LEVELS_MAX: u32 = 8;
        const THREADS: u32 = 1;
        let [_, threads, _, id] = subleaf(0);
        if threads & 0xFFFF == 0 {
            return None;
        }
        let levels = (0..LEVELS_MAX).map(subleaf).take_while(|[_, count, ..]| count & 0xFFFF != 0);
        let place = Self { id, core_shift: 0, socket_shift: 0 };
        Some(levels.fold(place, |place, [shift, _, kind, _]| {
            let shift = shift & 0x1F;
            let is_threads = kind >> 8 & 0xFF == THREADS;
            Self { core_shift: if is_threads { shift } else { place.core_shift }, socket_shift: shift, ..place }
        }))
    }

    /// How this processor and another one lie to each other.
    pub const fn relation(self, other: Self) -> Relation {
        let (a, b) = (self.id as u64, other.id as u64);
        if a == b {
            Relation::Same
        } else if a >> self.core_shift == b >> self.core_shift {
            Relation::SameCore
        } else if a >> self.socket_shift == b >> self.socket_shift {
            Relation::SameSocket
        } else {
            Relation::OtherSocket
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Relation};

    /// Two threads a core, up to eight cores a socket.
    fn place(id: u32) -> Option<Place> {
        Place::from_leaf(|subleaf| match subleaf {
            0 => [1, 2, 1 << 8, id],
            1 => [4, 12, 2 << 8 | 1, id],
            _ => [0, 0, subleaf, id],
        })
    }

    #[test]
    fn numbers_are_cut_where_the_leaf_says() {
        assert_eq!(place(0x15), Some(Place { id: 0x15, core_shift: 1, socket_shift: 4 }));
        let relation = |a, b| place(a).zip(place(b)).map(|(a, b)| a.relation(b));
        assert_eq!(relation(5, 5), Some(Relation::Same));
        assert_eq!(relation(4, 5), Some(Relation::SameCore));
        assert_eq!(relation(5, 6), Some(Relation::SameSocket));
        assert_eq!(relation(5, 0x15), Some(Relation::OtherSocket));
    }

    #[test]
    fn processors_without_the_leaf_say_nothing() {
        assert_eq!(Place::from_leaf(|_| [0; 4]), None);
        // One that never ends its levels ends nevertheless.
        assert!(Place::from_leaf(|_| [u32::MAX; 4]).is_some());
    }
}
