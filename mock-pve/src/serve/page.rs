//! The page that shows the world live, and the document behind it.
//!
//! Purpose: `/` for people, `/mock/world.json` and `/mock/everything.json` for programs: without login, since all of it is
//! made up, and without a secret. Must not know: how the page looks (`page.html`). Start at [`Viewed::pages`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::view::{self, Depth};
use crate::audit::Audit;
use crate::pve::Pages;
use crate::scenario::Engine;
use crate::world::WeakWorld;
use crate::world::machine::Room;

const PAGE: &str = include_str!("page.html");
/// Destructive acts that are shown, newest first.
const DEEDS: usize = 50;

/// All that a page looks at.
#[derive(Clone)]
pub(super) struct Viewed {
    pub(super) world: WeakWorld,
    pub(super) room: Room,
    pub(super) engine: Option<Engine>,
    pub(super) audit: Audit,
}

impl Viewed {
    pub(super) fn pages(&self) -> Pages {
        let viewed = self.clone();
        Arc::new(move |path| match path {
            "/" | "/index.html" => Some(("text/html; charset=utf-8", PAGE.to_owned())),
            "/mock/world.json" => viewed.document(Depth::Overview),
            "/mock/everything.json" => viewed.document(Depth::Everything),
            _ => None,
        })
    }

    fn document(&self, depth: Depth) -> Option<(&'static str, String)> {
        let world = self.world.upgrade()?;
        let mut document = view::document(&world.state(), world.dir(), depth);
        let (machines, etcd) = view::living(&world, &self.room);
        document["machines"] = machines;
        document["etcd"] = etcd;
        document["time_scale"] = json!(world.clock().scale());
        document["scenario"] = json!(self.engine.as_ref().map(Engine::tally).unwrap_or_default());
        let mut deeds = self.audit.deeds();
        deeds.reverse();
        deeds.truncate(DEEDS);
        document["deeds"] = serde_json::to_value(deeds).unwrap_or(Value::Null);
        Some(("application/json", document.to_string()))
    }
}
