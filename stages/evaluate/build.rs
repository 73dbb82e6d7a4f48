//! Lets this crate's tests find libtorch at run time.

#[path = "../../crates/kernels/rpath.rs"]
mod rpath;

fn main() {
    println!("cargo:rerun-if-changed=../../crates/kernels/rpath.rs");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_some() {
        rpath::emit();
    }
}
