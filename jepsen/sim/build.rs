//! Compiles the still clock into the simulation; see `src/still_clock.c`.

fn main() {
    println!("cargo::rerun-if-changed=src/still_clock.c");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let mut clock = cc::Build::new();
        // Whole, because nothing of ours names what is in it: it takes the place of libc's.
        clock.link_lib_modifier("+whole-archive").file("src/still_clock.c").compile("still_clock");
    }
}
