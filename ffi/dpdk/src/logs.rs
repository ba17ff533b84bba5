//! What DPDK logs, kept in memory: errors quote its tail, and a caller can read it.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines kept; older ones fall out.
pub const LINES_MAX: usize = 256;

/// Lines that an error quotes at most.
const QUOTED_MAX: usize = 8;

struct Log {
    lines: VecDeque<String>,
    partial: String,
    /// Lines ever taken in, so that "since then" can be asked for.
    total: u64,
}

static LOG: Mutex<Log> =
    Mutex::new(Log { lines: VecDeque::new(), partial: String::new(), total: 0 });

fn lock() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last lines that DPDK logged, oldest first, at most [`LINES_MAX`].
pub fn lines() -> Vec<String> {
    lock().lines.iter().cloned().collect()
}

/// A point in the log, for [`since`].
pub(crate) fn mark() -> u64 {
    lock().total
}

/// The last few lines logged after `mark`, joined; empty if there are none.
pub(crate) fn since(mark: u64) -> String {
    let log = lock();
    let new = usize::try_from(log.total.saturating_sub(mark)).unwrap_or(usize::MAX);
    let quoted = new.min(QUOTED_MAX).min(log.lines.len());
    let tail: Vec<&str> =
        log.lines.iter().skip(log.lines.len() - quoted).map(String::as_str).collect();
    tail.join("; ")
}

fn take_in(text: &str) {
    let mut log = lock();
    for piece in text.split_inclusive('\n') {
        log.partial.push_str(piece.trim_end_matches('\n'));
        if piece.ends_with('\n') {
            let line = std::mem::take(&mut log.partial);
            if log.lines.len() == LINES_MAX {
                log.lines.pop_front();
            }
            log.lines.push_back(line);
            log.total += 1;
        }
    }
}

extern "C" fn sink(text: *const c_char, len: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: the C library hands over `len` readable bytes for the length of this call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    take_in(&String::from_utf8_lossy(bytes));
}

/// Directs DPDK's log here. Before `rte_eal_init`, so that nothing is missed.
pub(crate) fn open() -> Result<(), crate::Errno> {
    // SAFETY: `sink` is a plain function that never unwinds (it allocates and locks only) and may
    // be called from any thread.
    let code = unsafe { dpdk_sys::dk_log_open(Some(sink)) };
    crate::Errno::check(code).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_from_pieces_and_bounded() {
        let start = mark();
        take_in("half a ");
        take_in("line\nand another\n");
        assert_eq!(since(start), "half a line; and another");
        for number in 0..LINES_MAX + 10 {
            take_in(&format!("{number}\n"));
        }
        assert_eq!(lines().len(), LINES_MAX);
        assert_eq!(since(mark()), "");
    }
}
