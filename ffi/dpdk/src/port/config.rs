//! What a port can, and what it is to do.

use dpdk_sys::{rte_eth_conf, rte_eth_dev_info, rte_eth_rss_reta_entry64};

use crate::Pool;
use crate::port::error::{Direction, PortError};

/// Entries of one piece of a redirection table (`RTE_ETH_RETA_GROUP_SIZE`).
const RETA_GROUP: usize = 64;

/// What a device offers on receiving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxOffloads {
    /// Verifies IPv4 header checksums.
    pub ipv4_checksum: bool,
    /// Verifies TCP checksums.
    pub tcp_checksum: bool,
    /// Verifies UDP checksums.
    pub udp_checksum: bool,
    /// Spreads long packets over several mbufs.
    pub scatter: bool,
    /// Takes out VLAN tags.
    pub vlan_strip: bool,
    /// Reports the RSS hash.
    pub rss_hash: bool,
}

/// What a device offers on sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxOffloads {
    /// Fills in IPv4 header checksums.
    pub ipv4_checksum: bool,
    /// Fills in TCP checksums.
    pub tcp_checksum: bool,
    /// Fills in UDP checksums.
    pub udp_checksum: bool,
    /// Sends chains of several mbufs.
    pub multi_segment: bool,
}

/// What a device is and can (`rte_eth_dev_info_get`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// DPDK's number of the port.
    pub port_id: u16,
    /// The driver: `net_tap`, `net_ring`, `mlx5_pci` ...
    pub driver: String,
    /// Receive queues at most.
    pub max_rx_queues: u16,
    /// Send queues at most.
    pub max_tx_queues: u16,
    /// The MAC address when it was asked.
    pub mac: [u8; 6],
    /// Whether it spreads TCP and UDP by a hash over a redirection table.
    pub rss_capable: bool,
    /// Entries of that table; 0 if it has none.
    pub reta_size: u16,
    /// Bytes of the hash key; 0 if it doesn't say.
    pub hash_key_size: u8,
    /// On receiving.
    pub rx_offloads: RxOffloads,
    /// On sending.
    pub tx_offloads: TxOffloads,
    /// Smallest MTU, bytes.
    pub min_mtu: u16,
    /// Largest MTU, bytes.
    pub max_mtu: u16,
    /// Memory socket that the device is on; `None` if it is on none.
    pub socket: Option<u32>,
}

impl PortInfo {
    pub(crate) fn from_raw(
        port_id: u16,
        raw: &rte_eth_dev_info,
        driver: String,
        mac: [u8; 6],
        socket: Option<u32>,
    ) -> Self {
        let rx = |flag: u64| raw.rx_offload_capa & flag != 0;
        let tx = |flag: u64| raw.tx_offload_capa & flag != 0;
        let hashes = raw.flow_type_rss_offloads & dpdk_sys::DK_RSS_TCP_UDP;
        Self {
            port_id,
            driver,
            max_rx_queues: raw.max_rx_queues,
            max_tx_queues: raw.max_tx_queues,
            mac,
            rss_capable: raw.reta_size > 0 && hashes != 0,
            reta_size: raw.reta_size,
            hash_key_size: raw.hash_key_size,
            rx_offloads: RxOffloads {
                ipv4_checksum: rx(dpdk_sys::DK_RX_OFFLOAD_IPV4_CKSUM),
                tcp_checksum: rx(dpdk_sys::DK_RX_OFFLOAD_TCP_CKSUM),
                udp_checksum: rx(dpdk_sys::DK_RX_OFFLOAD_UDP_CKSUM),
                scatter: rx(dpdk_sys::DK_RX_OFFLOAD_SCATTER),
                vlan_strip: rx(dpdk_sys::DK_RX_OFFLOAD_VLAN_STRIP),
                rss_hash: rx(dpdk_sys::DK_RX_OFFLOAD_RSS_HASH),
            },
            tx_offloads: TxOffloads {
                ipv4_checksum: tx(dpdk_sys::DK_TX_OFFLOAD_IPV4_CKSUM),
                tcp_checksum: tx(dpdk_sys::DK_TX_OFFLOAD_TCP_CKSUM),
                udp_checksum: tx(dpdk_sys::DK_TX_OFFLOAD_UDP_CKSUM),
                multi_segment: tx(dpdk_sys::DK_TX_OFFLOAD_MULTI_SEGS),
            },
            min_mtu: raw.min_mtu,
            max_mtu: raw.max_mtu,
            socket,
        }
    }
}

