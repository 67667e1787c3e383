use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;

use super::super::server::{Asked, Reply, Server};
use super::super::talos_disk::tests::disk;
use super::super::walker::tests::xz;
use super::*;
use crate::net::Silent;

/// A store behind a factory: `/image` redirects to `/store?signed=N` with a new N each time.
struct Store {
    file: Bytes,
    ranges: bool,
    etag: Option<&'static str>,
    heeds_if_range: bool,
    /// How many bytes of the file's end are left out, by request to the store; nothing beyond.
    cuts: Vec<usize>,
    served: AtomicUsize,
    signed: AtomicUsize,
}

impl Store {
    fn new(file: &[u8]) -> Self {
        Self {
            file: Bytes::copy_from_slice(file),
            ranges: true,
            etag: Some("\"v1\""),
            heeds_if_range: true,
            cuts: Vec::new(),
            served: AtomicUsize::new(0),
            signed: AtomicUsize::new(0),
        }
    }

    fn answer(&self, asked: &Asked) -> Response<Reply> {
        if asked.path.starts_with("/image") {
            let signed = self.signed.fetch_add(1, Ordering::SeqCst);
            let to = format!("/store?signed={signed}");
            return Response::builder().status(302).header("location", to).body(Reply::whole("")).unwrap();
        }
        let cut = self.cuts.get(self.served.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(0);
        let mut response = Response::builder();
        if let Some(etag) = self.etag {
            response = response.header("etag", etag);
        }
        let from = asked.header("range").filter(|_| self.ranges);
        let same = asked.header("if-range").is_none_or(|etag| !self.heeds_if_range || Some(etag) == self.etag);
        let Some(from) = from.filter(|_| same) else {
            return response.body(Reply::cut(&self.file, self.file.len().saturating_sub(cut))).unwrap();
        };
        let from: usize = from.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        let rest = self.file.slice(from..);
        let range = format!("bytes {from}-{}/{}", self.file.len() - 1, self.file.len());
        let reply = Reply::cut(&rest, rest.len().saturating_sub(cut));
        response.status(206).header("content-range", range).body(reply).unwrap()
    }

    async fn start(self) -> Server {
        Server::start(move |asked| self.answer(asked)).await
    }
}

const SILENT: Meters<'static> = Meters { download: &Silent, decode: &Silent };

fn content(length: u32) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect()
}

fn wanted(server: &Server, file: Option<&[u8]>) -> Wanted {
    Wanted { url: format!("{}/image?token=x", server.url), sha256: file.map(Sha256::of), bytes: None }
}

async fn bring(cache: &Cache, server: &Server, wanted: &Wanted) -> Result<Cached, FetchError> {
    cache.bring(&server.client, wanted, |_: Input| Ok(()), SILENT).await.map(|(cached, ())| cached)
}

