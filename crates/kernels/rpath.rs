//! A module of the build script of every crate whose own programs or tests link libtorch (Cargo hands link arguments to
//! the targets of the same package only). They then find libtorch at run time with no environment variable set.

/// Where a program looks for libtorch: where it was built, then beside an installed program.
pub(crate) fn emit() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else { return };
    let library = std::path::Path::new(&libtorch).join("lib");
    let library = library.canonicalize().unwrap_or(library);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
    for beside in ["$ORIGIN/libtorch/lib", "$ORIGIN/../libtorch/lib", "$ORIGIN/../lib"] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{beside}");
    }
}
