//! What can be chosen when the kernel is built: fields of one constant, so that every branch compiles.

/// The most processors the kernel runs on.
pub const MAX_CPUS: usize = 255;

/// Interrupt lines, whose thread numbers come first: those of the ISA bus.
pub const SYSTEM_BASE: u32 = 16;

/// Thread numbers that the kernel keeps between interrupts and users.
pub const KERNEL_THREADS: u32 = 32;
