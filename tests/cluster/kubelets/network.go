package kubelets

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// podNetwork is a pod's network namespace. A pod with hostNetwork has its node's.
type podNetwork struct {
	name      string
	handle    netns.NsHandle
	addresses []netip.Addr
	// Nothing but our own: zero for a pod with hostNetwork.
	number int
	link   string
}

// The MAC of a node's end of every cable to a pod. Both ends know the other's, so that no packet
// waits for an answer to ARP or neighbour discovery.
var nodeMAC = net.HardwareAddr{0x0a, 0x48, 0x47, 0x03, 0, 0}

// within runs work in a network namespace, on a thread that ends with it.
func within(handle netns.NsHandle, work func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace is of no use to others.
		runtime.LockOSThread()
		if err := unix.Setns(int(handle), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- work()
	}()
	return <-done
}

// makeNetwork makes a pod's namespace, the cable to its node and the routes on both sides. Its
// addresses can be used when this returns.
func makeNetwork(n *node, name, link string, note func(string) error) (*podNetwork, error) {
	if err := note("netns " + name); err != nil {
		return nil, err
	}
	number, err := n.take()
	if err != nil {
		return nil, err
	}
	network := &podNetwork{name: name, number: number, link: link}
	if network.handle, err = newNamespace(name); err == nil {
		err = network.connect(n)
	}
	if err != nil {
		network.remove(n)
		return nil, err
	}
	return network, nil
}

func newNamespace(name string) (netns.NsHandle, error) {
	made := make(chan error, 1)
	var handle netns.NsHandle
	go func() {
		runtime.LockOSThread()
		var err error
		if handle, err = netns.NewNamed(name); err != nil {
			made <- fmt.Errorf("namespace %s: %w", name, err)
			return
		}
		// Addresses of IPv6 are good for use at once.
		for _, key := range []string{"all/accept_dad", "default/accept_dad", "default/accept_ra", "default/router_solicitations", "all/disable_ipv6", "default/disable_ipv6"} {
			if err = os.WriteFile("/proc/sys/net/ipv6/conf/"+key, []byte("0"), 0); err != nil {
				break
			}
		}
		made <- err
	}()
	err := <-made
	return handle, err
}

func (p *podNetwork) connect(n *node) error {
	podMAC := net.HardwareAddr{0x0a, 0x48, 0x47, 0x04, 0, byte(p.number)}
	cable := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: p.link, HardwareAddr: nodeMAC, MTU: 1500},
		PeerName:         "eth0",
		PeerHardwareAddr: podMAC,
		PeerNamespace:    netlink.NsFd(p.handle),
	}
	if err := n.links.LinkAdd(cable); err != nil {
		return fmt.Errorf("cable %s: %w", p.link, err)
	}
	inside, err := netlink.NewHandleAt(p.handle)
	if err != nil {
		return err
	}
	defer inside.Close()
	outer, err := n.links.LinkByName(p.link)
	if err != nil {
		return err
	}
	inner, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	loopback, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, up := range []error{inside.LinkSetUp(loopback), inside.LinkSetUp(inner), n.links.LinkSetUp(outer)} {
		if up != nil {
			return up
		}
	}
	for _, prefix := range n.PodCIDRs {
		address, router := numbered(prefix, p.number), numbered(prefix, 1)
		if err := addPodAddress(inside, inner, address, router); err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
		if err := addNodeRoute(n.links, outer, address, router, podMAC); err != nil {
			return fmt.Errorf("way to %s: %w", address, err)
		}
		p.addresses = append(p.addresses, address)
	}
	return nil
}

func whole(address netip.Addr) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}
}

func addPodAddress(inside *netlink.Handle, link netlink.Link, address, router netip.Addr) error {
	flags := 0
	if address.Is6() {
		flags = unix.IFA_F_NODAD
	}
	if err := inside.AddrAdd(link, &netlink.Addr{IPNet: whole(address), Flags: flags}); err != nil {
		return err
	}
	index := link.Attrs().Index
	if err := inside.NeighSet(neighbour(index, router, nodeMAC)); err != nil {
		return err
	}
	onLink := &netlink.Route{LinkIndex: index, Dst: whole(router), Scope: netlink.SCOPE_LINK}
	if err := inside.RouteAdd(onLink); err != nil {
		return err
	}
	return inside.RouteAdd(&netlink.Route{LinkIndex: index, Gw: router.AsSlice()})
}

func addNodeRoute(links *netlink.Handle, link netlink.Link, address, router netip.Addr, mac net.HardwareAddr) error {
	index := link.Attrs().Index
	if err := links.NeighSet(neighbour(index, address, mac)); err != nil {
		return err
	}
	// More specific than the node's blackhole of all of its pods' addresses, which is what remains
	// for the address when the pod has gone.
	return links.RouteReplace(&netlink.Route{
		LinkIndex: index, Dst: whole(address), Scope: netlink.SCOPE_LINK, Src: router.AsSlice(),
	})
}

func neighbour(index int, address netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	family := unix.AF_INET
	if address.Is6() {
		family = unix.AF_INET6
	}
	return &netlink.Neigh{
		LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac,
	}
}

// remove takes the cable and the namespace away. Its processes must have ended.
func (p *podNetwork) remove(n *node) {
	if p.number == 0 {
		return
	}
	if link, err := n.links.LinkByName(p.link); err == nil {
		_ = n.links.LinkDel(link)
	}
	if p.handle.IsOpen() && p.handle != 0 {
		_ = p.handle.Close()
	}
	_ = netns.DeleteNamed(p.name)
	n.giveBack(p.number)
}
