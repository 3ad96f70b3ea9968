//! What this processor can do, by CPUID (Intel SDM 2A, CPUID; AMD APM 3, Appendix E).

use core::fmt;
use core::num::NonZero;

use bitflags::bitflags;
use raw_cpuid::{CpuId, CpuIdReader, Hypervisor};

bitflags! {
    /// The processor features that the kernel knows about. Displayed as names, such as `nx smep tsc-deadline`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Features: u32 {
        /// Pages that cannot be executed.
        const NX = 1 << 0;
        /// Pages of 1 GiB.
        const PAGES_1G = 1 << 1;
        /// Global pages.
        const PGE = 1 << 2;
        /// Translations that carry the identifier of their space.
        const PCID = 1 << 3;
        /// The INVPCID instruction.
        const INVPCID = 1 << 4;
        /// The kernel can be kept from executing user pages.
        const SMEP = 1 << 5;
        /// The kernel can be kept from touching user pages.
        const SMAP = 1 << 6;
        /// User code can be kept from reading descriptor-table registers.
        const UMIP = 1 << 7;
        /// RDFSBASE, WRGSBASE and their like.
        const FSGSBASE = 1 << 8;
        /// SYSCALL and SYSRET of 64-bit code.
        const SYSCALL = 1 << 9;
        /// FXSAVE and FXRSTOR.
        const FXSR = 1 << 10;
        /// SSE2.
        const SSE2 = 1 << 11;
        /// XSAVE.
        const XSAVE = 1 << 12;
        /// RDTSC.
        const TSC = 1 << 13;
        /// The time-stamp counter runs at one rate, always.
        const TSC_INVARIANT = 1 << 14;
        /// RDTSCP.
        const RDTSCP = 1 << 15;
        /// A local APIC.
        const APIC = 1 << 16;
        /// The local APIC has the x2APIC mode.
        const X2APIC = 1 << 17;
        /// The local APIC's timer can wait for a value of the time-stamp counter.
        const TSC_DEADLINE = 1 << 18;
        /// A page attribute table: memory types by page, write-combining and write-protected among them.
        const PAT = 1 << 19;
        /// Accesses by different memory types to one line find each other in the caches.
        const SELF_SNOOP = 1 << 20;
        /// MONITOR and MWAIT, by which the processor sleeps until somebody writes to a line of memory, where that is so.
        const MONITOR = 1 << 21;
    }
}

/// EAX, EBX, ECX and EDX of a leaf as they are.
pub fn raw_leaf(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The number of this processor's local APIC (Intel SDM 2A, CPUID, leaves 1 and 0BH).
pub fn apic_id() -> u32 {
    decode_apic_id(raw_leaf)
}

/// The leaves are read as they are: `raw-cpuid` panics over a kind of level that was not there when it was written.
fn decode_apic_id(leaf: impl Fn(u32, u32) -> [u32; 4]) -> u32 {
    const FEATURES: u32 = 1;
    const TOPOLOGY: u32 = 0xB;
    let [highest, ..] = leaf(0, 0);
    let [_, count, _, wide] = if highest >= TOPOLOGY { leaf(TOPOLOGY, 0) } else { [0; 4] };
    let [_, narrow, ..] = if highest >= FEATURES { leaf(FEATURES, 0) } else { [0; 4] };
    if count & 0xFFFF != 0 { wide } else { narrow >> 24 }
}

impl Features {
    /// What the kernel cannot do without.
    pub const REQUIRED: Self = Self::SYSCALL.union(Self::FXSR).union(Self::SSE2).union(Self::TSC).union(Self::APIC);

    /// The features of this processor.
    pub fn detect() -> Self {
        Self::decode(&CpuId::new())
    }

    /// What the kernel could use and this processor lacks.
    pub const fn missing(self) -> Self {
        self.complement()
    }

    /// What the lack of a feature means for who uses the machine.
    const CONSEQUENCES: [(Self, &str); 5] = [
        (Self::NX, "no nx: pages of programs can be executed whatever their rights say"),
        (Self::SMEP, "no smep: the processor does not keep the kernel from executing pages of programs"),
        (Self::SMAP, "no smap: the processor does not keep the kernel from touching pages of programs"),
        (Self::UMIP, "no umip: programs can read where the kernel has its tables of descriptors"),
        (Self::TSC_INVARIANT, "no tsc-invariant: clocks are wrong if the processor changes its speed"),
    ];

    /// A sentence for each feature that this processor lacks where somebody can tell the difference, but for time.
    pub fn consequences(self) -> impl Iterator<Item = &'static str> {
        Self::CONSEQUENCES.into_iter().filter(move |(feature, _)| !self.contains(*feature)).map(|(_, text)| text)
    }

    fn decode<R: CpuIdReader>(cpuid: &CpuId<R>) -> Self {
        let mut features = Self::empty();
        if let Some(leaf) = cpuid.get_feature_info() {
            features.set(Self::PGE, leaf.has_pge());
            features.set(Self::PCID, leaf.has_pcid());
            features.set(Self::FXSR, leaf.has_fxsave_fxstor());
            features.set(Self::SSE2, leaf.has_sse2());
            features.set(Self::XSAVE, leaf.has_xsave());
            features.set(Self::TSC, leaf.has_tsc());
            features.set(Self::APIC, leaf.has_apic());
            features.set(Self::X2APIC, leaf.has_x2apic());
            features.set(Self::TSC_DEADLINE, leaf.has_tsc_deadline());
            features.set(Self::PAT, leaf.has_pat());
            features.set(Self::SELF_SNOOP, leaf.has_ss());
            features.set(Self::MONITOR, leaf.has_monitor_mwait() && sleeps_in_mwait(cpuid));
        }
        if let Some(leaf) = cpuid.get_extended_feature_info() {
            features.set(Self::INVPCID, leaf.has_invpcid());
            features.set(Self::SMEP, leaf.has_smep());
            features.set(Self::SMAP, leaf.has_smap());
            features.set(Self::UMIP, leaf.has_umip());
            features.set(Self::FSGSBASE, leaf.has_fsgsbase());
        }
        if let Some(leaf) = cpuid.get_extended_processor_and_feature_identifiers() {
            features.set(Self::NX, leaf.has_execute_disable());
            features.set(Self::PAGES_1G, leaf.has_1gib_pages());
            features.set(Self::SYSCALL, leaf.has_syscall_sysret());
            features.set(Self::RDTSCP, leaf.has_rdtscp());
        }
        if let Some(leaf) = cpuid.get_advanced_power_mgmt_info() {
            features.set(Self::TSC_INVARIANT, leaf.has_invariant_tsc());
        }
        features
    }
}

