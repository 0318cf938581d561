//! Compiles `proto/` with a compiler written in Rust: no `protoc` is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../proto");
    let files =
        ["types", "merge_service", "worker_service"].map(|name| format!("chatvec/v1/{name}.proto"));
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(&files, [&root])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptor_path = out_dir.join("descriptors.bin");
    let mut generator = tonic_prost_build::configure();
    generator = generator.file_descriptor_set_path(&descriptor_path);
    generator.compile_fds(descriptors.clone())?;
    std::fs::write(descriptor_path, prost::Message::encode_to_vec(&descriptors))?;
    Ok(())
}
