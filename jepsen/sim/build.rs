//! Compiles the still system into the simulation; see `src/still_system.c`.

fn main() {
    println!("cargo::rerun-if-changed=src/still_system.c");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let mut system = cc::Build::new();
        // Whole, because nothing of ours names what is in it: it takes the place of libc's.
        system
            .link_lib_modifier("+whole-archive")
            .file("src/still_system.c")
            .compile("still_system");
    }
}
