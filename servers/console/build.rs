//! Links the program where the boot loader finds room for it, below sigma0.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../user/rt/user.ld");
    println!("cargo:rustc-link-arg-bins=--defsym=image_base=0xC00000");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    println!("cargo:rerun-if-changed={script}");
}
