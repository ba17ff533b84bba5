package kubelets

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// container keeps one container: a process in the pod's namespace, started again when it ends
// where the pod's restartPolicy says so.
type container struct {
	pod     *pod
	spec    *v1.Container
	network *podNetwork

	// Comes after the pod's: see there.
	mutex   sync.Mutex
	command *exec.Cmd
	// By the probe, or because it listens.
	ready    bool
	since    metav1.Time
	restarts int32
	// Why it doesn't run: one of them.
	waiting *v1.ContainerStateWaiting
	ended   *v1.ContainerStateTerminated
	// How the process before this one ended.
	last *v1.ContainerStateTerminated
	// It was told to end: nothing is started from then on.
	ending bool
	// Nothing will be started again, and nothing runs.
	over bool
}

func newContainer(p *pod, spec *v1.Container) *container {
	return &container{pod: p, spec: spec, network: p.network, waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}}
}

// keep starts the process as often as it is to be started.
func (c *container) keep() {
	defer poke(c.pod.wake)
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		code, err := c.runOnce()
		// The pod is asked before the lock is taken.
		policy := c.pod.latest().Spec.RestartPolicy
		again := policy == v1.RestartPolicyAlways || policy == v1.RestartPolicyOnFailure && code != 0
		over := c.pod.isStopping() || err == nil && !again
		started := err == nil
		c.mutex.Lock()
		c.over = over
		c.mutex.Unlock()
		poke(c.pod.wake)
		if over {
			return
		}
		for waited := time.Duration(0); waited < pause && !c.pod.isStopping(); waited += 20 * time.Millisecond {
			time.Sleep(20 * time.Millisecond)
		}
		if c.pod.isStopping() {
			c.mutex.Lock()
			c.over = true
			c.mutex.Unlock()
			return
		}
		if started {
			c.mutex.Lock()
			c.restarts++
			c.mutex.Unlock()
		}
	}
}

// runOnce starts the process and waits for its end; gives its exit code.
func (c *container) runOnce() (int, error) {
	command, err := c.prepare()
	if err != nil {
		c.wait("ErrImagePull", err)
		return 0, err
	}
	if err := c.start(command); err != nil {
		c.wait("RunContainerError", err)
		return 0, err
	}
	if err := c.pod.note(fmt.Sprintf("process %d %d", command.Process.Pid, startOf(command.Process.Pid))); err != nil {
		// What nobody would remove mustn't run.
		log.Printf("%s: recording its process: %v", c.pod.dir, err)
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	}
	poke(c.pod.wake)
	ctx, cancel := context.WithCancel(context.Background())
	go c.probe(ctx)
	err = command.Wait()
	cancel()
	code := command.ProcessState.ExitCode()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	// What it has left in its group ends with it.
	_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	c.command, c.ready = nil, false
	reason := "Completed"
	if err != nil {
		reason = "Error"
	}
	c.ended = &v1.ContainerStateTerminated{
		ExitCode: int32(max(code, 0)), Reason: reason, StartedAt: c.since, FinishedAt: now(),
	}
	if status, ok := command.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		c.ended.ExitCode = 128 + int32(status.Signal())
	}
	return int(c.ended.ExitCode), nil
}

// start begins the process, unless the container was told to end meanwhile: its signal has found
// nothing then, and what began now would run until the grace period is over.
func (c *container) start(command *exec.Cmd) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.ending {
		return errors.New("the pod is being ended")
	}
	if err := within(c.network.handle, command.Start); err != nil {
		return err
	}
	c.command, c.since, c.waiting, c.ready = command, now(), nil, false
	c.last, c.ended = c.ended, nil
	return nil
}

// wait says why nothing runs.
func (c *container) wait(reason string, err error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.waiting = &v1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
}

