//! A large download whose every byte counts, by SHA-256.

use crate::load::{connect, content_length};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const CHUNK: usize = 1 << 20;
/// Time for all of it, and far more than it needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Writes `bytes` bytes that don't repeat to `path` and gives their SHA-256.
pub fn make_blob(path: &Path, bytes: u64) -> Result<[u8; 32]> {
    let mut file = BufWriter::new(File::create(path).context("blob")?);
    let mut digest = Sha256::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64: no two chunks alike, so that a lost or doubled piece shows.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = &chunk[..CHUNK.min(usize::try_from(left)?)];
        file.write_all(part)?;
        digest.update(part);
        left -= part.len() as u64;
    }
    file.flush()?;
    Ok(digest.finalize().into())
}

/// Downloads `path` from `target` and gives the bytes' number, their SHA-256, and the time.
pub fn fetch(
    namespace: &Namespace,
    target: SocketAddr,
    path: &str,
) -> Result<(u64, [u8; 32], Duration)> {
    namespace.within(|| {
        let begun = Instant::now();
        let mut stream = connect(None, target)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut reader = BufReader::with_capacity(CHUNK, stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                bail!("the answer ended in its header");
            }
        }
        let announced = content_length(&head)?;
        let mut digest = Sha256::new();
        let mut got = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = reader.read(&mut chunk).context("read")?;
            if length == 0 {
                break;
            }
            ensure!(begun.elapsed() < PATIENCE, "{got} of {announced} bytes in {PATIENCE:?}");
            digest.update(&chunk[..length]);
            got += length as u64;
        }
        if got != announced {
            bail!("{announced} bytes were announced, {got} came");
        }
        Ok((got, digest.finalize().into(), begun.elapsed()))
    })?
}
