//! What can be chosen when the kernel is built: fields of one constant, so that every branch compiles.

/// The most processors the kernel runs on.
pub const MAX_CPUS: usize = khal::processors::MAX_PROCESSORS;

/// Thread numbers that the kernel keeps between interrupts, which come first, and users.
pub const KERNEL_THREADS: u32 = 32;
