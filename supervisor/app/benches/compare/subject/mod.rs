//! What is measured: the product, what people use instead, and the limits of the machine.

pub(crate) mod limits;
pub(crate) mod litestream;
pub(crate) mod node;
pub(crate) mod product;
