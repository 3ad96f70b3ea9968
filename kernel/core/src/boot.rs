//! The initial servers (X.2, Generic booting): threads that start without a start message, each in a privileged space.

use l4_abi::{Fpage, KIP_AREA_LOG2, ROOT_KIP_AREA_BASE, ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, Rights, ThreadId};

use crate::kernel::Here;
use crate::machine::{Machine, NoMemory};
use crate::space::SpaceKind;

/// The priority of the initial servers.
const SERVER_PRIORITY: u8 = 255;

/// What is known of an initial server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its id.
    pub id: ThreadId,
    /// Where it starts.
    pub ip: usize,
    /// Its initial stack pointer.
    pub sp: usize,
    /// Its pager; nilthread for sigma0, whose faults the kernel resolves.
    pub pager: ThreadId,
    /// Its scheduler.
    pub scheduler: ThreadId,
    /// Whether it is sigma0.
    pub is_sigma0: bool,
}

const KIP_AREA: Fpage = Fpage::new(ROOT_KIP_AREA_BASE, KIP_AREA_LOG2, Rights::NONE).expect("aligned");
const UTCB_AREA: Fpage = Fpage::new(ROOT_UTCB_AREA_BASE, ROOT_UTCB_AREA_LOG2, Rights::NONE).expect("aligned");

impl<M: Machine> Here<'_, M> {
    /// Makes an initial server with its space and lets it run.
    ///
    /// # Errors
    /// [`NoMemory`]: kernel memory does not even suffice for the initial servers.
    pub fn start_server(&mut self, server: Server) -> Result<(), NoMemory> {
        let thread = self.k.slot(server.id).expect("the ids of the initial servers fit the table");
        self.k.machine.back_thread(&mut self.held, thread)?;
        let kind = if server.is_sigma0 { SpaceKind::Sigma0 } else { SpaceKind::Privileged };
        let space = self.k.spaces.create(&mut self.held, kind)?;
        self.k.spaces.initialise(&mut self.held, space, KIP_AREA, UTCB_AREA)?;
        let location = ROOT_UTCB_AREA_BASE as usize;
        let utcb = self.allocate_utcb(space, location).map_err(|_| NoMemory)?;
        self.fill_tcb(thread, server.id, space, server.scheduler);
        self.set_utcb_location(thread, location);
        self.install_utcb(thread, utcb, server.pager);
        let tcb = self.k.tcb(thread);
        tcb.ip.set(server.ip);
        tcb.sp.set(server.sp);
        tcb.priority.set(SERVER_PRIORITY);
        tcb.sensitive_priority.set(SERVER_PRIORITY);
        self.make_ready(thread);
        Ok(())
    }
}
