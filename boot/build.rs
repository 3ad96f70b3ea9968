//! Links the bare-metal binary where Multiboot loaders and the kernel expect it.

fn main() {
    println!("cargo::rerun-if-changed=kickstart.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
        println!("cargo::rustc-link-arg-bins=-T{folder}/kickstart.ld");
    }
}
