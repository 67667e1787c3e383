//! `N/aplinfo`: the templates that containers are made of, and how they come to a storage.
//!
//! A small catalogue of what the original's index has (Proxmox VE 8.4, aplinfo/aplinfo.dat, PVE/APLInfo.pm). No server is
//! asked for them: a template holds nothing but its name, and the catalogue's checksums are those of such files.

use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use super::download::{Origin, Wanted, start};
use crate::pve::call::{Call, Result};
use crate::tar::archive;
use crate::world::refusal::Refusal;

const SOURCE: &str = "http://download.proxmox.com/images";
const DISTRIBUTIONS: &str = "https://pve.proxmox.com/wiki/Linux_Container#pct_supported_distributions";
const IMAGES: &str = "https://linuxcontainers.org";

/// A template.
#[derive(Debug)]
pub(in crate::pve) struct Appliance {
    package: &'static str,
    version: &'static str,
    os: &'static str,
    /// How its file's name ends; tells how it is packed.
    ending: &'static str,
    infopage: &'static str,
    headline: &'static str,
    description: &'static str,
}

const fn standard(
    package: &'static str,
    version: &'static str,
    os: &'static str,
    headline: &'static str,
    description: &'static str,
) -> Appliance {
    Appliance { package, version, os, ending: "tar.zst", infopage: DISTRIBUTIONS, headline, description }
}

const fn image(package: &'static str, version: &'static str, os: &'static str, headline: &'static str) -> Appliance {
    Appliance { package, version, os, ending: "tar.xz", infopage: IMAGES, headline, description: "" }
}

const CATALOGUE: &[Appliance] = &[
    image("almalinux-9-default", "20240911", "almalinux", "LXC default image for almalinux 9 (20240911)"),
    image("alpine-3.21-default", "20241217", "alpine", "LXC default image for alpine 3.21 (20241217)"),
    image("alpine-3.22-default", "20250617", "alpine", "LXC default image for alpine 3.22 (20250617)"),
    standard(
        "debian-12-standard",
        "12.12-1",
        "debian-12",
        "Debian 12 Bookworm (standard)",
        "A small Debian Bookworm system including all standard packages.",
    ),
    standard(
        "debian-13-standard",
        "13.1-2",
        "debian-13",
        "Debian 13 Trixie (standard)",
        "A small Debian Trixie system including all standard packages.",
    ),
    image("rockylinux-9-default", "20240912", "rockylinux", "LXC default image for rockylinux 9 (20240912)"),
    standard(
        "ubuntu-22.04-standard",
        "22.04-1",
        "ubuntu-22.04",
        "Ubuntu 22.04 Jammy (standard)",
        "A small Ubuntu 22.04 Jammy Jellyfish system including all standard packages.",
    ),
    standard(
        "ubuntu-24.04-standard",
        "24.04-2",
        "ubuntu-24.04",
        "Ubuntu 24.04 Noble (standard)",
        "A small Ubuntu 24.04 Noble Numbat system including all standard packages.",
    ),
];

impl Appliance {
    /// The name of its file.
    fn template(&self) -> String {
        format!("{}_{}_amd64.{}", self.package, self.version, self.ending)
    }

    /// Where the original fetches it.
    pub(in crate::pve) fn location(&self) -> String {
        format!("{SOURCE}/system/{}", self.template())
    }

    /// Its file.
    pub(in crate::pve) fn content(&self) -> std::io::Result<Vec<u8>> {
        let text = format!("{}_{}\n", self.package, self.version).into_bytes();
        let tar = archive(&[("etc/".to_owned(), None), ("etc/hostname".to_owned(), Some(text))]);
        if self.ending == "tar.xz" {
            let mut packed = xz2::write::XzEncoder::new(Vec::new(), 0);
            packed.write_all(&tar)?;
            packed.finish()
        } else {
            zstd::encode_all(&tar[..], 1)
        }
    }

    fn shown(&self) -> std::io::Result<Value> {
        let content = self.content()?;
        Ok(json!({
            "package": self.package, "version": self.version, "type": "lxc", "os": self.os, "section": "system",
            "maintainer": "Proxmox Support Team <support@proxmox.com>", "architecture": "amd64",
            "location": self.location(), "md5sum": format!("{:x}", md5::compute(&content)),
            "sha512sum": hex::encode(Sha512::digest(&content)), "infopage": self.infopage, "headline": self.headline,
            "description": self.description, "source": SOURCE, "template": self.template(),
        }))
    }
}

/// `GET N/aplinfo`
pub(in crate::pve) fn list(_: &Call) -> Result {
    let list: std::io::Result<Vec<Value>> = CATALOGUE.iter().map(Appliance::shown).collect();
    Ok(list.map_err(|error| Refusal::failed(format!("{error}\n")))?.into())
}

/// `POST N/aplinfo`
pub(in crate::pve) fn download(call: &Call) -> Result {
    let template = call.text("template");
    let known = CATALOGUE.iter().find(|appliance| appliance.template() == template);
    let appliance = known.ok_or_else(|| Refusal::param("template", "no such template"))?;
    let wanted = {
        let state = call.world.state();
        let (node, id) = (call.node(), call.text("storage"));
        let storage = state.storage_on(id, &node)?;
        if !storage.holds("vztmpl") {
            return Err(Refusal::failed(format!("storage '{id}' does not support templates\n")));
        }
        let content = appliance.content().map_err(|error| Refusal::failed(format!("{error}\n")))?;
        let checksum = Some(("sha512".to_owned(), hex::encode(Sha512::digest(&content))));
        let origin = Origin::Catalogue { location: appliance.location(), content };
        Wanted::of(call, &state, &node, &format!("vztmpl/{template}"), origin)?.with_checksum(checksum)
    };
    Ok(start(call, template, wanted).into())
}
