//! What programs could read past the rules of the processor, and what the processor offers against it (Intel, Affected
//! Processors; Intel SDM 4, IA32_ARCH_CAPABILITIES; AMD APM 3, Appendix E).
//!
//! Everything is decided from what the processor says of itself, so it is tested on the host. A processor that nobody here
//! knows is taken to have every weakness.

use core::fmt;

use bitflags::bitflags;
use raw_cpuid::{CpuIdReader, CpuIdReaderNative};

use super::msr::{Efer, Msr};

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Nothing that costs time.
    Off,
    /// What the processor needs, as far as the kernel can.
    Auto,
    /// The same, and what separates programs that share a processor from each other, at any price.
    Full,
}

/// Who made the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vendor {
    Intel,
    /// AMD, and Hygon, whose processors are AMD's.
    Amd,
    Other,
}

bitflags! {
    /// What a processor says that it has against weaknesses, or that it does not have them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Traits: u32 {
        /// Not affected by Meltdown and L1TF: RDCL_NO.
        const NO_MELTDOWN = 1 << 0;
        /// Not affected by MDS: MDS_NO.
        const NO_MDS = 1 << 1;
        /// Not affected by speculative store bypass: SSB_NO.
        const NO_SSB = 1 << 2;
        /// VERW clears buffers: MD_CLEAR.
        const CLEARS_BUFFERS = 1 << 3;
        /// IBRS may be set once and for all.
        const ENHANCED_IBRS = 1 << 4;
        /// The same by a bit of EFER.
        const AUTOMATIC_IBRS = 1 << 5;
        /// IBPB.
        const IBPB = 1 << 6;
        /// STIBP.
        const STIBP = 1 << 7;
        /// SSBD.
        const SSBD = 1 << 8;
    }
}

/// What a processor says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    vendor: Vendor,
    family: u32,
    model: u32,
    traits: Traits,
}

/// Bits of [`Msr::ARCH_CAPABILITIES`].
mod capability {
    pub const RDCL_NO: u64 = 1 << 0;
    pub const IBRS_ALL: u64 = 1 << 1;
    pub const SSB_NO: u64 = 1 << 4;
    pub const MDS_NO: u64 = 1 << 5;
}

impl Identity {
    /// This processor.
    pub fn detect() -> Self {
        // SAFETY: CPUID says that the register is there; reading it has no effect.
        Self::decode(&CpuIdReaderNative, || unsafe { Msr::ARCH_CAPABILITIES.read() })
    }

    /// `capabilities` reads the register of that name, if CPUID says that there is one.
    fn decode(cpuid: &impl CpuIdReader, capabilities: impl FnOnce() -> u64) -> Self {
        let (highest, highest_extended) = (cpuid.cpuid1(0).eax, cpuid.cpuid1(0x8000_0000).eax);
        let leaf = |number: u32| {
            let last = if number < 0x8000_0000 { highest } else { highest_extended };
            (number <= last).then(|| cpuid.cpuid2(number, 0))
        };
        let (family, model) = family_and_model(cpuid.cpuid1(1).eax);
        let features = leaf(7).map_or(0, |leaf| leaf.edx);
        let amds = leaf(0x8000_0008).map_or(0, |leaf| leaf.ebx);
        let more_of_amds = leaf(0x8000_0021).map_or(0, |leaf| leaf.eax);
        let has = |word: u32, bit: u32| word >> bit & 1 != 0;
        let capabilities = if has(features, 29) { capabilities() } else { 0 };
        let can = |bit: u64| capabilities & bit != 0;
        let mut traits = Traits::empty();
        traits.set(Traits::NO_MELTDOWN, can(capability::RDCL_NO));
        traits.set(Traits::NO_MDS, can(capability::MDS_NO));
        traits.set(Traits::NO_SSB, can(capability::SSB_NO) || has(amds, 26));
        traits.set(Traits::CLEARS_BUFFERS, has(features, 10));
        traits.set(Traits::ENHANCED_IBRS, can(capability::IBRS_ALL) || has(amds, 14) && has(amds, 16));
        traits.set(Traits::AUTOMATIC_IBRS, has(more_of_amds, 8));
        traits.set(Traits::IBPB, has(features, 26) || has(amds, 12));
        traits.set(Traits::STIBP, has(features, 27) || has(amds, 15));
        traits.set(Traits::SSBD, has(features, 31) || has(amds, 24));
        Self { vendor: vendor(cpuid), family, model, traits }
    }

