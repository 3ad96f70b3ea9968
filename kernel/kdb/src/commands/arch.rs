//! The processor, its interrupt controllers, ports, and the tables of the firmware.

use core::fmt::{self, Write};

use kcore::machine::Machine;

use crate::menu::Done;
use crate::probe::Width;
use crate::session::Session;

/// Model-specific registers that are shown (Intel SDM 4; AMD APM 2).
const MSRS: &[(&str, u32)] = &[
    ("IA32_APIC_BASE", 0x1B),
    ("IA32_SPEC_CTRL", 0x48),
    ("IA32_ARCH_CAPABILITIES", 0x10A),
    ("IA32_SYSENTER_CS", 0x174),
    ("IA32_MISC_ENABLE", 0x1A0),
    ("IA32_DEBUGCTL", 0x1D9),
    ("IA32_PAT", 0x277),
    ("EFER", 0xC000_0080),
    ("STAR", 0xC000_0081),
    ("LSTAR", 0xC000_0082),
    ("FMASK", 0xC000_0084),
    ("FS_BASE", 0xC000_0100),
    ("GS_BASE", 0xC000_0101),
    ("KERNEL_GS_BASE", 0xC000_0102),
    ("TSC_AUX", 0xC000_0103),
    ("HWCR (AMD)", 0xC001_0015),
];

/// Registers of the local APIC, by their offsets (Intel SDM 3A, Local APIC Register Address Map).
const APIC: &[(&str, u32)] = &[
    ("id", 0x20),
    ("version", 0x30),
    ("task priority", 0x80),
    ("spurious", 0xF0),
    ("error", 0x280),
    ("LVT timer", 0x320),
    ("LVT thermal", 0x330),
    ("LVT counters", 0x340),
    ("LVT LINT0", 0x350),
    ("LVT LINT1", 0x360),
    ("LVT error", 0x370),
    ("timer initial", 0x380),
    ("timer current", 0x390),
    ("timer divider", 0x3E0),
];

const IO_APICS_MAX: usize = 16;
const SCREEN: (usize, usize) = (25, 80);
/// Tables of the firmware that are shown, and the largest one.
const TABLES_MAX: u64 = 64;
const TABLE_BYTES_MAX: u64 = 1 << 20;

