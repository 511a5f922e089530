//! The wire contract: `anabranch/v1/*.proto`, generated, and conversions from and to core's types.
#![deny(missing_docs)]

pub mod carried;
pub mod conflicts;
pub mod convert;

/// The public interface, `anabranch.v1`.
#[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
pub mod v1 {
    tonic::include_proto!("anabranch.v1");
    /// The compiled descriptors, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/anabranch.v1.bin"));
}

/// Between the nodes of one region, and between regions.
pub mod internal {
    pub use v1::*;

    // As deep as its package: what is generated names `anabranch.v1` from there.
    #[allow(missing_docs, clippy::doc_markdown, clippy::large_enum_variant)]
    mod v1 {
        tonic::include_proto!("anabranch.internal.v1");
    }
}
