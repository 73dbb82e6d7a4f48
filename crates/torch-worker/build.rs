//! Makes `pipe-torch` find libtorch at run time.

include!("../kernels/rpath.rs");

fn main() {
    println!("cargo:rerun-if-changed=../kernels/rpath.rs");
    emit_rpath();
}