/// How a device spreads packets over its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The Toeplitz key; its length must be the device's ([`PortInfo::hash_key_size`]; 40 or 52
    /// usually). Empty: the driver's own.
    pub key: Vec<u8>,
    /// Queue of each hash bucket; its length must divide the device's ([`PortInfo::reta_size`])
    /// and is repeated. Empty: the driver's own.
    pub reta: Vec<u16>,
}

/// What a port is to do.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Where received packets go.
    pub pool: Pool,
    /// Receive queues, at least 1.
    pub rx_queues: u16,
    /// Send queues, at least 1.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; adjusted to what the device takes.
    pub rx_descriptors: u16,
    /// Descriptors of each send queue; adjusted likewise.
    pub tx_descriptors: u16,
    /// Largest IP packet in bytes; `None`: the device's default (1500).
    pub mtu: Option<u16>,
    /// Spreading; an error on devices without.
    pub rss: Option<Rss>,
    /// Receive everything, not only what is for the port's MAC. Where the device doesn't, as some
    /// virtual functions, what is for groups at least: [`Reception`].
    pub promiscuous: bool,
    /// Verify checksums, if the device can.
    pub rx_checksum: bool,
    /// Use chains of mbufs for long packets, both ways, if the device can.
    pub scatter: bool,
    /// Take out VLAN tags, if the device can.
    pub vlan_strip: bool,
}

impl PortConfig {
    /// `queues` both ways with 512 descriptors each, checksums and chains where available,
    /// promiscuous.
    pub fn new(pool: Pool, queues: u16) -> Self {
        Self {
            pool,
            rx_queues: queues,
            tx_queues: queues,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mtu: None,
            rss: None,
            promiscuous: true,
            rx_checksum: true,
            scatter: true,
            vlan_strip: false,
        }
    }

    pub(crate) fn check(&self, info: &PortInfo) -> Result<(), PortError> {
        let queues = [
            (Direction::Receive, self.rx_queues, info.max_rx_queues),
            (Direction::Send, self.tx_queues, info.max_tx_queues),
        ];
        for (direction, wanted, max) in queues {
            if wanted == 0 {
                return Err(PortError::NoQueues(direction));
            }
            if wanted > max {
                return Err(PortError::TooManyQueues { direction, wanted, max });
            }
        }
        let (min, max) = (info.min_mtu, info.max_mtu);
        if let Some(wanted) = self.mtu
            && !(min..=max).contains(&wanted)
        {
            return Err(PortError::Mtu { wanted, min, max });
        }
        self.rss.as_ref().map_or(Ok(()), |rss| rss.check(info, self.rx_queues))
    }

    /// DPDK's form of it, and what is granted. The key must outlive the use of the former.
    pub(crate) fn to_raw(&self, info: &PortInfo, raw: &rte_eth_dev_info) -> rte_eth_conf {
        let mut conf = rte_eth_conf::default();
        conf.rxmode.offloads = raw.rx_offload_capa & self.rx_wanted();
        if self.scatter {
            conf.txmode.offloads = raw.tx_offload_capa & dpdk_sys::DK_TX_OFFLOAD_MULTI_SEGS;
        }
        conf.rxmode.mtu = self.mtu.map_or(0, u32::from);
        if let Some(rss) = &self.rss {
            conf.rxmode.mq_mode = dpdk_sys::DK_MQ_RX_RSS;
            let hash = &mut conf.rx_adv_conf.rss_conf;
            hash.rss_hf = raw.flow_type_rss_offloads & dpdk_sys::DK_RSS_TCP_UDP;
            if !rss.key.is_empty() {
                hash.rss_key = rss.key.as_ptr().cast_mut();
                hash.rss_key_len = rss.key.len() as u8;
            }
            if info.rx_offloads.rss_hash {
                conf.rxmode.offloads |= dpdk_sys::DK_RX_OFFLOAD_RSS_HASH;
            }
        }
        conf
    }

