//! Lets this crate's tests find libtorch at run time.

#[path = "../kernels/rpath.rs"]
mod rpath;

fn main() {
    rpath::emit();
    println!("cargo:rerun-if-changed=../kernels/rpath.rs");
}
