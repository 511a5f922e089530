//! How an append of many in one call failed: the status that a call of its own would have ended with.

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

use crate::v1::append_many_response::Failed;

/// Metadata of answers that names the leader, by its gRPC address.
pub const LEADER: &str = "anabranch-leader";

impl From<&Status> for Failed {
    fn from(status: &Status) -> Self {
        let leader = status.metadata().get(LEADER).and_then(|leader| leader.to_str().ok());
        Self {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: status.details().to_vec().into(),
            leader: leader.unwrap_or_default().to_owned(),
        }
    }
}

impl From<Failed> for Status {
    fn from(Failed { code, message, details, leader }: Failed) -> Self {
        let mut metadata = MetadataMap::new();
        // An address that cannot be metadata is none.
        if let Ok(leader) = AsciiMetadataValue::try_from(leader)
            && !leader.is_empty()
        {
            metadata.insert(LEADER, leader);
        }
        Self::with_details_and_metadata(Code::from_i32(code), message, details, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_as_it_was() {
        let mut metadata = MetadataMap::new();
        metadata.insert(LEADER, AsciiMetadataValue::from_static("node-2:4000"));
        let (code, details) = (Code::FailedPrecondition, b"why".to_vec().into());
        let status = Status::with_details_and_metadata(code, "no", details, metadata);
        let back = Status::from(Failed::from(&status));
        assert_eq!((back.code(), back.message(), back.details()), (code, "no", &b"why"[..]));
        assert_eq!(back.metadata().get(LEADER).unwrap(), "node-2:4000");
        let nobody = Status::from(Failed::from(&Status::unavailable("gone")));
        assert!(nobody.metadata().get(LEADER).is_none());
    }
}
