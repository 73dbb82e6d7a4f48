//! Builds the C++ shim against libtorch's headers.

#[path = "rpath.rs"]
mod rpath;

fn main() {
    rpath::emit();
    println!("cargo:rerun-if-changed=rpath.rs");
    println!("cargo:rerun-if-changed=shim/shim.cpp");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else {
        println!(
            "cargo:error=LIBTORCH is not set: run scripts/libtorch, which fetches it, or name a libtorch 2.11 of your own"
        );
        std::process::exit(1);
    };
    let include = std::path::Path::new(&libtorch).join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // System headers: their warnings are not ours.
        .flag(format!("-isystem{}", include.display()))
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Werror")
        .file("shim/shim.cpp")
        .compile("pipe_shim");
}