/// Whether MWAIT sleeps. QEMU's translator has the instruction, and goes on at once.
fn sleeps_in_mwait<R: CpuIdReader>(cpuid: &CpuId<R>) -> bool {
    let is_translated = cpuid.get_hypervisor_info().is_some_and(|hypervisor| hypervisor.identify() == Hypervisor::QEMU);
    let has_line = cpuid.get_monitor_mwait_info().is_some_and(|info| info.smallest_monitor_line() != 0);
    has_line && !is_translated
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for (i, (name, _)) in self.iter_names().enumerate() {
            if i > 0 {
                f.write_char(' ')?;
            }
            for letter in name.chars() {
                f.write_char(if letter == '_' { '-' } else { letter.to_ascii_lowercase() })?;
            }
        }
        Ok(())
    }
}

/// Frequencies that the processor or a hypervisor claims; see [`crate::timer::calibrate`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClaimedClocks {
    /// The time-stamp counter, kHz.
    pub tsc_khz: Option<NonZero<u64>>,
    /// The local APIC's timer before its divider, kHz.
    pub apic_khz: Option<NonZero<u64>>,
    /// The time-stamp counter to within a few MHz, kHz: the base frequency printed on the box.
    pub tsc_about_khz: Option<NonZero<u64>>,
}

impl ClaimedClocks {
    /// The claims of this processor.
    pub fn detect() -> Self {
        Self::decode(&CpuId::new())
    }

    fn decode<R: CpuIdReader>(cpuid: &CpuId<R>) -> Self {
        let hypervisor = cpuid.get_hypervisor_info();
        let tsc = cpuid.get_tsc_info();
        let virtual_tsc = hypervisor.as_ref().and_then(|h| h.tsc_frequency()).and_then(|khz| NonZero::new(khz.into()));
        let virtual_apic =
            hypervisor.as_ref().and_then(|h| h.apic_frequency()).and_then(|khz| NonZero::new(khz.into()));
        let crystal_tsc = tsc.as_ref().and_then(|t| t.tsc_frequency()).and_then(|hz| NonZero::new(hz / 1000));
        let crystal = tsc.as_ref().and_then(|t| NonZero::new(u64::from(t.nominal_frequency()) / 1000));
        let base = cpuid.get_processor_frequency_info().map(|i| u64::from(i.processor_base_frequency()) * 1000);
        Self {
            tsc_khz: virtual_tsc.or(crystal_tsc),
            apic_khz: virtual_apic.or(crystal),
            tsc_about_khz: base.and_then(NonZero::new),
        }
    }
}

