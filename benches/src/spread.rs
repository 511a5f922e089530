//! A figure that was measured several times.

/// Middle and bounds of what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The one in the middle; between the two in the middle if their number is even.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some figures; none if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = figures.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (min, max) = (*all.first()?, *all.last()?);
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { min, median: low.midpoint(high), max })
    }

    /// Of what `figure` says of each.
    pub fn by<T>(of: &[T], figure: impl Fn(&T) -> f64) -> Option<Self> {
        Self::of(of.iter().map(figure))
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { min, median, max } = self;
        write!(f, "{} ({}..{})", short(*median), short(*min), short(*max))
    }
}

/// Three digits that count, and a k for thousands.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".into(),
        small if small < 9.995 => format!("{figure:.2}"),
        small if small < 99.95 => format!("{figure:.1}"),
        small if small < 9_999.5 => format!("{figure:.0}"),
        small if small < 99_950.0 => format!("{:.1}k", figure / 1e3),
        _ => format!("{:.0}k", figure / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_does_not_move_with_what_stands_out() {
        let spread = Spread::of([3.0, 1.0, 1_000.0, 2.0, 4.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, median: 3.0, max: 1_000.0 });
        assert_eq!(Spread::of([1.0, 3.0, 2.0, 9.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!(Spread::of([]), None);
        assert_eq!(spread.to_string(), "3.00 (1.00..1000)");
    }

    #[test]
    fn figures_are_short() {
        let figures = [0.0, 0.123, 9.999, 12.34, 99.99, 123.4, 9_999.0, 12_345.0, 123_456.0];
        let texts = figures.map(short);
        let wanted = ["0", "0.12", "10.0", "12.3", "100", "123", "9999", "12.3k", "123k"];
        assert_eq!(texts, wanted.map(str::to_owned));
    }
}