    fn rx_wanted(&self) -> u64 {
        let mut wanted = 0;
        if self.rx_checksum {
            wanted |= dpdk_sys::DK_RX_OFFLOAD_IPV4_CKSUM
                | dpdk_sys::DK_RX_OFFLOAD_TCP_CKSUM
                | dpdk_sys::DK_RX_OFFLOAD_UDP_CKSUM;
        }
        if self.scatter {
            wanted |= dpdk_sys::DK_RX_OFFLOAD_SCATTER;
        }
        if self.vlan_strip {
            wanted |= dpdk_sys::DK_RX_OFFLOAD_VLAN_STRIP;
        }
        wanted
    }
}

impl Rss {
    fn check(&self, info: &PortInfo, rx_queues: u16) -> Result<(), PortError> {
        let size = usize::from(info.reta_size);
        let key_len = if info.hash_key_size == 0 { 40 } else { info.hash_key_size };
        if !info.rss_capable {
            return Err(PortError::Rss("it has no redirection table or no hash for TCP and UDP"));
        }
        if !self.key.is_empty() && self.key.len() != usize::from(key_len) {
            return Err(PortError::Rss("the key's length is not the device's hash_key_size"));
        }
        if !self.reta.is_empty() && !size.is_multiple_of(self.reta.len()) {
            return Err(PortError::Rss(
                "the table's length does not divide the device's reta_size",
            ));
        }
        if self.reta.iter().any(|&queue| queue >= rx_queues) {
            return Err(PortError::Rss("the table names a queue that is not configured"));
        }
        Ok(())
    }

    /// The table in DPDK's pieces of 64; empty if the driver's own shall stay.
    pub(crate) fn reta_raw(&self, reta_size: u16) -> Vec<rte_eth_rss_reta_entry64> {
        if self.reta.is_empty() {
            return Vec::new();
        }
        let size = usize::from(reta_size);
        let mut groups = vec![rte_eth_rss_reta_entry64::default(); size.div_ceil(RETA_GROUP)];
        for (bucket, &queue) in (0..size).zip(self.reta.iter().cycle()) {
            let group = &mut groups[bucket / RETA_GROUP];
            group.mask |= 1 << (bucket % RETA_GROUP);
            group.reta[bucket % RETA_GROUP] = queue;
        }
        groups
    }
}

/// Which frames a started port lets in, beside those for its MAC and broadcasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// All.
    Everything,
    /// Those for any group.
    AllGroups,
    /// Those for groups that it was told
    /// ([`PortMonitor::set_groups`](crate::PortMonitor::set_groups)). Software devices that have
    /// no filter at all are here, too.
    ToldGroups,
}

/// What a device has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Receive queues.
    pub rx_queues: u16,
    /// Send queues.
    pub tx_queues: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each send queue.
    pub tx_descriptors: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// The checksums that the device verifies, whether it uses chains, strips VLAN tags, and
    /// reports hashes.
    pub rx_offloads: RxOffloads,
    /// Whether chains may be sent. Where not, drivers may send the first segment alone.
    pub multi_segment_tx: bool,
}

impl Configured {
    pub(crate) fn new(config: &PortConfig, conf: &rte_eth_conf, rx: u16, tx: u16) -> Self {
        let granted = |flag: u64| conf.rxmode.offloads & flag != 0;
        Self {
            rx_queues: config.rx_queues,
            tx_queues: config.tx_queues,
            rx_descriptors: rx,
            tx_descriptors: tx,
            mtu: 0,
            rx_offloads: RxOffloads {
                ipv4_checksum: granted(dpdk_sys::DK_RX_OFFLOAD_IPV4_CKSUM),
                tcp_checksum: granted(dpdk_sys::DK_RX_OFFLOAD_TCP_CKSUM),
                udp_checksum: granted(dpdk_sys::DK_RX_OFFLOAD_UDP_CKSUM),
                scatter: granted(dpdk_sys::DK_RX_OFFLOAD_SCATTER),
                vlan_strip: granted(dpdk_sys::DK_RX_OFFLOAD_VLAN_STRIP),
                rss_hash: granted(dpdk_sys::DK_RX_OFFLOAD_RSS_HASH),
            },
            multi_segment_tx: conf.txmode.offloads & dpdk_sys::DK_TX_OFFLOAD_MULTI_SEGS != 0,
        }
    }
}
