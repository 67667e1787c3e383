//! From a path to a method that may run.
//!
//! Purpose: finds the method, and checks token, permission, node and parameters in the original's order. Must not know:
//! how parameters came in. Start at [`Api::admit`].

use std::sync::Arc;

use super::super::auth::Means;
use super::super::call::Call;
use super::super::params::{Params, Value as Given};
use super::super::permission;
use super::super::reply::Reply;
use super::super::route::{self, Found};
use super::super::schema::check;
use super::super::table::Handler;
use super::Api;
use crate::world::State;
use crate::world::members::Outage;
use crate::world::refusal::Refusal;
use crate::world::rights::Caller;

impl Api {
    /// The row that a path means. A method of the original that isn't played is found, too: it is refused only after
    /// all that the original would refuse first.
    pub(in crate::pve) fn find(&self, verb: &str, path: &str) -> Option<Found> {
        let played = route::find(verb, path).filter(|found| self.0.schema.method(verb, &found.pattern).is_some());
        played.or_else(|| route::find_among(self.0.schema.patterns(verb), path))
    }

    /// Path parameters, token, permission, node, schema: in the original's order.
    pub(super) fn admit(
        &self,
        verb: &str,
        path: &str,
        found: Found,
        mut params: Params,
        (caller, means): (Caller, Means),
    ) -> Result<(Call, Handler), Reply> {
        let Some(method) = self.0.schema.method(verb, &found.pattern) else {
            return Err(Reply::not_implemented(verb, path));
        };
        let mut captured = found.captured;
        captured.sort();
        for (name, value) in captured {
            let value = Given::Text(value);
            if params.0.get(&name).is_some_and(|given| *given != value) {
                let text = "duplicate parameter (already defined in URI) with conflicting values!";
                return Err(Reply::refusal(&Refusal::param(&name, text)));
            }
            params.0.insert(name, value);
        }
        if means == Means::Token && !method.token {
            let text =
                format!("Permission check failed (URI '{path}' not available with API token, need proper ticket.\n)");
            return Err(Reply::error(403, &text, None));
        }
        {
            let state = self.0.world.state();
            permission::check(&state, &caller, &method.perm, &params).map_err(|refusal| Reply::refusal(&refusal))?;
            if let Some(node) = params.text("node")
                && node != "localhost"
                && !state.nodes.contains_key(node)
                && method.knows("node")
            {
                // Host names know no case, node names do.
                if state.nodes.keys().any(|known| known.eq_ignore_ascii_case(node)) {
                    return Err(Reply::empty(595, "Connection refused"));
                }
                let text = format!(
                    "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
                );
                return Err(Reply::error(500, &text, None));
            }
            // What wakes a node can't run there.
            if method.knows("node") && !found.pattern.ends_with("/wakeonlan") {
                self.forward(&state, found.handler, params.text("node").unwrap_or_default())?;
            }
        }
        check::parameters(method, &mut params)
            .map_err(|errors| Reply::error(400, "Parameter verification failed.", Some(errors)))?;
        if found.pattern != "/nodes/{node}/qemu/{vmid}/config" {
            // What has no value is as good as not given. A config that is to hold nothing is refused where it is
            // written.
            params.0.retain(|_, value| *value != Given::Nothing);
        }
        // A digest that says nothing is none.
        params.0.retain(|name, value| {
            let silent = matches!(value, Given::Text(text) if text.is_empty() || text == "0");
            !(silent && (name == "digest" || name.ends_with("-digest")))
        });
        if matches!(found.handler, Handler::Absent) {
            return Err(Reply::not_implemented(verb, path));
        }
        if verb != "GET" && !found.pattern.starts_with("/access/ticket") && !route::without_quorum(&found.pattern) {
            self.0.world.state().check_quorum().map_err(|refusal| Reply::refusal(&refusal))?;
        }
        let call = Call {
            world: self.0.world.clone(),
            local: self.0.local.clone(),
            caller,
            params,
            method: Arc::clone(method),
            upload: None,
            auth: Arc::clone(&self.0.auth),
        };
        Ok((call, found.handler))
    }

    /// Whether a request reaches the node it is for; most methods run there, and any node passes them on.
    fn forward(&self, state: &State, handler: Handler, node: &str) -> Result<(), Reply> {
        if node == "localhost" || node == self.0.local {
            return Ok(());
        }
        match (state.outage(node), handler) {
            (None, _) => Ok(()),
            // A file comes to the contacted node, which copies it on by itself.
            (Some(_), Handler::Upload(_)) => {
                let ip = state.nodes.get(node).map_or("", |node| node.ip.as_str());
                let text = format!(
                    "command '/usr/bin/ssh -o 'BatchMode=yes' {ip} -- /bin/mkdir -p -- ' failed: exit code 255\n"
                );
                Err(Reply::error(500, &text, None))
            }
            (Some(Outage::Off), _) => Err(Reply::empty(595, "No route to host")),
            (Some(Outage::Hangs), _) => Err(Reply::empty(596, "Connection timed out")),
        }
    }
}
