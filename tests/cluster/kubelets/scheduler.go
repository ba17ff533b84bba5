package kubelets

import (
	"context"
	"log"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// schedule binds each pod that waits to the node with the fewest pods, of those that its node
// selector, its affinity to nodes and its tolerations allow.
func (k *kubelets) schedule(ctx context.Context, pods []*v1.Pod) {
	counts := map[string]int{}
	var waiting []*v1.Pod
	for _, pod := range pods {
		name := pod.Spec.NodeName
		if name == "" {
			name = k.bound[pod.UID]
		}
		if name != "" {
			counts[name]++
		} else if pod.DeletionTimestamp == nil {
			waiting = append(waiting, pod)
		}
	}
	if len(waiting) == 0 {
		return
	}
	nodes, err := k.nodeLister.List(labels.Everything())
	if err != nil {
		log.Printf("listing nodes: %v", err)
		return
	}
	slices.SortFunc(waiting, func(a, b *v1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, pod := range waiting {
		best := ""
		for _, node := range nodes {
			if !mayRun(pod, node) || k.nodes[node.Name] == nil {
				continue
			}
			fewer := counts[node.Name] < counts[best] || counts[node.Name] == counts[best] && node.Name < best
			if best == "" || fewer {
				best = node.Name
			}
		}
		if best == "" {
			continue
		}
		binding := &v1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
			Target:     v1.ObjectReference{Kind: "Node", Name: best},
		}
		if err := k.client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
			log.Printf("binding %s/%s to %s: %v", pod.Namespace, pod.Name, best, err)
			time.AfterFunc(200*time.Millisecond, func() { poke(k.wake) })
			continue
		}
		counts[best]++
		k.bound[pod.UID] = best
	}
}

func mayRun(pod *v1.Pod, node *v1.Node) bool {
	if node.DeletionTimestamp != nil || !isReady(node) {
		return false
	}
	if match, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !match {
		return false
	}
	keepsAway := func(taint *v1.Taint) bool { return taint.Effect != v1.TaintEffectPreferNoSchedule }
	_, kept := helpers.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, pod.Spec.Tolerations, keepsAway, false)
	return !kept
}