    /// Atoms that do not look ahead.
    fn is_in_order(self) -> bool {
        self.vendor == Vendor::Intel && self.family == 6 && [0x1C, 0x26, 0x27, 0x35, 0x36].contains(&self.model)
    }

    /// Small cores of Intel that L1TF spares, though they have Meltdown.
    fn is_spared_by_l1tf(self) -> bool {
        const SILVERMONT_TO_GOLDMONT: [u32; 8] = [0x37, 0x4A, 0x4C, 0x4D, 0x5A, 0x5C, 0x5F, 0x7A];
        const KNIGHTS: [u32; 2] = [0x57, 0x85];
        let is_one = SILVERMONT_TO_GOLDMONT.contains(&self.model) || KNIGHTS.contains(&self.model);
        self.vendor == Vendor::Intel && self.family == 6 && is_one
    }

    /// Small cores of Intel that MDS spares.
    fn is_spared_by_mds(self) -> bool {
        self.vendor == Vendor::Intel && self.family == 6 && [0x5C, 0x5F, 0x7A].contains(&self.model)
    }

    /// AMD's processors before the first that bypasses stores, and small cores of Intel.
    fn is_spared_by_ssb(self) -> bool {
        const SILVERMONT_AND_AIRMONT: [u32; 5] = [0x37, 0x4A, 0x4C, 0x4D, 0x5A];
        const KNIGHTS: [u32; 2] = [0x57, 0x85];
        match self.vendor {
            Vendor::Amd => (0xF..=0x12).contains(&self.family),
            Vendor::Intel => {
                self.family == 6 && (SILVERMONT_AND_AIRMONT.contains(&self.model) || KNIGHTS.contains(&self.model))
            }
            Vendor::Other => false,
        }
    }

    /// Whether the processor has this weakness.
    pub fn is_affected_by(self, weakness: Weakness) -> bool {
        let (is_amds, has) = (self.vendor == Vendor::Amd, |wanted| self.traits.contains(wanted));
        if self.is_in_order() {
            return false;
        }
        match weakness {
            Weakness::Meltdown => !is_amds && !has(Traits::NO_MELTDOWN),
            Weakness::L1tf => !is_amds && !has(Traits::NO_MELTDOWN) && !self.is_spared_by_l1tf(),
            Weakness::Mds => !is_amds && !has(Traits::NO_MDS) && !self.is_spared_by_mds(),
            Weakness::SpectreV1 | Weakness::SpectreV2 => true,
            Weakness::Ssb => !has(Traits::NO_SSB) && !self.is_spared_by_ssb(),
            // Nothing tells which processors of Intel are mended.
            Weakness::LazyFpu => !is_amds,
        }
    }
}

/// Family and model from leaf 1 (Intel SDM 2A, CPUID).
fn family_and_model(signature: u32) -> (u32, u32) {
    let field = |low: u32, bits: u32| signature >> low & ((1 << bits) - 1);
    let family = field(8, 4);
    let model = field(4, 4);
    match family {
        0xF => (family + field(20, 8), field(16, 4) << 4 | model),
        6 => (family, field(16, 4) << 4 | model),
        _ => (family, model),
    }
}

fn vendor(cpuid: &impl CpuIdReader) -> Vendor {
    let leaf = cpuid.cpuid1(0);
    let mut name = [0; 12];
    for (part, word) in name.chunks_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    match &name {
        b"GenuineIntel" => Vendor::Intel,
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        _ => Vendor::Other,
    }
}

