//! Captures: classic pcap with microseconds, so that every tool opens them.

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

/// A frame at a time, in microseconds from the start of the case.
pub type Stamped = (u64, Vec<u8>);

/// Reads a capture; empty where the file isn't there.
pub fn read(path: &Path) -> Vec<Stamped> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let mut reader = PcapReader::new(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        frames.push((packet.timestamp.as_micros() as u64, packet.data.into_owned()));
    }
    frames
}

/// Writes a capture; no file where there is no frame.
pub fn write(path: &Path, frames: &[Stamped]) {
    if frames.is_empty() {
        return;
    }
    let file = BufWriter::new(File::create(path).unwrap());
    let mut writer = PcapWriter::with_header(file, PcapHeader::default()).unwrap();
    for (us, bytes) in frames {
        let packet = PcapPacket::new(Duration::from_micros(*us), bytes.len() as u32, bytes);
        writer.write_packet(&packet).unwrap();
    }
}
