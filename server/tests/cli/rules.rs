//! Rules that must hold, kept in the ways that the documentation shows.

use crate::page::shows_what_happens;
use crate::region::one_region;

#[test]
fn the_page_about_rules_shows_what_happens() {
    let (_dir, region) = one_region();
    assert_eq!(shows_what_happens("docs/rules.md", &region.endpoint), 19);
}
