//! Tar archives (POSIX ustar), as far as anything here is sent or kept in one.

/// Files and folders (without content), closed.
pub(crate) fn archive(files: &[(String, Option<Vec<u8>>)]) -> Vec<u8> {
    let mut tar: Vec<u8> = Vec::new();
    for (name, content) in files {
        tar.extend(header(name, content.as_ref().map(Vec::len)));
        tar.extend(content.iter().flatten());
        tar.resize(tar.len().div_ceil(512) * 512, 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// A tar header (POSIX ustar) for a private file of that length, or for a folder.
pub(crate) fn header(name: &str, length: Option<usize>) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, if length.is_some() { "0000600\0" } else { "0000700\0" });
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", length.unwrap_or(0)));
    put(136, &format!("{:011o}\0", 0));
    put(148, "        ");
    put(156, if length.is_some() { "0" } else { "5" });
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
