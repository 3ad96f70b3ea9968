//! Links the program where the boot loader expects the root task.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../user/rt/user.ld");
    println!("cargo:rustc-link-arg-bins=--defsym=image_base=0x1000000");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    println!("cargo:rerun-if-changed={script}");
}
