//! How much comes on one page of a list.

use anabranch_proto::convert::invalid;
use tonic::Status;

/// Entries on one page, if the caller does not say.
pub(super) const PAGE_DEFAULT: usize = 100;
/// Entries on one page, at most.
const PAGE_MAX: usize = 1000;

/// How many entries the caller asks for; 0 is the default.
pub(super) fn page_size(limit: u32) -> Result<usize, Status> {
    match limit as usize {
        0 => Ok(PAGE_DEFAULT),
        limit if limit > PAGE_MAX => {
            let problem = format!("is {limit}, at most {PAGE_MAX} are allowed");
            Err(invalid("limit", &problem, PAGE_MAX as u64, limit as u64))
        }
        limit => Ok(limit),
    }
}
