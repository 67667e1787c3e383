//! recast's own part of a way, as a process of its own: started with the clock, and measured from outside.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use recast::image::{
    Cache, Destination, ExtentStream, Limits, Meters, Qcow2, Qcow2Stream, Stored, Unwritten, Wanted, extents, inspect,
    receiver,
};
use recast::net::http::Client;
use recast::net::tls::{self, Versions};
use recast::net::{Connector, Options, Silent, Trust};
use recast::pve::storage::{Fetch, Upload, UploadKind};
use recast::pve::vm::{Forget, VmRef};
use recast::pve::{Auth, Endpoint, Pve, Wait};
use recast::ssh::{Collected, Login, Ssh};
use recast::types::{Sha256, VmId};

use crate::Failure;

const WAIT: Wait = Wait { poll: Duration::from_millis(250), within: Duration::from_mins(10) };

struct Given(BTreeMap<String, String>);

impl Given {
    fn get(&self, name: &str) -> Result<&str, Failure> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("{name} is missing").into())
    }
}

/// `part NAME key=value…`; prints its peak resident memory in KiB.
pub(crate) fn run(words: Vec<String>) -> Result<(), Failure> {
    let mut words = words.into_iter();
    let name = words.next().ok_or("which part?")?;
    let given =
        Given(words.filter_map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match name.as_str() {
            "ssh" => ssh(&given).await,
            "upload" => upload(&given).await,
            "pull" => pull(&given).await,
            "walk" => walk(&given).await,
            other => Err(format!("no part is called {other}").into()),
        }
    })?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak = peak.split_whitespace().next().unwrap_or("0");
    writeln!(std::io::stdout(), "{peak}")?;
    Ok(())
}

fn connector() -> Result<Connector, Failure> {
    Ok(Connector::new(Options::default())?)
}

async fn fetched(given: &Given) -> Result<(PathBuf, recast::image::Inspected), Failure> {
    let trust = Trust::authorities(&std::fs::read(given.get("ca")?)?)?;
    let http = Client::new(&connector()?, tls::client_config(&trust, None)?, Versions::Http1);
    let cache = Cache::new(given.get("cache")?);
    let wanted = Wanted { url: given.get("url")?.to_owned(), sha256: None, bytes: None };
    let meters = Meters { download: &Silent, decode: &Silent };
    let (cached, inspected) = cache.fetch(&http, &wanted, Limits::default(), meters).await?;
    Ok((cached.path, inspected))
}

/// Straight into as many volumes as there are, all at once.
async fn ssh(given: &Given) -> Result<(), Failure> {
    let begun = Instant::now();
    let (path, inspected) = fetched(given).await?;
    let told = |what: &str| {
        if given.get("told").is_ok() {
            crate::say(&format!("{what}: {:.2} s", begun.elapsed().as_secs_f64()));
        }
    };
    told("fetched and read through");
    let content = inspected.content;
    let volumes: Vec<&str> = given.get("volumes")?.split(',').collect();
    let fanout = extents(&path, content, Limits::default(), volumes.len());
    let login = Login {
        host: "127.0.0.1".to_owned(),
        port: given.get("port")?.parse()?,
        user: given.get("user")?.to_owned(),
        keys: vec![given.get("key")?.into()],
        agent: None,
        host_keys: vec![given.get("host_key")?.parse()?],
        known_hosts: None,
        program: None,
    };
    let connector = connector()?;
    let all = volumes.iter().map(|volume| {
        let (connector, login, fanout) = (&connector, &login, &fanout);
        async move {
            let ssh = Ssh::connect(connector, login).await?;
            let name = Path::new(volume).file_name().and_then(|name| name.to_str()).ok_or("a volume has no name")?;
            // What `pvesm alloc` does on storage of files.
            let (done, _) = ssh.ask(&format!("truncate -s {} {volume}", content.disk_bytes)).await?;
            if !done.is_ok() {
                return Err(done.why().into());
            }
            let to = Destination { path: volume, name, unwritten: Unwritten::Zeros, from: 0 };
            let answer = Collected::default();
            let stream = ExtentStream::of(fanout, 0)?;
            let command = receiver(to, &content);
            let ran = ssh.run(&command, Some(Box::new(stream)), Some(Box::new(answer.clone())), &Silent);
            let done = ran.await?;
            let stored = Stored::parse(&answer.text()).ok_or_else(|| done.why())?;
            if stored.is(&content) { Ok(()) } else { Err::<(), Failure>("the volume holds something else".into()) }
        }
    });
    futures_util::future::try_join_all(all).await?;
    told("written and read back");
    if given.get("told").is_ok() {
        crate::say(&format!("readings of the image: {}", fanout.readings()));
    }
    Ok(())
}