/// Every file in the cache but for locks.
fn left(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            names.extend(left(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.retain(|name| Path::new(name).extension().is_none_or(|extension| extension != "lock"));
    names.sort();
    names
}

#[derive(Default)]
struct Counted {
    moved: AtomicU64,
    total: AtomicU64,
}

impl Meter for Counted {
    fn add(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::SeqCst);
    }

    fn total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn an_image_is_fetched_once_and_found_again() {
    let file = xz(&disk(4, &["EFI", "META"]));
    let server = Store::new(&file).start().await;
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let meter = Counted::default();
    let wanted = Wanted { bytes: Some(file.len() as u64), ..wanted(&server, None) };
    let (first, inspected) = cache
        .fetch(&server.client, &wanted, Limits::default(), Meters { download: &meter, decode: &Silent })
        .await
        .unwrap();
    assert_eq!((first.sha256, first.fetched), (Sha256::of(&file), file.len() as u64));
    assert_eq!(fs::read(&first.path).unwrap(), file);
    assert_eq!(first.path, folder.path().join("sha256").join(first.sha256.to_string()));
    assert_eq!(inspected.content.disk_bytes, 4 << 20);
    assert_eq!((meter.moved.into_inner(), meter.total.into_inner()), (first.bytes, first.bytes));
    let requests = server.asked().len();

    for again in [wanted.clone(), Wanted { sha256: Some(first.sha256), ..wanted }] {
        let meter = Counted::default();
        let (second, same) = cache
            .fetch(&server.client, &again, Limits::default(), Meters { download: &meter, decode: &Silent })
            .await
            .unwrap();
        assert_eq!((second.fetched, &second.path, &same), (0, &first.path, &inspected));
        assert_eq!(meter.moved.into_inner(), first.bytes);
    }
    assert_eq!(server.asked().len(), requests, "a file that is here was asked for");
}

#[tokio::test]
async fn a_cut_download_goes_on_at_the_cut_with_a_fresh_address() {
    let file = content(200_000);
    for missing in [1, 9_999, 10_000, 100_001, 199_999] {
        let server = Store { cuts: vec![missing, 1], ..Store::new(&file) }.start().await;
        let folder = tempfile::tempdir().unwrap();
        let meter = Counted::default();
        let wanted = wanted(&server, Some(&file));
        let cache = Cache::new(folder.path());
        let meters = Meters { download: &meter, decode: &Silent };
        let fetched = cache.bring(&server.client, &wanted, |_: Input| Ok(()), meters).await;
        if missing == 1 {
            // The second attempt brought nothing: whether to go on is the caller's decision, and it goes on where it was.
            assert!(matches!(&fetched, Err(error @ FetchError::Cut { .. }) if error.is_transient()), "{fetched:?}");
            let fetched = bring(&cache, &server, &wanted).await.unwrap();
            assert_eq!(fetched.fetched, 1);
        } else {
            let (fetched, ()) = fetched.unwrap();
            assert_eq!(fetched.fetched, 200_000);
            assert_eq!(meter.moved.into_inner(), 200_000);
        }
        assert_eq!(fs::read(cache.path(Sha256::of(&file))).unwrap(), file);
        let asked = server.asked();
        let ranges: Vec<_> = asked.iter().filter(|asked| asked.path.starts_with("/store")).collect();
        assert_eq!(
            ranges.iter().map(|asked| asked.path.as_str()).collect::<Vec<_>>(),
            ["/store?signed=0", "/store?signed=1", "/store?signed=2"]
        );
        assert_eq!(ranges[1].header("range").unwrap(), format!("bytes={}-", 200_000 - missing));
        assert_eq!(ranges[1].header("if-range"), Some("\"v1\""));
        assert_eq!(left(folder.path()).len(), 2, "the file and its address");
    }
}

#[tokio::test]
async fn wherever_a_download_is_cut_the_image_is_whole_in_the_end() {
    let file = xz(&disk(4, &["EFI", "META"]));
    // Around the beginning and the end, and all over the blocks between them.
    let cuts = (0..24).chain((24..file.len()).step_by(file.len() / 24)).chain(file.len() - 24..file.len());
    for cut in cuts {
        let server = Store { cuts: vec![file.len() - cut], ..Store::new(&file) }.start().await;
        let folder = tempfile::tempdir().unwrap();
        let (cache, wanted) = (Cache::new(folder.path()), wanted(&server, None));
        let fetched = match cache.fetch(&server.client, &wanted, Limits::default(), SILENT).await {
            // Nothing at all came: the caller asks again.
            Err(error) if cut == 0 && error.is_transient() => {
                cache.fetch(&server.client, &wanted, Limits::default(), SILENT).await
            }
            fetched => fetched,
        };
        let (cached, inspected) = fetched.unwrap_or_else(|error| panic!("cut at {cut}: {error:?}"));
        assert_eq!((cached.sha256, inspected.content.disk_bytes), (Sha256::of(&file), 4 << 20), "cut at {cut}");
        assert_eq!(left(folder.path()).len(), 2, "the file and its address");
    }
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let file = content(50_000);
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let server = Store { ranges: false, etag: None, cuts: vec![20_000], ..Store::new(&file) }.start().await;
    let fetched = bring(&cache, &server, &wanted(&server, Some(&file))).await.unwrap();
    assert_eq!((fetched.bytes, fetched.fetched), (50_000, 50_000));

    let server = Store { ranges: false, cuts: vec![20_000; 9], ..Store::new(&file) }.start().await;
    let folder = tempfile::tempdir().unwrap();
    let failed = bring(&Cache::new(folder.path()), &server, &wanted(&server, None)).await.unwrap_err();
    assert!(matches!(failed, FetchError::Cut { received: 30_000, expected: Some(50_000), .. }), "{failed:?}");
    assert!(failed.is_transient());
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one() {
    let (old, new) = (content(60_000), content(60_001)[1..].to_vec());
    // The second server stands for the same address after a rebuild: one that heeds If-Range, one that only tells another
    // ETag, and one whose new bytes can't be told from the old file's but by the digest.
    for (etag, heeds_if_range, answers) in [(Some("\"v2\""), true, 1), (Some("\"v2\""), false, 2), (None, false, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let first = Store { cuts: vec![30_000, 30_000], ..Store::new(&old) }.start().await;
        bring(&cache, &first, &wanted(&first, None)).await.unwrap_err();
        let second = Store { etag, heeds_if_range, ..Store::new(&new) }.start().await;
        let wanted = Wanted { sha256: Some(Sha256::of(&new)), ..wanted(&first, None) };
        let moved = Wanted { url: wanted.url.replace(&first.url, &second.url), ..wanted };
        let (from, to) = (key(&wanted), key(&moved));
        for extension in ["part", "json"] {
            let name = |key: &str| folder.path().join("part").join(format!("{key}.{extension}"));
            fs::rename(name(&from), name(&to)).unwrap();
        }
        let fetched = bring(&cache, &second, &moved).await.unwrap();
        assert_eq!(fs::read(&fetched.path).unwrap(), new);
        let stores = second.asked().iter().filter(|asked| asked.path.starts_with("/store")).count();
        assert_eq!(stores, answers);
    }
}

#[tokio::test]
async fn another_digest_than_the_pinned_one_names_both_and_leaves_nothing() {
    let file = content(30_000);
    let server = Store::new(&file).start().await;
    let folder = tempfile::tempdir().unwrap();
    let pinned = Sha256::of(b"what it was");
    let wanted = Wanted { sha256: Some(pinned), ..wanted(&server, None) };
    let failed = bring(&Cache::new(folder.path()), &server, &wanted).await.unwrap_err();
    assert_eq!(failed.to_string(), format!("the file's SHA-256 is {}, pinned is {pinned}", Sha256::of(&file)));
    assert!(!failed.is_transient());
    assert_eq!(left(folder.path()), [""; 0]);
}

#[tokio::test]
async fn another_length_than_the_head_told_is_refused_and_leaves_nothing() {
    let file = content(30_000);
    for (bytes, announced) in [(29_999, true), (30_001, true), (29_999, false), (30_001, false)] {
        let copy = Bytes::from(file.clone());
        let reply = move |_: &Asked| {
            let reply = if announced { Reply::whole(copy.clone()) } else { Reply::unannounced(copy.clone()) };
            Response::new(reply)
        };
        let server = Server::start(reply).await;
        let folder = tempfile::tempdir().unwrap();
        let wanted = Wanted { bytes: Some(bytes), ..wanted(&server, Some(&file)) };
        let failed = bring(&Cache::new(folder.path()), &server, &wanted).await.unwrap_err();
        assert!(matches!(failed, FetchError::WrongLength { expected, .. } if expected == bytes), "{failed:?}");
        assert_eq!(left(folder.path()), [""; 0]);
    }
}

#[tokio::test]
async fn what_a_crash_damaged_is_fetched_anew() {
    let file = content(80_000);
    let server = Store::new(&file).start().await;
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let wanted = wanted(&server, Some(&file));
    let part = folder.path().join("part");
    fs::create_dir(&part).unwrap();
    let known = Known { total: Some(80_000), etag: Some("\"v1\"".to_owned()) };
    fs::write(part.join(format!("{}.json", key(&wanted))), serde_json::to_vec(&known).unwrap()).unwrap();
    fs::write(part.join(format!("{}.part", key(&wanted))), vec![0; 40_000]).unwrap();
    let fetched = bring(&cache, &server, &wanted).await.unwrap();
    assert_eq!(fs::read(&fetched.path).unwrap(), file);

    // The same for a file in the cache that rotted.
    fs::write(&fetched.path, content(80_001)).unwrap();
    assert_eq!(cache.lookup(&wanted).await.unwrap(), None);
    assert_eq!(fs::read(bring(&cache, &server, &wanted).await.unwrap().path).unwrap(), file);
}

#[tokio::test]
async fn an_unsound_image_is_refused_and_leaves_nothing() {
    let sound = xz(&disk(4, &["EFI", "META"]));
    let mut altered = sound.clone();
    altered[sound.len() / 2] ^= 1;
    for file in [&sound[..sound.len() - 4], &altered, b"<html>maintenance</html>", &xz(&disk(4, &["root"]))] {
        let server = Store::new(file).start().await;
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let failed = cache.fetch(&server.client, &wanted(&server, None), Limits::default(), SILENT).await.unwrap_err();
        assert!(matches!(failed, FetchError::Image(_)) && !failed.is_transient(), "{failed:?}");
        assert_eq!(left(folder.path()), [""; 0]);
    }
}

#[tokio::test]
async fn two_at_once_download_once() {
    let file = content(100_000);
    let server = Arc::new(Store::new(&file).start().await);
    let folder = tempfile::tempdir().unwrap();
    let runs = (0..3).map(|_| {
        let (server, cache) = (server.clone(), Cache::new(folder.path()));
        tokio::spawn(async move { bring(&cache, &server, &wanted(&server, None)).await.unwrap().fetched })
    });
    let mut fetched = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        fetched.push(run.await.unwrap());
    }
    fetched.sort_unstable();
    assert_eq!(fetched, [0, 0, 100_000]);
    assert_eq!(server.asked().len(), 2, "one question to the factory, one to the store");
}

#[tokio::test]
async fn an_answer_that_is_no_file_is_told_in_its_words() {
    for (status, transient) in [(404, false), (400, false), (503, true), (429, true)] {
        let reply = move |_: &Asked| Response::builder().status(status).body(Reply::whole("schematic not found\n"));
        let server = Server::start(move |asked| reply(asked).unwrap()).await;
        let folder = tempfile::tempdir().unwrap();
        let failed = bring(&Cache::new(folder.path()), &server, &wanted(&server, None)).await.unwrap_err();
        assert_eq!(failed.to_string(), format!("{}/image answered {status}: schematic not found", server.url));
        assert_eq!(failed.is_transient(), transient);
    }
    let endless = |_: &Asked| Response::builder().status(302).header("location", "/again").body(Reply::whole(""));
    let server = Server::start(move |asked| endless(asked).unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let failed = bring(&Cache::new(folder.path()), &server, &wanted(&server, None)).await.unwrap_err();
    assert!(matches!(failed, FetchError::Redirects { .. }));
}

#[test]
fn what_was_used_last_is_kept_longest() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    assert_eq!(cache.list().unwrap(), []);
    let day = Duration::from_hours(24);
    for (days, length) in [(3_u32, 300), (1, 100), (2, 200)] {
        let sha256 = Sha256::of(&days.to_le_bytes());
        fs::create_dir_all(folder.path().join("sha256")).unwrap();
        fs::write(cache.path(sha256), vec![0; length]).unwrap();
        let file = File::options().append(true).open(cache.path(sha256)).unwrap();
        file.set_modified(SystemTime::now() - day * days).unwrap();
        let url = format!("https://factory.example/{days}?token=x");
        cache.remember(&Wanted { url, sha256: None, bytes: None }, sha256).unwrap();
    }
    let bytes = |kept: &[Kept]| kept.iter().map(|kept| kept.bytes).collect::<Vec<_>>();
    let all = cache.list().unwrap();
    assert_eq!(bytes(&all), [100, 200, 300]);
    assert_eq!(all[0].url.as_deref(), Some("https://factory.example/1"));
    assert!(cache.beyond(600).unwrap().is_empty());
    assert_eq!(bytes(&cache.beyond(350).unwrap()), [300]);
    // Nothing older stays than what went.
    assert_eq!(bytes(&cache.beyond(150).unwrap()), [200, 300]);
    cache.remove(&cache.beyond(350).unwrap()).unwrap();
    assert_eq!(bytes(&cache.list().unwrap()), [100, 200]);
    assert_eq!(fs::read_dir(folder.path().join("address")).unwrap().count(), 2);
}
