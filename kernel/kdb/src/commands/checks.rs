//! Whether the kernel's tables are sound.

use core::fmt::Write;

use kcore::machine::Machine;
use kcore::space::Rest;

use crate::menu::Done;
use crate::session::Session;

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn check(&mut self) -> Done {
        let in_kernel = (0..self.k.cpus.len()).filter(|&cpu| {
            let entry = self.probe.entry(kcore::machine::CpuId::new(cpu as u32));
            entry.is_some_and(|entry| !entry.is_user && entry.thread.is_some())
        });
        let in_kernel = in_kernel.count();
        match self.k.check_threads() {
            Ok(count) => writeln!(
                self.out,
                "threads: sound; {} threads, {} ready, {} blocked in a send phase, {} on the way",
                count.threads, count.ready, count.senders, count.travellers
            )?,
            Err(broken) => writeln!(self.out, "threads: BROKEN: {broken}")?,
        }
        // What follows links without doubting them comes after what doubts them.
        let links = self.k.spaces.check_links();
        match links.and_then(|()| self.k.spaces.check_invariants(Rest::Revoking)) {
            Ok(census) => writeln!(
                self.out,
                "spaces:  sound; {} spaces, {} mappings, {} frames of tables, UTCBs and ports",
                census.spaces, census.mappings, census.frames
            )?,
            Err(broken) => writeln!(
                self.out,
                "spaces:  BROKEN: space {:x}, address {:#x}: {}",
                broken.space.index(),
                broken.address,
                broken.what
            )?,
        }
        if in_kernel > 0 {
            writeln!(
                self.out,
                "{in_kernel} processors were stopped inside the kernel: what they are about may look broken"
            )?;
        }
        Ok(None)
    }
}
