//! What runs, as the API shows it.
//!
//! Purpose: raw answers for an inventory, which has to keep what this program doesn't understand. Reads only. Must not
//! know: what an inventory looks like.

use serde_json::{Map, Value};

use super::encode::{Form, path};
use super::{Pve, PveError};

impl Pve {
    /// What a path below the API answers to a GET.
    pub async fn shown(&self, segments: &[&str]) -> Result<Value, PveError> {
        self.get(&path(segments), &Form::new()).await
    }

    /// The same for a list of objects; digests, which are no property of what is listed, are left out.
    pub async fn listed(&self, segments: &[&str]) -> Result<Vec<Map<String, Value>>, PveError> {
        let mut all: Vec<Map<String, Value>> = self.get(&path(segments), &Form::new()).await?;
        for one in &mut all {
            one.remove("digest");
        }
        Ok(all)
    }
}
