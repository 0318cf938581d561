//! Tells Cargo that the migrations are compiled into the program: the macro
//! that reads them cannot.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
