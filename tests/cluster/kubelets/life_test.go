package kubelets

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

const (
	// Rounds, and pods in each.
	rounds       = 5
	podsPerRound = 60
	// Time that each step gets, and far more than it needs.
	patience = 60 * time.Second
)

// What containers do: they end at once, again and again, when they are asked to, or not even then.
// Each ends by itself in the end, should the test be killed.
var scripts = []string{"exit 0", "exit 3", "sleep 0.01; exit 1", "exec sleep 300", "trap '' TERM; exec sleep 300"}

// Hundreds of pods whose containers begin, end and are ended while each pod's keeper tells its
// status without rest. None may stand still, and no process may outlive its pod.
func TestPodsComeAndGo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	k, here := testKubelets(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for round := range rounds {
		objects := make([]*v1.Pod, 0, podsPerRound)
		for index := range podsPerRound {
			objects = append(objects, testPod(round, index, here.name))
		}
		k.dispatch(ctx, objects)
		keepers := make([]*pod, 0, podsPerRound)
		for _, object := range objects {
			keepers = append(keepers, k.pods[object.UID])
		}
		quiet := unrest(keepers)
		step(t, "containers begin", func() bool { return all(keepers, begun) })
		// Two of three are asked to go, with a second of grace or none; the rest goes at once.
		for index, object := range objects {
			objects[index] = leaving(object, int64(index%3))
		}
		k.dispatch(ctx, objects)
		step(t, "containers end", func() bool {
			return all(keepers, func(p *pod) bool { return p.latest().DeletionTimestamp == nil || p.allEnded() })
		})
		k.dispatch(ctx, nil)
		step(t, "all is over", func() bool { return all(keepers, (*pod).allEnded) })
		quiet()
	}
	// Some are in the middle of their lives when the program ends.
	last := make([]*v1.Pod, 0, podsPerRound)
	for index := range podsPerRound {
		last = append(last, testPod(rounds, index, here.name))
	}
	k.dispatch(ctx, last)
	keepers := make([]*pod, 0, podsPerRound)
	for _, object := range last {
		keepers = append(keepers, k.pods[object.UID])
	}
	cancel()
	k.end()
	if !all(keepers, (*pod).allEnded) {
		t.Fatal("a process has outlived the program's end")
	}
}

// testKubelets has one node, which is where this very process is: its pods have hostNetwork. The
// API server knows none of them, so that every status is written anew.
func testKubelets(t *testing.T) (*kubelets, *node) {
	handle, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	here := &node{name: "here", handle: handle, taken: map[int]bool{}, last: 1}
	here.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	k := &kubelets{
		options: options{pods: t.TempDir(), tag: "test"},
		client:  fake.NewClientset(),
		wake:    make(chan struct{}, 1),
		nodes:   map[string]*node{here.name: here},
		pods:    map[types.UID]*pod{},
		bound:   map[types.UID]string{},
	}
	return k, here
}

func testPod(round, index int, node string) *v1.Pod {
	name := fmt.Sprintf("pod-%d-%d", round, index)
	policies := []v1.RestartPolicy{v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever}
	object := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec:       v1.PodSpec{NodeName: node, HostNetwork: true, RestartPolicy: policies[index%len(policies)]},
	}
	for number := range 2 {
		script := scripts[(index+3*number)%len(scripts)]
		object.Spec.Containers = append(object.Spec.Containers, v1.Container{
			Name: fmt.Sprintf("c%d", number), Command: []string{"sh", "-c", script},
		})
	}
	return object
}

// leaving is the pod as the API server has it once it is deleted; with two or more it stays as it is.
func leaving(object *v1.Pod, grace int64) *v1.Pod {
	if grace >= 2 {
		return object
	}
	object = object.DeepCopy()
	deleted := metav1.Now()
	object.DeletionTimestamp, object.DeletionGracePeriodSeconds = &deleted, &grace
	return object
}

// unrest makes every keeper look at its pod without rest, until the answer is called.
func unrest(keepers []*pod) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			for _, keeper := range keepers {
				keeper.tell(keeper.latest())
			}
			time.Sleep(time.Millisecond)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

func begun(p *pod) bool {
	p.mutex.Lock()
	containers := p.containers
	p.mutex.Unlock()
	for _, container := range containers {
		container.mutex.Lock()
		waits := container.command == nil && container.ended == nil
		container.mutex.Unlock()
		if waits {
			return false
		}
	}
	return len(containers) > 0
}

func all(keepers []*pod, is func(*pod) bool) bool {
	for _, keeper := range keepers {
		if !is(keeper) {
			return false
		}
	}
	return true
}

// step waits until something is so. Where a lock is never given back it doesn't return: then the
// time limit of `go test` ends it, with the stacks of all goroutines.
func step(t *testing.T, what string, is func() bool) {
	t.Helper()
	for begun := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
