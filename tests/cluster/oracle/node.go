package oracle

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/proxy"
	"k8s.io/kubernetes/pkg/proxy/apis"
	"k8s.io/kubernetes/pkg/proxy/nftables"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
)

// node is the kube-proxy of one node, with what it has been told.
type node struct {
	proxier  proxy.Provider
	services map[string]*v1.Service
	slices   map[string]*discovery.EndpointSlice
	log      *bytes.Buffer
}

func newNode(name, v4, v6 string) (*node, error) {
	one := &node{
		services: map[string]*v1.Service{},
		slices:   map[string]*discovery.EndpointSlice{},
		log:      &bytes.Buffer{},
	}
	if err := logTo(one.log); err != nil {
		return nil, err
	}
	nowhere := proxyutil.NewNoOpLocalDetector()
	detectors := map[v1.IPFamily]proxyutil.LocalTrafficDetector{
		v1.IPv4Protocol: nowhere, v1.IPv6Protocol: nowhere,
	}
	addresses := map[v1.IPFamily]net.IP{
		v1.IPv4Protocol: net.ParseIP(v4), v1.IPv6Protocol: net.ParseIP(v6),
	}
	// Rules are written when a step says so: the loop that writes them in the background isn't run.
	proxier, err := nftables.NewDualStackProxier(context.Background(), time.Hour, time.Second,
		false, 14, detectors, name, addresses, &events.FakeRecorder{}, nil,
		[]string{v4 + "/32", v6 + "/128"}, false)
	if err != nil {
		return nil, err
	}
	one.proxier = proxier
	proxier.OnEndpointSlicesSynced()
	// The first sync makes the table, after a complaint that there is none.
	proxier.OnServiceSynced()
	return one, nil
}

// logTo sends what kube-proxy logs to a buffer, each line once.
func logTo(buffer *bytes.Buffer) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	klog.SetOutput(buffer)
	wanted := []string{"--logtostderr=false", "--stderrthreshold=FATAL", "--one_output=true"}
	return flags.Parse(wanted)
}

// take makes the step and answers its questions.
func (n *node) take(next step) told {
	n.log.Reset()
	if next.Topology != nil {
		n.proxier.OnTopologyChange(next.Topology)
	}
	for _, gone := range next.Delete {
		n.remove(gone)
	}
	for _, object := range next.Apply {
		if err := n.apply(object); err != nil {
			return told{Error: err.Error()}
		}
	}
	// Writes the rules at once, on this thread.
	n.proxier.OnServiceSynced()
	klog.Flush()
	if failed := failures(n.log.String()); failed != "" {
		return told{Error: failed}
	}
	rules, err := readBack()
	if err != nil {
		return told{Error: err.Error()}
	}
	answers := make([]answer, 0, len(next.Ask))
	for _, question := range next.Ask {
		one, err := rules.ask(question)
		if err != nil {
			return told{Error: fmt.Sprintf("%+v: %v", question, err)}
		}
		answers = append(answers, one)
	}
	return told{Answers: answers}
}

// Complaints about objects that tests give on purpose: no port for health checks, ports of slices
// without a number, slices of no Service or of names.
var expected = []string{
	"no healthcheck nodeport", "Ignoring port with nil", "Ignoring invalid endpoint port",
	"Error getting endpoint slice cache keys", "address type not supported",
}

// failures are the lines that kube-proxy logged as errors.
func failures(log string) string {
	var failed []string
	for line := range strings.Lines(log) {
		named := func(part string) bool { return strings.Contains(line, part) }
		if strings.HasPrefix(line, "E") && !slices.ContainsFunc(expected, named) {
			failed = append(failed, line)
		}
	}
	return strings.Join(failed, "")
}

func key(object metav1.ObjectMeta) string {
	return object.Namespace + "/" + object.Name
}

// apply tells of one object as kube-proxy's informers would: their selectors leave out Services
// of another proxy and slices of headless Services.
func (n *node) apply(raw json.RawMessage) error {
	var kind metav1.TypeMeta
	if err := json.Unmarshal(raw, &kind); err != nil {
		return err
	}
	switch kind.Kind {
	case "Service":
		var service v1.Service
		if err := json.Unmarshal(raw, &service); err != nil {
			return err
		}
		name := key(service.ObjectMeta)
		if _, others := service.Labels[apis.LabelServiceProxyName]; others {
			n.removeService(name)
			return nil
		}
		if old := n.services[name]; old != nil {
			n.proxier.OnServiceUpdate(old, &service)
		} else {
			n.proxier.OnServiceAdd(&service)
		}
		n.services[name] = &service
	case "EndpointSlice":
		var slice discovery.EndpointSlice
		if err := json.Unmarshal(raw, &slice); err != nil {
			return err
		}
		name := key(slice.ObjectMeta)
		if _, headless := slice.Labels[v1.IsHeadlessService]; headless {
			n.removeSlice(name)
			return nil
		}
		n.setSlice(name, &slice)
	default:
		return fmt.Errorf("kube-proxy isn't told of kind %q", kind.Kind)
	}
	return nil
}

func (n *node) setSlice(name string, slice *discovery.EndpointSlice) {
	old := n.slices[name]
	n.slices[name] = slice
	switch {
	case old == nil:
		n.proxier.OnEndpointSliceAdd(slice)
	case old.AddressType != slice.AddressType,
		old.Labels[discovery.LabelServiceName] != slice.Labels[discovery.LabelServiceName]:
		// Deleted and created anew; or it leaves the Service that the tracker keeps it under.
		n.proxier.OnEndpointSliceDelete(old)
		n.proxier.OnEndpointSliceAdd(slice)
	default:
		n.proxier.OnEndpointSliceUpdate(old, slice)
	}
}

func (n *node) remove(gone reference) {
	name := gone.Namespace + "/" + gone.Name
	if gone.Kind == "Service" {
		n.removeService(name)
	} else {
		n.removeSlice(name)
	}
}

func (n *node) removeService(name string) {
	if old := n.services[name]; old != nil {
		delete(n.services, name)
		n.proxier.OnServiceDelete(old)
	}
}

func (n *node) removeSlice(name string) {
	if old := n.slices[name]; old != nil {
		delete(n.slices, name)
		n.proxier.OnEndpointSliceDelete(old)
	}
}