// prepare writes the command line of what stands for the image.
func (c *container) prepare() (*exec.Cmd, error) {
	words := append(append([]string{}, c.spec.Command...), c.spec.Args...)
	dir := filepath.Join(c.pod.dir, c.spec.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if len(c.spec.Command) == 0 {
		image, _, _ := strings.Cut(path.Base(c.spec.Image), ":")
		standIn, err := c.standIn(image, dir)
		if err != nil {
			return nil, err
		}
		words = append(standIn, c.spec.Args...)
	}
	output, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	command := c.inPod(exec.Command(words[0], words[1:]...))
	command.Stdout, command.Stderr = output, output
	return command, nil
}

func (c *container) standIn(image, dir string) ([]string, error) {
	switch image {
	case "nginx":
		file := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(file, []byte(c.nginxConfig(dir)), 0o644); err != nil {
			return nil, err
		}
		return []string{"nginx", "-p", dir, "-c", file, "-e", "stderr"}, nil
	case "echo":
		self, err := os.Executable()
		return []string{self, "echo", "-tcp", c.ports(v1.ProtocolTCP), "-udp", c.ports(v1.ProtocolUDP)}, err
	}
	return nil, fmt.Errorf("there is no image %q here: only nginx, echo, or a command", c.spec.Image)
}

// inPod gives a command the container's environment.
func (c *container) inPod(command *exec.Cmd) *exec.Cmd {
	object := c.pod.latest()
	command.Dir = c.pod.dir
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Env = append(os.Environ(),
		"POD_NAME="+object.Name, "POD_NAMESPACE="+object.Namespace, "POD_DIR="+c.pod.dir, "NODE_NAME="+object.Spec.NodeName)
	for _, variable := range c.spec.Env {
		value := variable.Value
		if from := variable.ValueFrom; from != nil && from.FieldRef != nil {
			switch from.FieldRef.FieldPath {
			case "metadata.name":
				value = object.Name
			case "metadata.namespace":
				value = object.Namespace
			case "spec.nodeName":
				value = object.Spec.NodeName
			case "status.podIP":
				value = c.network.addresses[0].String()
			}
		}
		command.Env = append(command.Env, variable.Name+"="+value)
	}
	return command
}

func (c *container) ports(protocol v1.Protocol) string {
	var ports []string
	for _, port := range c.spec.Ports {
		if port.Protocol == protocol {
			ports = append(ports, strconv.Itoa(int(port.ContainerPort)))
		}
	}
	return strings.Join(ports, ",")
}

// nginxConfig answers with the pod's name on the container's TCP ports (80 where it names none).
// A file called "unready" in the pod's folder makes /ready answer 503.
func (c *container) nginxConfig(dir string) string {
	ports := c.ports(v1.ProtocolTCP)
	if ports == "" {
		ports = "80"
	}
	var listen, temp strings.Builder
	for port := range strings.SplitSeq(ports, ",") {
		fmt.Fprintf(&listen, "    listen %s backlog=4096;\n    listen [::]:%s backlog=4096;\n", port, port)
	}
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "  %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	return fmt.Sprintf(`user root;
daemon off;
pid %[1]s/pid;
worker_processes 1;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
%[2]s  default_type text/plain;
  log_format line '$msec $remote_addr:$remote_port $request $status';
  access_log %[1]s/access.log line;
  server {
%[3]s    location / { return 200 "%[4]s\n"; }
    location = /source { return 200 "$remote_addr\n"; }
    location = /ready {
      if (-f %[5]s/unready) { return 503; }
      return 200 "ready\n";
    }
  }
}
`, dir, temp.String(), listen.String(), c.pod.latest().Name, c.pod.dir)
}

// startOf is a process's time of start in clock ticks since boot.
func startOf(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name stands in parentheses and may hold anything.
	_, rest, _ := strings.Cut(string(text)[strings.LastIndex(string(text), ")"):], " ")
	words := strings.Fields(rest)
	if len(words) < 20 {
		return 0
	}
	start, _ := strconv.ParseUint(words[19], 10, 64)
	return start
}