/// A weakness.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weakness {
    /// User code reads what only the kernel may, in memory that both have mapped: rogue data cache load.
    Meltdown,
    /// The same by entries of page tables that are not present: L1 terminal fault.
    L1tf,
    /// User code reads what was in the processor's buffers: microarchitectural data sampling.
    Mds,
    /// Accesses that a check forbids, ahead of the check.
    SpectreV1,
    /// Jumps that somebody else has taught the processor.
    SpectreV2,
    /// Loads that do not wait for older stores: speculative store bypass.
    Ssb,
    /// User code reads floating-point registers that are locked: lazy FP state restore.
    LazyFpu,
}

impl Weakness {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Meltdown, Self::L1tf, Self::Mds, Self::SpectreV1, Self::SpectreV2, Self::Ssb, Self::LazyFpu];
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meltdown => "Meltdown",
            Self::L1tf => "L1TF",
            Self::Mds => "MDS",
            Self::SpectreV1 => "Spectre v1",
            Self::SpectreV2 => "Spectre v2",
            Self::Ssb => "SSB",
            Self::LazyFpu => "LazyFP",
        })
    }
}

bitflags! {
    /// What is done.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Measures: u32 {
        /// Each way to user mode clears buffers by VERW.
        const CLEAR_BUFFERS = 1 << 0;
        /// IBRS is set, once.
        const ENHANCED_IBRS = 1 << 1;
        /// EFER says that the processor does the same by itself.
        const AUTOMATIC_IBRS = 1 << 2;
        /// STIBP is set: the other thread of the core teaches this one nothing.
        const STIBP = 1 << 3;
        /// IBPB between spaces: what one has taught the processor is forgotten when another is entered.
        const BARRIER_BETWEEN_SPACES = 1 << 4;
        /// SSBD is set: loads wait.
        const SSBD = 1 << 5;
        /// User code runs on page tables that lack the kernel but for the pages of its entries.
        const ISOLATED_TABLES = 1 << 6;
        /// Floating-point registers are emptied when the thread whose they are stops running.
        const EMPTY_FPU = 1 << 7;
    }
}

/// Bits of [`Msr::SPEC_CTRL`].
mod control {
    pub const IBRS: u64 = 1 << 0;
    pub const STIBP: u64 = 1 << 1;
    pub const SSBD: u64 = 1 << 2;
}

impl Measures {
    /// What `policy` means for this processor.
    pub fn decide(identity: Identity, policy: Policy) -> Self {
        let affected = |weakness| policy != Policy::Off && identity.is_affected_by(weakness);
        let is_full = policy == Policy::Full;
        let has = |wanted| identity.traits.contains(wanted);
        let mut measures = Self::empty();
        measures.set(Self::ISOLATED_TABLES, affected(Weakness::Meltdown));
        measures.set(Self::CLEAR_BUFFERS, affected(Weakness::Mds));
        measures.set(Self::EMPTY_FPU, affected(Weakness::LazyFpu));
        if affected(Weakness::SpectreV2) {
            measures.set(Self::AUTOMATIC_IBRS, has(Traits::AUTOMATIC_IBRS));
            measures.set(Self::ENHANCED_IBRS, has(Traits::ENHANCED_IBRS) && !has(Traits::AUTOMATIC_IBRS));
            measures.set(Self::STIBP, has(Traits::STIBP));
            measures.set(Self::BARRIER_BETWEEN_SPACES, is_full && has(Traits::IBPB));
        }
        measures.set(Self::SSBD, is_full && affected(Weakness::Ssb) && has(Traits::SSBD));
        measures
    }

    /// The value of [`Msr::SPEC_CTRL`]; 0 if that is not used.
    fn control(self) -> u64 {
        let bit = |measure, bit| if self.contains(measure) { bit } else { 0 };
        bit(Self::ENHANCED_IBRS, control::IBRS) | bit(Self::STIBP, control::STIBP) | bit(Self::SSBD, control::SSBD)
    }

