//! The components of the admin listener: what only those need who look into the server.

use super::dashboard::Pages;
use crate::lazy::{Component, Components};
use crate::profile::flame::Renderer;
use crate::profile::symbols::Symboliser;

/// Each is built when it is first asked for.
pub struct Tools {
    /// Names of addresses, for profiles of CPU and heap.
    pub symboliser: Component<Symboliser>,
    /// Flame graphs of spans.
    pub flame: Component<Renderer>,
    /// The page at `/debug/`.
    pub dashboard: Component<Pages>,
}

impl Tools {
    /// Adds the components to a table.
    pub fn add(components: &Components) -> Self {
        Self {
            symboliser: components.add("symboliser", |_| Ok(Symboliser::new()?)),
            flame: components.add("flame graphs", |_| Ok(Renderer::default())),
            dashboard: components.add("dashboard", |_| Ok(Pages::new())),
        }
    }
}
