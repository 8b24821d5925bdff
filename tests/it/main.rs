//! The only integration binary: one module for each part that is tested from outside.

mod tidy;