    /// Switches on, on this processor, what stays on.
    ///
    /// # Safety
    /// The measures were decided for this processor.
    pub unsafe fn start(self) {
        if self.control() != 0 {
            // SAFETY: the measures are only those that the processor has by registers; the value slows it down, no more.
            unsafe { Msr::SPEC_CTRL.write(self.control()) };
        }
        if self.contains(Self::AUTOMATIC_IBRS) {
            // SAFETY: the processor has the bit, and so the register.
            let efer = unsafe { Efer::read() };
            // SAFETY: as above; nothing else changes.
            unsafe { (efer | Efer::AIBRSE).write() };
        }
    }
}

/// Forgets what was taught about jumps: between spaces, where [`Measures::BARRIER_BETWEEN_SPACES`] says so.
///
/// # Safety
/// The processor has IBPB.
pub unsafe fn barrier() {
    const IBPB: u64 = 1;
    // SAFETY: by contract the register is there; the command has no other effect.
    unsafe { Msr::PRED_CMD.write(IBPB) };
}

/// What is to be said of a weakness: whether the processor has it, and what is done.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Which one.
    pub weakness: Weakness,
    /// Of which processor.
    pub identity: Identity,
    /// What is done.
    pub measures: Measures,
}

impl Finding {
    /// What the kernel always does, as it costs next to nothing.
    fn built_in(&self) -> Option<&'static str> {
        match self.weakness {
            Weakness::L1tf => Some("entries of absent pages are zero"),
            Weakness::SpectreV1 => Some("thread numbers are masked"),
            Weakness::SpectreV2 => Some("no indirect jumps in the kernel"),
            _ => None,
        }
    }

    fn measure(&self, measure: Measures) -> Option<&'static str> {
        self.measures.contains(measure).then(|| match measure {
            Measures::CLEAR_BUFFERS if self.identity.traits.contains(Traits::CLEARS_BUFFERS) => {
                "buffers are cleared on the way to user mode"
            }
            Measures::CLEAR_BUFFERS => {
                "buffers would be cleared on the way to user mode, but VERW is not said to do so"
            }
            Measures::AUTOMATIC_IBRS => "automatic IBRS",
            Measures::ENHANCED_IBRS => "enhanced IBRS",
            Measures::STIBP => "STIBP",
            Measures::BARRIER_BETWEEN_SPACES => "IBPB between spaces",
            Measures::ISOLATED_TABLES => "user page tables without the kernel",
            Measures::EMPTY_FPU => "registers are emptied when their owner leaves",
            _ => "SSBD",
        })
    }

    /// The measures against it.
    fn against(&self) -> Measures {
        match self.weakness {
            Weakness::Meltdown => Measures::ISOLATED_TABLES,
            Weakness::Mds => Measures::CLEAR_BUFFERS,
            Weakness::SpectreV2 => {
                let ibrs = Measures::AUTOMATIC_IBRS.union(Measures::ENHANCED_IBRS);
                ibrs.union(Measures::STIBP).union(Measures::BARRIER_BETWEEN_SPACES)
            }
            Weakness::Ssb => Measures::SSBD,
            Weakness::LazyFpu => Measures::EMPTY_FPU,
            Weakness::L1tf | Weakness::SpectreV1 => Measures::empty(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.weakness)?;
        if !self.identity.is_affected_by(self.weakness) {
            return f.write_str("not affected");
        }
        f.write_str("affected")?;
        let measures = self.against().iter().filter_map(|measure| self.measure(measure));
        let mut is_treated = false;
        for word in self.built_in().into_iter().chain(measures) {
            is_treated = true;
            write!(f, ", {word}")?;
        }
        // Returns go where the last calls came from, unless there were none: IBRS keeps them from going elsewhere then.
        let ibrs = Measures::AUTOMATIC_IBRS.union(Measures::ENHANCED_IBRS);
        match self.weakness {
            Weakness::SpectreV2 if !self.measures.intersects(ibrs) => f.write_str(", returns not guarded"),
            _ if !is_treated => f.write_str(", not mitigated"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use raw_cpuid::CpuIdResult;

    use super::*;

    /// A processor in a table: vendor, signature, EDX of leaf 7, ARCH_CAPABILITIES, EBX of leaf 8000_0008, EAX of
    /// leaf 8000_0021.
    type Processor = (&'static [u8; 12], u32, u32, u64, u32, u32);

    const INTEL: &[u8; 12] = b"GenuineIntel";
    const AMD: &[u8; 12] = b"AuthenticAMD";
    const CONTROLS: u32 = 1 << 26 | 1 << 27 | 1 << 31;
    const CAPABILITIES: u32 = 1 << 29;

    /// Without microcode of 2018 or later, and with it.
    const SKYLAKE_OF_2017: Processor = (INTEL, 0x0005_0654, 0, 0, 0, 0);
    const SKYLAKE: Processor = (INTEL, 0x0005_0654, CONTROLS | 1 << 10, 0, 0, 0);
    const CASCADE_LAKE: Processor = (INTEL, 0x0005_0657, CONTROLS | CAPABILITIES | 1 << 10, 0b10_1011, 0, 0);
    const ATOM: Processor = (INTEL, 0x0001_06CA, 0, 0, 0, 0);
    const SILVERMONT: Processor = (INTEL, 0x0003_0678, CONTROLS, 0, 0, 0);
    const GOLDMONT: Processor = (INTEL, 0x0005_06C9, CONTROLS | CAPABILITIES, 0b1, 0, 0);
    const OPTERON: Processor = (AMD, 0x0010_0F42, 0, 0, 0, 0);
    const ZEN_1: Processor = (AMD, 0x0080_0F12, 0, 0, 1 << 12, 0);
    const ZEN_3: Processor = (AMD, 0x00A2_0F12, 0, 0, 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 24, 0);
    const ZEN_4: Processor = (AMD, 0x00A6_0F12, 0, 0, 1 << 12 | 1 << 15 | 1 << 24 | 1 << 26, 1 << 8);
    const UNKNOWN: Processor = (b"  Shanghai  ", 0x0007_06B0, 0, 0, 0, 0);

    #[derive(Clone)]
    struct Reader(Processor);

    impl CpuIdReader for Reader {
        fn cpuid2(&self, leaf: u32, _: u32) -> CpuIdResult {
            let (name, signature, features, _, amds, more) = self.0;
            let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
            let (eax, ebx, ecx, edx) = match leaf {
                0 => (0x16, word(0), word(8), word(4)),
                1 => (signature, 0, 0, 0),
                7 => (0, 0, 0, features),
                0x8000_0000 => (0x8000_0021, 0, 0, 0),
                0x8000_0008 => (0, amds, 0, 0),
                0x8000_0021 => (more, 0, 0, 0),
                _ => (0, 0, 0, 0),
            };
            CpuIdResult { eax, ebx, ecx, edx }
        }
    }

    fn identity(processor: Processor) -> Identity {
        Identity::decode(&Reader(processor), || {
            assert!(processor.2 & CAPABILITIES != 0, "a register that is not there is not read");
            processor.3
        })
    }

    fn lines(processor: Processor, policy: Policy) -> Vec<String> {
        let identity = identity(processor);
        let measures = Measures::decide(identity, policy);
        Weakness::ALL.map(|weakness| Finding { weakness, identity, measures }.to_string()).to_vec()
    }

    #[track_caller]
    fn check(processor: Processor, policy: Policy, expected: [&str; 7]) {
        let names = ["Meltdown", "L1TF", "MDS", "Spectre v1", "Spectre v2", "SSB", "LazyFP"];
        let expected: Vec<String> = names.iter().zip(expected).map(|(name, text)| format!("{name}: {text}")).collect();
        assert_eq!(lines(processor, policy), expected);
    }

    const OPEN: &str = "affected, not mitigated";
    const NOT: &str = "not affected";
    const APART: &str = "affected, user page tables without the kernel";
    const ZERO: &str = "affected, entries of absent pages are zero";
    const EMPTIED: &str = "affected, registers are emptied when their owner leaves";
    const MASKED: &str = "affected, thread numbers are masked";
    const CLEARED: &str = "affected, buffers are cleared on the way to user mode";
    const IN_VAIN: &str = "affected, buffers would be cleared on the way to user mode, but VERW is not said to do so";
    const JUMPS: &str = "affected, no indirect jumps in the kernel, returns not guarded";
    const STIBP: &str = "affected, no indirect jumps in the kernel, STIBP, returns not guarded";
    const ENHANCED: &str = "affected, no indirect jumps in the kernel, enhanced IBRS, STIBP";

    #[test]
    fn each_processor_gets_what_it_needs() {
        use Policy::{Auto, Full, Off};
        check(SKYLAKE_OF_2017, Auto, [APART, ZERO, IN_VAIN, MASKED, JUMPS, OPEN, EMPTIED]);
        check(SKYLAKE, Auto, [APART, ZERO, CLEARED, MASKED, STIBP, OPEN, EMPTIED]);
        let full = "affected, no indirect jumps in the kernel, STIBP, IBPB between spaces, returns not guarded";
        check(SKYLAKE, Full, [APART, ZERO, CLEARED, MASKED, full, "affected, SSBD", EMPTIED]);
        check(SKYLAKE, Off, [OPEN, ZERO, OPEN, MASKED, JUMPS, OPEN, OPEN]);
        check(CASCADE_LAKE, Auto, [NOT, NOT, NOT, MASKED, ENHANCED, OPEN, EMPTIED]);
        check(ATOM, Auto, [NOT; 7]);
        check(ATOM, Full, [NOT; 7]);
        check(SILVERMONT, Auto, [APART, NOT, IN_VAIN, MASKED, STIBP, NOT, EMPTIED]);
        check(GOLDMONT, Auto, [NOT, NOT, NOT, MASKED, STIBP, OPEN, EMPTIED]);
        check(OPTERON, Auto, [NOT, NOT, NOT, MASKED, JUMPS, NOT, NOT]);
        check(ZEN_1, Auto, [NOT, NOT, NOT, MASKED, JUMPS, OPEN, NOT]);
        let barrier = "affected, no indirect jumps in the kernel, IBPB between spaces, returns not guarded";
        check(ZEN_1, Full, [NOT, NOT, NOT, MASKED, barrier, OPEN, NOT]);
        check(ZEN_3, Auto, [NOT, NOT, NOT, MASKED, ENHANCED, OPEN, NOT]);
        check(
            ZEN_4,
            Auto,
            [NOT, NOT, NOT, MASKED, "affected, no indirect jumps in the kernel, automatic IBRS, STIBP", NOT, NOT],
        );
        check(UNKNOWN, Auto, [APART, ZERO, IN_VAIN, MASKED, JUMPS, OPEN, EMPTIED]);
    }

    #[test]
    fn registers_are_written_only_where_they_are() {
        let control = |processor, policy| Measures::decide(identity(processor), policy).control();
        for processor in [SKYLAKE_OF_2017, ATOM, OPTERON, ZEN_1, UNKNOWN] {
            assert_eq!(control(processor, Policy::Full), 0);
        }
        assert_eq!(control(SKYLAKE, Policy::Auto), control::STIBP);
        assert_eq!(control(SKYLAKE, Policy::Full), control::STIBP | control::SSBD);
        assert_eq!(control(CASCADE_LAKE, Policy::Auto), control::IBRS | control::STIBP);
        assert_eq!(control(ZEN_4, Policy::Auto), control::STIBP);
        for processor in [SKYLAKE, CASCADE_LAKE, ZEN_3, ZEN_4] {
            assert_eq!(Measures::decide(identity(processor), Policy::Off), Measures::empty());
        }
    }

    #[test]
    fn families_and_models_are_those_of_the_manuals() {
        for (signature, expected) in [
            (0x0005_0654, (6, 0x55)),
            (0x0001_06CA, (6, 0x1C)),
            (0x0000_0F4A, (0xF, 4)),
            (0x0080_0F12, (0x17, 1)),
            (0x0000_0513, (5, 1)),
        ] {
            assert_eq!(family_and_model(signature), expected, "{signature:#x}");
        }
    }
}
