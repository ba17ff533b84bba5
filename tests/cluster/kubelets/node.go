package kubelets

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeFile is what stands in NAME.json.
type nodeFile struct {
	// The network namespace, by name.
	Namespace string `json:"namespace"`
	// The InternalIPs, the primary family first.
	Addresses []netip.Addr `json:"addresses"`
	// Where its pods' addresses come from, in the order of the addresses. The first one of each is
	// the node's own.
	PodCIDRs []netip.Prefix    `json:"podCIDRs"`
	Labels   map[string]string `json:"labels"`
	// A stopped kubelet tells nothing and does nothing; its pods run on.
	Stopped bool `json:"stopped"`
}

type node struct {
	name string
	nodeFile
	handle  netns.NsHandle
	links   *netlink.Handle
	stopped atomic.Bool
	// Ends the heartbeats.
	silence context.CancelFunc
	// The file's time of change when it was read last.
	read time.Time

	// Comes last: see pod.
	mutex sync.Mutex
	// Which numbers of the pod CIDRs are taken, and the one given last.
	taken map[int]bool
	last  int
}

func (n *node) runs() bool { return !n.stopped.Load() }

// readNodes takes in what has changed in the folder of nodes.
func (k *kubelets) readNodes(ctx context.Context) {
	entries, err := os.ReadDir(k.options.nodes)
	if err != nil {
		log.Printf("nodes: %v", err)
		return
	}
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), ".json")
		info, err := entry.Info()
		if !found || err != nil {
			continue
		}
		known := k.nodes[name]
		if known != nil && known.read.Equal(info.ModTime()) {
			continue
		}
		if err := k.readNode(ctx, name, info.ModTime()); err != nil {
			log.Printf("node %s: %v", name, err)
		}
	}
}

func (k *kubelets) readNode(ctx context.Context, name string, changed time.Time) error {
	text, err := os.ReadFile(filepath.Join(k.options.nodes, name+".json"))
	if err != nil {
		return err
	}
	var file nodeFile
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	known := k.nodes[name]
	if known == nil {
		if known, err = newNode(name, file); err != nil {
			return err
		}
		known.stopped.Store(true)
	}
	if known.stopped.Load() && !file.Stopped {
		if err := k.register(ctx, known); err != nil {
			return err
		}
		beating, silence := context.WithCancel(ctx)
		known.silence = silence
		go k.heartbeats(beating, known)
	}
	if file.Stopped && known.silence != nil {
		known.silence()
	}
	known.stopped.Store(file.Stopped)
	known.read = changed
	k.nodes[name] = known
	poke(k.wake)
	return nil
}

func newNode(name string, file nodeFile) (*node, error) {
	if len(file.Addresses) == 0 || len(file.Addresses) != len(file.PodCIDRs) {
		return nil, fmt.Errorf("expected as many podCIDRs as addresses, and one at least")
	}
	handle, err := netns.GetFromName(file.Namespace)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", file.Namespace, err)
	}
	links, err := netlink.NewHandleAt(handle)
	if err != nil {
		return nil, err
	}
	return &node{name: name, nodeFile: file, handle: handle, links: links, taken: map[int]bool{}, last: 1}, nil
}

// register makes the Node object, or takes over the one that is there, as a kubelet does when it
// starts.
func (k *kubelets) register(ctx context.Context, n *node) error {
	object := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{
		v1.LabelHostname: n.name, v1.LabelOSStable: "linux", v1.LabelArchStable: "amd64",
	}}}
	for key, value := range n.Labels {
		object.Labels[key] = value
	}
	for _, prefix := range n.PodCIDRs {
		object.Spec.PodCIDRs = append(object.Spec.PodCIDRs, prefix.String())
	}
	object.Spec.PodCIDR = object.Spec.PodCIDRs[0]
	_, err := k.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return err
	}
	return k.reportNode(ctx, n)
}

// reportNode writes a node's status: by an update, since a strategic merge patch of the addresses
// of two families is refused.
func (k *kubelets) reportNode(ctx context.Context, n *node) error {
	object, err := k.client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	status := &object.Status
	status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: n.name}}
	for _, address := range n.Addresses {
		status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address.String()})
	}
	status.Capacity = v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("64"), v1.ResourceMemory: resource.MustParse("64Gi"), v1.ResourcePods: resource.MustParse("250"),
	}
	status.Allocatable = status.Capacity
	status.NodeInfo.KubeletVersion = "v1.36.3"
	now := metav1.Now()
	ready := v1.NodeCondition{
		Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: now, LastTransitionTime: now,
	}
	conditions := []v1.NodeCondition{ready}
	for _, other := range status.Conditions {
		if other.Type != v1.NodeReady {
			conditions = append(conditions, other)
		} else if other.Status == v1.ConditionTrue {
			conditions[0].LastTransitionTime = other.LastTransitionTime
		}
	}
	status.Conditions = conditions
	_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return err
}

// heartbeats renews a node's lease until its kubelet is stopped (the context ends), and says that the node is ready
// where somebody has come to doubt it.
func (k *kubelets) heartbeats(ctx context.Context, n *node) {
	ticker := time.NewTicker(k.heartbeat)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if err := k.renew(ctx, n); err != nil {
			log.Printf("node %s: lease: %v", n.name, err)
		}
		if object, err := k.nodeLister.Get(n.name); err == nil && !isReady(object) {
			if err := k.reportNode(ctx, n); err != nil {
				log.Printf("node %s: status: %v", n.name, err)
			}
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

func isReady(object *v1.Node) bool {
	for _, condition := range object.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

func (k *kubelets) renew(ctx context.Context, n *node) error {
	leases := k.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	seconds := int32(40)
	now := metav1.NowMicro()
	lease, err := leases.Get(ctx, n.name, metav1.GetOptions{})
	if errors.IsNotFound(err) {
		lease = &coordination.Lease{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
		lease.Spec = coordination.LeaseSpec{HolderIdentity: &n.name, LeaseDurationSeconds: &seconds, RenewTime: &now}
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

// take gives a number of the pod CIDRs that is free: the next one, so that an address comes back
// as late as can be.
func (n *node) take() (int, error) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	for range 250 {
		n.last++
		if n.last > 251 {
			n.last = 2
		}
		if !n.taken[n.last] {
			n.taken[n.last] = true
			return n.last, nil
		}
	}
	return 0, fmt.Errorf("node %s has no address left", n.name)
}

func (n *node) giveBack(number int) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	delete(n.taken, number)
}

// numbered is the address of this number in a prefix.
func numbered(prefix netip.Prefix, number int) netip.Addr {
	bytes := prefix.Masked().Addr().AsSlice()
	bytes[len(bytes)-1] += byte(number)
	address, _ := netip.AddrFromSlice(bytes)
	return address
}
