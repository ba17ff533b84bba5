package kubelets

import (
	"context"
	"log"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
)

// How long a process has after a preStop hook that took all of the grace period, as in a kubelet.
const leastAfterHook = 2 * time.Second

// stop ends a container as its pod's deletion wants it: the preStop hook, while the process serves
// on; its signal; SIGKILL when the grace period is over.
func (c *container) stop() {
	hooked := c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil
	if hooked {
		c.runPreStop()
	}
	least := time.Now().Add(leastAfterHook)
	if !hooked {
		least = time.Now()
	}
	c.signal(c.stopSignal())
	for !c.hasEnded() && (c.pod.graceLeft() > 0 || time.Now().Before(least)) {
		time.Sleep(10 * time.Millisecond)
	}
	c.kill()
	poke(c.pod.wake)
}

func (c *container) stopSignal() syscall.Signal {
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.StopSignal != nil {
		if number := unix.SignalNum(string(*c.spec.Lifecycle.StopSignal)); number != 0 {
			return number
		}
	}
	return syscall.SIGTERM
}

func (c *container) runPreStop() {
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer close(done)
		c.perform(ctx, c.spec.Lifecycle.PreStop)
	}()
	for {
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
			if c.pod.graceLeft() <= 0 || c.hasEnded() {
				return
			}
		}
	}
}

func (c *container) perform(ctx context.Context, hook *v1.LifecycleHandler) {
	var err error
	switch {
	case hook.Sleep != nil:
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
		}
	case hook.Exec != nil:
		err = c.execute(ctx, hook.Exec.Command)
	case hook.HTTPGet != nil:
		err = c.get(ctx, hook.HTTPGet)
	}
	if err != nil {
		log.Printf("%s: preStop: %v", c.pod.dir, err)
	}
}

// execute runs a command beside the container's process.
func (c *container) execute(ctx context.Context, words []string) error {
	command := c.inPod(exec.CommandContext(ctx, words[0], words[1:]...))
	// With all that it has started.
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	if err := within(c.network.handle, command.Start); err != nil {
		return err
	}
	return command.Wait()
}

func (c *container) signal(signal syscall.Signal) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.ending = true
	if c.command != nil {
		_ = c.command.Process.Signal(signal)
	}
}

// kill ends the process and all of its group, and waits for that.
func (c *container) kill() {
	for !c.hasEnded() {
		c.mutex.Lock()
		c.ending = true
		if c.command != nil {
			_ = syscall.Kill(-c.command.Process.Pid, syscall.SIGKILL)
		}
		c.mutex.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

func (c *container) hasEnded() bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.over
}
