package kubelets

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probe finds out whether the container is ready, until the context ends. Without a readiness
// probe it is so once it listens on its TCP ports, and where it names none at once.
func (c *container) probe(ctx context.Context) {
	probe := c.spec.ReadinessProbe
	if probe == nil {
		for !c.listens(ctx) {
			if !pause(ctx, 10*time.Millisecond) {
				return
			}
		}
		c.setReady(ctx, true)
		return
	}
	if !pause(ctx, time.Duration(probe.InitialDelaySeconds)*time.Second) {
		return
	}
	var good, bad int32
	for {
		if err := c.ask(ctx, probe); err == nil {
			good, bad = good+1, 0
		} else {
			good, bad = 0, bad+1
		}
		if good >= probe.SuccessThreshold && good > 0 {
			c.setReady(ctx, true)
		}
		if bad >= probe.FailureThreshold {
			c.setReady(ctx, false)
		}
		if !pause(ctx, time.Duration(max(probe.PeriodSeconds, 1))*time.Second) {
			return
		}
		for !c.pod.node.runs() {
			if !pause(ctx, tick) {
				return
			}
		}
	}
}

// pause is false where the context has ended.
func pause(ctx context.Context, length time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(length):
		return true
	}
}

func (c *container) setReady(ctx context.Context, ready bool) {
	c.mutex.Lock()
	changed := c.ready != ready && ctx.Err() == nil
	if changed {
		c.ready = ready
	}
	c.mutex.Unlock()
	if changed {
		poke(c.pod.wake)
	}
}

func (c *container) listens(ctx context.Context) bool {
	for _, port := range c.spec.Ports {
		if port.Protocol != v1.ProtocolTCP {
			continue
		}
		for _, address := range c.network.addresses {
			target := net.JoinHostPort(address.String(), strconv.Itoa(int(port.ContainerPort)))
			if c.connect(ctx, target) != nil {
				return false
			}
		}
	}
	return true
}

func (c *container) ask(ctx context.Context, probe *v1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(probe.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return c.get(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		target, err := c.target(probe.TCPSocket.Host, probe.TCPSocket.Port)
		if err != nil {
			return err
		}
		return c.connect(ctx, target)
	case probe.Exec != nil:
		return c.execute(ctx, probe.Exec.Command)
	}
	return fmt.Errorf("a probe of a kind that isn't known here")
}

// target is a port's number or name at the pod's address, or that of another host.
func (c *container) target(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.network.addresses[0].String()
	}
	number := port.IntValue()
	if port.Type == intstr.String {
		for _, named := range c.spec.Ports {
			if named.Name == port.StrVal {
				number = int(named.ContainerPort)
			}
		}
	}
	if number == 0 {
		return "", fmt.Errorf("no port %s", port.String())
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

func (c *container) get(ctx context.Context, action *v1.HTTPGetAction) error {
	target, err := c.target(action.Host, action.Port)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+action.Path, nil)
	if err != nil {
		return err
	}
	for _, header := range action.HTTPHeaders {
		request.Header.Set(header.Name, header.Value)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.dial}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("status %s", answer.Status)
	}
	return nil
}

func (c *container) connect(ctx context.Context, target string) error {
	connection, err := c.dial(ctx, "tcp", target)
	if err != nil {
		return err
	}
	return connection.Close()
}

// dial connects from the node, as a kubelet's probes do.
func (c *container) dial(ctx context.Context, protocol, target string) (net.Conn, error) {
	var connection net.Conn
	err := within(c.pod.node.handle, func() error {
		var err error
		connection, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, protocol, target)
		return err
	})
	return connection, err
}
