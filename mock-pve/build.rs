//! Makes the Talos API's server code out of `proto/`, without protoc.

use std::error::Error;
use std::path::{Path, PathBuf};

const FILES: &[&str] = &[
    "cluster/cluster.proto",
    "cosi/state.proto",
    "inspect/inspect.proto",
    "machine/image.proto",
    "machine/lifecycle.proto",
    "machine/machine.proto",
    "storage/storage.proto",
    "time/time.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let files = protox::compile(FILES, [&root as &Path])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_client(false)
        .generate_default_stubs(true)
        .disable_comments(["."])
        .include_file("talos.rs")
        .compile_fds(files)?;
    Ok(())
}
