//! x
use crate::orders::Orders;
pub(crate) fn fill(_orders: &Orders) {}
