//! ISO base media: MP4, MOV, CMAF; progressive and fragmented.
//!
//! Reading order: [`boxes`] (walking), [`moov`] (where the tables are), [`tables`] (lookups in them), `fragments`
//! (the same for `moof`), [`order`] (presentation order), `edits`, `entry` (what is kept), `seek` (the answers).

pub(crate) mod boxes;
pub(crate) mod derived;
pub(crate) mod fmp4;
pub(crate) mod moov;
pub(crate) mod order;
pub(crate) mod tables;
pub(crate) mod write;
