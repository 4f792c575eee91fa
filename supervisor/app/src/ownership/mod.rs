//! Whose session it is: the lease of an archive, renewed until it is lost, asked for or released.

mod clock;
pub(crate) mod keeper;
