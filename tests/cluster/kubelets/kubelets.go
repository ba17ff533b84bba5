// Package kubelets plays the kubelets of a cluster, and its scheduler. A node is a network
// namespace that somebody else has made; a pod is a network namespace with its real processes.
package kubelets

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// How often the folder of nodes is read.
const tick = 100 * time.Millisecond

type options struct {
	kubeconfig string
	// Folder with a file NAME.json for each node.
	nodes string
	// Folder for the pods' files: one each, NAMESPACE.NAME.
	pods string
	// What the names of namespaces end in.
	tag string
	// File in which the rig records what it has to remove.
	record string
	// How often a node's lease is renewed.
	heartbeat time.Duration
}

// kubelets is all of them together.
type kubelets struct {
	options
	client     kubernetes.Interface
	podLister  corelisters.PodLister
	nodeLister corelisters.NodeLister
	// Says that something has changed. Holds one such word at most.
	wake chan struct{}
	// By name. Only the main loop changes it and what follows.
	nodes map[string]*node
	pods  map[types.UID]*pod
	// Pods that were bound, with their nodes: the informer knows it a moment later.
	bound map[types.UID]string
	// The keepers of all pods that there were.
	keepers sync.WaitGroup

	recording sync.Mutex
}

// Run is the role: it ends at SIGTERM, and its pods with it.
func Run() error {
	log.SetFlags(log.Lmicroseconds)
	var o options
	flags := flag.NewFlagSet("kubelets", flag.ExitOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server")
	flags.StringVar(&o.nodes, "nodes", "", "folder with a file NAME.json for each node")
	flags.StringVar(&o.pods, "pods", "", "folder for the pods' files")
	flags.StringVar(&o.tag, "tag", "hand", "what the names of the pods' namespaces end in")
	flags.StringVar(&o.record, "record", "", "file to which what must be removed is appended")
	flags.DurationVar(&o.heartbeat, "heartbeat", 2*time.Second, "how often a node's lease is renewed")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	if o.nodes == "" || o.pods == "" {
		return fmt.Errorf("--nodes and --pods name folders")
	}
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 1000, 2000
	config.UserAgent = "kubelets"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	k := &kubelets{
		options: o,
		client:  client,
		wake:    make(chan struct{}, 1),
		nodes:   map[string]*node{},
		pods:    map[types.UID]*pod{},
		bound:   map[types.UID]string{},
	}
	if err := k.watch(ctx); err != nil {
		return err
	}
	k.loop(ctx)
	k.end()
	return nil
}

func (k *kubelets) watch(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	k.podLister = factory.Core().V1().Pods().Lister()
	k.nodeLister = factory.Core().V1().Nodes().Lister()
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke(k.wake) },
		UpdateFunc: func(any, any) { poke(k.wake) },
		DeleteFunc: func(any) { poke(k.wake) },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Pods().Informer(), factory.Core().V1().Nodes().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced && ctx.Err() == nil {
			return fmt.Errorf("cannot list %v", kind)
		}
	}
	return nil
}

// poke leaves a word in a channel that has room for one.
func poke(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}

func (k *kubelets) loop(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.readNodes(ctx)
			continue
		case <-k.wake:
		}
		pods, err := k.podLister.List(labels.Everything())
		if err != nil {
			log.Printf("listing pods: %v", err)
			continue
		}
		k.schedule(ctx, pods)
		k.dispatch(ctx, pods)
	}
}

// dispatch tells each pod's keeper the latest of its object. A keeper begins with the first word
// of a pod on one of our nodes, and ends with its object.
func (k *kubelets) dispatch(ctx context.Context, pods []*v1.Pod) {
	present := make(map[types.UID]bool, len(pods))
	for _, object := range pods {
		present[object.UID] = true
		node := k.nodes[object.Spec.NodeName]
		if node == nil || !node.runs() {
			continue
		}
		keeper := k.pods[object.UID]
		if keeper == nil {
			if object.Status.Phase == v1.PodSucceeded || object.Status.Phase == v1.PodFailed {
				continue
			}
			keeper = newPod(k, node, object)
			k.pods[object.UID] = keeper
			k.keepers.Go(func() { keeper.keep(ctx) })
		}
		keeper.tell(object)
	}
	for uid, keeper := range k.pods {
		if !present[uid] && keeper.node.runs() {
			close(keeper.gone)
			delete(k.pods, uid)
		}
	}
	for uid := range k.bound {
		if !present[uid] {
			delete(k.bound, uid)
		}
	}
}

// end kills all pods and removes their namespaces, once their keepers have seen that the context has
// ended. The API server may be gone already.
func (k *kubelets) end() {
	k.keepers.Wait()
	var all sync.WaitGroup
	for _, keeper := range k.pods {
		all.Go(func() {
			keeper.kill()
			keeper.removeNetwork()
		})
	}
	all.Wait()
}

// note records something for the rig to remove, should this process have no time for it.
func (k *kubelets) note(line string) error {
	if k.record == "" {
		return nil
	}
	k.recording.Lock()
	defer k.recording.Unlock()
	file, err := os.OpenFile(k.record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintln(file, line)
	return err
}
