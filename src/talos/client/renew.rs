//! A new client certificate from a machine that runs: no authority's key is needed for it.

use std::time::Duration;

use secrecy::SecretString;

use super::TalosError;
use super::machine::Machine;
use crate::talos::access::{AdminCertificate, Roles};
use crate::talos::proto::machine::GenerateClientConfigurationRequest;

impl Machine {
    /// Lets a control plane sign a certificate for these roles. Takes an administrator's certificate that is still valid.
    pub async fn sign_client(&self, roles: &[Roles], valid: Duration) -> Result<AdminCertificate, TalosError> {
        let call = "GenerateClientConfiguration";
        let request = GenerateClientConfigurationRequest {
            roles: roles.iter().map(|role| role.name().to_owned()).collect(),
            crt_ttl: prost_types::Duration::try_from(valid).ok(),
        };
        let answer = self.link.answer(call, self.link.machine().generate_client_configuration(request)).await?;
        let made = self.link.only(call, answer.messages)?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| self.link.answer_is(call, "what isn't PEM"));
        Ok(AdminCertificate::from_pem(text(made.ca)?, text(made.crt)?, SecretString::from(text(made.key)?)))
    }
}
