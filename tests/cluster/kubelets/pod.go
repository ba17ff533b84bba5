package kubelets

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod keeps one pod: it makes its namespace and processes, tells its status, and ends it.
//
// Locks are taken in one order: a pod's, then a container's, since a status is put together from
// both. Who holds a container's mutex asks its pod nothing (latest, isStopping, graceLeft). A
// node's mutex and that of the record come last: who holds one of them takes no other.
type pod struct {
	*kubelets
	node *node
	// Its folder: what its processes find as $POD_DIR, and where they are.
	dir     string
	started metav1.Time
	// The keeper's own, and nobody else's before it has ended.
	network *podNetwork
	// Holds a word where there is something to look at.
	wake chan struct{}
	// Closed when the object has gone.
	gone chan struct{}

	mutex      sync.Mutex
	object     *v1.Pod
	containers []*container
	// Why there is no network yet.
	trouble string
	// Since when it is being ended.
	stopping time.Time
}

func newPod(k *kubelets, node *node, object *v1.Pod) *pod {
	return &pod{
		kubelets: k,
		node:     node,
		dir:      filepath.Join(k.options.pods, object.Namespace+"."+object.Name),
		started:  now(),
		wake:     make(chan struct{}, 1),
		gone:     make(chan struct{}),
		object:   object,
	}
}

func (p *pod) tell(object *v1.Pod) {
	p.mutex.Lock()
	p.object = object
	p.mutex.Unlock()
	poke(p.wake)
}

func (p *pod) latest() *v1.Pod {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.object
}

// keep runs from the first word of a pod until its object has gone.
func (p *pod) keep(ctx context.Context) {
	poke(p.wake)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.gone:
			// Deleted with no grace: the object went first.
			p.kill()
			p.removeNetwork()
			return
		case <-p.wake:
		}
		if !p.node.runs() {
			continue
		}
		object := p.latest()
		leaving := object.DeletionTimestamp != nil
		if p.network == nil && !leaving {
			p.begin(object)
		}
		if leaving && !p.isStopping() {
			p.stop()
		}
		if err := p.report(ctx); err != nil && !errors.IsNotFound(err) {
			log.Printf("%s: status: %v", p.dir, err)
			time.AfterFunc(200*time.Millisecond, func() { poke(p.wake) })
			continue
		}
		if leaving && p.allEnded() {
			p.removeNetwork()
			if err := p.deleteObject(ctx, object); err != nil {
				log.Printf("%s: deletion: %v", p.dir, err)
				time.AfterFunc(200*time.Millisecond, func() { poke(p.wake) })
			}
		}
	}
}

// begin makes the namespace and starts the containers.
func (p *pod) begin(object *v1.Pod) {
	err := os.MkdirAll(p.dir, 0o755)
	if err == nil && object.Spec.HostNetwork {
		p.network = &podNetwork{handle: p.node.handle, addresses: p.node.Addresses}
	} else if err == nil {
		p.network, err = p.makeNetwork(object)
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err != nil {
		p.trouble = err.Error()
		log.Printf("%s: network: %v", p.dir, err)
		time.AfterFunc(time.Second, func() { poke(p.wake) })
		return
	}
	p.trouble = ""
	for index := range object.Spec.Containers {
		container := newContainer(p, &object.Spec.Containers[index])
		p.containers = append(p.containers, container)
		go container.keep()
	}
}

// makeNetwork waits for a namespace of the same name to go: a pod that was deleted with no grace
// leaves its name to the next one at once.
func (p *pod) makeNetwork(object *v1.Pod) (*podNetwork, error) {
	name := object.Name
	if object.Namespace != v1.NamespaceDefault {
		name = object.Namespace + "." + name
	}
	name = fmt.Sprintf("hg-%.200s-%s", name, p.tag)
	if _, err := os.Stat("/run/netns/" + name); err == nil {
		return nil, fmt.Errorf("namespace %s is still there", name)
	}
	return makeNetwork(p.node, name, "pod"+string(object.UID)[:8], p.note)
}

// stop begins the end of every container.
func (p *pod) stop() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.stopping = time.Now()
	for _, container := range p.containers {
		go container.stop()
	}
}

// graceLeft is the time until the processes are killed. It can be cut short meanwhile.
func (p *pod) graceLeft() time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	seconds := int64(30)
	if grace := p.object.DeletionGracePeriodSeconds; grace != nil {
		seconds = *grace
	}
	return time.Until(p.stopping.Add(time.Duration(seconds) * time.Second))
}

func (p *pod) isStopping() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return !p.stopping.IsZero()
}

func (p *pod) allEnded() bool {
	p.mutex.Lock()
	containers := p.containers
	p.mutex.Unlock()
	for _, container := range containers {
		if !container.hasEnded() {
			return false
		}
	}
	return true
}

// kill ends all processes at once.
func (p *pod) kill() {
	p.mutex.Lock()
	if p.stopping.IsZero() {
		p.stopping = time.Now()
	}
	containers := p.containers
	p.mutex.Unlock()
	for _, container := range containers {
		container.kill()
	}
}

func (p *pod) removeNetwork() {
	if p.network != nil {
		p.network.remove(p.node)
		p.network = nil
	}
}

func (p *pod) deleteObject(ctx context.Context, object *v1.Pod) error {
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(object.UID))
	err := p.client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, *options)
	if errors.IsNotFound(err) || errors.IsConflict(err) {
		return nil
	}
	return err
}
