//! Generates the Rust side of the wire contract, with a protobuf compiler written in Rust.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "anabranch/v1/types.proto",
        "anabranch/v1/events.proto",
        "anabranch/v1/cluster.proto",
        "anabranch/v1/aggregates.proto",
        "anabranch/v1/conflicts.proto",
        "anabranch/v1/classes.proto",
        "anabranch/internal/v1/raft.proto",
        "anabranch/internal/v1/carried.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let public: Vec<_> =
        descriptors.file.iter().filter(|f| f.package() == "anabranch.v1").cloned().collect();
    let public = prost_types::FileDescriptorSet { file: public };
    std::fs::write(out.join("anabranch.v1.bin"), prost::Message::encode_to_vec(&public))?;
    tonic_prost_build::configure().bytes(".").btree_map(".").compile_fds(descriptors)?;
    Ok(())
}