/// Bits of a physical address of this processor, 32 to 52. Page-table entries with more are invalid.
pub fn physical_address_bits() -> u32 {
    decode_physical_bits(&CpuId::new())
}

/// Processors that do not tell have 36 (Intel SDM 3A, Enumeration of Paging Features by CPUID).
fn decode_physical_bits<R: CpuIdReader>(cpuid: &CpuId<R>) -> u32 {
    const UNTOLD: u32 = 36;
    let told = cpuid.get_processor_capacity_feature_info().map(|info| u32::from(info.physical_address_bits()));
    told.filter(|bits| *bits != 0).unwrap_or(UNTOLD).clamp(32, 52)
}

/// The processor's name, for people. Displayed as vendor and brand.
pub struct Name(CpuId<raw_cpuid::CpuIdReaderNative>);

impl Name {
    /// The name of this processor.
    pub fn detect() -> Self {
        Self(CpuId::new())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vendor = self.0.get_vendor_info();
        f.write_str(vendor.as_ref().map_or("unknown vendor", |v| v.as_str()))?;
        match self.0.get_processor_brand_string() {
            Some(brand) => write!(f, ", {}", brand.as_str().trim()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raw_cpuid::CpuIdResult;

    use super::*;

    /// A processor that answers `leaves` (leaf, eax, ebx, ecx, edx) and zero elsewhere.
    fn processor(leaves: &[(u32, u32, u32, u32, u32)]) -> CpuId<impl CpuIdReader> {
        CpuId::with_cpuid_fn(|leaf: u32, _| {
            let found = leaves.iter().find(|&&(l, ..)| l == leaf).copied().unwrap_or((leaf, 0, 0, 0, 0));
            CpuIdResult { eax: found.1, ebx: found.2, ecx: found.3, edx: found.4 }
        })
    }

    const ANY_BASIC: (u32, u32, u32, u32, u32) = (0, 0x16, 0, 0, 0);
    const ANY_EXTENDED: (u32, u32, u32, u32, u32) = (0x8000_0000, 0x8000_0008, 0, 0, 0);

    #[test]
    fn features_are_read_from_their_bits() {
        let check = |leaf, wanted| {
            let found = Features::decode(&processor(&[ANY_BASIC, ANY_EXTENDED, leaf]));
            assert_eq!(found, wanted, "leaf {leaf:x?}: {found}");
        };
        check((1, 0, 0, 1 << 17 | 1 << 24, 0), Features::PCID | Features::TSC_DEADLINE);
        check((1, 0, 0, 1 << 21 | 1 << 26, 0), Features::X2APIC | Features::XSAVE);
        check((1, 0, 0, 0, 1 << 13 | 1 << 4), Features::PGE | Features::TSC);
        check((1, 0, 0, 0, 1 << 16 | 1 << 27), Features::PAT | Features::SELF_SNOOP);
        check((1, 0, 0, 0, 1 << 9 | 1 << 24 | 1 << 26), Features::APIC | Features::FXSR | Features::SSE2);
        check((7, 0, 1 << 7 | 1 << 20, 0, 0), Features::SMEP | Features::SMAP);
        check((7, 0, 1 | 1 << 10, 1 << 2, 0), Features::FSGSBASE | Features::INVPCID | Features::UMIP);
        check((0x8000_0001, 0, 0, 0, 1 << 20 | 1 << 26), Features::NX | Features::PAGES_1G);
        check((0x8000_0001, 0, 0, 0, 1 << 27 | 1 << 11), Features::RDTSCP | Features::SYSCALL);
        check((0x8000_0007, 0, 0, 0, 1 << 8), Features::TSC_INVARIANT);
    }

    /// QEMU's translator names itself.
    #[test]
    fn mwait_counts_where_it_sleeps() {
        const LINES: (u32, u32, u32, u32, u32) = (5, 64, 64, 3, 0x20);
        const TRANSLATOR: (u32, u32, u32, u32, u32) = (0x4000_0000, 0x4000_0001, 0x5447_4354, 0x4354_4743, 0x4743_5447);
        const HAS_MONITOR: u32 = 1 << 3;
        const IS_VIRTUAL: u32 = 1 << 31;
        let check = |leaves: &[_], expected| {
            let found = Features::decode(&processor(leaves)).contains(Features::MONITOR);
            assert_eq!(found, expected, "{leaves:x?}");
        };
        check(&[ANY_BASIC, LINES, (1, 0, 0, HAS_MONITOR, 0)], true);
        check(&[ANY_BASIC, LINES, (1, 0, 0, 0, 0)], false);
        check(&[ANY_BASIC, (1, 0, 0, HAS_MONITOR, 0)], false);
        check(&[ANY_BASIC, LINES, (1, 0, 0, HAS_MONITOR | IS_VIRTUAL, 0)], true);
        check(&[ANY_BASIC, LINES, TRANSLATOR, (1, 0, 0, HAS_MONITOR | IS_VIRTUAL, 0)], false);
    }

    /// The wide number is that of leaf 0BH, whatever kinds of levels there are.
    #[test]
    fn number_of_the_local_apic_is_read_from_where_it_is() {
        let check = |highest, topology: [u32; 4], expected| {
            let leaf = |leaf, _| match leaf {
                0 => [highest, 0, 0, 0],
                1 => [0, 7 << 24 | 0xFF, 0, 0],
                0xB => topology,
                _ => [!0; 4],
            };
            assert_eq!(decode_apic_id(leaf), expected, "{topology:x?}");
        };
        check(0x16, [1, 2, 0x100, 300], 300);
        check(0x16, [1, 2, 0xFF00, 300], 300);
        check(0x16, [0, 0, 0, 300], 7);
        check(0xA, [1, 2, 0x100, 300], 7);
        check(0, [1, 2, 0x100, 300], 0);
    }

    #[test]
    fn leaves_beyond_the_last_are_not_believed() {
        let old = processor(&[(0, 1, 0, 0, 0), (7, 0, !0, !0, !0)]);
        assert_eq!(Features::decode(&old), Features::empty());
        assert_eq!(ClaimedClocks::decode(&old), ClaimedClocks::default());
    }

    #[test]
    fn physical_addresses_have_as_many_bits_as_the_processor_says() {
        let check = |leaves: &[_], wanted| assert_eq!(decode_physical_bits(&processor(leaves)), wanted, "{leaves:x?}");
        check(&[ANY_BASIC, ANY_EXTENDED, (0x8000_0008, 0x3028, 0, 0, 0)], 40);
        check(&[ANY_BASIC, ANY_EXTENDED, (0x8000_0008, 0x3934, 0, 0, 0)], 52);
        check(&[ANY_BASIC, ANY_EXTENDED, (0x8000_0008, 0x30FF, 0, 0, 0)], 52);
        check(&[ANY_BASIC, ANY_EXTENDED], 36);
        check(&[ANY_BASIC, (0x8000_0000, 0x8000_0001, 0, 0, 0)], 36);
    }

    #[test]
    fn features_print_as_a_list_of_names() {
        assert_eq!(Features::empty().to_string(), "");
        assert_eq!(
            (Features::NX | Features::PAGES_1G | Features::TSC_DEADLINE).to_string(),
            "nx pages-1g tsc-deadline"
        );
        assert_eq!((Features::all() - Features::SMAP).missing().to_string(), "smap");
    }

    #[test]
    fn clocks_are_claimed_by_crystal_or_hypervisor() {
        let check = |leaves: &[_], tsc: Option<u64>, apic: Option<u64>, tsc_about: Option<u64>| {
            let wanted = ClaimedClocks {
                tsc_khz: tsc.and_then(NonZero::new),
                apic_khz: apic.and_then(NonZero::new),
                tsc_about_khz: tsc_about.and_then(NonZero::new),
            };
            assert_eq!(ClaimedClocks::decode(&processor(leaves)), wanted, "{leaves:x?}");
        };
        const VIRTUAL: (u32, u32, u32, u32, u32) = (1, 0, 0, 1 << 31, 0);
        check(&[ANY_BASIC], None, None, None);
        check(&[ANY_BASIC, (0x15, 2, 176, 24_000_000, 0)], Some(2_112_000), Some(24_000), None);
        check(&[ANY_BASIC, (0x15, 2, 176, 0, 0), (0x16, 2100, 0, 0, 0)], None, None, Some(2_100_000));
        let hypervisor = (0x4000_0000, 0x4000_0010, 0, 0, 0);
        let frequencies = (0x4000_0010, 2_800_123, 1_000_000, 0, 0);
        check(&[ANY_BASIC, VIRTUAL, hypervisor, frequencies], Some(2_800_123), Some(1_000_000), None);
    }

    #[test]
    fn what_is_lacking_has_a_sentence() {
        assert_eq!(Features::all().consequences().count(), 0);
        let all: Vec<&str> = Features::empty().consequences().collect();
        for (feature, sentence) in Features::CONSEQUENCES {
            assert!(all.contains(&sentence) && sentence.starts_with(&format!("no {feature}: ")), "{sentence}");
        }
        let lacking: Vec<&str> = Features::all().difference(Features::NX).consequences().collect();
        assert_eq!(lacking, [Features::CONSEQUENCES[0].1]);
    }
}
