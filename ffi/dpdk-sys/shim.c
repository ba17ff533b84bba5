/* Functions over DPDK's static inlines, macros, bit-fields and thread-local variables. */
#define _GNU_SOURCE
#include <stdio.h>
#include <errno.h>

#include "shim.h"
#include <rte_cycles.h>
#include <rte_log.h>
#include <rte_thash.h>
#include <rte_version.h>

int dk_errno(void) { return rte_errno; }
const char *dk_version(void) { return rte_version(); }
uint32_t dk_lcore_id(void) { return rte_lcore_id(); }
uint64_t dk_rdtsc(void) { return rte_rdtsc(); }

static void (*log_sink)(const char *text, size_t len);

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_sink(text, len);
	return (ssize_t)len;
}

int dk_log_open(void (*sink)(const char *text, size_t len))
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream;

	log_sink = sink;
	stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -errno;
	setvbuf(stream, NULL, _IOLBF, 1024);
	return rte_openlog_stream(stream);
}

struct rte_mbuf *dk_mbuf_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }

int dk_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int n)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, n);
}

void dk_mbuf_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }

int dk_mbuf_has_shared_buffer(const struct rte_mbuf *mbuf)
{
	if (RTE_MBUF_CLONED(mbuf))
		return 1;
	return RTE_MBUF_HAS_EXTBUF(mbuf) && mbuf->shinfo != NULL &&
	       rte_mbuf_ext_refcnt_read(mbuf->shinfo) != 1;
}

static void nothing_to_free(void *address, void *opaque)
{
	(void)address;
	(void)opaque;
}

int dk_mbuf_attach(struct rte_mbuf *mbuf, void *address, uint16_t len)
{
	struct rte_mbuf_ext_shared_info *shared =
		rte_pktmbuf_ext_shinfo_init_helper(address, &len, nothing_to_free, NULL);

	if (shared == NULL)
		return -1;
	rte_pktmbuf_attach_extbuf(mbuf, address, RTE_BAD_IOVA, len, shared);
	return 0;
}

uint16_t dk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, mbufs, n);
}

uint16_t dk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

unsigned int dk_ring_sp_enqueue_burst(struct rte_ring *ring, void *const *objects, unsigned int n)
{
	return rte_ring_sp_enqueue_burst(ring, objects, n, NULL);
}

unsigned int dk_ring_sc_dequeue_burst(struct rte_ring *ring, void **objects, unsigned int n)
{
	return rte_ring_sc_dequeue_burst(ring, objects, n, NULL);
}

unsigned int dk_ring_count(const struct rte_ring *ring) { return rte_ring_count(ring); }

int dk_link_up(uint16_t port)
{
	struct rte_eth_link link;
	int result = rte_eth_link_get_nowait(port, &link);

	return result < 0 ? result : link.link_status == RTE_ETH_LINK_UP;
}

uint32_t dk_softrss(uint32_t *tuple, uint32_t words, const uint8_t *key)
{
	return rte_softrss(tuple, words, key);
}
