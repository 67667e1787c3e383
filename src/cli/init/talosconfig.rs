//! The way into the cluster.

use crate::cli::args::Init;
use crate::cli::secrets;
use crate::cli::session::Place;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::access::talosconfig::Context;
use crate::talos::client::Access;

/// The context that is named, or the current one, and what it opens.
pub(super) fn read(asked: &Init, place: &Place) -> Result<(Context, Access), Stop> {
    let path = asked.talosconfig.clone().unwrap_or_else(|| place.env.talosconfig());
    let (_, context) = secrets::context(&path, asked.context.as_deref())?;
    let access = secrets::access(&context)?;
    if context.endpoints.is_empty() && context.nodes.is_empty() {
        let what = format!("context '{}' of {} names no machine", context.name, path.display());
        return Err(
            Stop::new(ExitCode::Invalid, what).hinted("put a control plane there: talosctl config endpoint ADDRESS")
        );
    }
    Ok((context, access))
}
