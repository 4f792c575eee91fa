//! What comes out of a case.

/// Why a case was not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Miss {
    Fails(String),
    /// It does not claim to do this, or does it otherwise on purpose.
    NotApplicable(&'static str),
}

pub(crate) type Verdict = Result<(), Miss>;

/// Something that an init must do, and how to see whether it does.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) check: fn(super::inits::Init) -> Verdict,
}

/// Cases about one thing.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) cases: &'static [Case],
}

pub(crate) const fn case(name: &'static str, check: fn(super::inits::Init) -> Verdict) -> Case {
    Case { name, check }
}

/// Goes on if the condition holds; else the case is not passed, and says why.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::verdict::Miss::Fails(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;
