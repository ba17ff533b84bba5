// Package oracle asks the real kube-proxy. It runs the nftables proxier of Kubernetes for both
// families in a network namespace of its own, tells it of objects, reads back the ruleset that it
// wrote into the kernel, and says what that ruleset does with a packet.
//
// It reads a line of JSON for each step from standard input (type step) and writes a line of JSON
// for each to standard output (type told).
package oracle

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
)

// step is what happens before the questions are asked.
type step struct {
	// Topology is the labels of the node that kube-proxy runs on; unset leaves them as they are.
	Topology map[string]string `json:"topology"`
	// Apply holds Services and EndpointSlices that are new or differ.
	Apply []json.RawMessage `json:"apply"`
	// Delete names objects that have gone.
	Delete []reference `json:"delete"`
	// Ask holds the packets to ask about.
	Ask []packet `json:"ask"`
}

type reference struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// packet is the first one of a connection.
type packet struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Protocol    string `json:"protocol"`
	Port        uint16 `json:"port"`
	// Inside is set for a packet that a process of the node itself sends: under the policy Local
	// those go to the endpoints of the policy Cluster.
	Inside bool `json:"inside"`
}

// answer is what becomes of a packet.
type answer struct {
	// Verdict is backends, reject, drop, or none where kube-proxy lets it pass.
	Verdict string `json:"verdict"`
	// Backends holds ADDRESS:PORT of each backend that it may be sent to, sorted.
	Backends []string `json:"backends,omitempty"`
	// AffinityS is how long a client stays with its backend, 0 without affinity.
	AffinityS int `json:"affinity_s,omitempty"`
}

// told is the answer to a step.
type told struct {
	Answers []answer `json:"answers"`
	// Error says what went wrong: no answer can be trusted then.
	Error string `json:"error,omitempty"`
}

// Run answers until standard input ends.
func Run() error {
	node := flag.String("node", "gateway", "name of the node that kube-proxy runs on")
	ips := flag.String("ips", "192.0.2.1,2001:db8:f::1", "its addresses, IPv4 and IPv6")
	flag.Parse()
	v4, v6, found := strings.Cut(*ips, ",")
	if !found {
		return fmt.Errorf("--ips=%q: expected an IPv4 and an IPv6 address", *ips)
	}
	if err := isolate(v4+"/32", v6+"/128"); err != nil {
		return err
	}
	one, err := newNode(*node, v4, v6)
	if err != nil {
		return err
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for {
		var next step
		if err := in.Decode(&next); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		if err := out.Encode(one.take(next)); err != nil {
			return err
		}
	}
}

// isolate moves this goroutine, and every program that it starts, into a new network namespace
// with these addresses. The namespace goes with the process.
func isolate(addresses ...string) error {
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("a network namespace: %w (it takes root)", err)
	}
	commands := [][]string{{"link", "set", "lo", "up"}}
	for _, address := range addresses {
		commands = append(commands, []string{"address", "add", address, "dev", "lo", "nodad"})
	}
	for _, command := range commands {
		if said, err := exec.Command("ip", command...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(command, " "), err, said)
		}
	}
	return nil
}
