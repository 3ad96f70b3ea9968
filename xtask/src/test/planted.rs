//! The power of the tests: bugs that are planted are caught.

use super::{Case, Lab};
use crate::planted;

/// All tests of this file.
pub fn cases() -> Vec<Case> {
    let check = |_: &Lab| planted::check_one_of_each_kind();
    vec![Case::new("planted::one_bug_of_each_kind_is_caught", "", check)]
}
