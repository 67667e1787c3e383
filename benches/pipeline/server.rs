//! The image server: every address redirects to another one, as the Image Factory does. Plain for the tools that people
//! use, with TLS for recast, which takes nothing else.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::PrivateKeyDer;

use crate::Failure;

/// Bytes of files that were sent so far.
static SERVED: AtomicU64 = AtomicU64::new(0);

/// How many bytes of files all servers have sent.
pub(crate) fn served() -> u64 {
    SERVED.load(Ordering::Relaxed)
}

/// A server that ends with the process.
pub(crate) struct Server {
    plain: SocketAddr,
    tls: SocketAddr,
    /// Its certificate, PEM.
    pub(crate) ca: PathBuf,
}

impl Server {
    /// Serves the files of a folder.
    pub(crate) fn start(folder: &Path) -> Result<Self, Failure> {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let ca = folder.join("server.pem");
        std::fs::write(&ca, signed.cert.pem())?;
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)?;
        let (plain, tls) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let made = Self { plain: plain.local_addr()?, tls: tls.local_addr()?, ca };
        let (config, of_plain, of_tls) = (Arc::new(config), folder.to_owned(), folder.to_owned());
        accept(plain, move |stream| answer(BufReader::new(stream), &of_plain));
        accept(tls, move |stream| {
            let session = rustls::ServerConnection::new(config.clone())?;
            answer(BufReader::new(rustls::StreamOwned::new(session, stream)), &of_tls)
        });
        Ok(made)
    }

    /// Where a file is for people's tools.
    pub(crate) fn url(&self, file: &str) -> String {
        format!("http://{}/image/{file}", self.plain)
    }

    /// Where it is for recast.
    pub(crate) fn https(&self, file: &str) -> String {
        format!("https://{}/image/{file}", self.tls)
    }
}

fn accept(listener: TcpListener, answer: impl Fn(TcpStream) -> Result<(), Failure> + Clone + Send + 'static) {
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let answer = answer.clone();
            // A client that hangs up is its own affair.
            std::thread::spawn(move || answer(stream).is_ok());
        }
    });
}

/// Answers requests until the client leaves.
fn answer<S: Read + Write>(mut stream: BufReader<S>, folder: &Path) -> Result<(), Failure> {
    loop {
        let mut request = String::new();
        if stream.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while stream.read_line(&mut line)? > 2 {
            line.clear();
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let to = stream.get_mut();
        if let Some(file) = path.strip_prefix("/image/") {
            write!(to, "HTTP/1.1 302 Found\r\nLocation: /store/{file}?signed=1\r\nContent-Length: 0\r\n\r\n")?;
            to.flush()?;
            continue;
        }
        let name = path.strip_prefix("/store/").and_then(|path| path.split('?').next()).unwrap_or_default();
        let Ok(mut file) = File::open(folder.join(name.replace('/', "_"))) else {
            write!(to, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            to.flush()?;
            continue;
        };
        let length = file.metadata()?.len();
        write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: application/octet-stream\r\n\r\n")?;
        if method != "HEAD" {
            let mut piece = vec![0; 256 << 10];
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    read => {
                        to.write_all(&piece[..read])?;
                        SERVED.fetch_add(read as u64, Ordering::Relaxed);
                    }
                }
            }
        }
        to.flush()?;
    }
}
