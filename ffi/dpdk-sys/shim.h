/* What bindgen reads: the headers used, constants that it cannot see through, and the shim. */
#ifndef DK_SHIM_H
#define DK_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <rte_ring.h>

/* bindgen leaves out whatever RTE_BIT64 makes, and gives the mbuf flags mixed widths. */
static const uint64_t DK_RX_OFFLOAD_VLAN_STRIP = RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
static const uint64_t DK_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DK_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t DK_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t DK_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t DK_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t DK_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t DK_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t DK_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t DK_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

static const uint64_t DK_RSS_TCP_UDP =
	RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP |
	RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint32_t DK_MQ_RX_NONE = RTE_ETH_MQ_RX_NONE;
static const uint32_t DK_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;

static const uint64_t DK_MBUF_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t DK_MBUF_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint64_t DK_MBUF_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t DK_MBUF_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t DK_MBUF_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t DK_MBUF_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t DK_MBUF_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t DK_MBUF_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;

static const uint64_t DK_MBUF_EXTERNAL = RTE_MBUF_F_EXTERNAL;
static const uint64_t DK_MBUF_INDIRECT = RTE_MBUF_F_INDIRECT;

static const uint16_t DK_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t DK_LCORE_ID_ANY = LCORE_ID_ANY;
static const uint32_t DK_RING_F_SPSC_EXACT =
	RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ;
static const size_t DK_MBUF_OFFSET_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags);
static const size_t DK_MBUF_OFFSET_DYNFIELD1 = offsetof(struct rte_mbuf, dynfield1);

/* Threads and errors: per-lcore variables are thread-local, so C has to read them. */
int dk_errno(void);
const char *dk_version(void);
uint32_t dk_lcore_id(void);
uint64_t dk_rdtsc(void);

/* Every line that DPDK logs goes to `sink`, from any thread. Returns 0 or a negative errno. */
int dk_log_open(void (*sink)(const char *text, size_t len));

/* Buffers and bursts: static inlines of DPDK, once a burst. */
struct rte_mbuf *dk_mbuf_alloc(struct rte_mempool *pool);
int dk_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n);
void dk_mbuf_free(struct rte_mbuf *mbuf);
/* 1 where another mbuf may have the buffer: it is another mbuf's, or counted more than once. */
int dk_mbuf_has_shared_buffer(const struct rte_mbuf *mbuf);
/* Gives an mbuf `len` bytes at `address`, of which the last are used to count their holders. */
int dk_mbuf_attach(struct rte_mbuf *mbuf, void *address, uint16_t len);
uint16_t dk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
uint16_t dk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);

/* Rings with one producer and one consumer. */
unsigned int dk_ring_sp_enqueue_burst(struct rte_ring *ring, void *const *objects, unsigned int n);
unsigned int dk_ring_sc_dequeue_burst(struct rte_ring *ring, void **objects, unsigned int n);
unsigned int dk_ring_count(const struct rte_ring *ring);

/* 1 up, 0 down, negative errno. */
int dk_link_up(uint16_t port);

uint32_t dk_softrss(uint32_t *tuple, uint32_t words, const uint8_t *key);

#endif
