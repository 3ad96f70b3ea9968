//! The spaces of a test.

use l4::{
    Fpage, KIP_AREA_LOG2, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, Rights, SpaceControl, ThreadId,
    space, thread,
};

use super::threads::{Thread, supervisor};
use crate::failure::Outcome;

/// A space, known by a thread in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space(ThreadId);

/// The usual KIP area: where the program's space has it.
pub fn kip_area() -> Fpage {
    Fpage::new(ROOT_KIP_AREA_BASE, KIP_AREA_LOG2, Rights::NONE).expect("the area is aligned")
}

/// The usual UTCB area: where the program's space has it.
pub fn utcb_area() -> Fpage {
    Fpage::new(ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, Rights::NONE).expect("the area is aligned")
}

impl Space {
    /// The program's own space.
    pub fn own() -> Self {
        Self(supervisor())
    }

    /// A new space with its areas where the program has its own. An inactive thread keeps it alive.
    #[track_caller]
    pub fn create() -> Outcome<Self> {
        Self::with_areas(kip_area(), utcb_area())
    }

    /// A new space with these areas.
    #[track_caller]
    pub fn with_areas(kip_area: Fpage, utcb_area: Fpage) -> Outcome<Self> {
        let anchor = Thread::reserve()?.id();
        thread::thread_control(anchor, anchor, supervisor(), ThreadId::NIL, None)?;
        space::space_control(anchor, SpaceControl::NONE, kip_area, utcb_area, ThreadId::NIL)?;
        Ok(Self(anchor))
    }

    /// Both kinds of space that a partner may be in, with a name for messages.
    #[track_caller]
    pub fn own_and_other() -> Outcome<[(&'static str, Self); 2]> {
        Ok([("same space", Self::own()), ("other space", Self::create()?)])
    }

    /// The space specifier: a thread in the space.
    pub fn specifier(self) -> ThreadId {
        self.0
    }
}
