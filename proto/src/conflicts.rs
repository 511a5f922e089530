//! Conflicts on the wire.

use anabranch_core::conflict::{Run, Standing};
use anabranch_core::{Seq, Stamp};

use crate::convert::{ConvertError, Problem, required};
use crate::v1;

impl From<&Run> for v1::EventRun {
    fn from(run: &Run) -> Self {
        Self {
            origin: Some((&run.origin).into()),
            first: run.first.0,
            last: run.last.0,
            events: run.events,
            first_stamp: run.first_stamp.0,
            last_stamp: run.last_stamp.0,
        }
    }
}

impl TryFrom<v1::EventRun> for Run {
    type Error = ConvertError;

    fn try_from(wire: v1::EventRun) -> Result<Self, ConvertError> {
        let v1::EventRun { origin, first, last, events, first_stamp, last_stamp } = wire;
        if first == 0 || last < first {
            let (min, max, actual) = (first.max(1), u64::MAX, last);
            return Err(Problem::Range { min, max, actual }.of("run.last"));
        }
        Ok(Self {
            origin: required("run.origin", origin)?.try_into()?,
            first: Seq(first),
            last: Seq(last),
            events,
            first_stamp: Stamp(first_stamp),
            last_stamp: Stamp(last_stamp),
        })
    }
}

impl From<Standing> for v1::ConflictStanding {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Kept => Self::Kept,
            Standing::Won => Self::Won,
            Standing::Lost => Self::Lost,
            Standing::Open => Self::Open,
        }
    }
}

/// Reads what became of an event.
///
/// # Errors
/// [`Problem::Missing`], [`Problem::UnknownValue`].
pub fn standing(field: &'static str, wire: i32) -> Result<Standing, ConvertError> {
    match v1::ConflictStanding::try_from(wire) {
        Ok(v1::ConflictStanding::Kept) => Ok(Standing::Kept),
        Ok(v1::ConflictStanding::Won) => Ok(Standing::Won),
        Ok(v1::ConflictStanding::Lost) => Ok(Standing::Lost),
        Ok(v1::ConflictStanding::Open) => Ok(Standing::Open),
        Ok(v1::ConflictStanding::Unspecified) => Err(Problem::Missing.of(field)),
        Err(_) => Err(Problem::UnknownValue { value: wire }.of(field)),
    }
}

#[cfg(test)]
mod tests {
    use anabranch_core::{Incarnation, Origin, RegionName, ShardId};

    use super::*;

    #[test]
    fn runs_and_standings_come_back() {
        let region = RegionName::new("eu").unwrap();
        let run = Run {
            origin: Origin { region, incarnation: Incarnation(7), shard: ShardId(0) },
            first: Seq(3),
            last: Seq(5),
            events: 2,
            first_stamp: Stamp(8),
            last_stamp: Stamp(9),
        };
        let wire = v1::EventRun::from(&run);
        assert_eq!(Run::try_from(wire.clone()), Ok(run));
        let refused = Run::try_from(v1::EventRun { last: 2, ..wire }).unwrap_err();
        assert_eq!(refused.to_string(), "run.last: is 2, allowed are 3 to 18446744073709551615");
        for of in [Standing::Kept, Standing::Won, Standing::Lost, Standing::Open] {
            assert_eq!(standing("standing", v1::ConflictStanding::from(of) as i32), Ok(of));
        }
        assert!(standing("standing", 0).is_err() && standing("standing", 99).is_err());
    }
}
