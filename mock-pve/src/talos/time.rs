//! `time.TimeService`: the machine's clock, which is right.

use std::time::SystemTime;

use tonic::{Request, Response, Status};

use super::gate::Need;
use super::node::Node;
use super::proto::time as api;
use super::proto::time::time_service_server::TimeService;
use crate::world::machine::Machine;

fn now(machine: &Machine, server: &str) -> api::Time {
    let configured = machine.see(|state| state.config.clone()).map(|config| config.strings("/machine/time/servers"));
    let first = configured.and_then(|servers| servers.into_iter().next());
    let known = first.unwrap_or_else(|| "time.cloudflare.com".to_owned());
    let server = if server.is_empty() { known } else { server.to_owned() };
    let now = SystemTime::now();
    api::Time { metadata: None, server, localtime: Some(now.into()), remotetime: Some(now.into()) }
}

#[tonic::async_trait]
impl TimeService for Node {
    async fn time(&self, request: Request<()>) -> Result<Response<api::TimeResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(now(machine, "")))?;
        Ok(Response::new(api::TimeResponse { messages }))
    }

    async fn time_check(&self, request: Request<api::TimeRequest>) -> Result<Response<api::TimeResponse>, Status> {
        let server = request.get_ref().server.clone();
        let messages = self.each(&request, Need::Read, |machine| Ok(now(machine, &server)))?;
        Ok(Response::new(api::TimeResponse { messages }))
    }
}
