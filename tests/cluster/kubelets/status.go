package kubelets

import (
	"context"
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// report writes the pod's status where the API server has another. It is a patch, as a kubelet's:
// conditions that are somebody else's stay.
func (p *pod) report(ctx context.Context) error {
	object := p.latest()
	status := p.status(object)
	if equality.Semantic.DeepEqual(object.Status, *status) {
		return nil
	}
	before, err := json.Marshal(v1.Pod{Status: object.Status})
	if err != nil {
		return err
	}
	// The UID makes sure that it is still the same pod.
	after, err := json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: object.UID}, Status: *status})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return err
	}
	_, err = p.client.CoreV1().Pods(object.Namespace).Patch(
		ctx, object.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

func (p *pod) status(object *v1.Pod) *v1.PodStatus {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	status := object.Status.DeepCopy()
	status.StartTime = &p.started
	if old := object.Status.StartTime; old != nil {
		status.StartTime = old
	}
	status.HostIP = p.node.Addresses[0].String()
	status.HostIPs, status.Message, status.Reason = nil, p.trouble, ""
	for _, address := range p.node.Addresses {
		status.HostIPs = append(status.HostIPs, v1.HostIP{IP: address.String()})
	}
	if p.network != nil {
		status.PodIP = p.network.addresses[0].String()
		status.PodIPs = nil
		for _, address := range p.network.addresses {
			status.PodIPs = append(status.PodIPs, v1.PodIP{IP: address.String()})
		}
	}
	if len(p.containers) > 0 {
		status.ContainerStatuses = nil
	}
	for _, container := range p.containers {
		status.ContainerStatuses = append(status.ContainerStatuses, container.status())
	}
	status.Phase = phase(object.Spec.RestartPolicy, len(object.Spec.Containers), status.ContainerStatuses, !p.stopping.IsZero())
	p.setConditions(object, status)
	return status
}

func phase(policy v1.RestartPolicy, containers int, statuses []v1.ContainerStatus, stopping bool) v1.PodPhase {
	var started, ended, failed int
	for _, status := range statuses {
		if status.State.Terminated != nil {
			ended++
			if status.State.Terminated.ExitCode != 0 {
				failed++
			}
		}
		if status.State.Terminated != nil || status.State.Running != nil || status.RestartCount > 0 {
			started++
		}
	}
	restarts := policy == v1.RestartPolicyAlways || policy == v1.RestartPolicyOnFailure && failed > 0
	switch {
	case started < containers:
		return v1.PodPending
	case ended < containers || restarts && !stopping:
		return v1.PodRunning
	case failed > 0:
		return v1.PodFailed
	}
	return v1.PodSucceeded
}

func (p *pod) setConditions(object *v1.Pod, status *v1.PodStatus) {
	running, allReady := 0, len(status.ContainerStatuses) == len(object.Spec.Containers)
	for _, container := range status.ContainerStatuses {
		if container.State.Running != nil {
			running++
		}
		allReady = allReady && container.Ready
	}
	reason := "ContainersNotReady"
	if status.Phase == v1.PodSucceeded {
		reason = "PodCompleted"
	}
	setCondition(status, v1.PodReadyToStartContainers, p.network != nil, "")
	setCondition(status, v1.PodInitialized, true, "")
	setCondition(status, v1.ContainersReady, allReady, reason)
	ready := allReady
	for _, gate := range object.Spec.ReadinessGates {
		if !isTrue(status, gate.ConditionType) {
			ready, reason = false, "ReadinessGatesNotReady"
		}
	}
	setCondition(status, v1.PodReady, ready, reason)
}

func isTrue(status *v1.PodStatus, kind v1.PodConditionType) bool {
	for _, condition := range status.Conditions {
		if condition.Type == kind {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

// setCondition gives a reason where the condition is false.
func setCondition(status *v1.PodStatus, kind v1.PodConditionType, value bool, reason string) {
	condition := v1.PodCondition{Type: kind, Status: v1.ConditionFalse, Reason: reason, LastTransitionTime: now()}
	if value {
		condition.Status, condition.Reason = v1.ConditionTrue, ""
	}
	for index, old := range status.Conditions {
		if old.Type != kind {
			continue
		}
		condition.ObservedGeneration = old.ObservedGeneration
		if old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		status.Conditions[index] = condition
		return
	}
	status.Conditions = append(status.Conditions, condition)
}

func (c *container) status() v1.ContainerStatus {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	started := c.command != nil
	status := v1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image,
		Ready: c.ready, Started: &started, RestartCount: c.restarts,
	}
	status.LastTerminationState.Terminated = c.last
	switch {
	case c.command != nil:
		status.ContainerID = fmt.Sprintf("process://%d", c.command.Process.Pid)
		status.State.Running = &v1.ContainerStateRunning{StartedAt: c.since}
	case c.ended != nil:
		status.State.Terminated = c.ended
	default:
		status.State.Waiting = c.waiting
	}
	return status
}

// now is in whole seconds, as the API server keeps it.
func now() metav1.Time {
	return metav1.Now().Rfc3339Copy()
}
