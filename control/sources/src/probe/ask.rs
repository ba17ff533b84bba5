//! One question: a TCP connection that opens, or an HTTP request and what it is answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use translate::probes::{Check, ProbeKey};

/// Bytes of an answer's head that are read; what is longer isn't an answer to a probe.
const HEAD_MAX: usize = 16 * 1024;
/// The header by which kube-proxy's health check of a Service tells how many endpoints a node has.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// What one question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As it should be.
    Good {
        /// What the weight's header said.
        weight: Option<u32>,
    },
    /// In any other way, or not.
    Bad {
        /// The connection was refused.
        closed: bool,
    },
}

/// Asks once, within the time for it.
pub(super) async fn ask(key: &ProbeKey, sources: &[IpAddr], limit: Duration) -> Answer {
    let question = async {
        let mut stream = connect(key.address, sources).await?;
        match &key.check {
            Check::Tcp => Ok(Answer::Good { weight: None }),
            Check::Http { path } => get(&mut stream, key.address, path).await,
        }
    };
    match timeout(limit, question).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Bad { closed: error.kind() == io::ErrorKind::ConnectionRefused },
        Err(_) => Answer::Bad { closed: false },
    }
}

async fn connect(address: SocketAddr, sources: &[IpAddr]) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let source = sources.iter().find(|source| source.is_ipv4() == address.is_ipv4());
    if let Some(source) = source {
        socket.bind(SocketAddr::new(*source, 0))?;
    }
    let stream = socket.connect(address).await?;
    // A busy prober would run out of ports in TIME_WAIT: nothing is left to be delivered.
    stream.set_zero_linger()?;
    Ok(stream)
}

/// `GET` over HTTP/1.1 (RFC 9112). The body isn't read.
async fn get(stream: &mut TcpStream, host: SocketAddr, path: &str) -> io::Result<Answer> {
    if path.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path has blanks"));
    }
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: headgate-probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::with_capacity(1_024);
    loop {
        let mut part = [0; 1_024];
        let count = stream.read(&mut part).await?;
        head.extend_from_slice(&part[..count]);
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            return Ok(read(&head[..end]));
        }
        if count == 0 || head.len() > HEAD_MAX {
            return Ok(Answer::Bad { closed: false });
        }
    }
}

/// What the head of an answer says.
fn read(head: &[u8]) -> Answer {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse().ok());
    let good = version.starts_with("HTTP/1.") && matches!(status, Some(200..=399_u16));
    if !good {
        return Answer::Bad { closed: false };
    }
    let headers = lines.filter_map(|line| line.split_once(':'));
    let mut weights = headers.filter(|(name, _)| name.trim().eq_ignore_ascii_case(WEIGHT));
    Answer::Good { weight: weights.next().and_then(|(_, value)| value.trim().parse().ok()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_come() {
        let good = |weight| Answer::Good { weight };
        let bad = Answer::Bad { closed: false };
        let cases = [
            ("HTTP/1.1 200 OK", good(None)),
            ("HTTP/1.0 204 No Content\r\nServer: x", good(None)),
            ("HTTP/1.1 399 ", good(None)),
            ("HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: 3", good(Some(3))),
            ("HTTP/1.1 200 OK\r\nx-load-balancing-endpoint-weight:12 ", good(Some(12))),
            ("HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: many", good(None)),
            ("HTTP/1.1 503 Service Unavailable", bad),
            ("HTTP/1.1 400 Bad Request", bad),
            ("HTTP/1.1 20 OK", bad),
            ("HTTP/2 200", bad),
            ("SSH-2.0-OpenSSH_9.9", bad),
            ("", bad),
        ];
        for (head, answer) in cases {
            assert_eq!(read(head.as_bytes()), answer, "{head:?}");
        }
    }
}
