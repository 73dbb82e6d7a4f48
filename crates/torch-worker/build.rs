//! Makes `pipe-torch` find libtorch at run time.

#[path = "../kernels/rpath.rs"]
mod rpath;

fn main() {
    println!("cargo:rerun-if-changed=../kernels/rpath.rs");
    rpath::emit();
}
