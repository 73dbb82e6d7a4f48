//! Lets this crate's tests find libtorch at run time.

include!("../kernels/rpath.rs");

fn main() {
    emit_rpath();
    println!("cargo:rerun-if-changed=../kernels/rpath.rs");
}