fn pve(given: &Given) -> Result<Pve, Failure> {
    let fingerprint = given.get("fingerprint")?.replace(':', "").to_ascii_lowercase();
    let trust = Trust::Fingerprint(recast::net::Fingerprint(fingerprint.parse()?));
    let endpoint = Endpoint { address: given.get("api")?.to_owned(), trust };
    let auth = Auth::Token { id: given.get("token")?.to_owned(), secret: given.get("secret")?.to_owned().into() };
    Ok(Pve::new(&connector()?, recast::pve::Options::new(vec![endpoint], auth))?)
}

/// From the file on the node to a template.
async fn template(pve: &Pve, file: &str) -> Result<(), Failure> {
    let vm = VmRef::new("pve1".into(), VmId(900));
    let keys = [
        ("name", "bench".to_owned()),
        ("scsihw", "virtio-scsi-single".to_owned()),
        ("scsi0", format!("local-lvm:0,import-from=local:import/{file},discard=on,iothread=1")),
    ];
    let keys = keys.map(|(key, value)| (key.to_owned(), value)).into();
    let upid = pve.create_vm(&vm, &keys, None).await?;
    pve.wait(&upid, WAIT).await?;
    let upid = pve.make_template(&vm).await?;
    pve.wait(&upid, WAIT).await?;
    Ok(())
}

async fn upload(given: &Given) -> Result<(), Failure> {
    let pve = pve(given)?;
    if given.get("clear").is_ok() {
        return clear(&pve).await;
    }
    let (path, inspected) = fetched(given).await?;
    let qcow2 = Qcow2::prepare(&path, inspected, Limits::default()).await?;
    let upload = Upload {
        node: "pve1".into(),
        storage: "local".into(),
        kind: UploadKind::Import,
        file: "bench.qcow2".to_owned(),
        size: qcow2.file_bytes(),
        sha256: Some(qcow2.sha256()),
    };
    let stream = Qcow2Stream::of(&qcow2.fanout(1))?;
    let upid = pve.upload(&upload, stream, &Silent).await?;
    pve.wait(&upid, WAIT).await?;
    template(&pve, "bench.qcow2").await?;
    Ok(())
}

async fn pull(given: &Given) -> Result<(), Failure> {
    let pve = pve(given)?;
    let fetch = Fetch {
        node: "pve1".into(),
        storage: "local".into(),
        kind: UploadKind::Import,
        file: "bench.qcow2".to_owned(),
        url: given.get("url")?.to_owned(),
        sha256: given.get("sha256")?.parse::<Sha256>()?,
    };
    let upid = pve.download_url(&fetch).await?;
    pve.wait(&upid, WAIT).await?;
    template(&pve, "bench.qcow2").await?;
    Ok(())
}

/// Takes away what the last round left. Not measured.
async fn clear(pve: &Pve) -> Result<(), Failure> {
    let vm = VmRef::new("pve1".into(), VmId(900));
    if let Ok(upid) = pve.delete_vm(&vm, Forget::Nothing).await {
        pve.wait(&upid, WAIT).await?;
    }
    let file = "local:import/bench.qcow2".into();
    if let Ok(Some(upid)) = pve.delete_volume(&"pve1".into(), &file).await {
        pve.wait(&upid, WAIT).await?;
    }
    Ok(())
}

/// Reads a file through, for the walker alone.
async fn walk(given: &Given) -> Result<(), Failure> {
    inspect(Path::new(given.get("file")?), Limits::default()).await?;
    Ok(())
}