impl<M: Machine + 'static> Session<'_, '_, M> {
    pub(super) fn control_registers(&mut self) -> Done {
        match self.probe.control() {
            Some(c) => writeln!(
                self.out,
                "CR0 {:x}  CR2 {:x}  CR3 {:x}  CR4 {:x}  EFER {:x}",
                c.cr0, c.cr2, c.cr3, c.cr4, c.efer
            )?,
            None => writeln!(self.out, "not to be had")?,
        }
        Ok(None)
    }

    pub(super) fn msrs(&mut self) -> Done {
        for &(name, number) in MSRS {
            match self.probe.msr(number) {
                Some(value) => writeln!(self.out, "{number:8x} {name:24} {value:016x}")?,
                None => writeln!(self.out, "{number:8x} {name:24} not there")?,
            }
        }
        Ok(None)
    }

    pub(super) fn port(&mut self) -> Done {
        let does = self.ask_key("read or write", "rw")?;
        let port = self.ask_number("port", 0x80)?;
        let Ok(port) = u16::try_from(port) else { return self.refuse(format_args!("ports are below 10000")) };
        let width = match self.ask_number("bytes: 1, 2, 4", 1)? {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Double,
            _ => return self.refuse(format_args!("an access is of 1, 2 or 4 bytes")),
        };
        if does == 'w' {
            let value = self.ask_number("value", 0)? as u32;
            if !self.probe.write_port(port, width, value) {
                writeln!(self.out, "this machine has no ports")?;
            }
            return Ok(None);
        }
        match self.probe.read_port(port, width) {
            Some(value) => writeln!(self.out, "port {port:x}: {value:x}")?,
            None => writeln!(self.out, "this machine has no ports")?,
        }
        Ok(None)
    }

    pub(super) fn enable_nmi(&mut self) -> Done {
        let is_enabled = self.ask_key("let them through", "yn")? == 'y';
        if !self.probe.enable_nmi(is_enabled) {
            writeln!(self.out, "not to be had")?;
        }
        Ok(None)
    }

    pub(super) fn send_nmi(&mut self) -> Done {
        let cpu = self.ask_cpu()?;
        if !self.probe.send_nmi(cpu) {
            writeln!(self.out, "it cannot be sent there: the debugger runs on that processor, or there is no way")?;
        }
        Ok(None)
    }

    pub(super) fn switch_cpu(&mut self) -> Done {
        let cpu = self.ask_cpu()?;
        if !self.probe.choose_cpu(cpu) {
            return self.refuse(format_args!("processor {} does not answer", cpu.index()));
        }
        self.show_entry()?;
        Ok(None)
    }

    pub(super) fn local_vectors(&mut self) -> Done {
        for &(name, offset) in APIC {
            match self.probe.apic(offset) {
                Some(value) => writeln!(self.out, "  {offset:3x} {name:14} {value:08x}")?,
                None => return self.refuse(format_args!("not to be had")),
            }
        }
        Ok(None)
    }

    pub(super) fn idt(&mut self) -> Done {
        for vector in 0..=u8::MAX {
            let Some(gate) = self.probe.gate(vector) else { return self.refuse(format_args!("not to be had")) };
            let mut text = arrayvec::ArrayString::<160>::new();
            let _ = write!(text, "{}", self.address(gate.offset));
            writeln!(
                self.out,
                "{vector:3}: {text}, segment {:x}, stack {}, type {:x}",
                gate.selector, gate.stack, gate.attributes
            )?;
        }
        Ok(None)
    }

    pub(super) fn gdt(&mut self) -> Done {
        for index in 0.. {
            let Some(word) = self.probe.segment(index) else { break };
            writeln!(self.out, "{:4x}: {word:016x}", index * 8)?;
        }
        Ok(None)
    }

    pub(super) fn cpu(&mut self) -> Done {
        let Some([max, ..]) = self.probe.cpuid(0, 0) else { return self.refuse(format_args!("not to be had")) };
        let extended = self.probe.cpuid(0x8000_0000, 0).map_or(0, |[max, ..]| max.min(0x8000_0020));
        for leaf in (0..=max.min(0x20)).chain(0x8000_0000..=extended) {
            if let Some([a, b, c, d]) = self.probe.cpuid(leaf, 0) {
                write!(self.out, "{leaf:8x}: {a:08x} {b:08x} {c:08x} {d:08x}  ")?;
                for word in [a, b, c, d] {
                    for byte in word.to_le_bytes() {
                        let letter = if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
                        write!(self.out, "{letter}")?;
                    }
                }
                writeln!(self.out)?;
            }
        }
        Ok(None)
    }

    pub(super) fn interrupt_controllers(&mut self) -> Done {
        let mut count = 0;
        for io_apic in 0..IO_APICS_MAX {
            for pin in 0..=u8::MAX {
                let Some(entry) = self.probe.redirection(io_apic, pin) else { break };
                count += 1;
                let is_masked = if entry >> 16 & 1 != 0 { "masked" } else { "open" };
                let trigger = if entry >> 15 & 1 != 0 { "level" } else { "edge" };
                writeln!(
                    self.out,
                    "I/O APIC {io_apic}, input {pin:3}: vector {:02x}, {trigger}, {is_masked}, to {:x}",
                    entry as u8,
                    entry >> 56
                )?;
            }
        }
        if count == 0 {
            let masks = [0x21, 0xA1].map(|port| self.probe.read_port(port, Width::Byte));
            match masks {
                [Some(first), Some(second)] => writeln!(self.out, "8259A: masks {first:02x}, {second:02x}")?,
                _ => writeln!(self.out, "not to be had")?,
            }
        }
        Ok(None)
    }

    pub(super) fn screen(&mut self) -> Done {
        if self.probe.screen(0, 0).is_none() {
            return self.refuse(format_args!("the kernel sees no text screen"));
        }
        for line in 0..SCREEN.0 {
            for column in 0..SCREEN.1 {
                let byte = self.probe.screen(line, column).unwrap_or(0) as u8;
                let letter = if (b' '..=b'~').contains(&byte) { char::from(byte) } else { ' ' };
                write!(self.out, "{letter}")?;
            }
            writeln!(self.out)?;
        }
        Ok(None)
    }

    fn physical(&self, at: u64, bytes: &mut [u8]) -> bool {
        self.probe.read_physical(at, bytes) == bytes.len()
    }

    fn physical_word(&self, at: u64, bytes: usize) -> Option<u64> {
        let mut word = [0; 8];
        self.physical(at, &mut word[..bytes]).then(|| u64::from_le_bytes(word))
    }

    /// The address of table number `index`, behind the table of tables (ACPI, RSDT and XSDT).
    fn acpi_table(&self, index: u64) -> Option<u64> {
        let pointer = self.probe.root_pointer()?;
        let revision = self.physical_word(pointer + 15, 1)?;
        let xsdt = if revision >= 2 { self.physical_word(pointer + 24, 8).filter(|&at| at != 0) } else { None };
        let (root, size) = match xsdt {
            Some(root) => (root, 8),
            None => (self.physical_word(pointer + 16, 4)?, 4),
        };
        let count = self.physical_word(root + 4, 4)?.checked_sub(36)? / size;
        if index >= count.min(TABLES_MAX) {
            return None;
        }
        self.physical_word(root + 36 + index * size, size as usize)
    }

    pub(super) fn acpi_tables(&mut self) -> Done {
        let mut count = 0;
        while let Some(at) = self.acpi_table(count) {
            self.acpi_line(at)?;
            count += 1;
        }
        writeln!(self.out, "{count} tables")?;
        Ok(None)
    }

    fn acpi_line(&mut self, at: u64) -> fmt::Result {
        let mut header = [0; 36];
        if !self.physical(at, &mut header) {
            return writeln!(self.out, "{at:10x} not to be read");
        }
        write!(self.out, "{at:10x} ")?;
        for &byte in header[..4].iter().chain(&header[10..24]) {
            let letter = if byte.is_ascii_graphic() { char::from(byte) } else { ' ' };
            write!(self.out, "{letter}")?;
        }
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        writeln!(self.out, " revision {}, {len} bytes", header[8])
    }

    pub(super) fn acpi_dump(&mut self) -> Done {
        let name = self.ask_text("signature, as in APIC")?;
        let mut index = 0;
        while let Some(at) = self.acpi_table(index) {
            let mut signature = [0; 4];
            if self.physical(at, &mut signature) && signature.eq_ignore_ascii_case(name.as_bytes()) {
                self.acpi_line(at)?;
                let len = self.physical_word(at + 4, 4).unwrap_or(0).min(TABLE_BYTES_MAX);
                return self.dump_bytes(at, len);
            }
            index += 1;
        }
        self.refuse(format_args!("there is no table {name}"))
    }

    fn dump_bytes(&mut self, at: u64, len: u64) -> Done {
        const LINE: usize = 16;
        for offset in (0..len).step_by(LINE) {
            let mut bytes = [0; LINE];
            let count = (len - offset).min(LINE as u64) as usize;
            if !self.physical(at + offset, &mut bytes[..count]) {
                return self.refuse(format_args!("[not to be read]"));
            }
            write!(self.out, "{offset:6x} ")?;
            for byte in &bytes[..count] {
                write!(self.out, " {byte:02x}")?;
            }
            writeln!(self.out)?;
        }
        Ok(None)
    }
}
